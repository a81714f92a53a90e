"""All that a stream tells of one page: how it was sent, who names it, what it is for, what is in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from migrate.inspection.memory.entries import EntryRange, decoded
from migrate.inspection.memory.forest import contexts, failing_chain, vcpu_roots
from migrate.inspection.memory.walk import walk
from migrate.inspection.names import Span, spans
from migrate.inspection.reading import NotInStream
from migrate.xen.entries import IS_TABLE
from streams.pages import LEVEL_MASK, PFN_MASK
from streams.wire.framing import PAGE_DATA_HEADER, PAGE_SHIFT, PAGE_SIZE, PFN_WORD_SIZE
from streams.wire.hvm_names import HvmParam
from streams.wire.paging import FRAME_MASK, RW, P
from streams.wire.registers import Cr0
from streams.wire.shared_info import SHARED_INFO
from streams.wire.start_info import MAGIC_PREFIX, START_INFO
from streams.wire.vcpu import GDT_FRAMES, START_INFO_REGISTER, cr3_to_pfn, gdt_frames_used
from streams.wire.views import view

if TYPE_CHECKING:
    from migrate.guest.memory import PvGuest
    from migrate.inspection.reading import Inspection
    from migrate.rules.findings import Finding
    from migrate.toolstack.hvm import HvmRestore

# Of a page that is sent very often the first so many and the last so many times are shown.
TOLD_TIMES = 128
_DESCRIPTOR_SIZE = 8

_PARAM_PAGES = {
    HvmParam.STORE_PFN: "xenstore ring",
    HvmParam.CONSOLE_PFN: "console ring",
    HvmParam.IOREQ_PFN: "ioreq page",
    HvmParam.BUFIOREQ_PFN: "buffered ioreq page",
    HvmParam.PAGING_RING_PFN: "paging ring",
    HvmParam.MONITOR_RING_PFN: "monitor ring",
    HvmParam.SHARING_RING_PFN: "sharing ring",
}
_PARAM_ADDRESSES = {
    HvmParam.IDENT_PT: "identity page table (IDENT_PT)",
    HvmParam.VM86_TSS: "TSS for real mode (VM86_TSS)",
    HvmParam.VM_GENERATION_ID_ADDR: "generation id",
}


@dataclass(frozen=True, slots=True)
class Sending:
    """One pfn word that names the page.

    Attributes
    ----------
    record, offset:
        index of its PAGE_DATA record, and where that begins in the stream.
    round, kind:
        the pass over the guest's memory, from 0, and what kind of pass.
    word:
        its number among the words of the record.
    type:
        page type.
    data:
        where the contents begin in the stream; None where it has none.
    """

    record: int | None
    offset: int
    round: int | None
    kind: str | None
    word: int
    type: int
    data: int | None


@dataclass(frozen=True, slots=True)
class Mapper:
    """A page table with present entries that name the page.

    Attributes
    ----------
    level:
        as tagged; 0 where the table's pfn is tagged as none.
    slots:
        ranges of them, and how many of the entries are writable.
    """

    table: int
    level: int
    slots: tuple[Span, ...]
    writable: int


@dataclass(frozen=True, slots=True)
class History:
    """All that is known of a page.

    Attributes
    ----------
    times, sendings:
        how often a pfn word names it, and those words in stream order; of very many only the first and last.
    type:
        page type by the last of them, as the receiver takes it; None where none does.
    source_mfn, placed_mfn:
        machine frames where it came from and under the placement; None where unknown, or of an HVM guest.
    mappers:
        page tables that name it, ascending; None for an HVM guest, whose tables nobody knows.
    roles:
        what else names it: "cr3 of vcpu 0".
    page:
        its newest contents; None where none came.
    table:
        the contents as entries, where it came as a page table.
    failing:
        whether it is in the chain that leads to what stops the restore.
    """

    pfn: int
    times: int
    sendings: tuple[Sending, ...]
    type: int | None
    source_mfn: int | None
    placed_mfn: int | None
    mappers: tuple[Mapper, ...] | None
    roles: tuple[str, ...]
    findings: tuple[Finding, ...]
    page: bytes | None
    table: tuple[EntryRange, ...] | None
    failing: bool

    @property
    def level(self) -> int:
        """Level as a page table; 0 for what is none."""
        return self.type & LEVEL_MASK if self.type is not None and IS_TABLE[self.type] else 0


def history(inspection: Inspection, pfn: int) -> History:
    """All that a stream tells of a pfn.

    Raises
    ------
    NotInStream
        where nothing in it names that pfn.
    """
    if not 0 <= pfn <= PFN_MASK:
        raise NotInStream(f"no stream can name pfn {pfn:#x}")
    times, sendings = _sendings(inspection, pfn)
    guest, placement = inspection.guest, inspection.placement
    roles = tuple(_roles(inspection, pfn))
    mappers = tuple(_mappers(guest, pfn)) if guest is not None else None
    if not times and not roles and not mappers:
        raise NotInStream(f"pfn {pfn:#x} is not in the stream")
    page = inspection.pages([pfn])[pfn] if times else None
    is_table = False
    if guest is not None:
        table = guest.store.table(pfn)
        is_table, page = (False, page) if table is None else (True, table)
        is_table |= bool(IS_TABLE[guest.type_of(pfn)])
    mfns = (-1, -1)
    if guest is not None and placement is not None:
        source = guest.source_mfns()
        mfns = (int(source[pfn]) if pfn < len(source) else -1, placement.mfn(pfn) if guest.has_frame(pfn) else -1)
    kind = sendings[-1].type if sendings else None
    return History(
        pfn,
        times,
        sendings,
        guest.type_of(pfn) if guest is not None and kind is not None and pfn < len(guest.types) else kind,
        mfns[0] if mfns[0] >= 0 else None,
        mfns[1] if mfns[1] >= 0 else None,
        mappers,
        roles,
        tuple(finding for finding in inspection.report.findings if finding.pfn == pfn),
        page,
        tuple(decoded(page)) if is_table and page is not None else None,
        any(pfn == link for link, _ in failing_chain(inspection)),
    )


def _sendings(inspection: Inspection, pfn: int) -> tuple[int, tuple[Sending, ...]]:
    first: list[Sending] = []
    last: deque[Sending] = deque(maxlen=TOLD_TIMES)
    times = 0
    for entry, words in inspection.words():
        hits = np.flatnonzero(words.pfns == pfn)
        if not len(hits):
            continue
        data = entry.body + PAGE_DATA_HEADER.size + len(words) * PFN_WORD_SIZE
        ordinals = np.cumsum(words.has_data) - 1
        kind = inspection.log.rounds[entry.round].kind if entry.round is not None else None
        times += len(hits)
        for word in np.unique(np.concatenate([hits[:TOLD_TIMES], hits[-TOLD_TIMES:]])).tolist():
            at = data + PAGE_SIZE * int(ordinals[word]) if words.has_data[word] else None
            sending = Sending(entry.index, entry.offset, entry.round, kind, word, int(words.types[word]), at)
            if len(first) < TOLD_TIMES:
                first.append(sending)
            else:
                last.append(sending)
    return times, (*first, *last)


def _mappers(guest: PvGuest, pfn: int) -> Iterator[Mapper]:
    if pfn > FRAME_MASK >> PAGE_SHIFT:
        return  # no entry can
    wanted = np.uint64(pfn << PAGE_SHIFT | P)
    found = []
    for tables, entries in guest.store.table_batches():
        hits = entries & np.uint64(FRAME_MASK | P) == wanted
        for row in np.flatnonzero(hits.any(axis=1)).tolist():
            slots = np.flatnonzero(hits[row])
            writable = int(np.count_nonzero(entries[row][slots] & np.uint64(RW)))
            kind = guest.type_of(table := int(tables[row]))
            level = kind & LEVEL_MASK if IS_TABLE[kind] else 0
            found.append(Mapper(table, level, spans(slots), writable))
    yield from sorted(found, key=lambda mapper: mapper.table)


# -- what a page is for ----------------------------------------------------------------------------


def _roles(inspection: Inspection, pfn: int) -> Iterator[str]:
    from migrate.toolstack.hvm import HvmRestore

    kind = inspection.judgement.restorer.kind
    if isinstance(kind, HvmRestore):
        return chain(_hvm_pages(kind, pfn), _hvm_roots(inspection, pfn))
    guest = inspection.guest
    if guest is None:
        return iter(())
    return chain(
        vcpu_roots(guest).get(pfn, ()),
        _descriptor_pages(inspection, guest, pfn),
        _start_info_pages(inspection, guest, pfn),
        _p2m_pages(guest, pfn),
        _named_by_shared_info(guest, pfn),
    )


def _descriptor_pages(inspection: Inspection, guest: PvGuest, pfn: int) -> Iterator[str]:
    for index, context in contexts(guest):
        used = context["gdt_frames"][: gdt_frames_used(int(context["gdt_ents"]))]
        for number in np.flatnonzero(used == pfn).tolist():
            yield f"GDT page {number} of vcpu {index}"
        # The LDT is named by address; it is rare.
        pages = min(-(-int(context["ldt_ents"]) * _DESCRIPTOR_SIZE // PAGE_SIZE), GDT_FRAMES)
        for number in range(pages):
            if walk(inspection, int(context["ldt_base"]) + number * PAGE_SIZE, index, read=False).pfn == pfn:
                yield f"LDT page {number} of vcpu {index}"


def _start_info_pages(inspection: Inspection, guest: PvGuest, pfn: int) -> Iterator[str]:
    register = START_INFO_REGISTER[guest.width]
    start_info = next((int(c["user_regs"][register]) for index, c in contexts(guest) if index == 0), None)
    if start_info is None or start_info > PFN_MASK:
        return
    if start_info == pfn:
        yield "start_info"
    page = inspection.pages([start_info])[start_info]
    if page is None or not page.startswith(MAGIC_PREFIX) or len(page) < START_INFO[guest.width].size:
        return
    info = view(START_INFO[guest.width], page)
    if int(info["store_mfn"]) == pfn:
        yield "xenstore ring"
    if int(info["console_mfn"]) == pfn:
        yield "console ring"


def _p2m_pages(guest: PvGuest, pfn: int) -> Iterator[str]:
    per_page = guest.frames_per_page
    for number in np.flatnonzero(guest.p2m_frames == pfn)[:TOLD_TIMES].tolist():
        yield f"p2m page {number} (pfns {number * per_page:#x} to {(number + 1) * per_page - 1:#x})"


def _named_by_shared_info(guest: PvGuest, pfn: int) -> Iterator[str]:
    mfns = guest.source_mfns()
    if guest.shared_info is None or pfn >= len(mfns) or mfns[pfn] < 0:
        return
    arch = view(SHARED_INFO[guest.width], guest.shared_info)["arch"]
    if int(arch["pfn_to_mfn_frame_list_list"]) == mfns[pfn]:
        yield "list of the lists of p2m pages"
    if int(arch["p2m_cr3"]) and cr3_to_pfn(int(arch["p2m_cr3"]), guest.width) == mfns[pfn]:
        yield "root of the page tables that map the p2m"


def _hvm_pages(kind: HvmRestore, pfn: int) -> Iterator[str]:
    params = kind.params
    for param, role in _PARAM_PAGES.items():
        if params.get(param) == pfn:
            yield role
    first = params.get(HvmParam.IOREQ_SERVER_PFN)
    if first is not None and first <= pfn < first + params.get(HvmParam.NR_IOREQ_SERVER_PAGES, 0):
        yield f"page {pfn - first} of the ioreq servers"
    for param, role in _PARAM_ADDRESSES.items():
        address = params.get(param, 0)
        if address and address >> PAGE_SHIFT == pfn:
            yield role


def _hvm_roots(inspection: Inspection, pfn: int) -> Iterator[str]:
    for vcpu, entry in (inspection.hvm_cpus or {}).items():
        state = entry.read()
        if state.cr0 & Cr0.PG and (state.cr3 & FRAME_MASK) >> PAGE_SHIFT == pfn:
            yield f"cr3 of vcpu {vcpu}"
