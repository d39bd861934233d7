"""The model API, as the pages and the command line use it. The answers have the shapes of `app.contract`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from app.clients.errors import ServiceError, full_stop, sentence
from app.clients.service import ServiceClient
from app.contract.explanation import Explained
from app.contract.feedback import StoredFeedback, TokenFeedback
from app.contract.models import ModelInfo, ModelList
from app.contract.predictions import Prediction
from app.runtime.api_keys import is_key
from app.vocabulary import Label

KEY_VARIABLE = "MLOPS_API_KEY"
WITH_TOKENS = {"Feedback-Token": "true"}


class ModelApiClient(ServiceClient):
    """A client of the model API.

    Args:
        key: of the API, "" where it asks for none.
        url, timeout, http: as in `ServiceClient`.
    """

    name = "The model API"
    variable = "MLOPS_API_URL"

    def __init__(self, url: str, timeout: float = 10.0, http: httpx.Client | None = None, key: str = "") -> None:
        super().__init__(url, timeout, http)
        self._key = key.strip()

    def check_alive(self) -> None:
        """Return when the API is up, whether or not it has a model; raise ServiceError otherwise."""
        self._send("GET", "/livez")

    def models(self) -> ModelList:
        """Every model in service, and whether the API reaches MLflow."""
        return self._json("GET", "/models", ModelList)

    def model(self, name: str) -> ModelInfo:
        """The version of the model that is in service; the error has status 404 or 503 where there is none."""
        return self._json("GET", f"/models/{name}", ModelInfo)

    def predict(self, name: str, row: Mapping[str, Any]) -> Prediction:
        """The answer for one row (values by the feature's name), with a feedback token."""
        return self._json("POST", f"/models/{name}/predict", Prediction, json=dict(row), headers=WITH_TOKENS)

    def predict_rows(self, name: str, rows: Sequence[Mapping[str, Any]], with_tokens: bool = True) -> list[Prediction]:
        """The answers for 1 to `app.contract.MAX_ROWS` rows, in their order.

        Args:
            with_tokens: whether each has a feedback token.
        """
        body, headers = [dict(row) for row in rows], WITH_TOKENS if with_tokens else {}
        return self._json("POST", f"/models/{name}/predict", list[Prediction], json=body, headers=headers)

    def predict_text(self, name: str, values: Sequence[tuple[str, str]]) -> Prediction:
        """The answer for one row of values that somebody typed: pairs of a feature's name and its value.

        The API reads them by the model's signature, and refuses a feature that is there twice.
        """
        return self._json("GET", f"/models/{name}/predict", Prediction, params=list(values))

    def explain(self, name: str, row: Mapping[str, Any]) -> Explained:
        """What each feature contributed to the prediction for one row."""
        return self._json("POST", f"/models/{name}/explain", Explained, json=dict(row))

    def feedback(self, feedback_token: str, label: Label) -> StoredFeedback:
        """Store the true label of a prediction; when this returns, it is stored."""
        item = TokenFeedback(feedback_token=feedback_token, label=label)
        return self._json("POST", "/feedback", StoredFeedback, json=item.model_dump())

    def feedback_many(self, items: Sequence[TokenFeedback]) -> list[StoredFeedback]:
        """Store the true labels of 1 to `app.contract.MAX_ROWS` predictions: all of them, or none and an error."""
        return self._json("POST", "/feedback", list[StoredFeedback], json=[item.model_dump() for item in items])

    def metrics(self) -> str:
        """The API's metrics in Prometheus' text format."""
        return self._send("GET", "/metrics").text

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        if not self._key:
            return super()._send(method, path, **options)
        if not is_key(self._key):  # httpx would quote it in its own error
            raise ServiceError(
                f"{KEY_VARIABLE} has no key of the model API: those are mlops_ and 43 characters.",
                "Set it to what `mlops keys create NAME --scopes predict,feedback` printed.",
            )
        headers = {**options.pop("headers", {}), "Authorization": f"Bearer {self._key}"}
        return super()._send(method, path, headers=headers, **options)

    def _unreachable(self) -> str:
        return f"Start it with `make demo`, or set {self.variable} to where it runs."

    def _refusal(self, response: httpx.Response) -> ServiceError:
        detail, status = _detail(response), response.status_code
        answered = f"{self.name} at {self.url} answered {status}"
        if status == 404 and not detail:
            return self.foreign("404 Not Found")
        if status == 422 and detail:
            return ServiceError(f"{self.name} did not accept this: {detail}", "Change it and send it again.", status)
        if status in (401, 403) and not detail:
            cure = "The model API itself asks for a key and says so: check the proxy or the ingress in front of it."
            return ServiceError(f"{answered}: it wants an account.", cure, status)
        if status in (401, 403):
            return ServiceError(f"{answered}. {detail}", f"Set {KEY_VARIABLE} to such a key.", status)
        if status == 503 and detail:
            return ServiceError(detail, status=status)
        cure = "Try again in a moment. The API's log says more." if status >= 500 else ""
        return ServiceError(f"{answered}. {detail}".strip(), cure, status)


def _detail(response: httpx.Response) -> str:
    """The reasons in FastAPI's `detail`, as sentences; "" where there are none."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return ""
    if isinstance(detail, list):
        # no capital: most begin with the name of a feature
        reasons = [str(item.get("msg", item)) if isinstance(item, dict) else str(item) for item in detail]
        return " ".join(map(full_stop, reasons))
    if detail == "Not Found":  # the framework's own: no route of the model API says so little
        return ""
    return sentence(detail if isinstance(detail, str) else json.dumps(detail))
