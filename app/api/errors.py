"""What goes wrong with a request, as values that say where and what to do next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from app.contract.errors import FieldError

Location = tuple[str | int, ...]
MAX_ERRORS = 20
RETRY_AFTER = {"Retry-After": "5"}  # seconds
MORE = "more_problems"  # the type of the error that counts the rest


class Refusal(Exception):
    """A request that is not answered: HTTP status, message and headers."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}

    @property
    def message(self) -> str:
        """Why, as one text."""
        return str(self)

    @property
    def detail(self) -> Any:
        """What the answer has under `detail`, ready for JSON."""
        return self.message

    def body(self) -> bytes:
        """The body of the answer, as JSON."""
        return json.dumps({"detail": self.detail}).encode()


class Invalid(Refusal):
    """422: the first 20 errors, and one that counts the rest."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(422, "the request is invalid")
        self.errors = list(errors[:MAX_ERRORS])
        if len(errors) > MAX_ERRORS:
            more = f"and {len(errors) - MAX_ERRORS} more problems of this kind"
            self.errors.append(field_error(("body",), more, MORE))

    @property
    def message(self) -> str:
        """All errors, each with its place."""
        return "; ".join(f"{'.'.join(map(str, error.loc))}: {error.msg}" for error in self.errors)

    @property
    def detail(self) -> Any:
        """The errors, ready for JSON."""
        return [error.model_dump() for error in self.errors]


def field_error(location: Location, message: str, kind: str) -> FieldError:
    """An error of one place of the request, such as ("body", 3, "petal_length")."""
    return FieldError(loc=list(location), msg=message, type=kind)


def invalid(location: Location, message: str, kind: str = "value_error") -> Invalid:
    """A 422 with a single error."""
    return Invalid([field_error(location, message, kind)])
