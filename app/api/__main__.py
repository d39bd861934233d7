"""`python -m app.api` runs the API."""

from __future__ import annotations

import gc
import sys

GRACE_SECONDS = 20
# How many containers more than are gone are made before garbage is looked for. Python's 700 are what the requests of
# some connections hold at a time, none of it garbage: looking took 8 % of the time.
GARBAGE_THRESHOLD = 10_000
# How long another thread, such as the one that loads a version, may keep the event loop waiting; Python's own is 5 ms.
SWITCH_SECONDS = 0.0005


def main() -> int:
    """Serve until a signal comes. Returns the exit code: 2 where a setting is wrong."""
    gc.set_threshold(GARBAGE_THRESHOLD)  # before the imports: looking for garbage in them takes a tenth of the start
    from app.api.main import create_app
    from app.api.settings import ApiSettings
    from app.clients.mlflow import MlflowError
    from app.runtime.server import configure_process, serve

    configure_process()
    try:
        settings = ApiSettings()
        app = create_app(settings)
    except (ValueError, MlflowError, OSError) as error:
        sys.stderr.write(f"the API cannot start: {error}\n")
        return 2
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()  # what stays for good is not searched for garbage: that took 30 ms, in which no request was answered
    serve(app, settings.host, settings.port, GRACE_SECONDS, loop="uvloop", http="httptools", ws="none")
    return 0


if __name__ == "__main__":
    sys.exit(main())
