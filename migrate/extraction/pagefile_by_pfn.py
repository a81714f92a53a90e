"""A number for every page of a guest, in memory for those parts of it alone that are really there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.integer)

_BITS = 12
_PART = 1 << _BITS


class ByPfn(Generic[Number]):
    """Numbers by pfn, or by another number that a stream may claim to be large; 0 where none was set."""

    def __init__(self, kind: type[Number]) -> None:
        self._kind = np.dtype(kind)
        self._parts: dict[int, NDArray[Number]] = {}

    def __getitem__(self, pfns: NDArray[np.int64]) -> NDArray[Number]:
        found: NDArray[Number] = np.zeros(len(pfns), self._kind)
        for part, at in self._split(pfns):
            if part in self._parts:
                found[at] = self._parts[part][pfns[at] % _PART]
        return found

    def __setitem__(self, pfns: NDArray[np.int64], values: NDArray[Number]) -> None:
        """Where a pfn comes more than once, the last value counts."""
        for part, at in self._split(pfns):
            if part not in self._parts:
                self._parts[part] = np.zeros(_PART, self._kind)
            self._parts[part][pfns[at] % _PART] = values[at]

    def parts(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Number]]]:
        """All numbers that are not 0, with their pfns, ascending and some at a time."""
        for part in sorted(self._parts):
            at = np.flatnonzero(self._parts[part])
            if len(at):
                yield at + part * _PART, self._parts[part][at]

    def _split(self, pfns: NDArray[np.int64]) -> Iterator[tuple[int, slice | NDArray[np.int64]]]:
        parts = pfns >> _BITS
        first = int(parts[0])
        if (parts == first).all():
            yield first, slice(None)
            return
        for part in np.unique(parts).tolist():
            yield part, np.flatnonzero(parts == part)
