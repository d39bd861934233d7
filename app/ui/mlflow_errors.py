"""What goes wrong with MLflow, as text for the pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from app.clients.errors import ServiceError, sentence
from app.clients.mlflow import MlflowError, MlflowUnavailable, NotFound, Unauthorized
from app.runtime.settings import MlflowSettings


@contextmanager
def readable_mlflow_errors() -> Iterator[None]:
    """Raises a ServiceError for whatever goes wrong with MLflow inside."""
    uri = MlflowSettings().mlflow_tracking_uri
    try:
        yield
    except Unauthorized as error:
        raise ServiceError(sentence(str(error)), "This needs an account that has the rights for it.") from error
    except MlflowUnavailable as error:
        cure = "Start it with `make demo`, or set MLFLOW_TRACKING_URI to where it runs."
        raise ServiceError(sentence(str(error)), cure) from error
    except NotFound as error:
        raise ServiceError(sentence(str(error)), "It may have been deleted meanwhile: reload the page.") from error
    except MlflowError as error:
        raise ServiceError(sentence(str(error))) from error
    except (httpx.InvalidURL, LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"What answers at {uri} does not answer as MLflow does ({type(error).__name__}: {str(error)[:200]})."
        raise ServiceError(what, "Check that MLFLOW_TRACKING_URI is the address of an MLflow server.") from error
