"""What the clients of HTTP services have in common: a request, its answer in a known shape, and what may go wrong."""

from __future__ import annotations

from typing import Any, ClassVar, Self, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from app.clients.errors import ServiceError

Shape = TypeVar("Shape")


class ServiceClient:
    """A thread-safe client of one service. Its methods raise ServiceError, and nothing else, when there is no usable
    answer.

    Args:
        url: base URL of the service.
        timeout: seconds for one request.
        http: what sends the requests, where they need more than an address, such as an account or a header.

    name: of the service, as it begins a sentence.
    variable: the environment variable with the service's address.
    """

    name: ClassVar[str]
    variable: ClassVar[str]

    def __init__(self, url: str, timeout: float = 10.0, http: httpx.Client | None = None) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._http = http or httpx.Client(timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def foreign(self, detail: str) -> ServiceError:
        """The error for an answer that is not this service's; `detail` says what is odd about it."""
        name = self.name[:1].lower() + self.name[1:] if self.name.startswith("The ") else self.name
        return ServiceError(
            f"What answers at {self.url} does not answer as {name} does ({detail[:200]}).",
            f"Check that {self.variable} is the address of {name}.",
        )

    def _unreachable(self) -> str:
        """What to do where nothing answers."""
        raise NotImplementedError

    def _refusal(self, response: httpx.Response) -> ServiceError:
        """The error for an answer with a status of 300 or above."""
        raise NotImplementedError

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer of a request, whose status is 2xx; options are those of httpx."""
        try:
            response = self._http.request(method, self.url + path, **options)
        except httpx.TimeoutException as error:
            raise ServiceError(
                f"{self.name} at {self.url} did not answer within {self.timeout:g} s.",
                "It may be starting or overloaded: try again in a moment. Its log says more.",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ServiceError(
                f"{self.name} at {self.url} does not answer ({str(error) or type(error).__name__}).",
                self._unreachable(),
            ) from error
        if response.is_success:
            return response
        raise self._refusal(response)

    def _json(self, method: str, path: str, shape: type[Shape], **options: Any) -> Shape:
        """The answer of a request in a shape that pydantic knows."""
        response = self._send(method, path, **options)
        try:
            return TypeAdapter(shape).validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise self.foreign(f"{path}: {where + ': ' if where else ''}{first['msg']}") from error
