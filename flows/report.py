"""The markdown report of a training run, shown in Prefect."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.registry.ledger import Decision
from app.runtime.settings import MlflowSettings
from app.vocabulary import Gate
from flows.evaluate import Evaluation
from flows.model import Model
from flows.settings import FlowSettings


def run_url(run_id: str, experiment: str) -> str:
    """The MLflow page of a run, as a browser reaches it."""
    base = FlowSettings().mlflow_public_url or MlflowSettings().mlflow_tracking_uri
    return f"{base.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"


@dataclass(frozen=True)
class Training:
    """A training that ended with a registered version.

    rows, origin: how many rows there were, held-out ones included, and where they came from.
    run_id, experiment: the ids of the MLflow run and of its experiment.
    decision: of the gate, or None where there is none; asked: whether it was asked for.
    folds: the metrics of the cross-validation, as `evaluate.over_folds` gives them; {} for none.
    notes: what somebody should know about the held-out rows, a sentence each.
    """

    model: Model
    rows: int
    origin: str
    evaluation: Evaluation
    run_id: str
    experiment: str
    version: str
    decision: Decision | None
    asked: bool
    folds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def markdown(training: Training) -> str:
    """What was trained on what, how good it is, and what became of it."""
    model, evaluation, decision = training.model, training.evaluation, training.decision
    gate = model.gate
    rows = [
        f"| {'**' + name + '**' if name == gate.metric else name} | {value:.4f} |"
        for name, value in evaluation.metrics.items()
    ]
    ranked = sorted(evaluation.importances.items(), key=lambda item: -item[1])[:10]
    missing = "not decided yet: the flow run `promote` goes on by itself" if training.asked else "not asked for"
    verdict = f"**{decision.outcome}**: {decision.reason}" if decision else missing
    url = run_url(training.run_id, training.experiment)
    return "\n".join(
        [
            f"# {model.name} version {training.version}",
            "",
            model.description,
            "",
            f"Promotion: {verdict}",
            "",
            f"[The MLflow run]({url}) has parameters, pictures and the model. "
            f"Data: {training.rows} rows from `{training.origin}`, held out by {model.split or 'their content'}.",
            *(f"\n**Note**: {note}." for note in training.notes),
            "",
            "| metric on held-out rows | value |",
            "|---|---|",
            *rows,
            "",
            f"Gate: {gate.metric} {gate.threshold}, at most {gate.max_regression} worse than production"
            f"{_shadow(gate)}.",
            "",
            *_folds(training),
            "| feature | importance |",
            "|---|---|",
            *(f"| {name} | {value:.4f} |" for name, value in ranked),
        ]
    )


def _folds(training: Training) -> list[str]:
    """The table of the cross-validation, with what it is for."""
    folds = training.folds
    names = [name.removesuffix("_mean") for name in folds if name.endswith("_mean")]
    if not names:
        return []
    return [
        f"Cross-validation on the training rows, {training.model.folds} folds; the gate does not go by it.",
        "",
        "| metric | mean | standard deviation |",
        "|---|---|---|",
        *(
            f"| {name.removeprefix('cv_')} | {folds[f'{name}_mean']:.4f} | {folds[f'{name}_std']:.4f} |"
            for name in names
        ),
        "",
    ]


def _shadow(gate: Gate) -> str:
    """What it must have done in the shadow before, if anything."""
    if not gate.min_shadow_rows:
        return ""
    limit = f", with another answer than production for at most {gate.max_disagreement:.0%} of them"
    return f"; {gate.min_shadow_rows:,} rows in the shadow{limit if gate.max_disagreement < 1 else ''}"
