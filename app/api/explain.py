"""POST /explain: what each feature contributed to the prediction for one row, of the default model or a named one."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic_core import to_json
from starlette.types import Scope

from app.api.endpoint import PredictionEndpoint, Reply, no_answer
from app.api.errors import invalid
from app.api.router import Route
from app.api.served_model import NoPrediction, ServedModel
from app.contract.explanation import Contribution, Explained
from app.dates import text_of
from app.registry.explanation import MAX_FEATURES, Values, explain
from app.vocabulary import Feature


class Explain(PredictionEndpoint[None]):
    """Answers `contract.Explained`, from a thread: some hundred to some thousand rows are predicted for one.

    These rows are nobody's requests, so neither drift nor predictions count them.
    """

    asks_canary = False

    async def _reply(self, served: ServedModel, scope: Scope, content: bytes) -> Reply:
        return await self.workers.run(len(content), self._explain, served, content)

    def _explain(self, served: ServedModel, content: bytes) -> Reply:
        rows, is_list = served.schema.from_json(content)
        if is_list and len(rows) != 1:
            raise invalid(("body",), f"send one row, not {len(rows)}", "length")
        features = served.bundle.features
        if len(features) > MAX_FEATURES:
            message = f"{served.name} has {len(features)} features, {MAX_FEATURES} are the most that are explained"
            raise invalid(("body",), message, "too_many")
        (row,) = rows
        try:
            label = served.predict([row]).labels[0]
            explanation = explain(lambda mixed: _scores(served, mixed, label), row, served.bundle.golden.rows)
        except NoPrediction as error:
            raise no_answer(error) from error
        explained = Explained(
            prediction=label,
            base=explanation.base,
            value=explanation.value,
            contributions=[
                Contribution(feature=feature.name, value=_as_sent(feature, value), contribution=contribution)
                for feature, value, contribution in zip(features, row, explanation.contributions, strict=True)
            ],
            method=explanation.method,
            model=served.name,
            version=served.version,
            run_id=served.run_id,
        )
        return Reply(to_json(explained))


def _as_sent(feature: Feature, value: Any) -> Any:
    """A value of a row as a request has it."""
    return text_of(value) if feature.dtype == "datetime" and value is not None else value


def _scores(served: ServedModel, rows: list[Values], label: object) -> np.ndarray:
    """What is explained: a regression's value, or the probability of the class; shape (n_rows,).

    Of a classifier without probabilities, 1 where it answers that class and 0 elsewhere.
    """
    predictions = served.predict(rows)
    if not served.is_classifier:
        return np.array(predictions.labels, dtype=np.float64)
    if predictions.probabilities is None:
        return np.array([one == label for one in predictions.labels], dtype=np.float64)
    place = served.bundle.classes.index(label)
    return np.array(predictions.probabilities, dtype=np.float64)[:, place]


def routes(endpoint: Explain) -> list[Route]:
    """The routes of /explain."""
    return [Route(path, endpoint) for path in ("/explain", "/models/{name}/explain")]
