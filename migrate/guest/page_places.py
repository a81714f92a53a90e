"""Where in a stream the newest contents of its pages lie."""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.guest.newest import NONE, NewestByPfn, distinct
from streams.pages import PFN_MASK, PfnWords
from streams.transports import TransportError
from streams.wire.framing import PAGE_SIZE, PFN_WORD_SIZE

if TYPE_CHECKING:
    from streams.transports import Transport

Pfns = NDArray[np.int64]
Offsets = NDArray[np.int64]
Records = NDArray[np.void]

# Records whose pfn words are looked through together.
AT_ONCE = 64
# A genuine guest's pages are looked for a few times, many at a time. After so many searches it pays to sort them all.
SEARCHES = 8
# Answers that are kept until the next record.
MOST_KNOWN = 1 << 12
# Pfns that are kept as they came; then they are sorted, and of each one stays.
MOST_UNSORTED = 1 << 18
# Of each record: where its words begin, how many they and its pages are, and its lowest and highest pfn.
_RECORD = np.dtype([("at", "<i8"), ("words", "<u4"), ("pages", "<u4"), ("low", "<i8"), ("high", "<i8")])


class PagePlaces:
    """Finds pages by going back through the records' pfn words; sorts all of them once where that is asked often.

    Where going back costs a decompression, the pfns of data pages are kept: 16 bytes for each page of the guest.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._keeps = not transport.rereads
        self._pfns = array("Q")
        self._records = bytearray()
        self._known: dict[int, int] = {}  # what was searched for since the last record
        self._searches = 0
        self._sorted = NewestByPfn()
        self._behind = 0  # how many records it covers

    def add(self, words_offset: int, words: PfnWords) -> None:
        """Take note of a record, whose pages follow its words."""
        self._known.clear()
        if not words.data_pages:
            return
        self._records += struct.pack("<qIIqq", words_offset, len(words), words.data_pages, *words.span)
        if self._keeps:
            self._pfns.frombytes(words.pfns[words.has_data].tobytes())
            if len(self._pfns) > MOST_UNSORTED:
                self._sort()

    def offsets(self, pfns: Pfns) -> Offsets:
        """File offsets of the newest contents of some pfns, NONE for one that never came with any."""
        found = np.array([self._known.get(pfn, -2) for pfn in pfns.tolist()], np.int64) if self._known else None
        if found is not None and (found != -2).all():
            return found
        if self._searches < SEARCHES:
            self._searches += 1
            found = self._searched(pfns)
        else:
            self._sort()
            found = self._sorted.find(pfns)
        if len(self._known) + len(pfns) <= MOST_KNOWN:
            self._known.update(zip(pfns.tolist(), found.tolist(), strict=True))
        return found

    def _searched(self, pfns: Pfns) -> Offsets:
        """Look for pfns from the last record back to the first that is not sorted, and then in those that are."""
        wanted = distinct(pfns[(pfns >= 0) & (pfns <= PFN_MASK)])
        places = NewestByPfn()
        records, ends = self._unsorted()
        low, high = np.searchsorted(wanted, records["low"]), np.searchsorted(wanted, records["high"], "right")
        which = np.flatnonzero(low < high)
        for stop in range(len(which), 0, -AT_ONCE):
            some, offsets = self._pages(records, ends, which[max(0, stop - AT_ONCE) : stop])
            at = np.searchsorted(wanted, some)
            at[at == len(wanted)] = 0
            hits = np.flatnonzero(wanted[at] == some)
            if len(hits):
                places.put(some[hits], offsets[hits])  # the last word counts
                still = np.ones(len(wanted), np.bool_)
                still[at[hits]] = False
                wanted = wanted[still]
                if not len(wanted):
                    break
        found = places.find(pfns)
        return np.where(found == NONE, self._sorted.find(pfns), found) if self._behind else found

    def _sort(self) -> None:
        """Sort what has come since."""
        records, ends = self._unsorted()
        for start in range(0, len(records), AT_ONCE):
            self._sorted.put(*self._pages(records, ends, np.arange(start, min(start + AT_ONCE, len(records)))))
        self._behind += len(records)
        del self._pfns[:]

    def _unsorted(self) -> tuple[Records, NDArray[np.int64]]:
        """The records that have come since they were last sorted, and where in what is kept the pfns of each end."""
        records = np.frombuffer(self._records, _RECORD)[self._behind :].copy()
        return records, np.cumsum(records["pages"], dtype=np.int64)

    def _pages(self, records: Records, ends: NDArray[np.int64], which: NDArray[np.int64]) -> tuple[Pfns, Offsets]:
        """Pfns of the data pages of some records and the offsets of their contents, in stream order."""
        some = records[which]
        counts = some["pages"].astype(np.int64)
        if self._keeps:
            kept = (self._pfns[end - n : end] for end, n in zip(ends[which].tolist(), counts.tolist(), strict=True))
            pfns = np.concatenate([np.frombuffer(piece, np.int64) for piece in kept])
        else:
            pfns = self._read_again(some)
        starts = some["at"] + PFN_WORD_SIZE * some["words"].astype(np.int64)
        before = np.cumsum(counts) - counts
        return pfns, np.repeat(starts - PAGE_SIZE * before, counts) + PAGE_SIZE * np.arange(int(counts.sum()))

    def _read_again(self, records: Records) -> Pfns:
        """The pfns of data pages of some records."""
        sizes = PFN_WORD_SIZE * records["words"].astype(np.int64)
        raws = self._transport.reread(list(zip(records["at"].tolist(), sizes.tolist(), strict=True)))
        words = PfnWords(b"".join(raws or ()))
        if len(words) != records["words"].sum():
            raise TransportError("the input has become shorter while it was read", int(records["at"][0]))
        return words.pfns[words.has_data]
