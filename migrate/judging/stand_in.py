"""Is a stream well formed? What Xen's own verify-stream-v2 asks, with the answers of this validator.

What the hypervisor answers to well-formed contents (registers, CPU policies, HVM contexts and params), and what only
the whole of a guest tells (rules XRC, HYP and L3C), is left to `migrate check`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from migrate.destination.destination import Destination
from migrate.judging.judgement import Judgement
from migrate.rules.declaring import Effect, Layer, Stage
from migrate.rules.findings import Finding
from migrate.rules.selection import Selection
from migrate.toolstack.hvm import HvmRestore
from migrate.toolstack.restore import Restorer
from streams.counting import count
from streams.decoder import Decoder, drive
from streams.pipes import PipeTransport
from streams.records import (
    DomainStart,
    Event,
    ImageStart,
    LibxlRecord,
    LibxlStart,
    PageData,
    Recognised,
    Record,
    XlStart,
)
from streams.transports import FileTransport
from streams.values import dataclass
from streams.wire.framing import LibxlRecordType, RecordType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.rules.declaring import Rule
    from streams.transports import Transport

FORMATS = ("libxc", "libxl", "xl")
VERIFIER = "verify-stream-v2"
_DESTINATION = Destination(placement="low")  # where frames land is no matter of structure
_STRUCTURE = frozenset({Layer.CON, Layer.HDR, Layer.FRM, Layer.REC, Layer.ORD})
_BY_CONFIGURATION = frozenset({"CON-37", "CON-38", "CON-39", "CON-40"})  # of which the verifier knows nothing
# Enforced by others, and in their lesser form by the verifier as well.
_IN_THE_LESSER_FORM = frozenset({"HDR-10"})


class WrongFormatError(Exception):
    """The stream is of another kind than was asked for."""


@dataclass(frozen=True, slots=True)
class StructureResult:
    """What was found.

    Attributes
    ----------
    objections:
        the findings that make the stream a bad one, in stream order.
    unread:
        why the stream was not read, where it was not.
    """

    objections: list[Finding]
    unread: str | None = None

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.objections and self.unread is None


def minds(finding: Finding) -> bool:
    """Whether a finding makes a stream a bad one: the toolstack refuses its form, or the verifier objects."""
    if finding.rule.layer not in _STRUCTURE or finding.step is Stage.DEVICE_MODEL:
        return False
    if finding.rule.id in _BY_CONFIGURATION:
        return False
    if finding.effect is Effect.HYPERCALL:
        # Contents are the hypervisor's business; that there are any at all is a matter of form.
        return finding.rule.layer is Layer.ORD
    return finding.fatal or (finding.effect is Effect.SPEC and _verifier_minds(finding.rule))


def _verifier_minds(rule: Rule) -> bool:
    return VERIFIER in rule.enforced_by or rule.id in _IN_THE_LESSER_FORM


class _Narrator(Restorer):
    """Takes a stream of one format, and tells what is in it.

    Parameters
    ----------
    judgement:
        what it is part of.
    form:
        the format, one of `FORMATS`.
    say:
        takes each line.
    """

    def __init__(self, judgement: Judgement, form: str, say: Callable[[str], None] | None) -> None:
        super().__init__(judgement.session)
        self._form = form
        self._say = say or (lambda line: None)
        self._page_records = 0

    def event(self, item: Event) -> None:
        """Told in a line, PAGE_DATA records by their number."""
        match item:
            case Recognised(name) if name != self._form and name in (*FORMATS, "libvirt", "xapi"):
                raise WrongFormatError(f"the stream is of format {name}, not {self._form}")
            case PageData():
                self._page_records += 1
            case _ if line := self._line(item):
                self._tell_pages()
                self._say(line)
        super().event(item)
        if isinstance(item, DomainStart):
            by = "the legacy converter" if self.facts.converted else f"Xen {self.facts.xen}"
            self._say(f"libxc domain header: {(self.facts.guest or 'unknown').upper()}, from {by}")

    def _line(self, item: Event) -> str | None:
        match item:
            case XlStart():
                return f"xl header: {count(item.header.optional_data_len, 'byte')} of optional data"
            case LibxlStart():
                return f"libxl header: version {item.header.version}, options {item.header.options:#x}"
            case LibxlRecord():
                known = item.type in LibxlRecordType.__members__.values()
                name = LibxlRecordType(item.type).name if known else f"type {item.type:#x}"
                return f"libxl record {item.index}: {name}, {count(item.length, 'byte')}"
            case ImageStart():
                return f"libxc image header: version {item.header.version}"
            case Record(place) if place.type == RecordType.PAGE_DATA:
                self._page_records += 1
            case Record(place):
                return f"libxc record {place.index}: {place.name}, {count(place.length, 'byte')}"
        return None

    def _tell_pages(self) -> None:
        if self._page_records:
            self._say(f"libxc records: {self._page_records} of PAGE_DATA")
            self._page_records = 0


def verify(fd: int, form: str = "libxc", say: Callable[[str], None] | None = None) -> StructureResult:
    """Judge the structure of the stream that a descriptor holds, from where it stands.

    Not a byte after the stream's end is read, and there the descriptor is left, be it of a file or of a pipe.

    Parameters
    ----------
    form:
        what the stream is: libxc, libxl or xl.
    say:
        takes lines that tell what is in the stream, as it is read.

    Raises
    ------
    OSError, TransportError
        for input that cannot be read.
    """
    seekable = _is_regular(fd)
    start = os.lseek(fd, 0, os.SEEK_CUR) if seekable else 0
    transport: Transport = FileTransport(fd) if seekable else PipeTransport(fd)
    judgement = Judgement(transport, "-", None)
    narrator = judgement.restorer = _Narrator(judgement, form, say)
    try:
        complete = drive(Decoder(narrator, drain=False).run(), transport)
        judgement.finish(transport.position)
        findings = _findings(judgement)
    except WrongFormatError as error:
        return StructureResult([], str(error))
    finally:
        if seekable:
            os.lseek(fd, start + transport.position, os.SEEK_SET)
        transport.close()
    unread = None
    course = judgement.session.course
    if not complete and not course.broke_off:
        unread = course.doubt
    return StructureResult([finding for finding in findings if minds(finding)], unread)


def _findings(judgement: Judgement) -> list[Finding]:
    """What may be wrong with a stream's form."""
    kind = judgement.restorer.kind
    if isinstance(kind, HvmRestore) and kind.context is not None:
        # Xen has no word in it: that the context is there is all that it looks for in an HVM guest's form.
        return judgement.told_by_toolstack(_DESTINATION)
    return judgement.report(_DESTINATION, Selection((), ())).findings


def _is_regular(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return stat.S_ISREG(mode)
