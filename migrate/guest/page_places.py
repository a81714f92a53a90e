"""Where in a stream the newest contents of its pages lie."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streams.pages import PFN_MASK, PfnWords
from streams.transports import TransportError
from streams.wire.framing import PAGE_SIZE, PFN_WORD_SIZE

if TYPE_CHECKING:
    from streams.transports import Transport

Pfns = NDArray[np.int64]
Offsets = NDArray[np.int64]

# Records whose pfn words are looked through together.
AT_ONCE = 64
# A genuine guest's pages are looked for a few times, many at a time. After so many searches it pays to sort them all.
SEARCHES = 8


class PagePlaces:
    """Finds pages by going back through the records' pfn words; sorts all of them once where that is asked often.

    Where going back costs a decompression, the pfns of data pages are kept: 8 bytes for each page of the stream.
    Sorted they take 16.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._keeps = not transport.rereads
        self._pfns = array("Q")
        # Of each record: offset of the words, their number, offset of the data, pages of it.
        self._batches = array("Q")
        self._known: dict[int, int | None] = {}  # what was searched for since the last record
        self._searches = 0
        # Pfns in order and their offsets, of the oldest records first; each run is at most half as long as the one
        # before it, so that there are few of them.
        self._runs: list[tuple[Pfns, Offsets]] = []
        self._sorted = 0  # how much of `_batches` they cover

    def add(self, words_offset: int, words: PfnWords, data_offset: int) -> None:
        """Take note of a record with pages."""
        self._known.clear()
        self._batches.extend((words_offset, len(words), data_offset, words.data_pages))
        if self._keeps:
            self._pfns.frombytes(words.pfns[words.has_data].tobytes())

    def offsets(self, pfns: Iterable[int]) -> dict[int, int]:
        """File offsets of the newest contents of some pfns; without those that never came with any."""
        wanted = {pfn for pfn in pfns if 0 <= pfn <= PFN_MASK}
        missing = np.array(sorted(wanted - self._known.keys()), np.int64)
        if len(missing) and self._searches >= SEARCHES:
            return self._looked_up(np.array(sorted(wanted), np.int64))
        if len(missing):
            self._searches += 1
            self._known.update(dict.fromkeys(missing.tolist()))
            self._known.update(self._searched(missing))
        return {pfn: at for pfn in wanted if (at := self._known[pfn]) is not None}

    def _searched(self, wanted: Pfns) -> dict[int, int]:
        """Look for pfns, ascending, from the last record back to the first."""
        found: dict[int, int] = {}
        for pfns, offsets in self._newest_first(0):
            at = np.searchsorted(wanted, pfns)
            at[at == len(wanted)] = 0
            hits = np.flatnonzero(wanted[at] == pfns)
            if len(hits):
                found.update(zip(pfns[hits].tolist(), offsets[hits].tolist(), strict=True))  # the last word counts
                wanted = np.setdiff1d(wanted, pfns[hits])
                if not len(wanted):
                    break
        return found

    def _looked_up(self, wanted: Pfns) -> dict[int, int]:
        """The same in what is sorted."""
        self._known.clear()
        self._sort()
        found: dict[int, int] = {}
        for pfns, offsets in self._runs:
            at = np.searchsorted(pfns, wanted)
            at[at == len(pfns)] = 0
            hits = pfns[at] == wanted
            found.update(zip(wanted[hits].tolist(), offsets[at[hits]].tolist(), strict=True))
        return found

    def _sort(self) -> None:
        """Sort what has come since, and merge it with runs that are no longer than it."""
        groups = list(self._newest_first(self._sorted))[::-1]
        self._sorted = len(self._batches)
        if not groups:
            return
        parts = [_joined(groups)]
        while self._runs and len(self._runs[-1][0]) <= 2 * sum(len(pfns) for pfns, _ in parts):
            parts.insert(0, self._runs.pop())
        pfns, offsets = _joined(parts)
        order = np.argsort(pfns, kind="stable")
        pfns = pfns[order]
        last = np.append(pfns[1:] != pfns[:-1], True)
        self._runs.append((pfns[last], offsets[order[last]]))

    def _newest_first(self, since: int) -> Iterator[tuple[Pfns, Offsets]]:
        """Pfns of data pages and the offsets of their contents, in stream order within groups of records."""
        behind = len(self._pfns)
        for stop in range(len(self._batches), since, -4 * AT_ONCE):
            some = np.frombuffer(self._batches[max(since, stop - 4 * AT_ONCE) : stop], np.int64).reshape(-1, 4)
            counts = some[:, 3]
            total = int(counts.sum())
            if self._keeps:
                pfns = np.frombuffer(self._pfns[behind - total : behind], np.int64)
                behind -= total
            else:
                pfns = self._read_again(some)
            before = np.cumsum(counts) - counts
            yield pfns, np.repeat(some[:, 2] - PAGE_SIZE * before, counts) + PAGE_SIZE * np.arange(total)

    def _read_again(self, batches: NDArray[np.int64]) -> Pfns:
        """The pfns of data pages of some records."""
        raws = self._transport.reread([(at, n * PFN_WORD_SIZE) for at, n in batches[:, :2].tolist()])
        words = PfnWords(b"".join(raws or ()))
        if len(words) != batches[:, 1].sum():
            raise TransportError("the input has become shorter while it was read", int(batches[0, 0]))
        return words.pfns[words.has_data]


def _joined(parts: Sequence[tuple[Pfns, Offsets]]) -> tuple[Pfns, Offsets]:
    return np.concatenate([pfns for pfns, _ in parts]), np.concatenate([offsets for _, offsets in parts])
