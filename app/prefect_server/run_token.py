"""The account of one flow run: what its Job has in place of Prefect's password."""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import cache

PREFIX = "run-"
ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # of whatever is in Prefect
_ACCOUNT = re.compile(rf"{PREFIX}({ID}):([0-9a-f]{{64}})")


def auth_string(password: str, run_id: str) -> str:
    """The account for PREFECT_API_AUTH_STRING of a run's Job.

    Args:
        password: Prefect's own auth string, from which it is derived: server and worker have both.
    """
    return f"{PREFIX}{run_id}:{_token(password, run_id)}"


def run_of(password: str, account: str) -> str | None:
    """The id of the run whose account this is; None where it is no such account, or a forged one."""
    match = _ACCOUNT.fullmatch(account)
    if match and hmac.compare_digest(match[2], _token(password, match[1])):
        return match[1]
    return None


def _token(password: str, run_id: str) -> str:
    return hmac.new(_key(password), run_id.encode(), hashlib.sha256).hexdigest()


@cache
def _key(password: str) -> bytes:
    """Slow to compute, so that a token is no quick way to guess a short password."""
    return hashlib.scrypt(password.encode(), salt=b"mlops: accounts of flow runs", n=2**15, r=8, p=1, maxmem=2**26)
