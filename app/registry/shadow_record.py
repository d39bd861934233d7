"""What came of a challenger's rows, stored in MLflow so that it outlives the replicas of the API that counted it.

Experiment "feedback". Each replica has a run of its own (tag mlops.kind "shadow") for each challenger beside each
version in production, and logs there how far its counts are, as metrics. They only grow, so a write that is repeated
changes nothing, and what all replicas counted is the sum over the runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from app.clients.mlflow import MlflowClient
from app.registry.feedback_store import EXPERIMENT, MAX_RUNS
from app.registry.ledger import SEQUENCE_TAG

SHADOW = "shadow"  # value of the tag mlops.kind
INCARNATION_TAG = "mlops.incarnation"  # tells apart registered models of one name, as the sequence of its ledger does


@dataclass
class ShadowCounts:
    """What came of the rows that a challenger got.

    agree, disagree, failed: rows of requests that it answered as production did, or otherwise, or could not answer.
    dropped: rows that it did not get, because too many waited.
    both_right, challenger_right, production_right, neither_right: of a classification, rows whose true label came, by
        which of the two had predicted it, or which alone.
    labels, challenger_error, production_error: of a regression, rows whose true value came and that both answered, and
        the sums of their absolute errors.
    """

    agree: int = 0
    disagree: int = 0
    failed: int = 0
    dropped: int = 0
    both_right: int = 0
    challenger_right: int = 0
    production_right: int = 0
    neither_right: int = 0
    labels: int = 0
    challenger_error: float = 0.0
    production_error: float = 0.0

    @property
    def rows(self) -> int:
        """The rows of requests that it got."""
        return self.agree + self.disagree + self.failed

    @property
    def disagreement(self) -> float | None:
        """Share of the rows on which it was not of production's opinion, as where it failed; None without any."""
        return (self.disagree + self.failed) / self.rows if self.rows else None

    @property
    def metrics(self) -> dict[str, float]:
        """What the ledger notes of it."""
        share = self.disagreement
        return {"shadow_rows": self.rows} | ({} if share is None else {"shadow_disagreement": share})

    def add(self, counts: Mapping[str, float]) -> None:
        """Add the counts of a run; what is no count is left out."""
        for field in fields(self):
            value = counts.get(field.name)
            if isinstance(value, int | float) and value >= 0:
                own = getattr(self, field.name)
                setattr(self, field.name, own + type(own)(value))


@dataclass(frozen=True)
class Beside:
    """Which challenger is beside which version in production. incarnation: of the registered model."""

    model: str
    version: str
    production: str
    incarnation: str


def begin(registry: MlflowClient, beside: Beside, replica: str) -> str:
    """Begin the record of one replica; returns the id of its run.

    Raises:
        MlflowError: MLflow does not answer.
    """
    tags = {
        **_tags(beside.model, beside.version, beside.production),
        INCARNATION_TAG: beside.incarnation,
        "mlops.replica": replica,
    }
    name = f"{beside.model} {beside.version} in the shadow of {beside.production}"
    return registry.create_run(registry.ensure_experiment(EXPERIMENT), name, tags)


def write(registry: MlflowClient, run_id: str, counts: ShadowCounts, written: ShadowCounts) -> None:
    """Log the counts that are not as they were written before.

    Raises:
        MlflowError: they may not be stored; storing them again does no harm.
    """
    before = asdict(written)
    changed = {name: float(value) for name, value in asdict(counts).items() if value != before[name]}
    registry.log(run_id, metrics=changed)


def read(registry: MlflowClient, model: str, version: str, production: str) -> ShadowCounts:
    """What all replicas counted of a challenger beside a version in production, as far as it is stored.

    Raises:
        NotFound: there is no such model.
        MlflowError: MLflow does not answer.
    """
    incarnation = registry.model(model).tags.get(SEQUENCE_TAG, "")
    counts = ShadowCounts()
    for run in registry.search_runs(EXPERIMENT, _tags(model, version, production), MAX_RUNS):
        if run.tags.get(INCARNATION_TAG, "") == incarnation:
            counts.add(run.metrics)
    return counts


def _tags(model: str, version: str, production: str) -> dict[str, str]:
    return {
        "mlops.kind": SHADOW,
        "mlops.model": model,
        "mlops.version": version,
        "mlops.production": production,
    }
