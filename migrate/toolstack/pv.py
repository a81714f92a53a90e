"""What libxc's restore does for a PV guest.

Sources: `xg_sr_restore_x86_pv.c`, `xg_sr_common_x86_pv.c`, `handle_page_data` and `populate_pfns` of
`xg_sr_restore.c`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from migrate.destination import releases
from migrate.guest.memory import DATA, FRAMED, REFERENCED, SENT, PvGuest, TooSparseError, Vcpu, read_p2m_frames
from migrate.guest.pages import PageStore
from migrate.rules.declaring import SIGABRT, SIGSEGV, Effect
from migrate.toolstack.pv_end import complete, unchecked_faults
from migrate.xen.entries import IS_TABLE, L1TF_SAFE, looks_like_gdt
from migrate.xen.hypercalls import SetAddressSize, Step
from migrate.xen.plainly_sound import SoundnessTally
from streams.pages import FRAMELESS_TYPES, LEVEL_MASK, TYPES, PfnWords
from streams.records import PageData, Place, Record
from streams.values import replace
from streams.wire.framing import (
    MSR_ENTRY_SIZE,
    P2M_ENTRY_SIZE,
    P2M_HEADER,
    PAGE_DATA_HEADER,
    PAGE_SIZE,
    PV_INFO,
    SHARED_INFO_SIZE,
    VCPU_HEADER,
    P2mHeader,
    PvInfoBody,
    RecordType,
    VcpuHeader,
)
from streams.wire.paging import ENTRIES, FRAME_MASK, PSE
from streams.wire.start_info import MAGIC_PREFIX
from streams.wire.vcpu import CONTEXT, MAX_EXTENDED_SIZE, XSAVE_MIN_SIZE

if TYPE_CHECKING:
    from migrate.toolstack.session import Session

LEVELS = {4: 3, 8: 4}
# No PV domain can have more (MAX_VIRT_CPUS).
MAX_VCPUS = 8192
# Entries of the p2m list that may be left out before those of a record. What lies further on cannot matter: the
# END fails over the first entry that was never given, and so wide a gap is not worth its memory.
MAX_P2M_GAP = 1 << 14
# How often a compressed stream is decoded once more for pages that were not kept. Xen follows tables four levels down.
MOST_DECODINGS = 16
# Reading over so many pages that nobody wants costs less than asking twice.
READ_OVER = 4

_MAGIC = np.uint64(int.from_bytes(MAGIC_PREFIX, "little"))
_GETS_FRAME = np.array([t not in FRAMELESS_TYPES for t in range(TYPES)])

# Earlier ones call such a record truncated, or mean to skip it and fail all the same.
_EMPTY_FAILS: dict[str, Any] = {"until": releases.empty_vcpu_records_skipped}

_VCPU_PARTS = {
    RecordType.X86_PV_VCPU_BASIC: "basic",
    RecordType.X86_PV_VCPU_EXTENDED: "extended",
    RecordType.X86_PV_VCPU_XSAVE: "xsave",
    RecordType.X86_PV_VCPU_MSRS: "msrs",
}


class PvRestore:
    """Records of a PV guest, applied as libxc applies them."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.report = session.report
        transport = session.transport
        rereads = transport is not None and transport.rereads
        self.guest = PvGuest(PageStore(transport, rereads=rereads, patience=MOST_DECODINGS))
        self.tally = SoundnessTally(self.guest)
        self._peeks = not rereads
        self._looked_at: dict[int, bytes] = {}  # of the record that is being read: ordinal -> contents
        self._sure: NDArray[np.bool_] = np.zeros(0, np.bool_)  # its pages that are kept whatever they hold
        self._p2m_known = False
        self._leftovers = False  # REC-29 has been told
        self._far: dict[int, int] = {}  # types of tables, by pfn, that name pfns beyond the arrays
        self.p2m_is_sound = False  # every p2m page is one that libxc can rewrite
        self._gap = False  # the list does not begin with pfn 0
        self.places: dict[int, Place] = {}  # last record of each type

    # -- PAGE_DATA ---------------------------------------------------------------------------------

    def wants_pages(self, words: PfnWords) -> Iterable[tuple[int, int]]:
        """Page tables; everything, where nothing can be read again."""
        self._looked_at = {}  # what a record that was refused has left
        if self._peeks:
            has_data = words.has_data
            tables = IS_TABLE[words.types[has_data]]
            # Of the others, p2m pages are known by their pfn; what else is remarkable, by how it begins.
            self._sure = tables
            if not self.session.verifying:
                self._sure = tables | np.isin(words.pfns[has_data], self.guest.p2m_frames)
            return ((0, words.data_pages),) if words.data_pages else ()
        if not words.has_tables:
            return ()
        return _runs(np.flatnonzero(IS_TABLE[words.types[words.has_data]]))

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        """Keep what was asked for; where everything goes by, copy the tables and what else the end may need."""
        if not self._peeks:
            return bytes(data)
        pages = np.frombuffer(data, "<u8").reshape(-1, ENTRIES)
        keep = self._sure[first : first + len(pages)]
        if not self.session.verifying:
            keep = keep | (True if self.guest.store.keeps_all else _remarkable(pages))
        for row in np.flatnonzero(keep).tolist():
            self._looked_at[first + row] = pages[row].tobytes()
        return None

    def detach(self, record: Record | PageData) -> Record | PageData:
        """Put the pages that were looked at into the record."""
        if not self._looked_at or not isinstance(record, PageData):
            return record
        looked_at, self._looked_at = self._looked_at, {}
        return replace(record, runs=tuple(looked_at.items()))

    def check_pfns(self, record: PageData, first_illegal: int) -> bool:
        """REC-07: no pfn beyond max_pfn. Without a p2m nobody knows max_pfn."""
        if not self._p2m_known or not len(record.words):
            return True
        pfns = record.words.pfns[:first_illegal]
        beyond = pfns > self.guest.max_pfn
        if not beyond.any():
            return True
        index = int(np.argmax(beyond))
        count = int(beyond.sum())
        self.report(
            "REC-07",
            f"pfn {int(pfns[index]):#x} (word {index}) lies beyond max_pfn {self.guest.max_pfn:#x}"
            + (f", and {count - 1} more of this record" if count > 1 else ""),
            record.place,
            offset=record.place.body + PAGE_DATA_HEADER.size + 8 * index,
            pfn=int(pfns[index]),
            count=count,
        )
        return False

    def page_data(self, record: PageData, *, verifying: bool) -> None:
        """`process_page_data`: populate, set types, localise each page table as it arrives."""
        guest, words = self.guest, record.words
        pfns, types = words.pfns, words.types
        guest.named += len(words)
        guest.forget_placement()
        try:
            guest.reach(int(pfns.max()))
        except TooSparseError as error:
            self._lose_track(error)
            return
        last = _last_copies(pfns)
        guest.types[pfns[last]] = types[last]
        if not last.all():
            again = int(pfns[int(np.argmin(last))])
            self.report("REC-09", f"pfn {again:#x} comes twice: the later word counts", record.place, pfn=again)
        if types.any() and guest.width == 4:
            self._l4_in_pae(record, pfns, types)
        gets_frame = _GETS_FRAME[types]
        self._count_frames(pfns[gets_frame], record.place)
        guest.state[pfns] |= np.where(gets_frame, SENT | FRAMED, SENT).astype(np.uint8)
        if not words.data_pages:
            return
        has_data = words.has_data
        data_pfns = pfns[has_data]
        if verifying:
            self._only_verified(record, data_pfns)
        else:
            guest.state[data_pfns] |= DATA
        tables = IS_TABLE[types[has_data]]
        contents = self._contents(record)
        ordinals = np.flatnonzero(tables)
        entries = np.frombuffer(b"".join(contents[i] for i in ordinals.tolist()), "<u8").reshape(-1, ENTRIES)
        if len(ordinals) and not self._localise(record, ordinals, data_pfns, entries):
            return
        if verifying:
            return
        store = guest.store
        store.note_batch(record.place.body + PAGE_DATA_HEADER.size, words, record.data_offset)
        last = _last_copies(data_pfns)
        stale = store.tables_among(data_pfns[~tables & last])
        self.tally.forget(stale)
        store.drop_tables(stale)
        final = np.flatnonzero(last[ordinals])
        kept = ordinals[final].tolist()
        table_pfns = data_pfns[kept].tolist()
        self._enter(stale, table_pfns, types[has_data][kept].tolist(), entries[final])
        store.put_tables(table_pfns, [contents[i] for i in kept], [record.data_offset + PAGE_SIZE * i for i in kept])
        if self._peeks:
            self._keep_others(data_pfns, np.flatnonzero(~tables & last), contents)
        if self._far and self._has_room:
            self._catch_up()

    @property
    def _has_room(self) -> bool:
        """Whether the arrays may cover whatever a table can name."""
        return self._p2m_known and self.guest.room > self.guest.max_pfn

    def _enter(
        self, stale: Sequence[int], pfns: Sequence[int], types: Sequence[int], entries: NDArray[np.uint64]
    ) -> None:
        """Note tables, those that name pfns too far off to be tracked now for later."""
        for pfn in (*stale, *pfns):
            self._far.pop(pfn, None)
        if not self._has_room:
            named = np.where(entries & 1, (entries & FRAME_MASK) >> 12, 0).max(axis=1, initial=0)
            near = named < self.guest.room
            far = list(compress(pfns, ~near))
            self.tally.forget(far)
            self._far.update(zip(far, compress(types, ~near), strict=True))
            pfns, types, entries = list(compress(pfns, near)), list(compress(types, near)), entries[near]
        self.tally.enter(pfns, types, entries)

    def _lose_track(self, error: TooSparseError) -> None:
        """No verdict on the end can be given; but where it is refused already, none is needed."""
        if not self.session.course.end_unknown:
            self.session.give_up(str(error))

    def _only_verified(self, record: PageData, data_pfns: NDArray[np.int64]) -> None:
        """ORD-20: after VERIFY nothing is written."""
        new = data_pfns[self.guest.state[data_pfns] & DATA == 0]
        if len(new):
            pfn = int(new[0])
            self.report(
                "ORD-20",
                f"pfn {pfn:#x} first comes after VERIFY: it is never written",
                record.place,
                pfn=pfn,
                count=len(new),
            )

    def _l4_in_pae(self, record: PageData, pfns: NDArray[np.int64], types: NDArray[np.uint8]) -> None:
        """REC-12: a 32-bit guest has no fourth level."""
        fourth = types & LEVEL_MASK == 4
        if fourth.any():
            pfn = int(pfns[int(np.argmax(fourth))])
            self.report("REC-12", f"pfn {pfn:#x} of a 32-bit guest is typed as an L4 table", record.place, pfn=pfn)

    def _contents(self, record: PageData) -> dict[int, bytes]:
        """Contents by ordinal, of the pages that were asked for."""
        looked_at, self._looked_at = self._looked_at, {}
        return looked_at or {
            first + i: run[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
            for first, run in record.runs
            for i in range(len(run) // PAGE_SIZE)
        }

    def _localise(
        self,
        record: PageData,
        ordinals: NDArray[np.int64],
        data_pfns: NDArray[np.int64],
        entries: NDArray[np.uint64],
    ) -> bool:
        """`x86_pv_localise_page` for the tables of one record, all entries at once.

        A present entry beyond max_pfn trips an assertion; one whose pfn has no frame gets a fresh one.
        """
        guest = self.guest
        present = (entries & 1).astype(bool)
        named = np.where(present, (entries & FRAME_MASK) >> 12, 0).astype(np.int64)
        highest = int(named.max())
        if self._p2m_known and highest > guest.max_pfn:
            where = named > guest.max_pfn
            row, slot = (int(x) for x in np.argwhere(where)[0])
            table = int(data_pfns[ordinals[row]])
            self.report(
                "REC-20",
                f"page table pfn {table:#x}, entry {slot}, names pfn {int(named[row, slot]):#x} beyond max_pfn "
                f"{guest.max_pfn:#x}: libxc's assertion kills it",
                record.place,
                offset=record.data_offset + int(ordinals[row]) * PAGE_SIZE + slot * 8,
                pfn=table,
                slot=slot,
                count=int(where.sum()),
                signal=SIGABRT,
            )
            self.session.course.end_unknown = True
            return False
        near = named < guest.room
        guest.reach(int(named[near].max(initial=0)))
        if not self._leftovers:
            self._look_for_leftovers(record, ordinals, data_pfns, entries)
        self._gets_frames(named[present & near], record.place)
        return True

    def _look_for_leftovers(
        self,
        record: PageData,
        ordinals: NDArray[np.int64],
        data_pfns: NDArray[np.int64],
        entries: NDArray[np.uint64],
    ) -> None:
        """REC-29 (`pv_l1tf_check_pte`): told of the first entry."""
        levels = record.words.types[record.words.has_data][ordinals] & LEVEL_MASK
        named = (entries & FRAME_MASK != 0) & (entries & FRAME_MASK < L1TF_SAFE)
        superpage = (entries & PSE != 0) & (levels > 1)[:, None]
        leftover = (named | superpage) & (entries & 1 == 0)
        if not leftover.any():
            return
        self._leftovers = True
        row, slot = (int(x) for x in np.argwhere(leftover)[0])
        pfn = int(data_pfns[ordinals[row]])
        what = f"page table pfn {pfn:#x}, entry {slot}, is not present and names a frame"
        for does, since, until in (
            ("may switch the guest to shadow paging", releases.l1tf, releases.shadow_paging_off),
            ("crashes the guest, unless Xen was built with shadow paging", releases.shadow_paging_off, None),
        ):
            message = f"{what}: a host that guards against L1TF {does}"
            self.report("REC-29", message, record.place, pfn=pfn, slot=slot, since=since, until=until, on_host="l1tf")

    def _count_frames(self, pfns: NDArray[np.int64], place: Place) -> None:
        """CON-39: these pfns are given a frame unless they have one."""
        frames = self.session.frames
        if frames is not None and frames.counting:
            frames.add(len(np.unique(pfns[self.guest.state[pfns] & FRAMED == 0])), place)

    def _gets_frames(self, named: NDArray[np.int64], place: Place | None = None) -> None:
        """What a page table names and has no frame yet is given one."""
        fresh = named[self.guest.state[named] & FRAMED == 0]
        if fresh.size:
            if place is not None:
                self._count_frames(fresh, place)
            self.guest.state[fresh] |= FRAMED | REFERENCED

    def _catch_up(self) -> None:
        """Track the tables that named pfns too far off when they came. Raises TooSparseError where they still are."""
        far, self._far = self._far, {}
        for pfns, entries in self.guest.store.table_batches(far):
            present = (entries & 1).astype(bool)
            named = ((entries[present] & FRAME_MASK) >> 12).astype(np.int64)
            self.guest.reach(int(named.max()))
            self._gets_frames(named)
            self.tally.enter(pfns, [far[pfn] for pfn in pfns], entries)

    def _keep_others(self, pfns: NDArray[np.int64], ordinals: NDArray[np.int64], contents: dict[int, bytes]) -> None:
        """On an input that cannot be read again: keep what the end may ask for."""
        store = self.guest.store
        store.drop_others(pfns[ordinals])
        final = set(ordinals.tolist())
        store.put_others({int(pfns[i]): page for i, page in contents.items() if i in final})
        if store.crowded:
            kept = np.array(list(store.others), np.int64)
            pages = np.frombuffer(b"".join(store.others.values()), "<u8").reshape(-1, ENTRIES)
            store.squeeze(kept[_remarkable(pages) | np.isin(kept, self.guest.p2m_frames)].tolist())

    # -- other records -----------------------------------------------------------------------------

    def record(self, record: Record) -> None:
        """Records that only PV guests have."""
        self.places[record.place.type] = record.place
        match record.place.type:
            case RecordType.X86_PV_INFO:
                self._pv_info(record)
            case RecordType.X86_PV_P2M_FRAMES:
                self._p2m_frames(record)
            case RecordType.SHARED_INFO:
                self._shared_info(record)
            case kind if kind in _VCPU_PARTS:
                self._vcpu(record)

    def _pv_info(self, record: Record) -> None:
        """`handle_x86_pv_info`."""
        place = record.place
        if place.length < PV_INFO.size or record.body is None:
            self.session.refuse("REC-30", f"{place.length} bytes; expected {PV_INFO.size}", place)
            return
        info = PvInfoBody._make(PV_INFO.unpack_from(record.body))
        if LEVELS.get(info.guest_width) != info.pt_levels:
            what = f"width {info.guest_width} with {info.pt_levels} levels; expected 4 with 3 or 8 with 4"
            if info.guest_width != 4:
                self.session.refuse("REC-31", what, place, since=releases.every_release)
                return
            # Where nobody looks at the levels of a 32-bit guest, it has three all the same.
            self.report("REC-31", f"{place.name}: {what}", place)
        if any(info.reserved) or place.length > PV_INFO.size:
            self.report("REC-34", "reserved bytes of X86_PV_INFO are not zero, or there are too many", place)
        guest = self.guest
        guest.width, guest.levels = info.guest_width, LEVELS[info.guest_width]
        if guest.width == 4:
            self.session.ask(SetAddressSize(32, place))
        self.session.facts.width, self.session.facts.levels = guest.width, guest.levels

    def _p2m_frames(self, record: Record) -> None:
        """`handle_x86_pv_p2m_frames`, `expand_p2m`."""
        place, guest = record.place, self.guest
        if place.length < P2M_HEADER.size or record.body is None:
            self.session.refuse("REC-40", f"{place.length} bytes; at least {P2M_HEADER.size}", place)
            return
        header = P2mHeader._make(P2M_HEADER.unpack_from(record.body))
        if header.start_pfn > header.end_pfn:
            self.session.refuse("REC-41", f"start {header.start_pfn:#x} lies beyond end {header.end_pfn:#x}", place)
            return
        per_page = guest.frames_per_page
        start, end = header.start_pfn // per_page, header.end_pfn // per_page + 1
        expected = P2M_HEADER.size + P2M_ENTRY_SIZE * (end - start)
        if place.length != expected:
            self.session.refuse(
                "REC-42",
                f"{place.length} bytes; pfns {header.start_pfn:#x} to {header.end_pfn:#x} take {expected}",
                place,
            )
            return
        if not self._p2m_known and header.end_pfn == 0:
            self.session.refuse(
                "REC-43", "end_pfn 0: libxc allocates nothing and writes through NULL", place, signal=SIGSEGV
            )
            return
        if not self._p2m_known and start:
            self._gap = True
            self.report(
                "REC-44", f"the first p2m frames start at pfn {header.start_pfn:#x}: earlier ones stay unset", place
            )
        if self._p2m_known and not self._gap:
            self.report("REC-45", f"{place.name} again: it replaces entries, and may raise max_pfn", place)
        if start <= len(guest.p2m_frames) + MAX_P2M_GAP:
            guest.p2m_frames = read_p2m_frames(record.body, guest.p2m_frames, start, end)
        guest.max_pfn = max(guest.max_pfn, header.end_pfn) if self._p2m_known else header.end_pfn
        self.session.facts.max_pfn = guest.max_pfn
        self._p2m_known = True

    def _shared_info(self, record: Record) -> None:
        """`handle_shared_info`."""
        place = record.place
        if place.length != SHARED_INFO_SIZE or record.body is None:
            self.session.refuse("REC-100", f"{place.length} bytes; expected {SHARED_INFO_SIZE}", place)
            return
        self.guest.shared_info = record.body
        if self.guest.width == 4:
            self.report(
                "HYP-27",
                "Xen moves a 32-bit guest's shared_info below 4 GiB, and libxc maps it where it was",
                place,
                errno="EBUSY",
                placement="high",
            )

    def _vcpu(self, record: Record) -> None:
        """`handle_x86_pv_vcpu_blob`."""
        place = record.place
        if place.length < VCPU_HEADER.size or record.body is None:
            self.session.refuse("REC-50", f"{place.length} bytes; at least {VCPU_HEADER.size}", place)
            return
        header = VcpuHeader._make(VCPU_HEADER.unpack_from(record.body))
        content = record.body[VCPU_HEADER.size :]
        if header.reserved:
            self.report("REC-57", f"{place.name}: the reserved word is {header.reserved:#x}", place)
        if not content:
            what = f"{place.name} of vcpu {header.vcpu_id} is empty"
            self.report("REC-51", f"{what}, and skipped", place)
            self.report("REC-51", f"{what}: the restore fails", place, effect=Effect.REFUSED, **_EMPTY_FAILS)
            return
        limit = self.session.vcpus
        if limit is not None and header.vcpu_id >= limit:
            self.session.refuse("REC-52", f"vcpu {header.vcpu_id}; the domain has {limit}", place, vcpu=header.vcpu_id)
            return
        if len(self.guest.vcpus) >= MAX_VCPUS and header.vcpu_id not in self.guest.vcpus:
            what = f"vcpu {header.vcpu_id}, after {MAX_VCPUS} others; no domain has so many"
            self.session.refuse("REC-52", what, place, vcpu=header.vcpu_id)
            return
        part = _VCPU_PARTS[RecordType(place.type)]
        if not self._content_fits(part, content, place, header.vcpu_id):
            return
        vcpu = self.guest.vcpus.setdefault(header.vcpu_id, Vcpu())
        if getattr(vcpu, part) is not None and not self.session.facts.checkpoints:
            self.report("REC-58", f"{place.name} of vcpu {header.vcpu_id} again: the last one counts", place)
        if not self.session.met_pages and not any(v.places for v in self.guest.vcpus.values()):
            self.report("ORD-12", f"{place.name} before any page", place)
        setattr(vcpu, part, content)
        vcpu.places[part] = place

    def _content_fits(self, part: str, content: bytes, place: Place, vcpu: int) -> bool:
        """REC-53 to REC-56."""
        size = len(content)
        match part:
            case "basic":
                expected = CONTEXT[self.guest.width].sizeof()
                if size != expected:
                    early = not self.session.seen.get(RecordType.X86_PV_INFO)
                    self.session.refuse(
                        "ORD-11" if early else "REC-53",
                        f"{size} bytes of context; expected {expected} for a guest of width {self.guest.width}"
                        + (" (as libxc assumes before X86_PV_INFO)" if early else ""),
                        place,
                        vcpu=vcpu,
                    )
                    return False
            case "extended":
                if size > MAX_EXTENDED_SIZE:
                    self.session.refuse("REC-54", f"{size} bytes; at most {MAX_EXTENDED_SIZE}", place, vcpu=vcpu)
                    return False
            case "xsave":
                if size < XSAVE_MIN_SIZE:
                    self.session.refuse("REC-55", f"{size} bytes; at least {XSAVE_MIN_SIZE}", place, vcpu=vcpu)
                    return False
                if size % XSAVE_MIN_SIZE:
                    what = f"{place.name}: {size} bytes; expected a multiple of {XSAVE_MIN_SIZE}"
                    self.report("REC-55", what, place, vcpu=vcpu, until=releases.blob_lengths_checked)
            case _:
                if size % MSR_ENTRY_SIZE:
                    # Not the end of the story everywhere: releases that do not look pass it on.
                    what = f"{place.name}: {size} bytes; expected a multiple of {MSR_ENTRY_SIZE}"
                    self.report("REC-56", what, place, vcpu=vcpu)
        return True

    # -- END ---------------------------------------------------------------------------------------

    def complete(self) -> list[Step]:
        """`x86_pv_stream_complete`."""
        try:
            self._catch_up()
        except TooSparseError as error:
            self._lose_track(error)
            return []
        return complete(self)

    def unchecked_faults(self) -> None:
        """What nobody checks."""
        unchecked_faults(self)


def _runs(wanted: NDArray[np.int64]) -> Iterable[tuple[int, int]]:
    """Runs (first, length) that cover ascending integers, small gaps included."""
    if not len(wanted):
        return ()
    breaks = np.flatnonzero(np.diff(wanted) > READ_OVER) + 1
    firsts = wanted[np.concatenate([[0], breaks])]
    lasts = wanted[np.concatenate([breaks - 1, [len(wanted) - 1]])]
    return zip(firsts.tolist(), (lasts - firsts + 1).tolist(), strict=True)


def _remarkable(pages: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which pages the end may ask for, by how they begin: start_info by its magic, GDTs by their looks."""
    first = pages[:, 0]
    found: NDArray[np.bool_] = first == _MAGIC
    null = np.flatnonzero(first == 0)
    if len(null):
        found[null] |= looks_like_gdt(pages, null)
    return found


def _last_copies(pfns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which words are the last of their record to name their pfn."""
    last = np.ones(len(pfns), np.bool_)
    if len(pfns) > 1 and not (np.diff(pfns) > 0).all():
        last[:] = False
        last[len(pfns) - 1 - np.unique(pfns[::-1], return_index=True)[1]] = True
    return last
