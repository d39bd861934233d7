"""What a service did wrong, as text for people: what is the matter, and what to do about it."""

from __future__ import annotations


class ServiceError(Exception):
    """A service gave no usable answer.

    what: the matter, one sentence. cure: what to do now, "" where there is nothing to say.
    """

    def __init__(self, what: str, cure: str = "") -> None:
        super().__init__(what)
        self.what, self.cure = what, cure


def sentence(text: str) -> str:
    """The text as a sentence of its own: a capital first, a full stop last."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".!?" else f"{text}."
