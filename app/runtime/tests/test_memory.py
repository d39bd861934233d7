from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from app.runtime.memory import give_back

PIECES, SIZE = 100_000, 1000  # bytes


def resident() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no malloc_trim")
def test_memory_between_pieces_that_are_in_use_is_given_back() -> None:
    pieces: list[bytes | None] = [bytes(SIZE) for _ in range(PIECES)]
    for i in range(PIECES):
        if i % 100:
            pieces[i] = None
    before = resident()
    give_back()
    assert before - resident() > PIECES * SIZE / 2
    assert sum(piece is not None for piece in pieces) == PIECES / 100
