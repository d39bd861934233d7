"""`python -m app.retrainer` runs the retrainer."""

from __future__ import annotations

import logging
import sys

import uvicorn
from prometheus_client import disable_created_metrics
from pydantic import ValidationError

from app.clients.mlflow import MlflowError
from app.retrainer.main import create_app
from app.retrainer.settings import RetrainerSettings

GRACE_SECONDS = 10


def main() -> int:
    """Serve until a signal stops it. Returns the exit code: 2 where a setting is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    disable_created_metrics()
    try:
        settings = RetrainerSettings()  # type: ignore[call-arg]  # the token comes from the environment
        app = create_app(settings)
    except ValidationError as error:
        # without the values: one of them is the token
        reasons = "; ".join(
            f"MLOPS_RETRAINER_{'_'.join(map(str, wrong['loc'])).upper()}: {wrong['msg']}" for wrong in error.errors()
        )
        sys.stderr.write(f"the retrainer cannot start: {reasons}\n")
        return 2
    except MlflowError as error:
        sys.stderr.write(f"the retrainer cannot start: {error}\n")
        return 2
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
