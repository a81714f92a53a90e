"""Pages in a file, each in a slot of its own; pages of zeros are holes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from migrate.guest.pages import Pages
from streams.wire.framing import PAGE_SIZE
from streams.wire.paging import ENTRIES

CAME = 1  # there is such a page
FULL = 2  # with other contents than zeros
TABLE = 4  # its newest contents came as a page table


class PageFile:
    """Pages in slots of a regular file.

    Parameters
    ----------
    fd:
        descriptor, open for reading and writing; the file is empty, and its offset is not used.
    start:
        file offset of slot 0.

    Attributes
    ----------
    state:
        bits CAME, FULL, TABLE of every slot.
    """

    def __init__(self, fd: int, start: int = 0) -> None:
        self.fd = fd
        self.start = start
        self.state = ByPfn(np.uint8)

    @property
    def slots(self) -> int:
        """One more than the highest slot that holds a page."""
        return max((int(slots[-1]) + 1 for slots, _ in self.state.parts()), default=0)

    def count(self, bit: int) -> int:
        """How many slots have a bit."""
        return sum(int(np.count_nonzero(state & bit)) for _, state in self.state.parts())

    def tables(self) -> Iterator[NDArray[np.int64]]:
        """Slots of page tables, ascending and some at a time."""
        for slots, state in self.state.parts():
            if len(found := slots[state & TABLE != 0]):
                yield found

    def put(self, slots: NDArray[np.int64], tables: NDArray[np.bool_], pages: Pages) -> None:
        """Store pages in the order given: a later one in the same slot replaces an earlier one.

        Parameters
        ----------
        slots, tables:
            shape (n,).
        pages:
            shape (n, 512).
        """
        if len(slots) > 1 and (np.diff(slots) <= 0).any() and len(np.unique(slots)) < len(slots):
            for at in range(len(slots)):
                one = slice(at, at + 1)
                self.put(slots[one], tables[one], pages[one])
            return
        full = pages.any(axis=1)
        state = np.full(len(slots), CAME, np.uint8)
        state[full] |= FULL
        state[tables] |= TABLE
        # A page of zeros has to be written where it replaces another.
        written = np.flatnonzero(full | (self.state[slots] & FULL != 0))
        self.state[slots] = state
        if not len(written):
            return
        breaks = np.flatnonzero((np.diff(written) != 1) | (np.diff(slots[written]) != 1)) + 1
        firsts, stops = written[[0, *breaks]], written[[*(breaks - 1), -1]] + 1
        for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True):
            self.write(self.start + int(slots[first]) * PAGE_SIZE, pages[first:stop].data.cast("B"))

    def get(self, slots: NDArray[np.int64]) -> Pages:
        """Contents of pages, shape (n, 512)."""
        pieces = [os.pread(self.fd, PAGE_SIZE, self.start + slot * PAGE_SIZE) for slot in slots.tolist()]
        return np.frombuffer(b"".join(piece.ljust(PAGE_SIZE, b"\0") for piece in pieces), "<u8").reshape(-1, ENTRIES)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write bytes at an offset of the file, all of them. An OSError names the descriptor."""
        rest = memoryview(data)
        while rest:
            try:
                done = os.pwrite(self.fd, rest, offset)
            except OSError as error:
                raise OSError(error.errno, error.strerror, self.fd) from None
            rest, offset = rest[done:], offset + done


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
