"""/livez and /readyz, for Kubernetes' probes; /ping, /health and /version, which MLflow's scoring server has."""

from __future__ import annotations

from starlette.types import Scope

from app.api.errors import RETRY_AFTER, Refusal
from app.api.router import Answer, Get, Route
from app.api.served_models import ServedModels
from app.contract.health import Alive, Ready

# Of the MLflow whose scoring protocol /invocations speaks. MLflow's own server answers the MLflow that it is; there is
# none here, and what its clients ask for is which requests it takes.
SCORING_VERSION = "3.17.2"
TEXT = {"Content-Type": "text/plain; charset=utf-8"}


def routes(models: ServedModels) -> list[Route]:
    """The routes of health, which ask nobody else."""

    async def alive(_: Scope) -> Answer:
        return Answer(200, Alive(status="alive").model_dump_json().encode())

    async def ready(_: Scope) -> Answer:
        if not models.ready:
            raise Refusal(503, models.why_unavailable(models.default_model), RETRY_AFTER)
        versions = {name: served.version for name, served in sorted(models.current.items())}
        return Answer(200, Ready(status="ready", models=versions).model_dump_json().encode())

    async def version(_: Scope) -> Answer:
        return Answer(200, SCORING_VERSION.encode(), TEXT)

    return [
        Get.route("/livez", alive),
        *(Get.route(path, ready) for path in ("/readyz", "/ping", "/health")),
        Get.route("/version", version),
    ]
