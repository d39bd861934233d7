"""Keys of the model API, and what is known of the clients that have one: the API reads it, `mlops keys` writes it.

A key is 32 random bytes, so SHA-256 is hash enough: there is no word list to try, and nobody tries 2^256 of them. Slow
hashes, such as bcrypt, are for passwords that people choose; one with each request would cost more than a prediction.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

Scope = Literal["predict", "feedback", "admin"]
ADMIN: Scope = "admin"  # everything, without limits
PREFIX = "mlops_"  # by which scanners of repositories can tell a key
MAX_KEYS = 2  # of one client: that in use, and that which follows it
MAX_FILE = 10_000  # bytes
# Clients of the platform itself, whose keys are in the Secret of all passwords: people and the pages; its own commands.
BUILT_IN = {"admin": "api-key", "worker": "worker-api-key"}

KEY_PATTERN = rf"{PREFIX}[A-Za-z0-9_-]{{43}}"
_KEY = re.compile(KEY_PATTERN)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
Digest = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\Z")]


class Client(BaseModel):
    """What is known of a client: the content of the file that has its name.

    scopes: what it may ask for.
    sha256: of its keys, in hex, the older first.
    requests_per_second: how many requests it may send; None for any number.
    feedback_per_day: how many labels it may send; None for any number.
    """

    # Python's own regular expressions, as pydantic's take 0.3 MB
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, regex_engine="python-re")

    scopes: list[Scope] = Field(min_length=1)
    sha256: list[Digest] = Field(min_length=1, max_length=MAX_KEYS)
    requests_per_second: float | None = Field(default=None, gt=0)
    feedback_per_day: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, values in (("scopes", self.scopes), ("sha256", self.sha256)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has something twice")
        if ADMIN in self.scopes and (self.requests_per_second or self.feedback_per_day):
            raise ValueError(f"the scope {ADMIN} has no limits: leave out requests_per_second and feedback_per_day")
        return self

    def may(self, scope: Scope) -> bool:
        """Whether it may ask for this."""
        return scope in self.scopes or ADMIN in self.scopes

    def text(self) -> str:
        """The content of its file, as JSON."""
        return self.model_dump_json()


def read_client(text: str | bytes) -> Client:
    """What a client's file says.

    Raises:
        ValueError: it is not what `Client.text` writes; the message names the field, and no value.
    """
    try:
        return Client.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def new_key() -> str:
    """A key that nobody has: mlops_ and 43 letters, digits, - and _ for 32 random bytes."""
    return PREFIX + secrets.token_urlsafe(32)


def is_key(text: str) -> bool:
    """Whether this has the form of a key."""
    return bool(_KEY.fullmatch(text))


def key_digest(key: str) -> str:
    """The hash by which the API knows a key: SHA-256, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_client_name(text: str) -> bool:
    """Whether a client can have this name, which is a file's, a label's, and a key's of a Kubernetes Secret."""
    return bool(_NAME.fullmatch(text))
