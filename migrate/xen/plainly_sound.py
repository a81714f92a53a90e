"""What page tables say, noted as they arrive, so that judging them at the end costs little.

Most guests are sound, and soundness can be seen without walking a single tree: every entry of every page table
names a table of the next level down, no page table is mapped writable anywhere, no entry has a flag that Xen
refuses. `SoundnessTally.sound` says so, or that the exact replay has to find out. It errs on one side only: tables that
Xen would never look at count too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.guest.memory import FAR, MAPPED, SUSPECT, TABLE, in_parts
from migrate.guest.newest import among, counted, distinct
from migrate.xen.entries import DISALLOWED, DISALLOWED_L1, DISALLOWED_PAE_L3, IS_TABLE
from streams.pages import LEVEL_MASK, PIN_BIT, are_tables
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

Pfns = NDArray[np.int64]
Entries = NDArray[np.uint64]

_NONE = np.zeros(0, np.int64)
FRAME = np.uint64(FRAME_MASK)
PRESENT = np.uint64(P)
WRITABLE = np.uint64(RW)
SHIFT = np.uint64(12)
# From here on it is not counted any more how often a page is mapped writable: it stays so. Of more tables at once the
# counts could overflow.
MANY = 1 << 15
TABLES_AT_ONCE = MANY // ENTRIES


class TablesOfLevel:
    """Page tables of one level that came together, entries of all of them at once.

    Attributes
    ----------
    rows:
        which they are of those that came; None for all.
    present:
        the present entries, in order.
    named:
        the pfns in these.
    flags:
        all bits that are set in any of these.
    leftovers:
        whether an entry that is not present is not zero.
    """

    def __init__(self, level: int, entries: Entries, rows: NDArray[np.int64] | None = None) -> None:
        self.level = level
        self.rows = rows
        self.entries = entries if rows is None else entries[rows]
        flat = self.entries.reshape(-1)
        self._common = int(np.bitwise_and.reduce(flat))
        self.leftovers = False
        if not self._common & P:
            used = np.count_nonzero(flat)
            flat = flat.compress((flat & PRESENT).astype(bool))
            self.leftovers = used != len(flat)
            self._common = int(np.bitwise_and.reduce(flat))
        self.present = flat
        self.flags = int(np.bitwise_or.reduce(flat))
        frames = flat & FRAME
        frames >>= SHIFT
        self.named: Pfns = frames.view(np.int64)
        self.highest = int(self.named.max(initial=0))

    def by_use(self) -> Iterator[tuple[Pfns, bool]]:
        """The named pfns: those that are not mapped writable by an L1, and those that are."""
        if self.level != 1 or not self.flags & RW:
            yield self.named, False
        elif self._common & RW:
            yield self.named, True
        else:
            writable = (self.present & WRITABLE).astype(bool)
            yield self.named.compress(~writable), False
            yield self.named.compress(writable), True


def by_level(levels: NDArray[np.uint8], entries: Entries) -> list[TablesOfLevel]:
    """Tables that came together, the lowest level first."""
    different = sorted(set(levels.tolist()))
    if len(different) == 1:
        return [TablesOfLevel(different[0], entries)]
    return [TablesOfLevel(level, entries, np.flatnonzero(levels == level)) for level in different]


class SoundnessTally:
    """Notes on the newest version of every page table, for the most part in the bits of `PvGuest.state`.

    A bit tells that an L1 which came maps a page writable. Where such a page is or becomes a page table, it has to be
    known whether the newest version of an L1 still does: from then on it is counted how many entries do.
    """

    def __init__(self, guest: PvGuest) -> None:
        self._guest = guest
        self._mappings: NDArray[np.uint16] | None = None  # how many entries map a pfn writable, shape (capacity,)
        self._upper_sound: bool | None = None  # what was found of the upper levels since the last table came

    # -- as tables arrive --------------------------------------------------------------------------

    def forget(self, pfns: Pfns) -> None:
        """These pfns are no longer what they were; their newest contents are still in the store."""
        state = self._guest.state
        if self._mappings is not None:
            first = pfns[self._guest.store.levels(pfns) == 1]
            self._count_again(first[state[first] & (TABLE | SUSPECT) == TABLE], np.subtract)
        state[pfns] &= np.uint8(~(TABLE | SUSPECT | FAR) & 0xFF)
        self._upper_sound = None

    def enter(self, pfns: Pfns, groups: Sequence[TablesOfLevel]) -> list[Pfns]:
        """Note tables, of whose pfns nothing else is known any more, and which the store has.

        Returns
        -------
        The pfns that have been given a frame because these tables name them.
        """
        guest = self._guest
        self._upper_sound = None
        before = guest.state[pfns]
        guest.state[pfns] = before | np.uint8(TABLE)
        suspicious = [self._suspicious(group) for group in groups]
        for group, rows in zip(groups, suspicious, strict=True):
            if len(rows):
                guest.state[pfns[rows if group.rows is None else group.rows[rows]]] |= np.uint8(SUSPECT)
        mapped = bool((before & MAPPED).any())
        fresh: list[Pfns] = []
        for group in groups:
            for named, writable in group.by_use():
                given, bits = guest.give_frames(named, writable=writable)
                mapped |= writable and bool(bits & TABLE)
                if len(given):
                    fresh.append(given)
            if group.level == 1 and self._mappings is not None:
                clean = np.ones(len(group.entries), np.bool_)
                clean[suspicious[0]] = False
                self._count(group.entries[clean], np.add)
        if mapped and self._mappings is None:
            self._start_counting()
        return fresh

    def _start_counting(self) -> None:
        guest = self._guest
        self._mappings = np.zeros(len(guest.state), np.uint16)
        pfns, levels = guest.store.tables()
        first = pfns[levels == 1]
        self._count_again(first[guest.state[first] & (TABLE | SUSPECT) == TABLE], np.add)

    def _count_again(self, pfns: Pfns, how: np.ufunc) -> None:
        """Count what some L1s of the store map writable; never a SUSPECT one's, with which nothing is sound."""
        for _, entries in self._guest.store.table_batches(pfns):
            self._count(entries, how)

    def _count(self, entries: Entries, how: np.ufunc) -> None:
        assert self._mappings is not None
        if (more := len(self._guest.state) - len(self._mappings)) > 0:
            self._mappings = np.concatenate([self._mappings, np.zeros(more, np.uint16)])
        both = np.uint64(P | RW)
        for start in range(0, len(entries), TABLES_AT_ONCE):
            some = entries[start : start + TABLES_AT_ONCE]
            targets = ((some[some & both == both] & FRAME) >> SHIFT).astype(np.int64)
            how.at(self._mappings, targets[self._mappings[targets] < MANY], np.uint16(1))

    def _suspicious(self, group: TablesOfLevel) -> NDArray[np.int64]:
        """Which tables of one level have an entry that Xen may refuse, or that is not the guest's."""
        pae, level, rows = self._guest.width == 4, group.level, group.entries
        disallowed = DISALLOWED_L1 if level == 1 else DISALLOWED
        if level < 3 and not group.flags & disallowed:
            return _NONE
        if pae and level == 4:
            return _NONE  # nothing of a 32-bit guest ever becomes one
        others: NDArray[np.bool_] = np.zeros(len(rows), np.bool_)
        if pae and level == 3:
            disallowed = DISALLOWED_PAE_L3
            others |= rows[:, PAE_L3_ENTRIES:].any(axis=1) | (rows[:, PAE_XEN_SLOT] & PRESENT == 0)
            rows = rows[:, :PAE_L3_ENTRIES]
        elif level == 4:
            others |= rows[:, L4_XEN_SLOTS].any(axis=1)
        if group.flags & disallowed:
            others |= ((rows & PRESENT != 0) & (rows & np.uint64(disallowed) != 0)).any(axis=1)
        return np.flatnonzero(others)

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
        tables, levels = guest.store.tables()
        typed = sum(int(np.count_nonzero(are_tables(guest.types[part]))) for part in in_parts(len(guest.types)))
        # Sent as data since, retyped, or typed as a table without ever having come as one.
        if typed != len(tables) or (self._levels_by_type(tables) != levels).any():
            return False
        descriptors = np.array(descriptor_tables, np.int64)
        if (guest.state[tables] & SUSPECT).any() or (guest.state[descriptors] & TABLE).any():
            return False
        if self._mapped(tables) or self._mapped(descriptors):
            return False
        if (self._levels_by_type(np.array(roots, np.int64)) != guest.levels).any():
            return False
        if self._upper_sound is None:
            self._upper_sound = self._levels_fit(tables, levels) and (
                guest.width == 8 or self._slots_unshared(tables, levels)
            )
        return self._upper_sound

    def _levels_by_type(self, pfns: Pfns) -> NDArray[np.uint8]:
        """The level that the type of each of some pfns tells, 0 for what is no page table."""
        kinds = self._guest.types[pfns]
        return np.where(IS_TABLE[kinds], kinds & LEVEL_MASK, 0).astype(np.uint8)

    def _mapped(self, pfns: Pfns) -> bool:
        """Whether any L1 maps one of some pfns writable."""
        if not (self._guest.state[pfns] & MAPPED).any():
            return False
        if self._mappings is None:
            self._start_counting()
        assert self._mappings is not None
        return bool(self._mappings[pfns[pfns < len(self._mappings)]].any())

    def _levels_fit(self, tables: Pfns, levels: NDArray[np.uint8]) -> bool:
        """Whether every table above L1 names tables of the next level down, and nothing else."""
        for level in range(2, self._guest.levels + 1):
            for _, entries in self._guest.store.table_batches(tables[levels == level]):
                if (self._levels_by_type(self._named(level, entries)) != level - 1).any():
                    return False
        return True

    def _named(self, level: int, entries: Entries) -> Pfns:
        """Pfns in the present entries of tables of one level."""
        if level == 3 and self._guest.width == 4:
            entries = entries[:, :PAE_L3_ENTRIES]
        named: Entries = entries[entries & PRESENT != 0] & FRAME
        return (named >> SHIFT).astype(np.int64)

    def _slots_unshared(self, tables: Pfns, levels: NDArray[np.uint8]) -> bool:
        """Of a PAE guest: the L2 in slot 3 of an L3 has no other use, and is not pinned."""
        store = self._guest.store
        special, used = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for _, entries in store.table_batches(tables[levels == 3]):
            special.append(((entries[:, PAE_XEN_SLOT] & FRAME) >> SHIFT).astype(np.int64))
            used.append(self._named(3, entries))
        with_xens = np.concatenate(special)
        if len(distinct(with_xens)) != len(with_xens) or (self._guest.types[with_xens] & PIN_BIT).any():
            return False
        named, counts = counted(np.concatenate(used))
        if (counts[among(named, with_xens)] != 1).any():
            return False
        return not any(entries[:, PAE_L2_FIRST_XEN_SLOT:].any() for _, entries in store.table_batches(with_xens))
