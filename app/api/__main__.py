"""`python -m app.api` runs the API."""

from __future__ import annotations

import logging
import sys

import uvicorn
from prometheus_client import disable_created_metrics
from pydantic import ValidationError

from app.api.main import create_app
from app.api.settings import ApiSettings
from app.clients.mlflow import MlflowError

GRACE_SECONDS = 20


def main() -> int:
    """Serve until a signal comes. Returns the exit code: 2 where a setting is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    disable_created_metrics()
    try:
        settings = ApiSettings()
        app = create_app(settings)
    except (ValidationError, MlflowError, OSError) as error:
        sys.stderr.write(f"the API cannot start: {error}\n")
        return 2
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
