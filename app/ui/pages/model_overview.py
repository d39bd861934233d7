"""What the page Models shows about one model, read from MLflow."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.clients.errors import ServiceError
from app.clients.mlflow import PRODUCTION, MlflowClient, ModelVersion, NotFound, RegisteredModel
from app.registry.canary import canary_of
from app.registry.ledger import Decision
from app.registry.promotion import history, noted_definition
from app.ui.mlflow_errors import readable_mlflow_errors
from app.vocabulary import Gate


@dataclass
class ModelOverview:
    """A registered model. What could not be read is missing here, and `errors` say why.

    versions: newest first.
    metrics: by version, of the run that registered it.
    decisions: newest first; None where they could not be read.
    gate: of its model file, as its last candidate was judged by; None where it could not be read, or none was judged.
    canary: its version, and the share of the requests that it answers; None where there is none.
    """

    name: str
    aliases: dict[str, str]
    versions: list[ModelVersion] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    decisions: list[Decision] | None = None
    gate: Gate | None = None
    canary: tuple[str, float] | None = None
    errors: list[ServiceError] = field(default_factory=list)

    def version_at(self, alias: str) -> ModelVersion | None:
        """The version that an alias points at."""
        return next((version for version in self.versions if version.version == self.aliases.get(alias)), None)

    def last_comparison(self, version: ModelVersion | None) -> Decision | None:
        """The last time that the version was measured against what is in production now, on the same rows."""
        production = self.version_at(PRODUCTION)
        for decision in self.decisions or []:
            if (
                version
                and production
                and decision.action != "challenge"  # which measures nothing
                and (decision.version, decision.previous) == (version.version, production.version)
            ):
                return decision
        return None


def read_model(registry: MlflowClient, model: RegisteredModel) -> ModelOverview:
    """Read what MLflow knows about a model; a part that cannot be read leaves the others."""
    overview = ModelOverview(model.name, model.aliases, canary=canary_of(model))
    try:
        with readable_mlflow_errors():
            overview.versions = registry.versions(model.name)
    except ServiceError as error:
        overview.errors.append(ServiceError(f"The versions are missing. {error.what}", error.cure))
    _read_metrics(registry, overview)
    try:
        with readable_mlflow_errors():
            overview.decisions = history(registry, model.name)
    except ServiceError as error:
        overview.errors.append(ServiceError(f"The promotion history is missing. {error.what}", error.cure))
    try:
        with readable_mlflow_errors():
            definition = noted_definition(model)
        overview.gate = definition.gate if definition else None
    except ServiceError as error:
        overview.errors.append(ServiceError(f"The gate is missing. {error.what}", error.cure))
    return overview


def _read_metrics(registry: MlflowClient, overview: ModelOverview) -> None:
    """The metrics of the runs that registered the versions; a deleted run has none."""
    if not overview.versions:
        return
    try:
        with readable_mlflow_errors():
            # training logs to the experiment named after the model: one request for all of them
            runs = {run.run_id: run for run in registry.search_runs(overview.name, {})}
            for version in overview.versions:
                try:
                    run = runs.get(version.run_id) or registry.run(version.run_id)
                except NotFound:
                    continue
                overview.metrics[version.version] = run.metrics
    except ServiceError as error:
        overview.errors.append(ServiceError(f"The metrics are missing. {error.what}", error.cure))
