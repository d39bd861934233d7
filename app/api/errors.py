"""What goes wrong with a request, as values that say where and what to do next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Location = tuple[str | int, ...]
FieldError = dict[str, Any]  # loc, msg, type: FastAPI's own shape
MAX_ERRORS = 20


class Refusal(Exception):
    """A request that is not answered: HTTP status, detail and headers."""

    def __init__(self, status: int, detail: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}

    def body(self) -> bytes:
        return json.dumps({"detail": self.detail}).encode()


class Invalid(Refusal):
    """422: one entry per field_error, the first 20 of them."""

    def __init__(self, problems: Sequence[FieldError]) -> None:
        shown = list(problems[:MAX_ERRORS])
        if len(problems) > MAX_ERRORS:
            more = f"and {len(problems) - MAX_ERRORS} more problems of this kind"
            shown.append(field_error(("body",), more, "more_problems"))
        super().__init__(422, shown)


def field_error(where: Location, message: str, kind: str) -> FieldError:
    return {"loc": list(where), "msg": message, "type": kind}


def invalid(where: Location, message: str, kind: str = "value_error") -> Invalid:
    """A 422 with a single field_error."""
    return Invalid([field_error(where, message, kind)])
