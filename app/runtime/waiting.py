"""Waiting for something to become true: for servers that start, flow runs that end, metrics that appear."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T | None], seconds: float = 60.0, what: str | Callable[[], str] = "it", pause: float = 0.1
) -> T:
    """Ask until the answer is true, at least once.

    Args:
        condition: what is asked; what it raises is raised.
        seconds: how long to go on asking.
        what: what is waited for, for the error; a function is called when the time is over.
        pause: seconds between two tries.

    Returns:
        the first answer that is true.

    Raises:
        TimeoutError: naming what was waited for.
    """
    retrying = Retrying(
        stop=stop_after_delay(seconds), wait=wait_fixed(pause), retry=retry_if_result(lambda answer: not answer)
    )
    try:
        return cast(T, retrying(condition))
    except RetryError:
        text = what() if callable(what) else what
        raise TimeoutError(f"after {seconds:g} s: {text}") from None
