"""`python -m flows.reachable URL`: waits until a URL answers at all, with the standard library alone.

Before a training Job's own process: in a pod that is a second old, a cluster may not have opened the way yet that its
network policies allow, and the first request of a flow run is not repeated.
"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request

SECONDS = 45.0


def wait(url: str, seconds: float = SECONDS) -> str:
    """ "" once the URL answers, whatever the status; what went wrong when it does not within the seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=3):  # noqa: S310
                return ""
        except urllib.error.HTTPError:
            return ""
        except OSError as error:
            if time.monotonic() > deadline:
                return str(error)
        time.sleep(0.2)


if __name__ == "__main__":
    problem = wait(sys.argv[1])
    if problem:
        sys.exit(f"{sys.argv[1]} does not answer after {SECONDS:.0f} s: {problem}")
