"""What a peer did wrong, as text for the page: what is the matter, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from app.registry.client import NotFound, RegistryError, RegistrySettings, RegistryUnavailable, Unauthorized


class Problem(Exception):
    """what: the matter, one sentence. cure: what to do now."""

    def __init__(self, what: str, cure: str = "") -> None:
        super().__init__(what)
        self.what, self.cure = what, cure


def sentence(text: str) -> str:
    """The text as a sentence of its own: a capital first, a full stop last."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".!?" else f"{text}."


@contextmanager
def asking_mlflow() -> Iterator[None]:
    """Turns whatever goes wrong with MLflow into a Problem."""
    uri = RegistrySettings().mlflow_tracking_uri
    try:
        yield
    except Unauthorized as error:
        raise Problem(sentence(str(error)), "An account with rights for this is needed.") from error
    except RegistryUnavailable as error:
        cure = "Start it with `make demo`, or set MLFLOW_TRACKING_URI to where it runs."
        raise Problem(sentence(str(error)), cure) from error
    except NotFound as error:
        raise Problem(sentence(str(error)), "It may have been deleted meanwhile: reload the page.") from error
    except RegistryError as error:
        raise Problem(sentence(str(error))) from error
    except (httpx.InvalidURL, LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"What answers at {uri} does not answer as MLflow does ({type(error).__name__}: {str(error)[:200]})."
        raise Problem(what, "Check that MLFLOW_TRACKING_URI is the address of an MLflow server.") from error
