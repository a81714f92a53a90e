"""The calls of a PV guest's restore from END on, in order; of its many pins none is made before its turn comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray

from migrate.xen.hypercalls import PIN_BATCH, Pin, Step


class Pins(Sequence[Pin]):
    """Page tables to pin, in the order of their pfns unless another is asked for: 9 bytes each."""

    def __init__(self, pfns: NDArray[np.int64], levels: NDArray[np.uint8]) -> None:
        self._pfns = pfns
        self._levels = levels

    def by_level(self, *, highest_first: bool = False) -> Pins:
        """The same, level after level."""
        order = (-self._levels.astype(np.int8) if highest_first else self._levels).argsort(kind="stable")
        return Pins(self._pfns[order], self._levels[order])

    def __len__(self) -> int:
        return len(self._pfns)

    def __iter__(self) -> Iterator[Pin]:
        for start in range(0, len(self._pfns), PIN_BATCH):
            some = slice(start, start + PIN_BATCH)
            yield from map(Pin, self._pfns[some].tolist(), self._levels[some].tolist())

    @overload
    def __getitem__(self, index: int) -> Pin: ...
    @overload
    def __getitem__(self, index: slice) -> Pins: ...
    def __getitem__(self, index: int | slice) -> Pin | Pins:
        if isinstance(index, slice):
            return Pins(self._pfns[index], self._levels[index])
        return Pin(int(self._pfns[index]), int(self._levels[index]))


class Program(Sequence[Step]):
    """Steps in parts: before the pins, the pins, and after them, in whatever order."""

    def __init__(self, parts: Sequence[Sequence[Step]]) -> None:
        self.parts = parts

    @property
    def pins(self) -> Pins:
        """What is pinned."""
        return next(part for part in self.parts if isinstance(part, Pins))

    @property
    def others(self) -> list[Step]:
        """All steps that are no pins."""
        return [step for part in self.parts if not isinstance(part, Pins) for step in part]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Step]:
        return chain.from_iterable(self.parts)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> list[Step]: ...
    def __getitem__(self, index: int | slice) -> Step | list[Step]:
        return list(self)[index]
