"""libxc's restore as a consumer of records: the checks common to every guest, in libxc's order.

What is particular to PV guests is in `pv`, to HVM guests in `hvm`. Sources: `xg_sr_restore.c`, `xg_sr_common.c`,
`xg_sr_common_x86.c`; for the wrappers `libxl_stream_read.c`, `xl_vmcontrol.c`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from migrate.destination import releases
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, GuestKind, Layer, Severity, Stage
from migrate.rules.order import INFERS_STATIC_DATA_END, LAW, Guests, Law, laws_of
from migrate.toolstack import headers, page_batches, record_order
from migrate.toolstack.containers import ContainerChecks
from migrate.toolstack.passes import RoundCounter
from migrate.toolstack.session import Session
from migrate.xen.hypercalls import SetCpuPolicy, SetTscInfo
from streams.counting import count
from streams.pages import PfnWords
from streams.records import (
    Breach,
    Damage,
    DomainStart,
    Event,
    ImageStart,
    LibvirtStart,
    LibxlRecord,
    LibxlStart,
    PageData,
    Place,
    Recognised,
    Record,
    Trailing,
    Unread,
    XapiBlock,
    XapiStart,
    XlStart,
)
from streams.typed import Protocol
from streams.wire.framing import (
    CPUID_LEAF_SIZE,
    MSR_ENTRY_SIZE,
    PAGE_DATA_HEADER,
    TSC_INFO,
    RecordType,
    TscBody,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.toolstack.page_comparison import VerifyPhase
    from migrate.xen.hypercalls import Step
    from streams.legacy import LegacyStream

# libxc refuses longer records (REC_LENGTH_MAX), the second figure before 4.10.
MAX_RECORD = 128 << 20
MAX_RECORD_OLD = 8 << 20

# Longer bodies are not read, a PV guest's list of p2m pages apart (`Session.longest_p2m`).
LONGEST_BODY = 16 << 20
# Between two checkpoints libxc keeps all records. So many, with so many bytes besides pages, are far more than a
# saver sends.
MOST_BUFFERED = 1 << 15
MOST_BUFFERED_BYTES = 32 << 20
# Which rule each way to break the grammar breaks.
BREACHES: dict[Breach, str] = {
    Breach.IMAGE_HEADER_CUT: "HDR-01",
    Breach.IMAGE_MARKER: "HDR-02",
    Breach.IMAGE_ID: "HDR-03",
    Breach.IMAGE_VERSION: "HDR-04",
    Breach.IMAGE_BIG_ENDIAN: "HDR-05",
    Breach.DOMAIN_HEADER_CUT: "HDR-08",
    Breach.RECORD_HEADER_CUT: "FRM-01",
    Breach.RECORD_CUT: "FRM-03",
    Breach.NO_END: "FRM-08",
    Breach.XL_MAGIC: "CON-01",
    Breach.OPTIONAL_DATA_CUT: "CON-05",
    Breach.NO_LIBXL_STREAM: "CON-07",
    Breach.LIBXL_HEADER_CUT: "CON-08",
    Breach.LIBXL_VERSION: "CON-09",
    Breach.LIBXL_BIG_ENDIAN: "CON-10",
    Breach.XAPI_SIGNATURE: "CON-30",
    Breach.LIBXL_RECORD_CUT: "CON-35",
    Breach.LIBVIRT_HEADER: "CON-36",
    Breach.LIBVIRT_XML_CUT: "CON-36",
}


class Kind(Protocol):
    """What a kind of guest adds to the restore."""

    def wants_pages(self, words: PfnWords) -> Iterable[tuple[int, int]]:
        """Runs of data pages worth having."""

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        """Contents of data pages; what of them goes into the record."""

    def detach(self, record: Record | PageData) -> Record | PageData:
        """The record with all that was kept of its pages, so that it can be applied later."""

    def check_pfns(self, record: PageData, first_illegal: int) -> bool:
        """Whether every pfn of a record may be sent to this guest, up to the first illegal type."""

    def page_data(self, record: PageData, *, verifying: bool) -> None:
        """A PAGE_DATA record that passed the common checks."""

    def record(self, record: Record) -> None:
        """A record only this kind of guest knows."""

    def complete(self) -> Sequence[Step]:
        """At END: what libxc does next, its own checks included."""

    def unchecked_faults(self) -> None:
        """After END: report what no one checks, and what changes no verdict."""


class Restorer:
    """Takes what a stream says as libxc's restore would, reports what it would refuse, and goes on with the best guess.

    A `streams.decoder.Consumer`.

    Parameters
    ----------
    session:
        the restore that this is the common part of.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.collector = session.collector
        self.report = session.report
        self.facts = session.facts
        self.containers = ContainerChecks(session)
        self.kind: Kind | None = None
        self._laws: dict[int, Law] = {}  # of the records that its restore handles
        self.verify: VerifyPhase | None = None  # compares, where that was asked for
        self.rounds = RoundCounter(self.facts.rounds)
        self._policies: dict[int, Record] = {}  # the last record of each kind that may be applied
        self._last_checkpoint: Place | None = None
        self._buffered: list[Record | PageData] = []
        self._buffered_bytes = 0
        self.on_checkpoint: Callable[[Place], None] = lambda place: None
        self._completed = False

    def event(self, item: Event) -> None:
        """One thing that the stream says."""
        match item:
            case PageData() | Record():
                self.record(item)
            case LibxlRecord():
                self.containers.libxl_record(item, checkpointed=bool(self.facts.checkpoints))
            case XapiBlock():
                self.containers.xapi_block(item)
            case Damage():
                self.damage(item)
            case Trailing():
                self.trailing(item.offset, item.length, item.content)
            case ImageStart():
                headers.image_header(self.session, item.header, item.offset)
            case DomainStart():
                self._domain_header(item)
            case XlStart():
                self.containers.xl_header(item)
            case LibvirtStart():
                self.containers.libvirt_header(item)
            case LibxlStart():
                self.containers.libxl_header(item.header, item.offset)
            case Recognised() if self.facts.container == "unknown":
                self.facts.container = item.container  # the outermost container is the stream's
            case Unread():
                self.session.course.doubt = item.reason
            case Recognised() | XapiStart():
                pass
            case _:
                self._old_stream(item)

    # -- containers and headers --------------------------------------------------------------------

    def _old_stream(self, stream: LegacyStream) -> None:
        """A pre-4.6 stream: no verdict, but what it says of itself, and what became of it in its time."""
        from migrate.toolstack.old_streams import tell

        self.session.course.doubt = tell(stream, self.facts, self.session.course.doubt or "")

    def _domain_header(self, start: DomainStart) -> None:
        """The kind of guest decides who handles its records."""
        kind = headers.domain_header(self.session, start.header, start.offset)
        if kind is GuestKind.PV:
            from migrate.toolstack.pv import PvRestore

            self.kind, self._laws = PvRestore(self.session), laws_of(Guests.PV)
        elif kind is GuestKind.HVM:
            from migrate.toolstack.hvm import HvmRestore

            self.kind, self._laws = HvmRestore(self.session), laws_of(Guests.HVM)
        self.containers.image_is(kind, start.offset)

    # -- records -----------------------------------------------------------------------------------

    def wants_body(self, place: Place) -> bool:
        """FRM-02 (`read_record`), before the body is read."""
        self.facts.records += 1
        if place.length > MAX_RECORD:
            # After a checkpoint a stream that cannot be read on makes the secondary take over.
            effect = Effect.SPEC if self.facts.checkpoints else None
            self.report(
                "FRM-02",
                f"{place.name} of {count(place.length, 'byte', form='#x')}; at most {MAX_RECORD:#x}",
                place,
                effect=effect,
            )
            if not self.facts.checkpoints:
                self.session.spoil(place)
        elif place.length > MAX_RECORD_OLD:
            self.report(
                "FRM-02",
                f"{place.name} of {count(place.length, 'byte', form='#x')}; at most {MAX_RECORD_OLD:#x} before 4.10",
                place,
                until=releases.long_records,
            )
        return place.type in LAW and place.length <= self._longest_body(place.type)

    def _longest_body(self, kind: int) -> int:
        return self.session.longest_p2m if kind == RecordType.X86_PV_P2M_FRAMES else LONGEST_BODY

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
        """The pages the kind of guest needs; all, where a VERIFY phase is to be compared."""
        if self.verify is not None and self.kind is not None:
            self.kind.wants_pages(words)
            self.verify.begin()
            return ((0, words.data_pages),) if words.data_pages else ()
        return self.kind.wants_pages(words) if self.kind else ()

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        """Their contents."""
        if self.verify is not None:
            self.verify.look(data)
        return self.kind.pages(words, first, data) if self.kind else None

    def record(self, record: Record | PageData) -> None:
        """One complete record; after the first checkpoint it waits for the next (`buffer_record`)."""
        if self.facts.checkpoints and record.type not in (RecordType.END, RecordType.CHECKPOINT):
            self._buffer(record)
        else:
            self._apply(record)

    def _buffer(self, record: Record | PageData) -> None:
        self._buffered_bytes += len((record.words.raw if isinstance(record, PageData) else record.body) or b"")
        if len(self._buffered) >= MOST_BUFFERED or self._buffered_bytes > MOST_BUFFERED_BYTES:
            most = f"{MOST_BUFFERED} records, or {MOST_BUFFERED_BYTES >> 20} MiB of them"
            self.session.give_up(f"more than {most}, wait for one checkpoint")
            self._buffered.clear()
        elif not self.session.course.doubt:
            self._buffered.append(self.kind.detach(record) if self.kind else record)

    def _apply(self, record: Record | PageData) -> None:
        """`process_record`."""
        place = record.place
        if place.type != RecordType.PAGE_DATA:
            self.collector.settle()
        if any(record.padding):
            self.report("FRM-04", f"padding of {place.name} is not zero", place, offset=place.body + place.length)
        law = self._laws.get(place.type)
        if law is None:
            record_order.unhandled(self.session, place)
            return
        inferred = place.type in INFERS_STATIC_DATA_END and self.session.version < 3
        if inferred and not self.session.static_data_end:
            self._end_of_static_data()
        self.session.met_pages |= place.type == RecordType.PAGE_DATA
        if record_order.obeys(self.session, law, self._laws, record):
            record_order.remark(self.session, law, self._laws, place)
            self.session.seen[place.type] += 1
            self._process(record)

    def _process(self, record: Record | PageData) -> None:
        place = record.place
        kind = self.kind
        assert kind is not None
        if isinstance(record, PageData):
            self._page_data(record)
            return
        most = self._longest_body(place.type)
        if record.body is None and place.length > most and place.type not in _TOLD_BY_LENGTH:
            self.session.not_read(
                f"{place.name} of {count(place.length, 'byte')}: no more than {most >> 20} MiB are read"
            )
            return
        match place.type:
            case RecordType.PAGE_DATA:
                self.session.refuse("REC-01", f"{count(place.length, 'byte')}; at least {PAGE_DATA_HEADER.size}", place)
            case RecordType.END:
                self._expect_empty(place)
                self.rounds.take(record)
                self.session.course.end_offset = place.offset
                self._end_after_checkpoints()
            case RecordType.VERIFY:
                self._expect_empty(place)
                self.rounds.take(record)
                self.session.verifying = True
            case RecordType.CHECKPOINT:
                self._expect_empty(place)
                buffered, self._buffered, self._buffered_bytes = self._buffered, [], 0
                for waiting in buffered:
                    self._apply(waiting)
                self.collector.settle()
                self.rounds.take(record)
                self.facts.checkpoints += 1
                self.verify = None  # records wait for their checkpoint from now on, and only plain streams have VERIFY
                self._last_checkpoint = place
                self.on_checkpoint(place)
            case RecordType.STATIC_DATA_END:
                self._expect_empty(place)
                self._end_of_static_data()
            case RecordType.X86_TSC_INFO:
                self._tsc_info(record)
            case RecordType.X86_CPUID_POLICY | RecordType.X86_MSR_POLICY:
                self._policy(record)
            case _:
                kind.record(record)
        if self.session.version < 3 and place.type in _VERSION_3_RECORDS:
            self.report("REC-107", f"{place.name} in a version {self.session.version} image", place)
            what = f"unknown mandatory record {place.name}, which restorers know from 4.14 on"
            self.report("FRM-05", what, place, until=releases.version_3)

    def _end_after_checkpoints(self) -> None:
        """A checkpointed save has no END: where one comes, the stream is restored as a plain one."""
        if self._last_checkpoint is not None:
            self.report("ORD-19", "CHECKPOINT in a stream that goes on to END, a plain one", self._last_checkpoint)
            self.facts.checkpoints = 0
            self.session.course.end_unknown = True

    def _expect_empty(self, place: Place) -> None:
        if place.length:
            self.report("FRM-10", f"{place.name} carries {count(place.length, 'byte')}; it should be empty", place)

    def _tsc_info(self, record: Record) -> None:
        place = record.place
        if place.length != TSC_INFO.size or record.body is None:
            self.session.refuse("REC-101", f"{count(place.length, 'byte')}; expected {TSC_INFO.size}", place)
            return
        tsc = TscBody._make(TSC_INFO.unpack(record.body))
        self.session.ask(SetTscInfo(tsc.mode, tsc.khz, place))
        if tsc.reserved:
            self.report("REC-103", f"the reserved word is {tsc.reserved:#x}", place)

    def _policy(self, record: Record) -> None:
        place = record.place
        cpuid = place.type == RecordType.X86_CPUID_POLICY
        rule, size = ("REC-104", CPUID_LEAF_SIZE) if cpuid else ("REC-105", MSR_ENTRY_SIZE)
        if not place.length or place.length % size:
            self.session.refuse(
                rule, f"{count(place.length, 'byte')}; expected a multiple of {size}, and at least one", place
            )
            return
        if self.session.static_data_end:
            self.report("ORD-07", f"{place.name} after STATIC_DATA_END: stored and never applied", place)
            return
        self._policies[place.type] = record

    def _end_of_static_data(self) -> None:
        """`handle_static_data_end`: the CPU policy goes to Xen, all of it in one call."""
        self.session.static_data_end = True
        cpuid, msrs = (self._policies.get(kind) for kind in _POLICIES)
        if cpuid or msrs:
            self.session.ask(SetCpuPolicy(cpuid, msrs))

    def _page_data(self, record: PageData) -> None:
        """`handle_page_data`: the checks common to all guests, then the guest's."""
        assert self.kind is not None
        if not page_batches.passes(self.session, record, self.kind.check_pfns):
            return
        self.rounds.take(record)
        self.kind.page_data(record, verifying=self.session.verifying)
        if self.verify is not None:
            self.verify.record(record, verifying=self.session.verifying)

    # -- ends --------------------------------------------------------------------------------------

    def damage(self, damage: Damage) -> None:
        """The grammar broke."""
        if damage.breach in _END_OF_CHECKPOINTED and self.facts.checkpoints:
            self.session.course.broke_off = True
            return  # a checkpointed stream just stops
        if damage.breach is Breach.LIBXL_RECORD_CUT:
            self.containers.libxl_cut(damage)
            return
        self.session.course.broke_off = True
        if damage.place is not None and damage.place.length > MAX_RECORD:
            return  # FRM-02 has told of the length
        rule = RULES[BREACHES[damage.breach]]
        step = Stage.HEADERS if rule.layer in (Layer.HDR, Layer.CON) else Stage.RECORD
        self.report(rule.id, damage.message, damage.place, offset=damage.offset, step=step, call=damage.reader)

    def trailing(self, offset: int, length: int, content: bytes = b"") -> None:
        """Bytes after the end, and what they begin with where somebody has looked."""
        from streams.other_files import describe_suffix, find_stream

        message = count(length, "byte follows", "bytes follow") + " the end of the stream"
        message += describe_suffix(content, length, offset)
        severity = Severity.WARNING if find_stream(content) else None  # which nobody reads, and somebody saved
        end = self.session.course.end_offset  # None where a container ends without an image
        if content and not content.strip(b"\0") and end is not None and not self._has_state:
            severity = Severity.WARNING
            message += (
                f"; so is the END at {end:#x}, which no state of the guest stands before: from there on the file was "
                "never written (a full disk, or a hole in a sparse file)"
            )
        rule = "CON-22" if self.facts.container in ("libxl", "xl", "libvirt") else "FRM-09"
        self.report(rule, message, offset=offset, severity=severity)

    @property
    def _has_state(self) -> bool:
        """Whether any state of the guest's processors has come."""
        return any(map(self.session.seen.get, (RecordType.X86_PV_VCPU_BASIC, RecordType.HVM_CONTEXT)))

    def unchecked_faults(self) -> None:
        """What changes no verdict: only asked where `complete` had steps to give."""
        self.containers.finish()
        if self._completed and self.kind is not None:
            self.kind.unchecked_faults()

    def complete(self) -> Sequence[Step]:
        """What libxc would do at END; nothing where the stream never got there, or is spoiled."""
        course = self.session.course
        over = course.ended or self.facts.checkpoints
        if not over or self.kind is None or not course.end_can_be_told:
            return []
        if not self.facts.converted and not any(map(self.session.seen.get, _POLICIES)):
            self.report("ORD-08", "no CPU policy records: the toolstack makes the guest's CPUID anew")
        self._completed = True
        return self.kind.complete()


_POLICIES = (RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY)
_VERSION_3_RECORDS = frozenset(
    {RecordType.STATIC_DATA_END, RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY},
)
# Of what is wrong with these nothing but their length is to be told.
_TOLD_BY_LENGTH = frozenset(
    {
        RecordType.END,
        RecordType.VERIFY,
        RecordType.CHECKPOINT,
        RecordType.STATIC_DATA_END,
        RecordType.X86_TSC_INFO,
        RecordType.SHARED_INFO,
    }
)
_END_OF_CHECKPOINTED = frozenset({Breach.RECORD_HEADER_CUT, Breach.RECORD_CUT, Breach.NO_END, Breach.LIBXL_RECORD_CUT})
