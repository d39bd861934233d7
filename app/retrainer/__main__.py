"""`python -m app.retrainer` runs the retrainer."""

from __future__ import annotations

import sys

from pydantic import ValidationError

from app.clients.mlflow import MlflowError
from app.retrainer.main import create_app
from app.retrainer.settings import RetrainerSettings
from app.runtime.server import configure_process, serve

GRACE_SECONDS = 10


def main() -> int:
    """Serve until a signal stops it. Returns the exit code: 2 where a setting is wrong."""
    configure_process()
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
    serve(app, settings.host, settings.port, GRACE_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
