"""`python -m flows.reachable URL`: waits until a URL answers at all, with the standard library alone.

It runs before a training Job's own process: in a pod that is a second old, the cluster may not have opened the way yet
that its network policies allow, and the first request of a flow run is not repeated. Importing anything of ours would
add a second to every Job and need more memory than its container has.
"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request

SECONDS = 45.0


def wait(url: str, seconds: float = SECONDS) -> str:
    """Wait until the URL answers, whatever the status.

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
