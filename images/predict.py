"""The end of `make up`: asks the API on the kind cluster for a prediction, through the ingress, and prints it."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request

PATH = "/predict?sepal_length=5.1&sepal_width=3.5&petal_length=1.4&petal_width=0.2"
SECONDS = 60.0


def ask() -> dict[str, object]:
    """The API's answer. The name goes into the header, as not every resolver knows *.localhost."""
    request = urllib.request.Request(f"http://127.0.0.1:8080{PATH}", headers={"Host": "api.localhost:8080"})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        found: dict[str, object] = json.load(answer)
        return found


def main() -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            answer = ask()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"the API does not answer at http://api.localhost:8080{PATH}: {error}")
            time.sleep(1)
    print(f"\n$ curl 'http://api.localhost:8080{PATH}'\n{json.dumps(answer)}")


if __name__ == "__main__":
    main()
