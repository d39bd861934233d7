"""How it went with MLflow and with versions that were loaded: what the API keeps of it, and tells."""

from __future__ import annotations

from pydantic import BaseModel


class MlflowStatus(BaseModel):
    """MLflow, as the API found it at its last look. checked_at: ISO 8601, "" before the first look."""

    ok: bool
    error: str
    checked_at: str


class LoadFailure(BaseModel):
    """The version in production that could not be loaded. at: ISO 8601."""

    version: str
    reason: str
    at: str
