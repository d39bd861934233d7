"""What probes are answered."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Alive(BaseModel):
    """The answer of /livez."""

    status: Literal["alive"]


class Ready(BaseModel):
    """The answer of /readyz. models: the version in service, by the model's name."""

    status: Literal["ready"]
    models: dict[str, str]
