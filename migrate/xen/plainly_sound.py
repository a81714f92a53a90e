"""What page tables say, noted as they arrive, so that judging them at the end costs little.

Most guests are sound, and soundness can be seen without walking a single tree: every entry of every page table
names a table of the next level down, no page table is mapped writable anywhere, no entry has a flag that Xen
refuses. `SoundnessTally.sound` says so, or that the exact replay has to find out. It errs on one side only: tables that
Xen would never look at count too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.xen.entries import DISALLOWED, DISALLOWED_L1, DISALLOWED_PAE_L3
from streams.pages import LEVEL_MASK
from streams.wire.paging import (
    ENTRIES,
    FRAME_MASK,
    L4_XEN_SLOTS,
    PAE_L2_FIRST_XEN_SLOT,
    PAE_L3_ENTRIES,
    PAE_XEN_SLOT,
    RW,
    P,
)

if TYPE_CHECKING:
    from migrate.guest.memory import PvGuest

FRAME = np.uint64(FRAME_MASK)
PRESENT = np.uint64(P)
WRITABLE = np.uint64(P | RW)


class SoundnessTally:
    """Notes on the newest version of every page table, by the level it was sent with.

    Attributes
    ----------
    writable:
        how many entries of L1 tables map each pfn writable: int32, shape (capacity,).
    """

    def __init__(self, guest: PvGuest) -> None:
        self._guest = guest
        self.writable: NDArray[np.int32] = np.zeros(0, np.int32)
        self._level: dict[int, int] = {}
        self._named: dict[int, NDArray[np.int64]] = {}  # L2 and up: pfns of the present entries
        self._xen_slot: dict[int, int] = {}  # PAE L3: pfn in slot 3
        self._suspect: set[int] = set()

    # -- as tables arrive --------------------------------------------------------------------------

    def enter(self, pfns: Sequence[int], types: Sequence[int], entries: NDArray[np.uint64]) -> None:
        """Note tables that replace whatever was known of their pfns.

        Parameters
        ----------
        entries:
            shape (tables, 512), pfns in them.
        """
        if len(self.writable) < len(self._guest.types):
            grown = np.zeros(len(self._guest.types), np.int32)
            grown[: len(self.writable)] = self.writable
            self.writable = grown
        self.forget(pfns)
        levels = np.array([kind & LEVEL_MASK for kind in types])
        first = levels == 1
        if first.any():
            rows = entries[first]
            bad = ((rows & PRESENT != 0) & (rows & np.uint64(DISALLOWED_L1) != 0)).any(axis=1)
            self._suspect.update(np.array(pfns)[first][bad].tolist())
            self._count(rows, 1)
        for row in np.flatnonzero(~first).tolist():
            self._enter_upper(pfns[row], int(levels[row]), entries[row])
        self._level.update(zip(pfns, levels.tolist(), strict=True))

    def _count(self, rows: NDArray[np.uint64], by: int) -> None:
        mapped = rows[rows & WRITABLE == WRITABLE]
        np.add.at(self.writable, ((mapped & FRAME) >> np.uint64(12)).astype(np.int64), np.int32(by))

    def _enter_upper(self, pfn: int, level: int, row: NDArray[np.uint64]) -> None:
        pae = self._guest.width == 4
        if pae and level == 4:
            return  # nothing of a 32-bit guest ever becomes one
        disallowed = DISALLOWED
        if level == 3 and pae:
            if row[PAE_L3_ENTRIES:].any() or not row[PAE_XEN_SLOT] & PRESENT:
                self._suspect.add(pfn)
            disallowed = DISALLOWED_PAE_L3
            row = row[:PAE_L3_ENTRIES]
            self._xen_slot[pfn] = (int(row[PAE_XEN_SLOT]) & FRAME_MASK) >> 12
        elif level == 4 and row[L4_XEN_SLOTS].any():
            self._suspect.add(pfn)
        present = row[(row & PRESENT).astype(bool)]
        if (present & np.uint64(disallowed)).any():
            self._suspect.add(pfn)
        self._named[pfn] = ((present & FRAME) >> np.uint64(12)).astype(np.int64)

    def forget(self, pfns: Sequence[int]) -> None:
        """These pfns are no longer what they were; their newest contents are still in the store."""
        for pfn in pfns:
            level = self._level.pop(pfn, None)
            if level is None:
                continue
            self._suspect.discard(pfn)
            self._named.pop(pfn, None)
            self._xen_slot.pop(pfn, None)
            if level == 1:
                self._count(np.frombuffer(self._guest.store.table(pfn), "<u8").reshape(1, ENTRIES), -1)

    # -- at the end --------------------------------------------------------------------------------

    def sound(self, roots: Sequence[int], descriptor_tables: Sequence[int]) -> bool:
        """Whether every type Xen could take is free for it, whatever the order.

        Parameters
        ----------
        roots:
            pfns that a control register names.
        descriptor_tables:
            pfns of GDT pages.
        """
        guest = self._guest
        if self._suspect:
            return False
        tables = np.fromiter(self._level, np.int64, len(self._level))
        levels = np.fromiter(self._level.values(), np.int64, len(self._level))
        held = np.zeros(len(guest.types), np.uint8)
        held[tables] = levels
        tags = guest.types & LEVEL_MASK
        tags[guest.types > 0xC] = 0
        # Sent as data since, retyped, or typed as a table without ever having come as one.
        if not np.array_equal(held, tags):
            return False
        if self.writable[tables].any() or any(self.writable[pfn] or held[pfn] for pfn in descriptor_tables):
            return False
        for level in range(2, guest.levels + 1):
            named = [self._named[pfn] for pfn in tables[levels == level].tolist() if pfn in self._named]
            if named and (held[np.concatenate(named)] != level - 1).any():
                return False
        if any(held[root] != guest.levels for root in roots):
            return False
        return guest.width == 8 or self._slots_unshared()

    def _slots_unshared(self) -> bool:
        """Of a PAE guest: the L2 in slot 3 of an L3 has no other use, and is not pinned."""
        special = np.fromiter(self._xen_slot.values(), np.int64, len(self._xen_slot))
        if len(np.unique(special)) != len(special) or (self._guest.types[special] & 0x8).any():
            return False
        used = [self._named[pfn] for pfn in self._xen_slot]
        named, counts = np.unique(np.concatenate(used), return_counts=True) if used else (special, special)
        return bool((counts[np.isin(named, special)] == 1).all()) and not self._xen_entries(special)

    def _xen_entries(self, special: NDArray[np.int64]) -> bool:
        """Whether an L2 with Xen's slots has entries there."""
        store = self._guest.store
        return any(np.frombuffer(store.table(pfn), "<u8")[PAE_L2_FIRST_XEN_SLOT:].any() for pfn in special.tolist())
