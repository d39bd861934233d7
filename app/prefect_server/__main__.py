"""`python -m app.prefect_server --host 0.0.0.0 --port 4200`: `prefect server start`, with accounts of runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from prefect.cli import app as cli
from prefect.server.api import server
from prefect.settings import PREFECT_SERVER_API_AUTH_STRING

from app.prefect_server.guard import App, Guard


def guarded(create_app: Callable[..., App], password: str) -> Callable[..., App]:
    """Prefect's function that makes the server's application, with the guard before what it makes."""

    def create(*arguments: Any, **options: Any) -> App:
        return Guard(create_app(*arguments, **options), password)

    return create


def main() -> None:
    """Start the server; the arguments are those of `prefect server start`."""
    password = PREFECT_SERVER_API_AUTH_STRING.value()
    if not password:
        raise SystemExit("PREFECT_SERVER_API_AUTH_STRING is empty: set it to admin:<password>")
    # what `prefect server start` calls
    server.create_app = guarded(server.create_app, password)  # type: ignore[assignment]
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    cli()


if __name__ == "__main__":
    main()
