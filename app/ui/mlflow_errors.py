"""What goes wrong with MLflow, as text for the pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from app.clients.errors import ServiceError, sentence
from app.clients.mlflow import MlflowError, NotFound
from app.runtime.settings import MlflowSettings


@contextmanager
def readable_mlflow_errors() -> Iterator[None]:
    """Raises a ServiceError for whatever goes wrong with MLflow inside."""
    uri = MlflowSettings().mlflow_tracking_uri
    try:
        yield
    except NotFound as error:
        raise ServiceError(sentence(error.what), "It may have been deleted meanwhile: reload the page.") from error
    except MlflowError as error:
        raise ServiceError(sentence(error.what), error.cure) from error
    except (httpx.InvalidURL, LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"What answers at {uri} does not answer as MLflow does ({type(error).__name__}: {str(error)[:200]})."
        raise ServiceError(what, "Check that MLFLOW_TRACKING_URI is the address of an MLflow server.") from error
