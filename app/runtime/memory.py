"""Memory that a process does not need any more."""

from __future__ import annotations

import ctypes

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; other C libraries have none


def give_back() -> None:
    """Give memory that was freed back to the system; glibc itself keeps what lies between pieces that are in use."""
    if _trim:
        _trim(0)
