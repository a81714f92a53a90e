"""An answer, and the fact that decided it."""

from __future__ import annotations

from streams.typed import Generic, TypeVar
from streams.values import dataclass

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What is known of one question about a host.

    Attributes
    ----------
    value:
        the answer; None where it is open, and where the host has no such thing.
    because:
        the fact that decides, in the words of the host file ("xen_caps has no xen-3.0-x86_32p"); where the question
        is open, what is missing.
    open:
        whether the host file leaves the question open.
    """

    value: T | None
    because: str
    open: bool = False


def left_open(missing: str) -> Answer[T]:
    """The answer to a question that what is known does not decide."""
    return Answer(None, missing, open=True)
