"""What libxc's restore does for an HVM guest (PVH guests are saved as HVM).

Source: `xg_sr_restore_x86_hvm.c`. What Xen says to the params is in `hvm_params`, to the context in `hvm_state`.
Nothing here imports numpy or construct: a filter in front of an HVM guest stays small.
"""

from __future__ import annotations

from collections.abc import Iterable

from migrate.destination import releases
from migrate.toolstack.session import Session
from migrate.xen.hvm_guest import HvmGuest, has_emulated_devices, saved_vcpus
from migrate.xen.hvm_params import length_objection, pairs
from migrate.xen.hypercalls import SetHvmContext, SetHvmParam, Step
from streams.pages import TABLE_TYPES, PfnWords
from streams.records import PageData, Record
from streams.wire.framing import PARAMS_HEADER, RecordType
from streams.wire.hvm_names import HvmParam

# A pfn from here on needs a populated bitmap of 2^28 bytes or more of libxc, and no x86 host has such a frame.
ABSURD_PFN = 1 << 31


class HvmRestore:
    """Records of an HVM guest, applied as libxc applies them."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.report = session.report
        self.context: Record | None = None
        self.guest = HvmGuest()
        self.params: dict[int, int] = {}  # as they came last
        self._typed_tables = False

    def wants_pages(self, words: PfnWords) -> Iterable[tuple[int, int]]:
        """No page of an HVM guest is looked at."""
        return ()

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        """Not asked for."""
        return None

    def detach(self, record: Record | PageData) -> Record | PageData:
        """Nothing is kept beside it."""
        return record

    def check_pfns(self, record: PageData, first_illegal: int) -> bool:
        """REC-08: libxc itself has no bound."""
        words = record.words
        if not words.beyond_32_bits:
            return True
        index = next((i for i in range(first_illegal) if words.pfn(i) >= ABSURD_PFN), -1)
        if index < 0:
            return True
        self.report(
            "REC-08",
            f"pfn {words.pfn(index):#x} (word {index}) is beyond any guest's memory",
            record.place,
            pfn=words.pfn(index),
        )
        return False

    def page_data(self, record: PageData, *, verifying: bool) -> None:
        """REC-11: the types of an HVM guest's pages say nothing."""
        known = self.guest.populated.pages
        self.guest.populated.add(record.words)
        self.session.facts.pages = self.guest.populated.pages
        if self.session.frames is not None:
            self.session.frames.add(self.guest.populated.pages - known, record.place)
        if record.words.has_tables and not self._typed_tables:
            self._typed_tables = True
            self.report(
                "REC-11",
                f"pfn {record.words.pfn(record.words.first_with(TABLE_TYPES)):#x} is typed as a page table",
                record.place,
            )

    def record(self, record: Record) -> None:
        """HVM_CONTEXT and HVM_PARAMS."""
        if record.type == RecordType.HVM_CONTEXT:
            self._hvm_context(record)
        elif record.type == RecordType.HVM_PARAMS:
            self._hvm_params(record)

    def _hvm_context(self, record: Record) -> None:
        """`handle_hvm_context`: kept until END."""
        if not record.body:
            self.report("REC-110", f"{record.place.name}: an empty context", record.place)
        body = record.body or b""
        self.context = record
        self.guest.devices = has_emulated_devices(body)
        self.session.facts.vcpus = saved_vcpus(body)
        self._tell_kind()

    def _hvm_params(self, record: Record) -> None:
        """`handle_hvm_params`."""
        place, body = record.place, record.body or b""
        objection = length_objection(place.length, body)
        if objection is not None:
            message, since = objection
            if since is releases.every_release:
                self.session.refuse("REC-108", message, place)
                return
            self.report("REC-108", f"{place.name}: {message}", place, since=since)
        self._tell_kind()
        for index, value, at in pairs(body):
            self.params[index & 0xFFFF_FFFF] = value  # all that is left of the index on its way to Xen
            self.session.ask(SetHvmParam(index, value, place, place.body + at, self.guest))
        if not PARAMS_HEADER.unpack_from(body)[0]:
            self.report("REC-51", "HVM_PARAMS without params, skipped", place)

    def _tell_kind(self) -> None:
        self.guest.configured = self.session.domain_type
        if (config := self.session.config) is not None:
            self.guest.nested, self.guest.hap = config.nested_allowed, config.hap
        emulated = self.guest.emulated
        self.session.facts.pvh = None if emulated is None else not emulated

    def complete(self) -> list[Step]:
        """`x86_hvm_stream_complete`."""
        context = self.context
        report = self.report
        missing = [p.name for p in (HvmParam.STORE_PFN, HvmParam.CONSOLE_PFN) if p not in self.params]
        if missing:
            report("ORD-18", f"no HVM param {' and '.join(missing)}: gfn 0 is taken for it")
        if not self.session.seen.get(RecordType.X86_TSC_INFO):
            report("ORD-15", "no X86_TSC_INFO: the guest's clock keeps the new domain's defaults")
        self._tell_kind()
        body, place = (context.body or b"", context.place) if context else (None, None)
        return [SetHvmContext(body, place, self.guest)]

    def unchecked_faults(self) -> None:
        """Nothing is left to look at."""
