"""Which pfns of an HVM guest have a page, told from the words of its PAGE_DATA records.

With the standard library alone: a filter in front of an HVM guest stays small.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise

from streams.pages import FRAMELESS_TYPES, PFN_MASK, TYPE_SHIFT, PfnWords

# A guest has few runs of pages: holes for devices, what is ballooned out. Of a stream with more nothing is told.
MOST_RUNS = 1 << 16
# Words of a saver's record, at most.
BATCH = 1024


class PopulatedPfns:
    """The pfns that libxc has given a frame (`populate_pfns`), as runs: once there, a page stays.

    A pfn of which nothing can be told any more counts as one that has a page.

    Attributes
    ----------
    pages:
        how many there are; what it was when track was lost.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []  # exclusive
        self.lost_track = False
        self.pages = 0

    def __contains__(self, pfn: int) -> bool:
        return self.lost_track or self._covers(pfn, pfn + 1)

    def add(self, words: PfnWords) -> None:
        """Take the words of a record; those of pages without a frame are passed over."""
        if self.lost_track or not len(words):
            return
        if _is_one_run(words):
            first = words.pfn(0)
            self._add(first, first + len(words))
        elif pfns := _framed(words):
            if self._covers(min(pfns), max(pfns) + 1):
                return
            for start, end in _runs(sorted(set(pfns))):
                self._add(start, end)
        if len(self._starts) > MOST_RUNS:
            self.lost_track = True
            self._starts.clear()
            self._ends.clear()

    def _covers(self, start: int, end: int) -> bool:
        """Whether one run holds all from start to before end."""
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and end <= self._ends[at]

    def _add(self, start: int, end: int) -> None:
        """Put in a run, joined with those that it touches."""
        first = bisect_right(self._starts, start) - 1
        if first < 0 or self._ends[first] < start:
            first += 1
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self.pages += end - start - sum(self._ends[first:last]) + sum(self._starts[first:last])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]


def _is_one_run(words: PfnWords) -> bool:
    """Whether the words are ascending pfns without a gap, of no type: as nearly all records of an HVM guest."""
    count, first = len(words), words.word(0)
    if count > BATCH or first + count > PFN_MASK:
        return False
    ones, ramp = _patterns(count)
    return int.from_bytes(words.raw, "little") == first * ones + ramp


@lru_cache(maxsize=8)
def _patterns(count: int) -> tuple[int, int]:
    """Words of 1, and of 0, 1, 2 …, as one number each."""
    return tuple(int.from_bytes(struct.pack(f"<{count}Q", *words), "little") for words in ([1] * count, range(count)))  # type: ignore[return-value]


def _framed(words: PfnWords) -> array[int]:
    """The pfns of a record that are to have a frame."""
    listed = array("Q")
    if not words.has_frames:
        return listed
    listed.frombytes(words.raw)
    if sys.byteorder == "big":
        listed.byteswap()
    if words.are_bare_pfns:
        return listed
    return array("Q", (word & PFN_MASK for word in listed if word >> TYPE_SHIFT not in FRAMELESS_TYPES))


def _runs(pfns: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Runs (start, end) of ascending pfns."""
    listed = list(pfns)
    breaks = [at for at, (one, other) in enumerate(pairwise(listed), 1) if other != one + 1]
    for first, last in pairwise([0, *breaks, len(listed)]):
        yield listed[first], listed[last - 1] + 1
