"""From a virtual address of a vcpu to the page behind it, entry by entry, as the processor would go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from migrate.inspection.memory.entries import flag_names, frame_of
from migrate.inspection.reading import NotInStream
from migrate.xen.entries import IS_TABLE
from streams.pages import type_name
from streams.wire.framing import PAGE_SHIFT, PAGE_SIZE
from streams.wire.paging import FRAME_MASK, L4_XEN_SLOTS, PAE_L2_FIRST_XEN_SLOT, PAE_XEN_SLOT, PSE, P
from streams.wire.registers import Cr0, Cr4, Efer
from streams.wire.vcpu import CONTEXT, cr3_to_pfn
from streams.wire.views import view

if TYPE_CHECKING:
    from migrate.guest.memory import PvGuest
    from migrate.inspection.reading import Inspection

SHOWN_BYTES = 64

# Where cr3 names a PAE root: 32 bytes, anywhere in a page.
_PAE_ROOT_OFFSET = 0xFE0
_LOW_FRAME_MASK = 0xFFFF_F000
# A large page of two-level paging keeps bits 32 to 39 of its address in bits 13 to 20 of the entry (PSE-36).
_PSE36_BITS, _PSE36_SHIFT = 0xFF << 13, 32 - 13


class Paging(NamedTuple):
    """How a vcpu translates addresses.

    Attributes
    ----------
    levels:
        level and lowest address bit of each table's index, from the root down; none without paging.
    bits:
        significant bits of an address; the others must repeat the highest one where `signed`, else be zero.
    large:
        levels whose entries may map a page of their own.
    """

    name: str
    levels: tuple[tuple[int, int], ...]
    slots: int
    bits: int
    signed: bool
    large: frozenset[int] = frozenset()

    @property
    def entry_size(self) -> int:
        """Bytes of an entry."""
        return PAGE_SIZE // self.slots


def _tree(top: int) -> tuple[tuple[int, int], ...]:
    return tuple((level, PAGE_SHIFT + 9 * (level - 1)) for level in range(top, 0, -1))


PV = {
    4: Paging("PAE, 3 levels", _tree(3), 512, 32, False),
    8: Paging("4 levels", _tree(4), 512, 48, True),
}
NO_PAGING = Paging("no paging", (), 512, 32, False)
TWO_LEVELS = Paging("2 levels", ((2, 22), (1, 12)), 1024, 32, False)
TWO_LEVELS_PSE = TWO_LEVELS._replace(large=frozenset({2}))
PAE = Paging("PAE, 3 levels", _tree(3), 512, 32, False, frozenset({2}))
FOUR_LEVELS = Paging("4 levels", _tree(4), 512, 48, True, frozenset({2, 3}))
FIVE_LEVELS = Paging("5 levels", _tree(5), 512, 57, True, frozenset({2, 3}))


@dataclass(frozen=True, slots=True)
class Step:
    """One entry on the way.

    Attributes
    ----------
    table:
        pfn of the page table.
    frame:
        pfn that the entry names.
    """

    level: int
    table: int
    slot: int
    entry: int
    frame: int
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Walk:
    """The way from a virtual address to a page.

    Attributes
    ----------
    paging:
        how the vcpu translates, in words.
    root:
        pfn of the top page table, the one that cr3 names: of a 64-bit PV guest the kernel's; None where there is none.
    pfn, offset, page_size:
        the page behind the address, where in it (of 4 KiB), and the size of the mapping in bytes; pfn is None
        where the way ends before.
    data:
        bytes from the address on, up to the end of the page; None where the page came without contents.
    stopped:
        why the way ends before a page.
    """

    vcpu: int
    address: int
    paging: str
    root: int | None
    steps: tuple[Step, ...] = ()
    pfn: int | None = None
    offset: int = 0
    page_size: int = PAGE_SIZE
    data: bytes | None = None
    stopped: str | None = None


# Contents of a page table, or why there are none.
_Read = Callable[[int, int], bytes | str]


def walk(inspection: Inspection, address: int, vcpu: int, *, read: bool = True) -> Walk:
    """Walk the page tables of a vcpu.

    Parameters
    ----------
    address:
        a virtual address.
    read:
        also read the bytes at the address.

    Raises
    ------
    NotInStream
        where the stream has no such vcpu.
    """
    guest = inspection.guest
    if guest is not None:
        found = _pv(inspection, guest, address, vcpu)
    else:
        found = _hvm(inspection, address, vcpu)
    if found.pfn is None or not read:
        return found
    page = inspection.pages([found.pfn])[found.pfn]
    return found if page is None else replace(found, data=page[found.offset : found.offset + SHOWN_BYTES])


def _pv(inspection: Inspection, guest: PvGuest, address: int, vcpu: int) -> Walk:
    basic = guest.vcpus[vcpu].basic if vcpu in guest.vcpus else None
    if basic is None:
        raise NotInStream(_no_vcpu(vcpu, [i for i, one in guest.vcpus.items() if one.basic is not None]))
    root = cr3_to_pfn(int(view(CONTEXT[guest.width], basic)["ctrlreg"][3]), guest.width)
    start = Walk(vcpu, address, PV[guest.width].name, root)
    return _follow(start, PV[guest.width], 0, lambda pfn, level: _pv_table(inspection, guest, pfn, level), _xens_own)


def _xens_own(paging: Paging, steps: tuple[Step, ...], level: int, slot: int) -> bool:
    """Whether Xen puts entries of its own there, whatever the guest has."""
    if paging is PV[8]:
        return level == 4 and L4_XEN_SLOTS.start <= slot < L4_XEN_SLOTS.stop
    return paging is PV[4] and level == 2 and steps[0].slot == PAE_XEN_SLOT and slot >= PAE_L2_FIRST_XEN_SLOT


def _pv_table(inspection: Inspection, guest: PvGuest, pfn: int, level: int) -> bytes | str:
    if (table := guest.store.table(pfn)) is not None:
        return table
    # Of a record that libxc dies of nothing is in the store.
    if IS_TABLE[guest.type_of(pfn)] and (page := inspection.pages([pfn])[pfn]) is not None:
        return page
    if guest.came_with_data(pfn):
        named = type_name(guest.type_of(pfn))
        return f"pfn {pfn:#x} came as {named}, no page table: its entries, if any, name frames of the source host"
    return f"pfn {pfn:#x}, which should be an L{level} table, came without contents"


def _no_vcpu(vcpu: int, known: list[int]) -> str:
    those = ", ".join(map(str, sorted(known)[:16])) + (", …" if len(known) > 16 else "")
    return f"vcpu {vcpu} is not in the stream: it has {f'vcpus {those}' if known else 'no vcpu'}"


def _hvm(inspection: Inspection, address: int, vcpu: int) -> Walk:
    cpus = inspection.hvm_cpus
    if cpus is None:
        raise NotInStream("the stream has no state of any vcpu")
    if vcpu not in cpus:
        raise NotInStream(_no_vcpu(vcpu, list(cpus)))
    state = cpus[vcpu].read()
    paging = paging_mode(state.cr0, state.cr4, state.msr_efer)
    if not paging.levels:
        start = Walk(vcpu, address, paging.name, None, stopped=_invalid(address, paging))
        return start if start.stopped else replace(start, pfn=address >> PAGE_SHIFT, offset=address % PAGE_SIZE)
    offset = state.cr3 & _PAE_ROOT_OFFSET if paging is PAE else 0
    mask = FRAME_MASK if paging in (FOUR_LEVELS, FIVE_LEVELS) else _LOW_FRAME_MASK

    def read(pfn: int, level: int) -> bytes | str:
        page = inspection.pages([pfn])[pfn]
        return f"pfn {pfn:#x}, which should be an L{level} table, came without contents" if page is None else page

    start = Walk(vcpu, address, paging.name, (state.cr3 & mask) >> PAGE_SHIFT)
    return _follow(start, paging, offset, read, _nobodys)


def paging_mode(cr0: int, cr4: int, efer: int) -> Paging:
    """How an HVM vcpu with these control registers translates addresses."""
    if not cr0 & Cr0.PG:
        return NO_PAGING
    if efer & Efer.LME:
        return FIVE_LEVELS if cr4 & Cr4.LA57 else FOUR_LEVELS
    if cr4 & Cr4.PAE:
        return PAE
    return TWO_LEVELS_PSE if cr4 & Cr4.PSE else TWO_LEVELS


def _nobodys(paging: Paging, steps: tuple[Step, ...], level: int, slot: int) -> bool:
    return False


def _follow(
    start: Walk,
    paging: Paging,
    root_offset: int,
    read: _Read,
    reserved: Callable[[Paging, tuple[Step, ...], int, int], bool],
) -> Walk:
    """Go down from the root; `root_offset` is where in its page the root begins."""
    address = start.address
    if invalid := _invalid(address, paging):
        return replace(start, stopped=invalid)
    steps: tuple[Step, ...] = ()
    table, offset = start.root, root_offset
    assert table is not None
    for level, shift in paging.levels:
        slot = address >> shift & (3 if level == 3 and len(paging.levels) == 3 else paging.slots - 1)
        if reserved(paging, steps, level, slot):
            return replace(
                start, steps=steps, stopped=f"slot {slot} of the L{level} is Xen's own: the stream does not have it"
            )
        page = read(table, level)
        if isinstance(page, str):
            return replace(start, steps=steps, stopped=page)
        at = offset + slot * paging.entry_size
        raw = page[at : at + paging.entry_size]
        if len(raw) < paging.entry_size:
            return replace(start, steps=steps, stopped=f"the stream ends in pfn {table:#x}")
        step = _step(level, table, slot, int.from_bytes(raw, "little"))
        steps += (step,)
        if not step.entry & P:
            return replace(start, steps=steps, stopped=f"slot {slot} of the L{level} is not present")
        # Without CR4.PSE the processor of a two-level guest does not look at the bit.
        if level > 1 and step.entry & PSE and paging is not TWO_LEVELS:
            if level not in paging.large:
                return replace(start, steps=steps, stopped=f"slot {slot} of the L{level} has PSE: {_no_large(paging)}")
            return _in_large_page(start, steps, paging, shift)
        table, offset = step.frame, 0
    return replace(start, steps=steps, pfn=steps[-1].frame, offset=address % PAGE_SIZE)


def _no_large(paging: Paging) -> str:
    if paging in PV.values():
        return "a PV guest has no large pages, Xen refuses the table"
    return "the bit is reserved there, the processor faults"


def _step(level: int, table: int, slot: int, entry: int) -> Step:
    return Step(level, table, slot, entry, frame_of(entry), flag_names(entry, level))


def _in_large_page(start: Walk, steps: tuple[Step, ...], paging: Paging, shift: int) -> Walk:
    size = 1 << shift
    entry = steps[-1].entry
    base = entry & FRAME_MASK & ~(size - 1)
    if paging is TWO_LEVELS_PSE:
        base |= (entry & _PSE36_BITS) << _PSE36_SHIFT
    physical = base | start.address & (size - 1)
    return replace(start, steps=steps, pfn=physical >> PAGE_SHIFT, offset=physical % PAGE_SIZE, page_size=size)


def _invalid(address: int, paging: Paging) -> str | None:
    """Why an address is none; None where it is one."""
    if not paging.signed:
        return None if 0 <= address < 1 << paging.bits else f"address {address:#x} is beyond {paging.bits} bits"
    top = address >> (paging.bits - 1)
    canonical = top in (0, (1 << (65 - paging.bits)) - 1)
    return None if canonical else f"address {address:#x} is not canonical with {paging.bits} bits"
