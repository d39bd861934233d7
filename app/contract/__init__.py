"""The contract of the model API: what it takes and what it answers.

The API's OpenAPI document is made of these shapes, and the pages and the command line read its answers with them. What
depends on a model (its features, its classes) is added to the document for each model in service.
"""

from __future__ import annotations

from typing import Any

MAX_ROWS = 10_000  # of one request
MAX_ID = 1000  # characters of a request's id


def without_default(schema: dict[str, Any]) -> None:
    """Takes the default out of a field's JSON schema: where there is no value, the field is left out, never null."""
    schema.pop("default", None)
