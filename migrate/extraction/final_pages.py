"""Which pages a receiver would end up with: a restore that hands the guest's memory on, page by page.

Newer contents follow older ones. What comes after VERIFY is only compared, and what comes after a checkpoint
counts from the next one on; a page that was sent and then announced without contents (XTAB, BROKEN) keeps what
was sent, as it does under libxc's restore.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from migrate.guest.memory import room_for
from migrate.guest.pages import Pages
from migrate.rules.findings import Collector
from migrate.toolstack.facts import StreamFacts
from migrate.toolstack.restore import Restorer
from migrate.toolstack.session import Session
from migrate.xen.entries import IS_TABLE
from streams.pages import PfnWords
from streams.records import Damage, DomainStart, Event, PageData, Place, Record
from streams.wire.framing import (
    PAGE_DATA_HEADER,
    PAGE_SIZE,
    PFN_WORD_SIZE,
    DomainHeader,
    PageDataHeader,
    RecordType,
)
from streams.wire.paging import ENTRIES

# A file may seem this large at the least, most of it holes.
_FREE_PFNS = 1 << 23
# Where compressed input turns out to be corrupt, no more than so many good pages are lost.
_PAGES_AT_ONCE = 32


class Sink(Protocol):
    """Who takes the guest's pages."""

    def take(self, pfns: NDArray[np.int64], tables: NDArray[np.bool_], pages: Pages) -> None:
        """Pages in the order in which they count.

        Parameters
        ----------
        pfns, tables:
            of each page its pfn, and whether it came as a page table; shape (n,).
        pages:
            their contents, valid until this returns; shape (n, 512).
        """


class Memory(Restorer):
    """A restore of any input, read once from front to back, that passes the guest's memory on.

    Attributes
    ----------
    saver:
        the domain header, once it has come.
    broken:
        where the stream broke off, if it did.
    left_out:
        PAGE_DATA records whose pages cannot be told apart.
    too_far, farthest:
        pages whose pfn lies far beyond all that the stream has sent, and the highest such pfn: taking them would
        make a file of absurd size.
    waiting:
        pages that came after the last checkpoint, so that no receiver would have them.
    """

    def __init__(self, sink: Sink) -> None:
        super().__init__(Session(Collector(), StreamFacts("-")))
        self.saver: DomainHeader | None = None
        self.broken: Damage | None = None
        self.left_out = 0
        self.too_far = 0
        self.farthest = 0
        self.waiting = 0
        self._sink = sink
        self._journal = _Journal()
        self._compared = False  # VERIFY has come
        self._told_of = -1  # index of the last record whose pages were handed out
        self._named = 0
        self._words = PfnWords(b"")  # those of its words that announce data

    def event(self, item: Event) -> None:
        """Applied as libxc applies it."""
        super().event(item)
        match item:
            case DomainStart():
                self.saver = item.header
            case Damage():
                self.broken = item
            case PageData():
                self.left_out += item.place.index != self._told_of
            case Record() if item.type == RecordType.VERIFY:
                self._compared = True
            case Record() if item.type == RecordType.CHECKPOINT:
                for words, data in self._journal.drain():
                    self._pass(words, data)
                self.waiting = 0

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
        """All of them."""
        super().wants_pages(place, words)
        self._told_of = place.index
        self._named += len(words)
        if not words.data_pages:
            return ()
        self._words = PfnWords(np.frombuffer(words.raw, "<u8")[words.has_data].tobytes())
        count = words.data_pages
        return ((first, min(_PAGES_AT_ONCE, count - first)) for first in range(0, count, _PAGES_AT_ONCE))

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        """Passed on, unless they are for comparison; after the first checkpoint they wait for the next."""
        kept = super().pages(words, first, data)
        if not self._compared:
            count = len(data) // PAGE_SIZE
            some = PfnWords(self._words.raw[first * PFN_WORD_SIZE : (first + count) * PFN_WORD_SIZE])
            if self.facts.checkpoints:
                self.waiting += count
                self._journal.put(some, data)
            else:
                self._pass(some, data)
        return kept

    def close(self) -> None:
        """Nothing more will come: what waits is dropped."""
        self._journal.close()

    def _pass(self, words: PfnWords, data: bytes | memoryview) -> None:
        pfns, tables = words.pfns, IS_TABLE[words.types]
        pages = np.frombuffer(data, "<u8").reshape(-1, ENTRIES)
        near = pfns < max(_FREE_PFNS, room_for(self._named))
        if not near.all():
            self.too_far += len(pfns) - int(near.sum())
            self.farthest = max(self.farthest, int(pfns.max()))
            pfns, tables, pages = pfns[near], tables[near], pages[near]
        if len(pfns):
            self._sink.take(pfns, tables, pages)


class _Journal:
    """Pages that wait for a checkpoint, in an unlinked temporary file: PAGE_DATA bodies one after another."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="migrate-", suffix=".pages")  # noqa: SIM115 `close` closes it
        self._batches = 0

    def close(self) -> None:
        """Drop what is in it."""
        self._file.close()

    def put(self, words: PfnWords, data: bytes | memoryview) -> None:
        """Keep pages."""
        self._file.write(PAGE_DATA_HEADER.pack(len(words), 0))
        self._file.write(words.raw)
        self._file.write(data)
        self._batches += 1

    def drain(self) -> Iterator[tuple[PfnWords, bytes]]:
        """What was put in, in that order; then it is empty."""
        self._file.seek(0)
        for _ in range(self._batches):
            header = PageDataHeader._make(PAGE_DATA_HEADER.unpack(self._file.read(PAGE_DATA_HEADER.size)))
            words = PfnWords(self._file.read(header.count * PFN_WORD_SIZE))
            yield words, self._file.read(header.count * PAGE_SIZE)
        self._file.seek(0)
        self._file.truncate()
        self._batches = 0
