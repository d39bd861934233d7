"""How the platform's own HTTP services run: their log, and uvicorn's settings."""

from __future__ import annotations

import logging
from typing import Any

import uvicorn
from prometheus_client import disable_created_metrics


def configure_process() -> None:
    """Log to standard error from level INFO on, without a line per request sent; no metrics of creation times."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    disable_created_metrics()


def serve(app: Any, host: str, port: int, grace_seconds: int, **options: Any) -> None:
    """Serve an ASGI application until a signal stops it.

    Args:
        grace_seconds: how long requests under way may take after the signal.
        options: further ones of uvicorn.
    """
    uvicorn.run(
        app,
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nobody asks who the client is; to rewrite that takes time of each request
        timeout_graceful_shutdown=grace_seconds,
        **options,
    )
