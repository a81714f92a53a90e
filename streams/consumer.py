"""Who is told what a stream says, and what every part of the grammar asks and tells with."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from streams.counting import count
from streams.records import Breach, Damage, Event
from streams.requests import Answer, Give, Request, Skip, Taking
from streams.typed import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from streams.pages import PfnWords
    from streams.records import Place


class Consumer(Protocol):
    """Who is told what the stream says, in its order."""

    def event(self, item: Event) -> None:
        """One thing that the stream says, or that is to be said of it."""

    def wants_body(self, place: Place) -> bool:
        """A record header was read: is its body worth having?"""

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
        """Runs (first ordinal, pages) of a PAGE_DATA record's data pages worth having, ascending."""

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        """Contents of data pages from ordinal `first` on, valid until this returns; what of it goes into the record.

        Of a record that the input ends in, the pages that came whole are told; no record follows.
        """


class Reading:
    """Asks for bytes and knows where they are.

    Attributes
    ----------
    position:
        offset of the next byte.
    """

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.position = 0

    def _take(self, n: int) -> Taking:
        data = yield Give(n)
        assert not isinstance(data, int)
        self.position += len(data)
        return bytes(data)

    def _up_to(self, n: int, head: bytes) -> Taking:
        """What was taken already, and more until it is n bytes."""
        return head + (yield from self._take(n - len(head))) if len(head) < n else head

    def _pass(self, n: int) -> Generator[Request, Answer, int]:
        passed = (yield Skip(n)) if n else 0
        assert isinstance(passed, int)
        self.position += passed
        return passed

    def _damaged(
        self, breach: Breach, message: str, offset: int, place: Place | None = None, reader: str = "libxc"
    ) -> bool:
        self.consumer.event(Damage(breach, message, offset, place, reader))
        return False


def cut(what: str, got: bytes, size: int) -> str:
    """That the input ends in something of a size, of which these bytes came."""
    return f"the input ends in {what}: {len(got)} of {count(size, 'byte')}"
