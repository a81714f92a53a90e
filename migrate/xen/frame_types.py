"""What Xen answers: frame types, the order in which they are taken, and who is refused.

A frame has one type at a time. Taking a type on a frame that has none validates its contents, which takes
types on what it names, in slot order; taking the type it has only adds a reference; any other type is refused.
During a restore nothing is ever released, so a type once taken stays, and references need no counting: the L2 with
Xen's own slots has one user if the table that takes it gave it its type. A call that fails gives back what it took.

Sources: `xen/arch/x86/mm.c` (_get_page_type, promote_l*_table, get_page_from_l*e, get_l*_linear_pagetable,
pae_xen_mappings_check, do_mmuext_op), `xen/arch/x86/domain.c` (arch_set_info_guest),
`xen/arch/x86/pv/descriptor-tables.c` (pv_set_gdt).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.destination.answers import Answer
from migrate.guest.pages import UNWRITTEN
from migrate.rules.extended_cr3 import L3Rule
from migrate.rules.findings import Link
from migrate.xen.entries import (
    DISALLOWED,
    DISALLOWED_L1,
    DISALLOWED_PAE_L3,
    GNTTAB_BYTES,
    L1_CLASS,
    REFUSED,
    bad_descriptors,
)
from migrate.xen.entries import (
    WRITABLE as MAPS_WRITABLE,
)
from migrate.xen.held_types import L1, L2, L2X, L3, L4, NONE, SEG, WRITABLE, FrameType, Refused
from migrate.xen.linear_tables import ALLOWED, LinearTables
from migrate.xen.untyped_pages import UntypedPages
from streams.pages import LEVEL_MASK
from streams.values import dataclass
from streams.wire.paging import (
    ENTRIES,
    FRAME_MASK,
    L4_XEN_SLOTS,
    PAE_L2_FIRST_XEN_SLOT,
    PAE_L3_ENTRIES,
    PAE_L3_LIMIT,
    PAE_XEN_SLOT,
    PSE,
    RW,
    P,
)

if TYPE_CHECKING:
    from migrate.destination.placement import Placement
    from migrate.guest.memory import PvGuest

FRAME = np.uint64(FRAME_MASK)
ONE = np.uint64(1)
SHIFT = np.uint64(12)

# Frames whose owner a stream cannot tell, but whose kind is the same on every host: the first MiB is I/O
# space to Xen, and no host this model stands for has memory beyond 64 GiB.
FIRST_RAM_FRAME = 0x100
LAST_RAM_FRAME = (1 << 24) - 1
NO_FRAME = FRAME_MASK >> 12

# Of a rule that Xen does not enforce so many breaches are told one by one.
NOTES_TOLD = 1024


# numpy compares with plain numbers much faster than with members of an enumeration.
_NONE = np.uint8(NONE)
_WRITABLE = np.uint8(WRITABLE)
_FREE_TO_WRITE = bytes([NONE, WRITABLE])
_IS_WRITABLE = bytes(int(c == MAPS_WRITABLE) for c in range(256))


@dataclass(slots=True)
class Cost:
    """What a replay made Xen do."""

    recursive: int = 0  # types taken because a table names the frame
    deepest: int = 0
    entries: int = 0  # entries validated
    already: int = 0  # calls that found their table validated


class Hypervisor:
    """Types of a PV guest's frames on a receiving host.

    Parameters
    ----------
    guest, placement:
        the frames, what they hold and where they lie.
    l3_rule:
        the form of the 4 GiB rule in force.
    linear_restricted:
        whether linear page tables are limited to one step; else chains may have any length.
    linear_allowed:
        whether the host allows them at all.
    """

    def __init__(
        self,
        guest: PvGuest,
        placement: Placement,
        l3_rule: L3Rule,
        *,
        linear_restricted: bool = True,
        linear_allowed: Answer[bool] = ALLOWED,
    ) -> None:
        self.guest = guest
        self.placement = placement
        self.l3_rule = l3_rule
        self.extended_cr3 = False
        self.vcpu0_initialised = False
        self.cost = Cost()
        self.notes: dict[tuple[str, int], str] = {}  # tolerated: what was first said of a rule and a pfn
        self.more_notes: dict[str, int] = {}  # by rule: how many more than NOTES_TOLD there were
        self._noted: dict[str, int] = {}
        self.unseen: set[int] = set()  # frames whose contents were needed and not kept
        self.pae = guest.width == 4
        self.types: NDArray[np.uint8] = np.zeros(len(guest.types), np.uint8)
        self._type = self.types.data
        self._untyped = UntypedPages(guest, placement)
        self._pinned: set[int] = set()
        self._journal: list[Callable[[], None]] = []
        self.linear = LinearTables(self._type, self._journal, restricted=linear_restricted, allowed=linear_allowed)
        self._depth = 0

    # -- hypercalls --------------------------------------------------------------------------------

    def pin(self, pfn: int, level: int) -> None:
        """MMUEXT_PIN_Ln_TABLE.

        Raises
        ------
        Refused
        """
        if self.pae and level == 4:
            return  # Xen ignores it for a 32-bit guest
        if self._type[pfn] == level:
            self.cost.already += 1
        self.take(pfn, FrameType(level), "HYP-13")
        if pfn in self._pinned:
            raise Refused("HYP-19", "EINVAL", f"pfn {pfn:#x} is pinned already", pfn)
        self._pinned.add(pfn)

    def take(self, pfn: int, want: FrameType, clash: str = "HYP-01") -> None:
        """Take a type for a hypercall; all or nothing.

        Raises
        ------
        Refused
        """
        self._journal.clear()
        try:
            self._acquire(pfn, want, clash)
        except Refused:
            for undo in reversed(self._journal):
                undo()
            raise
        finally:
            self._depth = 0

    # -- types -------------------------------------------------------------------------------------

    def _acquire(self, pfn: int, want: FrameType, clash: str = "HYP-01") -> None:
        """_get_page_type: give a frame a type, or a further reference to the type it has."""
        have = self._type[pfn]
        if have == NONE:
            self._type[pfn] = want
            self._journal.append(lambda: self._type.__setitem__(pfn, NONE))
            self._depth += 1
            if self._depth > self.cost.deepest:
                self.cost.deepest = self._depth
            if self._depth > 1:
                self.cost.recursive += 1
            self._validate(pfn, want)
            self._depth -= 1
        elif have != want:
            raise self._clash(pfn, FrameType(have), want, clash)

    def _clash(self, pfn: int, have: FrameType, want: FrameType, rule: str) -> Refused:
        level = L2 if want == L2X else want
        if have == WRITABLE:
            rule = "HYP-03"
        elif have == level - 1 and self.guest.type_of(pfn) & LEVEL_MASK == level and rule == "HYP-01":
            rule = "HYP-18"
        elif {have, want} != {L2, L2X}:
            rule = "HYP-01"
        elif rule == "HYP-01":
            rule = "HYP-13" if pfn in self._pinned else "HYP-11"
        how = "is mapped writable" if have == WRITABLE else f"is in use as {have}"
        refused = Refused(rule, "EINVAL", f"pfn {pfn:#x} is needed as {want}, but {how}", pfn)
        refused.target = Link(str(have), pfn)
        return refused

    def _contents(self, pfn: int) -> tuple[bytes, bool]:
        """What Xen reads in a frame, and whether libxc localised it (entries name pfns, not mfns)."""
        store = self.guest.store
        if (table := store.table(pfn)) is not None:
            return table, True
        if not self.guest.came_with_data(pfn):
            return UNWRITTEN, True
        page = self._untyped.contents(pfn)
        if page is None:
            self.unseen.add(pfn)
            return bytes(len(UNWRITTEN)), True
        return page, False

    def _validate(self, pfn: int, kind: FrameType) -> None:
        try:
            if kind == L1:
                self._validate_l1(pfn)
            elif kind in (L2, L2X):
                self._validate_l2(pfn, kind)
            elif kind == L3:
                self._validate_l3(pfn)
            elif kind == L4:
                self._validate_upper(pfn, L4)
            elif kind == SEG:
                self._validate_descriptors(pfn)
        except Refused as refused:
            refused.chain.append(Link(str(kind), pfn, refused.slot))
            refused.slot = None
            raise

    # -- L1 ----------------------------------------------------------------------------------------

    def _validate_l1(self, pfn: int) -> None:
        """promote_l1_table: every present entry in order; writable ones take their target as writable."""
        page, localised = self._contents(pfn)
        classes = page[::8].translate(L1_CLASS)
        self.cost.entries += ENTRIES
        if REFUSED in classes or page[7::8].translate(None, GNTTAB_BYTES) or not localised:
            self._validate_l1_slowly(pfn, page, localised)
            return
        if MAPS_WRITABLE not in classes:
            return
        writable = np.frombuffer(classes.translate(_IS_WRITABLE), np.bool_)
        words = np.frombuffer(page, "<u8").compress(writable)
        words &= FRAME
        words >>= SHIFT
        targets = words.view(np.int64)
        have = self.types.take(targets)
        held = have.tobytes()
        if held.translate(None, _FREE_TO_WRITE):
            self._validate_l1_slowly(pfn, page, localised)
        elif NONE in held:
            self._map_writable(targets, have)

    def _map_writable(self, targets: NDArray[np.int64], before: NDArray[np.uint8]) -> None:
        self.types[targets] = _WRITABLE
        self._journal.append(lambda: self.types.__setitem__(targets, before))

    def _validate_l1_slowly(self, pfn: int, page: bytes, localised: bool) -> None:
        """An L1 in which some entry may be refused: name the first that is."""
        entries = np.frombuffer(page, "<u8")
        slots = np.flatnonzero(entries & ONE)
        frames = ((entries[slots] & FRAME) >> SHIFT).astype(np.int64)
        targets = frames if localised else self.placement.pfns_of(frames)
        flags = entries[slots]
        bad_flags = flags & np.uint64(DISALLOWED_L1) != 0
        foreign = targets < 0
        writable = flags & np.uint64(RW) != 0
        have = np.where(foreign, _NONE, self.types[np.maximum(targets, 0)])
        conflict = writable & ~foreign & (have != _NONE) & (have != _WRITABLE)
        wrong = bad_flags | foreign | conflict
        if not wrong.any():
            self._map_writable(targets[writable], have[writable])
            return
        at = int(np.argmax(wrong))
        slot, target = int(slots[at]), int(targets[at])
        if bad_flags[at]:
            raise self._bad_flags(pfn, L1, slot, int(flags[at]), DISALLOWED_L1)
        if foreign[at]:
            raise self._foreign(pfn, slot, int(frames[at]))
        kind = FrameType(int(have[at]))
        refused = Refused(
            "HYP-04" if kind == SEG else "HYP-02",
            "EBUSY",
            f"L1 pfn {pfn:#x}, entry {slot}, maps pfn {target:#x} writable, which is in use as {kind}",
            pfn,
            slot,
        )
        refused.target = Link(str(kind), target, writable=True)
        raise refused

    def _foreign(self, pfn: int, slot: int, mfn: int) -> Refused:
        """get_page_from_l1e on a frame that is not the guest's."""
        if mfn == NO_FRAME:
            errno, what = "EINVAL", "no frame at all"
        elif mfn < FIRST_RAM_FRAME or mfn > LAST_RAM_FRAME:
            errno, what = "EPERM", "I/O space"
        else:
            errno, what = "EBUSY", "not the guest's"
        return Refused(
            "HYP-07",
            errno,
            f"pfn {pfn:#x} was not sent as a page table: its entry {slot} still names machine frame {mfn:#x}, {what}",
            pfn,
            slot,
        )

    def _bad_flags(self, pfn: int, kind: FrameType, slot: int, entry: int, disallowed: int) -> Refused:
        bits = entry & disallowed
        if kind == L3 and self.pae:
            rule = "REC-24"
        elif kind != L1 and bits & PSE:
            rule = "REC-22"
        else:
            rule = "REC-23"
        if not self.guest.store.is_table(pfn):
            rule = "HYP-06"
        return Refused(
            rule, "EINVAL", f"{kind} pfn {pfn:#x}, entry {slot}, has flags {bits:#x} that Xen refuses", pfn, slot
        )

    # -- L2, L3, L4 --------------------------------------------------------------------------------

    def _entries(self, pfn: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """A table's entries, and the pfn each names (-1: a frame that is not the guest's)."""
        page, localised = self._contents(pfn)
        entries = np.frombuffer(page, "<u8")
        frames = ((entries & FRAME) >> SHIFT).astype(np.int64)
        self.cost.entries += ENTRIES
        return entries, frames if localised else self.placement.pfns_of(frames)

    def _validate_l2(self, pfn: int, kind: FrameType) -> None:
        """promote_l2_table."""
        entries, targets = self._entries(pfn)
        guest_slots = PAE_L2_FIRST_XEN_SLOT if kind == L2X else ENTRIES
        self._note_ignored("REC-26", pfn, kind, entries[guest_slots:])
        self._walk(pfn, kind, entries, targets, np.arange(guest_slots), L1, linear=True)

    def _note(self, rule: str, pfn: int, message: str) -> None:
        """Something tolerated: told once of each pfn, and of so many pfns."""
        if (rule, pfn) in self.notes:
            return
        self._noted[rule] = self._noted.get(rule, 0) + 1
        if self._noted[rule] <= NOTES_TOLD:
            self.notes[rule, pfn] = message
        else:
            self.more_notes[rule] = self.more_notes.get(rule, 0) + 1

    def _note_ignored(self, rule: str, pfn: int, kind: FrameType, entries: NDArray[np.uint64]) -> None:
        """Entries where Xen has its own: savers send them as zero, Xen overwrites them."""
        if entries.any() and self.guest.came_with_data(pfn):
            self._note(rule, pfn, f"{kind} pfn {pfn:#x} has entries in slots that are not the guest's")

    def _validate_upper(self, pfn: int, kind: FrameType) -> None:
        """promote_l3_table of a 64-bit guest, promote_l4_table."""
        entries, targets = self._entries(pfn)
        slots = np.arange(ENTRIES)
        if kind == L4:
            self._note_ignored("REC-27", pfn, kind, entries[L4_XEN_SLOTS])
            slots = np.delete(slots, L4_XEN_SLOTS)
        self._walk(pfn, kind, entries, targets, slots, FrameType(kind - 1), linear=True)

    def _walk(
        self,
        pfn: int,
        kind: FrameType,
        entries: NDArray[np.uint64],
        targets: NDArray[np.int64],
        slots: NDArray[np.int64],
        want: FrameType,
        *,
        linear: bool,
    ) -> None:
        """Take what the present entries of some slots name, in order."""
        disallowed = DISALLOWED_PAE_L3 if kind == L3 and self.pae else DISALLOWED
        some = entries[slots]
        slots = slots[(some & ONE).astype(bool)]
        some = entries[slots]
        bad = (some & np.uint64(disallowed)) != 0
        named = targets[slots]
        # What has the wanted type needs no work; the rest is done in order.
        todo = bad | (named < 0) | (self.types[np.maximum(named, 0)] != np.uint8(want))
        if linear and self.linear.allowed.value is not False:
            # Of the entries that make the table its own linear page table, all are as the first.
            own = np.flatnonzero((named == pfn) & ~bad & (some & np.uint64(RW) == 0))
            todo[own[1:]] = False
        for at in np.flatnonzero(todo).tolist():
            slot, target, entry = int(slots[at]), int(named[at]), int(some[at])
            if bad[at]:
                raise self._bad_flags(pfn, kind, slot, entry, disallowed)
            if target < 0:
                refused = self._foreign(pfn, slot, (entry & FRAME_MASK) >> 12)
                refused.errno = "EINVAL"  # get_page_from_mfn knows no other answer
                raise refused
            try:
                self._acquire(target, want)
            except Refused as refused:
                if refused.errno == "EINVAL" and linear and self.linear.take(pfn, kind, entry, target):
                    self._note("HYP-16", pfn, f"{kind} pfn {pfn:#x} maps {kind} pfn {target:#x} as a linear table")
                    continue
                if refused.slot is None:
                    refused.slot = slot
                if refused.pfn == target and not refused.chain and not (kind == L3 and self.pae):
                    self.linear.explain(refused, pfn, kind, entry, target)
                raise

    def _validate_l3(self, pfn: int) -> None:
        """promote_l3_table: the 4 GiB rule, then of a PAE guest four entries, the last of them special."""
        mfn = self.placement.mfn(pfn)
        errno = self.l3_rule.answer(self.pae, self.extended_cr3, mfn >= PAE_L3_LIMIT, self.vcpu0_initialised)
        if errno is not None:
            raise Refused(
                "HYP-22",
                errno,
                f"L3 pfn {pfn:#x} (mfn {mfn:#x}) lies above 4 GiB, and the guest has not enabled pae_extended_cr3",
                pfn,
            )
        if not self.pae:
            self._validate_upper(pfn, L3)
            return
        entries, targets = self._entries(pfn)
        self._note_ignored("REC-25", pfn, L3, entries[PAE_L3_ENTRIES:])
        self._walk(pfn, L3, entries, targets, np.arange(PAE_XEN_SLOT), L2, linear=False)
        slot = PAE_XEN_SLOT
        entry = int(entries[slot])
        if not entry & P:
            raise Refused("HYP-10", "EINVAL", f"L3 pfn {pfn:#x}: slot 3, which carries Xen's L2, is empty", pfn, slot)
        target = int(targets[slot])
        shared = target >= 0 and self._type[target] == L2X
        self._walk(pfn, L3, entries, targets, np.array([slot]), L2X, linear=False)
        if shared:
            raise Refused(
                "HYP-12",
                "EINVAL",
                f"L3 pfn {pfn:#x}: the L2 in slot 3, pfn {target:#x}, has other users; Xen's L2 belongs to one L3",
                pfn,
                slot,
            )

    # -- descriptors -------------------------------------------------------------------------------

    def _validate_descriptors(self, pfn: int) -> None:
        """validate_segdesc_page: all 512 descriptors, not only those in use."""
        page, _ = self._contents(pfn)
        bad = bad_descriptors(np.frombuffer(page, "<u8"), self.guest.width)
        if len(bad):
            raise Refused(
                "HYP-05", "EINVAL", f"GDT page pfn {pfn:#x}: Xen refuses descriptor {int(bad[0])}", pfn, int(bad[0])
            )

    def take_gdt(self, frames: tuple[int, ...]) -> None:
        """pv_set_gdt: every frame as a descriptor table.

        Raises
        ------
        Refused
            always with EINVAL.
        """
        for pfn in frames:
            try:
                self.take(pfn, SEG)
            except Refused as refused:
                refused.errno = "EINVAL"
                raise
