"""A canary: a version that answers a share of the requests, what came of them, and when it is returned."""

from __future__ import annotations

import logging
from fractions import Fraction

from app.api.served_model import NoPrediction, ServedModel

# From so many failures on, and where they are more than this share of its requests, it answers nothing more.
MIN_FAILURES, MAX_FAILED_SHARE = 5, 0.01

log = logging.getLogger("mlops.canary")


class Canary:
    """A canary beside the version in production. What changes of it changes on the event loop alone.

    requests: those that fell to it; failures: those of them that it did not answer, and production did.
    returned: why production answers all requests, "" while it does not.

    Args:
        share: of the requests, above 0 and below 1.
        served: the loaded version; None where it could not be loaded, of which `returned` says why.
    """

    def __init__(self, model: str, version: str, share: float, served: ServedModel | None, returned: str = "") -> None:
        self.model, self.version, self.share, self.served = model, version, share, served
        self.requests = self.failures = 0
        self.returned = returned
        exact = Fraction(str(share))  # ten times 0.1 is less than 1 in floats
        self._step, self._whole = exact.numerator, exact.denominator
        self._due = 0  # of `_whole`

    @property
    def answering(self) -> ServedModel | None:
        """The version that answers its requests; None where production answers them."""
        return None if self.returned else self.served

    def next(self) -> ServedModel | None:
        """The version, where the next request falls to it; None where that is production's."""
        served = self.answering
        if served is None:
            return None
        self._due += self._step
        if self._due < self._whole:
            return None
        self._due -= self._whole
        self.requests += 1
        return served

    def fail(self, error: Exception) -> None:
        """Count a request that production answered instead; after too many it is returned."""
        self.failures += 1
        if self.failures == 1:  # once: it may fail on each
            log.warning(
                "the canary, version %s of %s, failed on a request, which production answered",
                *(self.version, self.model),
                exc_info=error,
            )
        if self.returned or self.failures < MIN_FAILURES or self.failures <= MAX_FAILED_SHARE * self.requests:
            return
        kind = type(error.__cause__ if isinstance(error.__cause__, NoPrediction) else error).__name__
        self.returned = f"it failed on {self.failures} of {self.requests} requests, on the last with {kind}"
        log.error(
            "the canary, version %s of %s, is returned: %s. Production answers all requests; "
            "`mlops promote %s --canary 0` ends the canary",
            *(self.version, self.model, self.returned, self.model),
        )
