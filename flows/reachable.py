"""`python -m flows.reachable URL` waits until a URL answers, whatever the status.

It runs in an init container of every training Job: in a pod that is a second old, the cluster may not have opened the
way yet that its network policies allow, and the first request of a flow run is not repeated. It imports nothing but the
standard library, so that it adds no time to a Job and fits into the container's 64 MiB.
"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request

SECONDS = 45.0


def wait(url: str, seconds: float = SECONDS) -> str:
    """Wait until the URL answers, whatever the status; try again every 0.2 s.

    Returns:
        "" when it answered; what went wrong when it did not within the seconds.
    """
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
