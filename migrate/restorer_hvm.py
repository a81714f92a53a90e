"""What libxc's restore does for an HVM guest (PVH guests are saved as HVM).

Sources: `xg_sr_restore_x86_hvm.c`; `xen/common/hvm/save.c` (hvm_load); `xen/arch/x86/hvm/hvm.c` (hvm_set_param).
Nothing here imports numpy or construct: a filter in front of an HVM guest stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from migrate.hypercalls import Asked, SetHvmContext, Step
from streams.pages import TABLE_TYPES, PfnWords
from streams.records import PageData, Place, Record
from streams.wire.framing import (
    HVM_PARAM_SIZE,
    HVM_SAVE_HEADER,
    PARAMS_HEADER,
    HvmSaveHeader,
    ParamsHeader,
    RecordType,
)
from streams.wire.hvm_names import SAVE_MAGIC, HvmParam, SaveType

if TYPE_CHECKING:
    from migrate.restorer import Restorer

# A pfn from here on needs a populated bitmap of 2^28 bytes or more of libxc, and no x86 host has such a frame.
ABSURD_PFN = 1 << 31


class HvmKind:
    """Records of an HVM guest, applied as libxc applies them."""

    def __init__(self, restorer: Restorer) -> None:
        self.restorer = restorer
        self.report = restorer.report
        self.context: Record | None = None
        self.params: dict[int, int] = {}
        self._last_place: Place | None = None
        self._typed_tables = False

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
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
            self.restorer.refuse("REC-110", "an empty context", record.place)
            return
        self.context = record

    def _hvm_params(self, record: Record) -> None:
        """`handle_hvm_params`."""
        place = record.place
        body = record.body
        if body is None or len(body) < PARAMS_HEADER.size:
            self.restorer.refuse("REC-108", f"{place.length} bytes; at least {PARAMS_HEADER.size}", place)
            return
        header = ParamsHeader._make(PARAMS_HEADER.unpack_from(body))
        expected = PARAMS_HEADER.size + HVM_PARAM_SIZE * header.count
        if not header.count:
            self.report("REC-51", "HVM_PARAMS without params, skipped", place)
            return
        if place.length != expected:
            self.restorer.refuse("REC-108", f"{place.length} bytes; {header.count} params take {expected}", place)
            return
        for at in range(PARAMS_HEADER.size, expected, HVM_PARAM_SIZE):
            index = int.from_bytes(body[at : at + 8], "little")
            # The index is cut to 32 bits on its way to Xen.
            refusal = None
            if index & 0xFFFF_FFFF > max(HvmParam):
                refusal = self.report(
                    "REC-109",
                    f"HVM param {index}; Xen knows 0 to {max(HvmParam)}: hvm_set_param → -EINVAL",
                    place,
                    offset=place.body + at,
                    errno="EINVAL",
                    call="hvm_set_param",
                )
            value = int.from_bytes(body[at + 8 : at + 16], "little")
            if refusal is None:
                self.params[index & 0xFFFF_FFFF] = value
            self.restorer.calls.append(Asked("hvm_set_param", f"{param_name(index)} = {value:#x}", place, refusal))

    def complete(self) -> list[Step]:
        """`x86_hvm_stream_complete`."""
        context = self.context
        report = self.report
        missing = [p.name for p in (HvmParam.STORE_PFN, HvmParam.CONSOLE_PFN) if p not in self.params]
        if missing:
            report("ORD-18", f"no HVM param {' and '.join(missing)}: gfn 0 is taken for it")
        if not self.restorer.seen.get(RecordType.X86_TSC_INFO):
            report("ORD-15", "no X86_TSC_INFO: the guest's clock keeps the new domain's defaults")
        if context is None:
            report(
                "ORD-17",
                "no HVM_CONTEXT: sethvmcontext with nothing → -ENODATA",
                step="context",
                call="sethvmcontext",
                errno="ENODATA",
            )
            return [SetHvmContext(None, None)]
        assert context.body is not None
        problem = hvm_context_problem(context.body)
        if problem:
            report(
                "REC-111",
                f"HVM_CONTEXT: {problem.message}: sethvmcontext → -{problem.errno}",
                context.place,
                offset=context.place.body + problem.offset,
                errno=problem.errno,
                step="context",
                call="sethvmcontext",
            )
        return [SetHvmContext(context.body, context.place)]

    def unnoticed(self) -> None:
        """Nothing is left to look at."""


def param_name(index: int) -> str:
    """Name of an HVM param, or its number."""
    return HvmParam(index).name if index in list(HvmParam) else str(index)


class Problem(NamedTuple):
    """What hvm_load would stop at, and where in the context."""

    message: str
    errno: str
    offset: int


def save_entries(body: bytes) -> Iterator[tuple[int, HvmSaveHeader]]:
    """Entries of an HVM context up to END or to where the bytes run out: offset and header of each."""
    at = 0
    while at + HVM_SAVE_HEADER.size <= len(body):
        header = HvmSaveHeader._make(HVM_SAVE_HEADER.unpack_from(body, at))
        yield at, header
        if header.typecode == SaveType.END:
            return
        at += HVM_SAVE_HEADER.size + header.length


def hvm_context_problem(body: bytes) -> Problem | None:
    """The first thing about a context's entries that hvm_load refuses whatever the host; None for a good one."""
    entries = list(save_entries(body))
    if not entries or entries[0][1].typecode != SaveType.HEADER:
        return Problem("the first entry is not HEADER", "ENODATA", 0)
    at, header = entries[0]
    start = at + HVM_SAVE_HEADER.size
    magic = int.from_bytes(body[start : start + 4], "little")
    if magic != SAVE_MAGIC:
        return Problem(f"magic {magic:#x}; expected {SAVE_MAGIC:#x}", "EINVAL", start)
    for at, header in entries:
        if header.typecode > max(SaveType):
            return Problem(f"unknown typecode {header.typecode}", "EINVAL", at)
        if at + HVM_SAVE_HEADER.size + header.length > len(body):
            return Problem(
                f"{SaveType(header.typecode).name} of {header.length} bytes runs past the end", "ENODATA", at
            )
    if entries[-1][1].typecode != SaveType.END:
        return Problem("the last entry is not END", "ENODATA", len(body))
    return None
