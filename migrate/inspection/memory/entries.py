"""Page-table entries in words, and tables as ranges of entries that are alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.wire.cpu_features import set_bits
from streams.wire.framing import PAGE_SHIFT
from streams.wire.paging import ENTRIES, FRAME_MASK, NX, PAT, PCD, PSE, PWT, RW, US, A, D, G, P

# Bits of an entry where the level does not matter; 9 to 11 and 52 to 62 are the guest's to use.
_NAMES = {P: "P", RW: "RW", US: "US", PWT: "PWT", PCD: "PCD", A: "A", D: "D", G: "G", NX: "NX"}


def flag_names(entry: int, level: int) -> tuple[str, ...]:
    """Names of the bits set in an entry besides its frame, from bit 0 up.

    Bit 7 is PAT in a table of level 1 and PSE, a large page, above; those of no fixed meaning are AVL9 to AVL62.
    """
    names = _NAMES | ({PAT: "PAT"} if level == 1 else {PSE: "PSE"})
    return tuple(names.get(1 << bit, f"AVL{bit}") for bit in set_bits(entry & ~FRAME_MASK))


def frame_of(entry: int) -> int:
    """The frame that an entry names: in a page table of a stream a pfn."""
    return (entry & FRAME_MASK) >> PAGE_SHIFT


@dataclass(frozen=True, slots=True)
class EntryRange:
    """Neighbouring entries of a table that are alike.

    Attributes
    ----------
    slot, count:
        the first one, and how many.
    entry:
        the first one's value.
    step:
        by how many frames each differs from the one before: 1, or 0 where all are the same.
    """

    slot: int
    count: int
    entry: int
    step: int

    @property
    def present(self) -> bool:
        """Whether the processor would follow them."""
        return bool(self.entry & P)

    @property
    def frame(self) -> int:
        """What the first one names as its frame, present or not."""
        return frame_of(self.entry)


def ranges(entries: NDArray[np.uint64]) -> list[EntryRange]:
    """A table as ranges of alike entries: equal ones, or present ones with equal flags and consecutive frames.

    Parameters
    ----------
    entries:
        shape (n,); the ranges cover all of them, in order.
    """
    if not len(entries):
        return []
    flags = entries & ~np.uint64(FRAME_MASK)
    same = entries[1:] == entries[:-1]
    alone = ~(np.concatenate([same, [False]]) | np.concatenate([[False], same]))
    frames = (entries & np.uint64(FRAME_MASK)) >> np.uint64(PAGE_SHIFT)
    # What equals a neighbour belongs to it; only others are counted up.
    up = (flags[1:] == flags[:-1]) & (frames[1:] == frames[:-1] + np.uint64(1)) & alone[1:] & alone[:-1]
    up &= (entries[1:] & np.uint64(P)) != 0
    starts = np.flatnonzero(np.concatenate([[True], ~(same | up)]))
    counts = np.diff(np.concatenate([starts, [len(entries)]]))
    steps = np.concatenate([up, [False]])[starts]
    return [
        EntryRange(slot, count, entry, int(step))
        for slot, count, entry, step in zip(
            starts.tolist(), counts.tolist(), entries[starts].tolist(), steps.tolist(), strict=True
        )
    ]


def decoded(page: bytes) -> list[EntryRange]:
    """A page's contents as the ranges of a page table; what is cut off reads as not present."""
    full = page.ljust(ENTRIES * 8, b"\0")
    return ranges(np.frombuffer(full, "<u8", ENTRIES))
