"""What was last said of each of many pfns, in 16 bytes each."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pfns = NDArray[np.int64]
Numbers = NDArray[np.int64]
_Indexed = tuple[Sequence[int], Sequence[int], int, Sequence[int]]

NONE = -1
# So many may wait to be sorted.
MOST_FRESH = 1 << 12


def distinct(pfns: Pfns) -> Pfns:
    """Some pfns, ascending and each once. As numpy.unique, which takes long to import numpy.ma first."""
    return counted(pfns)[0]


def counted(pfns: Pfns) -> tuple[Pfns, NDArray[np.int64]]:
    """Some pfns, ascending and each once, and how often each was there."""
    in_order = np.sort(pfns)
    fresh = np.ones(len(in_order), np.bool_)
    np.not_equal(in_order[1:], in_order[:-1], out=fresh[1:])
    starts = fresh.nonzero()[0]
    return in_order[starts], np.diff(starts, append=len(in_order))


def among(pfns: Pfns, others: Pfns) -> NDArray[np.bool_]:
    """Which of some pfns are among others. As numpy.isin, which may ask numpy.unique."""
    in_order = np.sort(others)
    at = in_order.searchsorted(pfns)
    at[at == len(in_order)] = 0
    return in_order[at] == pfns if len(in_order) else np.zeros(len(pfns), np.bool_)


class NewestByPfn:
    """A number, 0 or more, for each of some pfns: the last one that was put counts.

    What comes is sorted in runs, each at most half as long as the one before it, so that there are few of them, and
    each number is moved a few times in all.
    """

    def __init__(self) -> None:
        self._fresh: list[tuple[Pfns, Numbers]] = []
        self._waiting = 0
        self._runs: list[tuple[Pfns, Numbers]] = []  # the oldest first; pfns ascending
        self._one_run: _Indexed | None = None
        self._highest = NONE

    def put(self, pfns: Pfns, numbers: Numbers) -> None:
        """Of each of these pfns its number; of one that comes twice the last."""
        if not len(pfns):
            return
        self._one_run = None
        self._highest = max(self._highest, int(pfns.max()))
        self._fresh.append((pfns, numbers))
        self._waiting += len(pfns)
        if self._waiting >= MOST_FRESH:
            self._sort(2)

    def drop(self, pfns: Pfns) -> None:
        """Of these pfns nothing is known any more."""
        self.put(pfns, np.full(len(pfns), NONE, np.int64))

    def may_have_any(self, lowest: int) -> bool:
        """Whether any pfn is as high as that."""
        return lowest <= self._highest

    def find(self, pfns: Pfns) -> Numbers:
        """The numbers of some pfns, NONE where there is none."""
        self._sort(2)
        found = np.full(len(pfns), NONE, np.int64)
        for known, numbers in self._runs:
            at = known.searchsorted(pfns)
            at[at == len(known)] = 0
            hits = known[at] == pfns
            found[hits] = numbers[at[hits]]
        return found

    def get(self, pfn: int) -> int:
        """The number of one pfn, NONE where there is none; for very many questions, and none put between them."""
        known, numbers, shift, starts = self._one_run or self._indexed()
        part = pfn >> shift
        if part >= len(starts) - 1:
            return NONE
        at = bisect_left(known, pfn, starts[part], starts[part + 1])
        return numbers[at] if at < len(known) and known[at] == pfn else NONE

    def _indexed(self) -> _Indexed:
        """All in one run, with where in it each stretch of pfns begins, some in each."""
        pfns, numbers = self.items()
        shift = max(0, self._highest // max(len(pfns), 1)).bit_length() + 1
        stretches = (int(pfns[-1]) >> shift) + 2 if len(pfns) else 1
        starts = pfns.searchsorted(np.arange(stretches, dtype=np.int64) << shift).astype(np.uint32)
        self._one_run = pfns.data, numbers.data, shift, starts.data
        return self._one_run

    def items(self) -> tuple[Pfns, Numbers]:
        """All pfns, ascending, and their numbers."""
        self._sort(None)
        return self._runs[0] if self._runs else (np.zeros(0, np.int64), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.items()[0])

    def _sort(self, least: int | None) -> None:
        """Sort what waits, and merge it with runs less than so many times as long; with all for None."""
        if not self._fresh and (least is not None or len(self._runs) < 2):
            return
        parts, count = self._fresh, self._waiting
        self._fresh, self._waiting = [], 0
        while self._runs and (least is None or len(self._runs[-1][0]) <= least * count):
            count += len(self._runs[-1][0])
            parts.insert(0, self._runs.pop())
        pfns = np.concatenate([pfns for pfns, _ in parts])
        numbers = np.concatenate([numbers for _, numbers in parts])
        if not (pfns[1:] > pfns[:-1]).all():
            order = pfns.argsort(kind="stable")
            pfns = pfns[order]
            last = np.append(pfns[1:] != pfns[:-1], True)
            pfns, numbers = pfns[last], numbers[order[last]]
        if not self._runs and (numbers == NONE).any():
            known = numbers != NONE
            pfns, numbers = pfns[known], numbers[known]
        if len(pfns):
            self._runs.append((pfns, numbers))
