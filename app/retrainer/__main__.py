"""`python -m app.retrainer` runs the retrainer."""

from __future__ import annotations

import sys

from app.clients.mlflow import MlflowError
from app.retrainer.main import create_app
from app.retrainer.settings import RetrainerSettings
from app.runtime.server import configure_process, serve
from app.runtime.settings import WrongSettings

GRACE_SECONDS = 10


def main() -> int:
    """Serve until a signal stops it. Returns the exit code: 2 where a setting is wrong."""
    configure_process()
    try:
        settings = RetrainerSettings()  # type: ignore[call-arg]  # the token comes from the environment
        app = create_app(settings)
    except (WrongSettings, MlflowError) as error:
        sys.stderr.write(f"the retrainer cannot start: {error}\n")
        return 2
    serve(app, settings.host, settings.port, GRACE_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
