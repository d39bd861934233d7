"""The model API, as the pages use it."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from app.clients.errors import ServiceError, sentence
from app.contract import ModelInfo, ModelList, Prediction, StoredFeedback

Shape = TypeVar("Shape", bound=BaseModel)


class ModelApiClient:
    """A thread-safe client. Every method raises ServiceError, and nothing else, when there is no usable answer.

    Args:
        url: base URL of the API.
        timeout: seconds for one request.
    """

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._http = httpx.Client(timeout=timeout)

    def models(self) -> ModelList:
        return self._json("GET", "/models", ModelList)

    def model(self, name: str) -> ModelInfo:
        return self._json("GET", f"/models/{name}", ModelInfo)

    def predict(self, name: str, row: dict[str, Any]) -> Prediction:
        """The answer for one row of feature values."""
        return self._json("POST", f"/models/{name}/predict", Prediction, row)

    def feedback(self, prediction_id: str, label: Any) -> StoredFeedback:
        """Store the true label of a prediction; when this returns, it is stored."""
        return self._json("POST", "/feedback", StoredFeedback, {"prediction_id": prediction_id, "label": label})

    def metrics(self) -> str:
        """The text of /metrics."""
        return self._send("GET", "/metrics", None).text

    def foreign(self, detail: str) -> ServiceError:
        """What to say of an answer that is not the model API's."""
        return ServiceError(
            f"What answers at {self.url} does not answer as the model API does ({detail[:200]}).",
            "Check that MLOPS_API_URL is the address of the model API.",
        )

    def _json(self, method: str, path: str, shape: type[Shape], body: Any = None) -> Shape:
        response = self._send(method, path, body)
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise self.foreign(f"{path}: {where + ': ' if where else ''}{first['msg']}") from error

    def _send(self, method: str, path: str, body: Any) -> httpx.Response:
        try:
            response = self._http.request(method, self.url + path, json=body)
        except httpx.TimeoutException as error:
            raise ServiceError(
                f"The model API at {self.url} did not answer within {self.timeout:g} s.",
                "It may be starting or overloaded: try again in a moment. Its log says more.",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ServiceError(
                f"The model API at {self.url} does not answer ({str(error) or type(error).__name__}).",
                "Start it with `make demo`, or set MLOPS_API_URL to where it runs.",
            ) from error
        if response.is_success:
            return response
        raise self._refusal(response)

    def _refusal(self, response: httpx.Response) -> ServiceError:
        said, status = _detail(response), response.status_code
        answered = f"The model API at {self.url} answered {status}"
        if status == 422 and said:
            return ServiceError(f"The model API did not take this: {said}", "Change the value and send it again.")
        if status in (401, 403):
            return ServiceError(
                f"{answered}: it wants to know who is asking.", "Check what stands between this page and the API."
            )
        if status == 404 and not said:
            return self.foreign("404 Not Found")
        if status == 503 and said:
            return ServiceError(said)
        if status >= 500:
            return ServiceError(f"{answered}. {said}".strip(), "Try again in a moment. The API's log says more.")
        return ServiceError(f"{answered}. {said}".strip())


def _detail(response: httpx.Response) -> str:
    """What FastAPI's `detail` says, as sentences; "" where there is none."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return ""
    if isinstance(detail, list):
        said = [str(item.get("msg", item)) if isinstance(item, dict) else str(item) for item in detail]
        return " ".join(map(sentence, said))
    if detail == "Not Found":  # the framework's own: no route of the model API says so little
        return ""
    return sentence(detail if isinstance(detail, str) else json.dumps(detail))
