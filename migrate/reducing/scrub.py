"""A stream without the guest's memory in it, and with the same findings: for bug reports.

    with open("scrubbed.xl", "wb") as out:
        scrubbed = scrub("guest.xl", out)

Zeros take the place of whatever neither the toolstack nor Xen looks at when it restores the guest. Nothing
moves: every record, every pfn and every finding stays where it was, but for those of a comparison of pages after
a VERIFY record. What is left is listed, as a report's reader may learn from it where pages are, what the vcpus were
about, and how the domain is configured.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from migrate.destination.placement import NAMES as PLACEMENTS
from migrate.judging.check import judge
from migrate.reducing.device_state import private_ranges
from migrate.reducing.items import CHANGED, state_of
from migrate.reducing.pages_read import Batch, Needed, as_array, frames, levels
from migrate.rules.findings import Finding
from migrate.toolstack.restore import MAX_RECORD
from streams.containers import BODY_LIMIT
from streams.decoder import Consumer, Decoder, drive
from streams.hvm_context import entries
from streams.opening import open_transport
from streams.other_files import MAGICS_TOLD_BY, find_stream
from streams.pages import PfnWords
from streams.records import (
    Breach,
    Damage,
    DomainStart,
    Event,
    LibvirtStart,
    LibxlRecord,
    PageData,
    Place,
    Record,
    Trailing,
    Unread,
    XapiBlock,
    XlStart,
)
from streams.values import replace
from streams.wire.framing import (
    EMULATOR_HEADER,
    HVM_SAVE_HEADER,
    P2M_ENTRY_SIZE,
    P2M_HEADER,
    PAGE_SIZE,
    PV_INFO,
    RECORD_HEADER,
    SHARED_INFO_SIZE,
    VCPU_HEADER,
    XAPI_BLOCK_HEADER,
    XAPI_LENGTH_UNREAD,
    GuestType,
    LibxlRecordType,
    PvInfoBody,
    RecordType,
    VcpuHeader,
    XapiBlockId,
    libxl_record_name,
    record_name,
)
from streams.wire.hvm_cpu import CPU, XSAVE, CpuFlag
from streams.wire.hvm_names import SaveType
from streams.wire.shared_info import SHARED_INFO
from streams.wire.start_info import START_INFO
from streams.wire.vcpu import CONTEXT, XSAVE_MIN_SIZE
from streams.wire.views import view
from streams.wire.xstate import FXSAVE, XSAVE_LEGACY_SIZE

if TYPE_CHECKING:
    from migrate.judging.check import Source
    from migrate.judging.judgement import Judgement
    from migrate.judging.report import Report

PIECE = 1 << 20
_ZEROS = bytes(PIECE)
_FPU_SIZE = FXSAVE.size
_CONTEXT_WIDTH = {layout.size: width for width, layout in CONTEXT.items()}
Pfns = NDArray[np.int64]
Range = tuple[int, int]  # offset and length, in bytes


# Rules whose message quotes what follows the end.
_QUOTES = frozenset({"CON-22", "FRM-09"})
_ENDS_EARLY = frozenset({Breach.RECORD_HEADER_CUT, Breach.RECORD_CUT, Breach.NO_END})


# What there may be several of, and what they are called then; of records it is the record's name.
_SEVERAL = {
    "page that a table names as a table": "pages that tables name as tables",
    "vcpu's registers, its FPU's apart": "vcpus' registers, their FPU's apart",
    "vcpu's FPU registers": "vcpus' FPU registers",
    "vcpu's extended state": "vcpus' extended states",
    "device model's data": "device models' data",
    "device model's state, its data apart": "device models' states, their data apart",
    "start_info page, its command line apart": "start_info pages, their command lines apart",
    "end of a start_info page": "ends of start_info pages",
    "end of shared_info, which belongs to nobody": "ends of shared_info, which belong to nobody",
    "command line": "command lines",
    "page table": "page tables",
    "page": "pages",
    "p2m page": "p2m pages",
    "GDT page": "GDT pages",
    "PAGE_DATA record of a wrong length": "PAGE_DATA records of a wrong length",
    "record that no restore reads": "records that no restore reads",
    "byte after the end": "bytes after the end",
    "byte from where the stream breaks off": "bytes from where the stream breaks off",
    "xapi block": "xapi blocks",
}


def called(what: str, number: int) -> str:
    """What so many of a kind of content are called."""
    return what if number == 1 else _SEVERAL.get(what, what)


class ScrubError(ValueError):
    """The stream cannot be scrubbed; the text says why."""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What became of a stream.

    Attributes
    ----------
    size:
        of the stream, before and after.
    zeroed, left:
        how often each kind of content was made zero, and was left as it is; see `called`.
    """

    size: int
    zeroed: dict[str, int]
    left: dict[str, int]


def scrub(source: Source, out: IO[bytes]) -> Scrubbed:
    """Write a stream with zeros for all that its judgement does not need; uncompressed, whatever it was.

    Parameters
    ----------
    source:
        a path, or the stream's bytes: it is read twice.
    out:
        takes as many bytes as the stream has.

    Raises
    ------
    ScrubError
        for an input that cannot be read twice, or is changed meanwhile, and for a kind of stream that is not read.
    OSError, TransportError
        for one that cannot be read at all.
    """
    if isinstance(source, str | os.PathLike) and os.path.exists(source) and not os.path.isfile(source):
        raise ScrubError("not a regular file; the stream is read twice")
    before = state_of(source)
    look = _Look()
    with open_transport(source) as transport:
        drive(Decoder(look).run(), transport)
        if look.unread is not None:
            raise ScrubError(look.unread)
        if look.broken and look.rest is None:
            look.rest = transport.position
        look.finish(source)
    with open_transport(source) as transport:
        size = _copy(transport, out, look.ranges(), look.rest)
    if state_of(source) != before:
        raise ScrubError(CHANGED)
    if look.rest is not None and look.rest < size:
        look.zeroed["byte from where the stream breaks off"] = size - look.rest
    return Scrubbed(size, dict(+look.zeroed), dict(+look.left))


def _copy(transport: Any, out: IO[bytes], ranges: Iterable[Range], rest: int | None) -> int:
    """Copy all that is in no range, zeros in place of what is; and zeros from `rest` on."""
    for offset, length in ranges:
        _pass_on(transport, out, offset - transport.position)
        done = transport.skip(length)
        _write_zeros(out, done)
    _pass_on(transport, out, None if rest is None else rest - transport.position)
    if rest is not None:
        while done := transport.skip(PIECE):
            _write_zeros(out, done)
    return int(transport.position)


def _pass_on(transport: Any, out: IO[bytes], count: int | None) -> None:
    while count is None or count > 0:
        data = transport.give(PIECE if count is None else min(count, PIECE))
        if not len(data):
            return
        out.write(data)
        if count is not None:
            count -= len(data)


def _write_zeros(out: IO[bytes], count: int) -> None:
    while count > 0:
        count -= out.write(_ZEROS[:count])


def changed(before: Source, after: Source, *, target: str = "newest", vcpus: int | None = None) -> str | None:
    """How the judgement of a scrubbed stream differs from the original's; None where it is the same.

    Verdicts and findings are compared under every placement, findings with their places.
    """
    from migrate.destination.destination import Destination
    from migrate.rules.selection import Selection

    def reports(judgement: Judgement) -> list[Report]:
        return [judgement.report(Destination(target, placement), Selection()) for placement in PLACEMENTS]

    pairs = zip(judge(before, vcpus=vcpus, then=reports), judge(after, vcpus=vcpus, then=reports), strict=True)
    for placement, (was, now) in zip(PLACEMENTS, pairs, strict=True):
        if any(getattr(was, name) != getattr(now, name) for name in ("verdict", "failure", "reason")):
            return f"under placement {placement}, the verdict was {was.verdict} and is {now.verdict}"
        found, still = comparable(was.findings), comparable(now.findings)
        lost = [f.rule.id for f in found if f not in still]
        new = [f.rule.id for f in still if f not in found]
        if lost or new:
            return f"under placement {placement}, findings are lost ({', '.join(lost)}) or new ({', '.join(new)})"
    return None


def comparable(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without what they quote of a stream: the text behind its end, of which one letter is left."""
    return [replace(found, message="") if found.rule.id in _QUOTES else found for found in findings]


# -- the first reading ------------------------------------------------------------------------------


class _Look(Consumer):
    """Looks a stream through: what can go at once, and what tells which pages are needed."""

    def __init__(self) -> None:
        self._starts = array("Q")  # of what becomes zero, and how long it is
        self._lengths = array("Q")
        self.rest: int | None = None  # from here on nobody reads
        self.broken = False
        self.unread: str | None = None
        self.zeroed: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.pv = False
        self.width: int | None = None
        self.batches: list[Batch] = []
        self.needed = Needed()
        self._names: dict[int, Pfns] = {}  # by tables of the record that is being read
        self._verifying = False

    def _zero(self, what: str, offset: int, length: int, count: int = 1) -> None:
        if length > 0:
            self._starts.append(offset)
            self._lengths.append(length)
            self.zeroed[what] += count

    def ranges(self) -> Iterator[Range]:
        """What becomes zero, in the order of the stream."""
        starts, lengths = (np.frombuffer(column, np.int64) for column in (self._starts, self._lengths))
        order = starts.argsort(kind="stable")
        return ((int(starts[at]), int(lengths[at])) for at in order)

    # -- streams.decoder.Consumer ------------------------------------------------------------------

    def event(self, item: Event) -> None:
        """Take note of what stays, and zero what nobody reads."""
        match item:
            case XlStart() if item.optional_data:
                self.left["xl's configuration of the domain"] += 1
            case LibvirtStart():
                self.left["libvirt's XML of the domain"] += 1
            case LibxlRecord():
                self._libxl_record(item)
            case XapiBlock() if item.id not in XAPI_LENGTH_UNREAD:
                self._xapi_block(item)
            case DomainStart():
                self.pv = item.header.type == GuestType.PV
            case PageData() | Record():
                self._record(item)
            case Damage():
                self.broken = True
                if item.breach in _ENDS_EARLY:  # of a record that the input ends in nothing is used
                    header = XAPI_BLOCK_HEADER if item.reader == "xapi" else RECORD_HEADER
                    self.rest = item.offset + header.size
            case Unread():
                self.unread = item.reason
            case Trailing():
                self._behind(item)

    def _libxl_record(self, record: LibxlRecord) -> None:
        """Of a device model's state only what is looked at stays."""
        body = record.offset + RECORD_HEADER.size
        if record.type == LibxlRecordType.EMULATOR_CONTEXT:
            header = EMULATOR_HEADER.size
            state, size = record.body[header:], max(0, record.length - header)
            if record.missing:  # libxl takes what is missing for zeros
                self._state(state.ljust(min(size, BODY_LIMIT), b"\0"), size, body + header, len(state))
            else:
                self._state(state, size, body + header, size)
        elif record.length:
            self.left[f"libxl {libxl_record_name(record.type)}"] += 1

    def _xapi_block(self, block: XapiBlock) -> None:
        """Of all blocks but xenopsd's own and the device model's nothing is looked at."""
        if block.id == XapiBlockId.XENOPS:
            self.left["xenopsd's state of the domain"] += 1
            return
        start = block.offset + XAPI_BLOCK_HEADER.size
        if block.id == XapiBlockId.QEMU_TRAD:
            self._state(block.body, block.length, start, block.length)
        else:
            self._zero("xapi block", start, block.length)

    def _state(self, state: bytes, size: int, start: int, there: int) -> None:
        """A device model's state of a size, of which `there` bytes are in the stream from `start` on."""
        for at, length in private_ranges(state, size):
            self._zero("device model's data", start + at, max(0, min(length, there - at)))
        if there > len(state):  # more than any state has: nobody looks further
            self._zero("device model's data", start + len(state), there - len(state))
        self.left["device model's state, its data apart"] += 1

    def _behind(self, item: Trailing) -> None:
        """Of what follows the end that stays by which one tells another stream, zeros and all else apart."""
        another = find_stream(item.content)
        at = len(item.content) - len(item.content.lstrip(b"\0")) if another is None else another.offset
        end = min(item.length, at + (1 if another is None else MAGICS_TOLD_BY))
        for start, length in ((0, at), (end, item.length - end)):
            self._zero("byte after the end", item.offset + start, length, length)

    def wants_body(self, place: Place) -> bool:
        """Bodies that are looked into."""
        return place.type in _LOOKED_INTO and place.length <= MAX_RECORD

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[Range]:
        """Tables of level 2 and up of a PV guest: what they name is read as a table."""
        self._names = {}
        if not self.pv or not words.has_tables:
            return ()
        upper = levels(words) >= 2
        return ((int(ordinal), 1) for ordinal in np.flatnonzero(upper))

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        """What the table names."""
        self._names[first] = frames(np.frombuffer(data, "<u8"))
        return None

    def _record(self, record: Record | PageData) -> None:
        """A record."""
        place = record.place
        if isinstance(record, PageData):
            self._page_data(record)
            return
        if place.type == RecordType.CHECKPOINT:
            self.needed.settle()
        self._verifying |= place.type == RecordType.VERIFY
        if place.type in _UNREAD or record_name(place.type) not in RecordType.__members__:
            self._zero("record that no restore reads", place.body, place.length)
            return
        if record.body is not None:
            look = getattr(self, _LOOKED_INTO[RecordType(place.type)])
            look(place, record.body)
        elif place.length:
            self.left[place.name] += 1

    # -- records -----------------------------------------------------------------------------------

    def _page_data(self, record: PageData) -> None:
        place, words = record.place, record.words
        end = place.body + place.length
        if record.data_offset + words.data_pages * PAGE_SIZE != end or len(words) != record.count:
            self._zero("PAGE_DATA record of a wrong length", record.data_offset, end - record.data_offset)
        elif self.pv:
            batch = Batch(words.pfns[words.has_data], levels(words), record.data_offset)
            self.batches.append(batch)
            if not self._verifying:  # what comes to be compared is not kept
                self.needed.batch(batch, self._names)
        else:
            self._zero("page", record.data_offset, end - record.data_offset, words.data_pages)

    def _pv_info(self, place: Place, body: bytes) -> None:
        if len(body) >= PV_INFO.size:
            width = PvInfoBody._make(PV_INFO.unpack_from(body)).guest_width
            self.width = width if width in CONTEXT else None

    def _p2m_frames(self, place: Place, body: bytes) -> None:
        listed = body[P2M_HEADER.size :]
        whole = len(listed) // P2M_ENTRY_SIZE * P2M_ENTRY_SIZE
        self.needed.p2m |= set(np.frombuffer(listed[:whole], "<i8").tolist())
        self.left[place.name] += 1

    def _shared_info(self, place: Place, body: bytes) -> None:
        if len(body) == SHARED_INFO_SIZE:
            used = max(layout.size for width, layout in SHARED_INFO.items() if self.width in (width, None))
            self._zero("end of shared_info, which belongs to nobody", place.body + used, len(body) - used)
        self.left[place.name] += 1

    def _basic(self, place: Place, body: bytes) -> None:
        content = body[VCPU_HEADER.size :]
        width = _CONTEXT_WIDTH.get(len(content))
        self.left["vcpu's registers, its FPU's apart"] += 1
        if width is None:
            return
        start = place.body + VCPU_HEADER.size + CONTEXT[width].offset("fpu_ctxt")
        self._zero("vcpu's FPU registers", start, _FPU_SIZE)
        vcpu = VcpuHeader._make(VCPU_HEADER.unpack_from(body)).vcpu_id
        self.needed.context(vcpu, view(CONTEXT[width], content), width)

    def _xsave(self, place: Place, body: bytes) -> None:
        start, length = place.body + VCPU_HEADER.size, len(body) - VCPU_HEADER.size
        self._xsave_area(start + XSAVE_MIN_SIZE, length - XSAVE_MIN_SIZE)

    def _xsave_area(self, offset: int, length: int) -> None:
        """The legacy image and the extended components; the header between them is looked at."""
        if length < XSAVE_LEGACY_SIZE:
            return
        self._zero("vcpu's extended state", offset, _FPU_SIZE)
        self._zero("vcpu's extended state", offset + XSAVE_LEGACY_SIZE, length - XSAVE_LEGACY_SIZE, 0)

    def _hvm_context(self, place: Place, body: bytes) -> None:
        self.left["HVM_CONTEXT, the FPUs' registers apart"] += 1
        for entry in entries(body):
            start = place.body + entry.offset + HVM_SAVE_HEADER.size
            if entry.typecode == SaveType.CPU:
                gone = _seen_of_fpu(entry.body)
                self._zero("vcpu's FPU registers", start + gone, min(len(entry.body), _FPU_SIZE) - gone)
            elif entry.typecode == SaveType.CPU_XSAVE:
                words = XSAVE.offset("fxsave")
                self._xsave_area(start + words, len(entry.body) - words)

    # -- pages -------------------------------------------------------------------------------------

    def finish(self, source: Source) -> None:
        """The stream is over: of a PV guest's pages, keep those that are needed."""
        needed = self.needed
        if self.batches:
            needed.finish(source)
        kept = {
            "p2m page": as_array(needed.p2m),
            "GDT page": as_array(needed.gdts),
            "page that a table names as a table": as_array(needed.suspects),
        }
        whole = np.concatenate(list(kept.values()))
        starts = np.setdiff1d(as_array(needed.start_infos), whole)
        for batch in self.batches:
            pfns, others = batch.pfns, batch.levels == 0
            is_start = others & np.isin(pfns, starts)
            gone = np.flatnonzero(others & ~is_start & ~np.isin(pfns, whole))
            for ordinal in np.flatnonzero(is_start).tolist():
                self._start_info(batch.data_offset + ordinal * PAGE_SIZE)
            for run in np.split(gone, np.flatnonzero(np.diff(gone) != 1) + 1) if len(gone) else ():
                self._zero("page", batch.data_offset + int(run[0]) * PAGE_SIZE, len(run) * PAGE_SIZE, len(run))
            self.left["page table"] += len(pfns) - int(others.sum())
            for what, some in kept.items():
                self.left[what] += int((others & np.isin(pfns, some)).sum())

    def _start_info(self, offset: int) -> None:
        self.left["start_info page, its command line apart"] += 1
        if self.width is None:  # either layout may be what it has
            first = min(layout.offset("cmd_line") for layout in START_INFO.values())
            self._zero("command line", offset + first, PAGE_SIZE - first)
            return
        layout = START_INFO[self.width]
        command_line = layout.field("cmd_line")
        self._zero("command line", offset + command_line.offset, command_line.size)
        self._zero("end of a start_info page", offset + layout.size, PAGE_SIZE - layout.size)


def _seen_of_fpu(entry: bytes) -> int:
    """Up to which byte of a CPU entry it shows that there is something in an FPU that is said not to be used."""
    fpu = entry[:_FPU_SIZE]
    if len(entry) != CPU.size or CPU.read(entry).flags & CpuFlag.FPU_USED or not any(fpu):
        return 0
    return len(fpu) - len(fpu.lstrip(b"\0")) + 1


_LOOKED_INTO = {
    RecordType.X86_PV_INFO: "_pv_info",
    RecordType.X86_PV_P2M_FRAMES: "_p2m_frames",
    RecordType.SHARED_INFO: "_shared_info",
    RecordType.X86_PV_VCPU_BASIC: "_basic",
    RecordType.X86_PV_VCPU_XSAVE: "_xsave",
    RecordType.HVM_CONTEXT: "_hvm_context",
}
_UNREAD = (RecordType.TOOLSTACK,)
