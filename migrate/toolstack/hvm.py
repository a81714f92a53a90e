"""What libxc's restore does for an HVM guest (PVH guests are saved as HVM).

Source: `xg_sr_restore_x86_hvm.c`. What Xen says to the params is in `hvm_params`, to the context in `hvm_state`.
Nothing here imports numpy or construct: a filter in front of an HVM guest stays small.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from migrate.toolstack.session import Session
from migrate.xen.hvm_context import saved_vcpus
from migrate.xen.hypercalls import SetHvmContext, SetHvmParam, Step
from streams.pages import TABLE_TYPES, PfnWords
from streams.records import PageData, Place, Record
from streams.wire.framing import (
    HVM_PARAM_SIZE,
    PARAMS_HEADER,
    ParamsHeader,
    RecordType,
)
from streams.wire.hvm_names import HvmParam

if TYPE_CHECKING:
    pass

# A pfn from here on needs a populated bitmap of 2^28 bytes or more of libxc, and no x86 host has such a frame.
ABSURD_PFN = 1 << 31


class HvmRestore:
    """Records of an HVM guest, applied as libxc applies them."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.report = session.report
        self.context: Record | None = None
        self.params: dict[int, int] = {}
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
        frames = self.session.frames
        if frames is not None and frames.counting:
            frames.add_words(record.words, record.place)
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
        else:
            self._hvm_params(record)

    def _hvm_context(self, record: Record) -> None:
        """`handle_hvm_context`: kept until END."""
        if not record.body:
            self.session.refuse("REC-110", "an empty context", record.place)
            return
        self.context = record
        self.session.facts.vcpus = saved_vcpus(record.body)

    def _hvm_params(self, record: Record) -> None:
        """`handle_hvm_params`."""
        place = record.place
        body = record.body
        if body is None or len(body) < PARAMS_HEADER.size:
            self.session.refuse("REC-108", f"{place.length} bytes; at least {PARAMS_HEADER.size}", place)
            return
        header = ParamsHeader._make(PARAMS_HEADER.unpack_from(body))
        expected = PARAMS_HEADER.size + HVM_PARAM_SIZE * header.count
        if not header.count:
            self.report("REC-51", "HVM_PARAMS without params, skipped", place)
            return
        if place.length != expected:
            self.session.refuse("REC-108", f"{place.length} bytes; {header.count} params take {expected}", place)
            return
        for at in range(PARAMS_HEADER.size, expected, HVM_PARAM_SIZE):
            index = int.from_bytes(body[at : at + 8], "little")
            value = int.from_bytes(body[at + 8 : at + 16], "little")
            self._param(index, value, place, place.body + at)

    def _param(self, index: int, value: int, place: Place, offset: int) -> None:
        """One pair of HVM_PARAMS."""
        if index == HvmParam.PAE_ENABLED:
            return  # libxc drops it: PAE is always on
        known = index & 0xFFFF_FFFF  # all that is left of it on its way to Xen
        self.params[known] = value
        self.session.ask(SetHvmParam(known, value, place, offset))

    def complete(self) -> list[Step]:
        """`x86_hvm_stream_complete`."""
        context = self.context
        report = self.report
        missing = [p.name for p in (HvmParam.STORE_PFN, HvmParam.CONSOLE_PFN) if p not in self.params]
        if missing:
            report("ORD-18", f"no HVM param {' and '.join(missing)}: gfn 0 is taken for it")
        if not self.session.seen.get(RecordType.X86_TSC_INFO):
            report("ORD-15", "no X86_TSC_INFO: the guest's clock keeps the new domain's defaults")
        return [SetHvmContext(context.body if context else None, context.place if context else None)]

    def unchecked_faults(self) -> None:
        """Nothing is left to look at."""
