"""What goes wrong with a service, as text for people: what the problem is, and what to do about it."""

from __future__ import annotations


class ServiceError(Exception):
    """A service gave no usable answer. Its text is the problem and the remedy, one after the other.

    Args:
        what: the problem, as sentences.
        cure: what to do now, as sentences; "" where there is nothing to advise.
        status: the HTTP status of the answer; None where there was no answer, or not one of this service.
    """

    def __init__(self, what: str, cure: str = "", status: int | None = None) -> None:
        super().__init__(f"{what} {cure}".strip())
        self.what, self.cure, self.status = what, cure, status


def sentence(text: str) -> str:
    """The text as a sentence of its own: it begins with a capital and ends with a full stop."""
    text = full_stop(text)
    return text[:1].upper() + text[1:]


def full_stop(text: str) -> str:
    """The text with a full stop at its end, unless it ends a sentence already."""
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."
