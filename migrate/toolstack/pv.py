"""What libxc's restore does for a PV guest.

Sources: `xg_sr_restore_x86_pv.c`, `xg_sr_common_x86_pv.c`, `handle_page_data` and `populate_pfns` of
`xg_sr_restore.c`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from migrate.destination import releases
from migrate.guest.memory import TooSparseError, Vcpu, read_p2m_frames
from migrate.rules.declaring import SIGSEGV, Effect
from migrate.toolstack.pv_end import complete, unchecked_faults
from migrate.toolstack.pv_pages import PvPages
from migrate.xen.hypercalls import SetAddressSize, Step
from streams.counting import count
from streams.records import Place, Record
from streams.wire.framing import (
    P2M_ENTRY_SIZE,
    P2M_HEADER,
    PV_INFO,
    SHARED_INFO_SIZE,
    VCPU_HEADER,
    P2mHeader,
    PvInfoBody,
    RecordType,
    VcpuHeader,
)
from streams.wire.vcpu import CONTEXT, MAX_EXTENDED_SIZE, MSR_ENTRY, XSAVE_MIN_SIZE

if TYPE_CHECKING:
    from migrate.toolstack.session import Session

LEVELS = {4: 3, 8: 4}
# No PV domain can have more (MAX_VIRT_CPUS).
MAX_VCPUS = 8192
# Entries of the p2m list that may be left out before those of a record. What lies further on cannot matter: the
# END fails over the first entry that was never given, and so wide a gap is not worth its memory.
MAX_P2M_GAP = 1 << 14
# Earlier ones call such a record truncated, or mean to skip it and fail all the same.
_EMPTY_FAILS: dict[str, Any] = {"until": releases.empty_vcpu_records_skipped}

_VCPU_PARTS = {
    RecordType.X86_PV_VCPU_BASIC: "basic",
    RecordType.X86_PV_VCPU_EXTENDED: "extended",
    RecordType.X86_PV_VCPU_XSAVE: "xsave",
    RecordType.X86_PV_VCPU_MSRS: "msrs",
}


class PvRestore(PvPages):
    """Records of a PV guest, applied as libxc applies them."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.p2m_is_sound = False  # every p2m page is one that libxc can rewrite
        self._gap = False  # the list does not begin with pfn 0
        self.places: dict[int, Place] = {}  # last record of each type

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
            self.session.refuse("REC-30", f"{count(place.length, 'byte')}; expected {PV_INFO.size}", place)
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
            self.session.refuse("REC-40", f"{count(place.length, 'byte')}; at least {P2M_HEADER.size}", place)
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
                f"{count(place.length, 'byte')}; pfns {header.start_pfn:#x} to {header.end_pfn:#x} take {expected}",
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
            if P2M_ENTRY_SIZE * end > self.session.longest_p2m:
                self.session.give_up(f"{place.name} up to pfn {header.end_pfn:#x}: a longer list than is read")
                return
            guest.p2m_frames = read_p2m_frames(record.body, guest.p2m_frames, start, end)
        guest.max_pfn = max(guest.max_pfn, header.end_pfn) if self._p2m_known else header.end_pfn
        self.session.facts.max_pfn = guest.max_pfn
        self._p2m_known = True

    def _shared_info(self, record: Record) -> None:
        """`handle_shared_info`."""
        place = record.place
        if place.length != SHARED_INFO_SIZE or record.body is None:
            self.session.refuse("REC-100", f"{count(place.length, 'byte')}; expected {SHARED_INFO_SIZE}", place)
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
            self.session.refuse("REC-50", f"{count(place.length, 'byte')}; at least {VCPU_HEADER.size}", place)
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
        if part in vcpu.parts and not self.session.facts.checkpoints:
            self.report("REC-58", f"{place.name} of vcpu {header.vcpu_id} again: the last one counts", place)
        if not self.session.met_pages and not any(v.places for v in self.guest.vcpus.values()):
            self.report("ORD-12", f"{place.name} before any page", place)
        vcpu.parts[part] = self.guest.stash.put(content, vcpu.parts.get(part))
        vcpu.places[part] = place

    def _content_fits(self, part: str, content: bytes, place: Place, vcpu: int) -> bool:
        """REC-53 to REC-56."""
        size = len(content)
        match part:
            case "basic":
                expected = CONTEXT[self.guest.width].size
                if size != expected:
                    early = not self.session.seen.get(RecordType.X86_PV_INFO)
                    self.session.refuse(
                        "ORD-11" if early else "REC-53",
                        f"{count(size, 'byte')} of context; expected {expected} for a guest of width {self.guest.width}"
                        + (" (as libxc assumes before X86_PV_INFO)" if early else ""),
                        place,
                        vcpu=vcpu,
                    )
                    return False
            case "extended":
                if size > MAX_EXTENDED_SIZE:
                    self.session.refuse(
                        "REC-54", f"{count(size, 'byte')}; at most {MAX_EXTENDED_SIZE}", place, vcpu=vcpu
                    )
                    return False
            case "xsave":
                if size < XSAVE_MIN_SIZE:
                    self.session.refuse("REC-55", f"{count(size, 'byte')}; at least {XSAVE_MIN_SIZE}", place, vcpu=vcpu)
                    return False
                if size % XSAVE_MIN_SIZE:
                    what = f"{place.name}: {count(size, 'byte')}; expected a multiple of {XSAVE_MIN_SIZE}"
                    self.report("REC-55", what, place, vcpu=vcpu, until=releases.blob_lengths_checked)
            case _:
                if size % MSR_ENTRY.size:
                    # Not the end of the story everywhere: releases that do not look pass it on.
                    what = f"{place.name}: {count(size, 'byte')}; expected a multiple of {MSR_ENTRY.size}"
                    self.report("REC-56", what, place, vcpu=vcpu)
        return True

    # -- END ---------------------------------------------------------------------------------------

    def complete(self) -> Sequence[Step]:
        """`x86_pv_stream_complete`."""
        try:
            if self._far:
                self._catch_up()
        except TooSparseError as error:
            self._lose_track(error)
            return []
        return complete(self)

    def unchecked_faults(self) -> None:
        """What nobody checks."""
        unchecked_faults(self)
