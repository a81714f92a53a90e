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
from streams.pages import LEVEL_MASK, PIN_BIT
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
# In `SoundnessTally.levels`: Xen may refuse an entry of this table, or take notice of it.
SUSPECT = 0x80
# From here on it is not counted any more how often a page is mapped writable: it stays so. Of more tables at once the
# counts could overflow.
MANY = 1 << 15
TABLES_AT_ONCE = MANY // ENTRIES
# Pfns that are compared at once: copies of all would take as much again.
PFNS_AT_ONCE = 1 << 20


class SoundnessTally:
    """Notes on the newest version of every page table, by the level it was sent with.

    Attributes
    ----------
    writable:
        how many entries of L1 tables map each pfn writable: uint16, shape (capacity,).
    levels:
        the level of each page table, and whether it is SUSPECT; 0 for what is none: uint8, shape (capacity,).
    """

    def __init__(self, guest: PvGuest) -> None:
        self._guest = guest
        self.writable: NDArray[np.uint16] = np.zeros(0, np.uint16)
        self.levels: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._upper_sound: bool | None = None  # what was found of the upper levels since the last table came

    # -- as tables arrive --------------------------------------------------------------------------

    def enter(self, pfns: Sequence[int], types: Sequence[int], entries: NDArray[np.uint64]) -> None:
        """Note tables that replace whatever was known of their pfns.

        Parameters
        ----------
        entries:
            shape (tables, 512), pfns in them.
        """
        self.forget(pfns)
        levels = np.array([kind & LEVEL_MASK for kind in types], np.uint8)
        marks = levels.copy()
        for level in set(levels.tolist()):
            of_level = levels == level
            rows = entries if of_level.all() else entries[of_level]
            marks[of_level] |= np.where(self._suspicious(level, rows), np.uint8(SUSPECT), np.uint8(0))
            if level == 1:
                for start in range(0, len(rows), TABLES_AT_ONCE):
                    self._count(rows[start : start + TABLES_AT_ONCE], np.add)
        self.levels[np.array(pfns, np.int64)] = marks

    def _grow(self) -> None:
        more = len(self._guest.types) - len(self.levels)
        if more > 0:
            self.writable = np.concatenate([self.writable, np.zeros(more, np.uint16)])
            self.levels = np.concatenate([self.levels, np.zeros(more, np.uint8)])

    def _count(self, rows: NDArray[np.uint64], how: np.ufunc) -> None:
        mapped = rows[rows & WRITABLE == WRITABLE]
        targets = ((mapped & FRAME) >> np.uint64(12)).astype(np.int64)
        how.at(self.writable, targets[self.writable[targets] < MANY], np.uint16(1))

    def _suspicious(self, level: int, rows: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which tables of one level have an entry that Xen may refuse, or that is not the guest's."""
        pae = self._guest.width == 4
        if pae and level == 4:
            return np.zeros(len(rows), np.bool_)  # nothing of a 32-bit guest ever becomes one
        disallowed = DISALLOWED_L1 if level == 1 else DISALLOWED
        others: NDArray[np.bool_] = np.zeros(len(rows), np.bool_)
        if pae and level == 3:
            disallowed = DISALLOWED_PAE_L3
            others |= rows[:, PAE_L3_ENTRIES:].any(axis=1) | (rows[:, PAE_XEN_SLOT] & PRESENT == 0)
            rows = rows[:, :PAE_L3_ENTRIES]
        elif level == 4:
            others |= rows[:, L4_XEN_SLOTS].any(axis=1)
        others |= ((rows & PRESENT != 0) & (rows & np.uint64(disallowed) != 0)).any(axis=1)
        return others

    def forget(self, pfns: Sequence[int]) -> None:
        """These pfns are no longer what they were; their newest contents are still in the store."""
        self._grow()
        self._upper_sound = None
        some = np.array(pfns, np.int64)
        first = some[self.levels[some] & LEVEL_MASK == 1]
        for _, entries in self._guest.store.table_batches(first.tolist(), TABLES_AT_ONCE) if len(first) else ():
            self._count(entries, np.subtract)
        self.levels[some] = 0

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
        self._grow()
        guest, levels = self._guest, self.levels
        for start in range(0, len(levels), PFNS_AT_ONCE):
            types = guest.types[start : start + PFNS_AT_ONCE]
            tags = types & LEVEL_MASK
            tags[types > 0xC] = 0
            # Suspect, sent as data since, retyped, or typed as a table without ever having come as one.
            if not np.array_equal(levels[start : start + PFNS_AT_ONCE], tags):
                return False
        tables = np.flatnonzero(levels)
        if self.writable[tables].any() or any(self.writable[pfn] or levels[pfn] for pfn in descriptor_tables):
            return False
        if any(levels[root] != guest.levels for root in roots):
            return False
        if self._upper_sound is None:
            self._upper_sound = self._levels_fit(tables) and (guest.width == 8 or self._slots_unshared(tables))
        return self._upper_sound

    def _levels_fit(self, tables: NDArray[np.int64]) -> bool:
        """Whether every table above L1 names tables of the next level down, and nothing else."""
        levels = self.levels[tables]
        for level in range(2, self._guest.levels + 1):
            for _, entries in self._guest.store.table_batches(tables[levels == level].tolist()):
                if (self.levels[self._named(level, entries)] != level - 1).any():
                    return False
        return True

    def _named(self, level: int, entries: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Pfns in the present entries of tables of one level."""
        if level == 3 and self._guest.width == 4:
            entries = entries[:, :PAE_L3_ENTRIES]
        named: NDArray[np.uint64] = entries[entries & PRESENT != 0] & FRAME
        return (named >> np.uint64(12)).astype(np.int64)

    def _slots_unshared(self, tables: NDArray[np.int64]) -> bool:
        """Of a PAE guest: the L2 in slot 3 of an L3 has no other use, and is not pinned."""
        store = self._guest.store
        special, used = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for _, entries in store.table_batches(tables[self.levels[tables] == 3].tolist()):
            special.append(((entries[:, PAE_XEN_SLOT] & FRAME) >> np.uint64(12)).astype(np.int64))
            used.append(self._named(3, entries))
        with_xens = np.concatenate(special)
        if len(np.unique(with_xens)) != len(with_xens) or (self._guest.types[with_xens] & PIN_BIT).any():
            return False
        named, counts = np.unique(np.concatenate(used), return_counts=True)
        if (counts[np.isin(named, with_xens)] != 1).any():
            return False
        return not any(
            entries[:, PAE_L2_FIRST_XEN_SLOT:].any() for _, entries in store.table_batches(with_xens.tolist())
        )
