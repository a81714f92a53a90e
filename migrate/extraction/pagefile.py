"""Pages in a file, each in a slot of its own; pages of zeros are holes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from migrate.extraction.pagefile_by_pfn import ByPfn
from migrate.guest.pages import Pages
from migrate.xen.entries import ENTRIES
from streams.wire.framing import PAGE_SIZE

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
        """Write bytes at an offset of the file, all of them."""
        rest = memoryview(data)
        while rest:
            done = os.pwrite(self.fd, rest, offset)
            rest, offset = rest[done:], offset + done
