"""One reading of a stream, with everything kept that lets one look again."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from migrate.destination.destination import Destination
from migrate.guest.cpu_policy import read_policy
from migrate.inspection.logbook import Entry, Layer, Logbook
from migrate.judging.check import Checker, Source, destination_of, refuse_nothing
from migrate.judging.judgement import Judgement
from migrate.rules.selection import Selection
from migrate.toolstack.facts import StreamFacts
from streams.compressed import CompressedTransport
from streams.compression import CODECS
from streams.decoded import DecodedOnce
from streams.decoder import Decoder, drive
from streams.hvm_context import entries
from streams.opening import open_transport
from streams.pages import PfnWords
from streams.transports import BytesTransport, TransportError
from streams.wire.framing import PAGE_DATA_HEADER, PFN_WORD_SIZE, RecordType
from streams.wire.hvm_names import SaveType

if TYPE_CHECKING:
    from migrate.destination.host import Host
    from migrate.destination.placement import Placement
    from migrate.guest.cpu_policy import Policy
    from migrate.guest.memory import PvGuest
    from migrate.guest.pages import PageStore
    from migrate.judging.report import Report
    from migrate.xen.answers import StepAnswer
    from streams.hvm_context import HvmEntry
    from streams.transports import Transport

T = TypeVar("T")

# A stream's kind shows in its first bytes: in fewer than so many.
_HEAD = 4096
# Records whose pfn words are read in one go: each has a thousand, as savers write them.
_WORDS_AT_ONCE = 1024
# Up to so many bytes a compressed stream is decoded once, and kept.
_DECODED = 16 << 20
_POLICIES = (RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY)
# Of a longer record only so much is looked at.
_LONGEST_POLICY = 1 << 18


class NotInStream(Exception):
    """What was asked for is not in the stream; the message says what, in words for a person."""


class Inspection:
    """A stream, read once and still open.

    Attributes
    ----------
    log:
        every header, block and record, in stream order.
    judgement:
        what judging it left; `report` is its one for the destination.
    """

    def __init__(self, transport: Transport, judgement: Judgement, log: Logbook, destination: Destination) -> None:
        self.transport = transport
        self.judgement = judgement
        self.log = log
        self.destination = destination

    @cached_property
    def report(self) -> Report:
        """Verdict and findings."""
        return self.judgement.report(self.destination, Selection())

    def report_for(self, destination: Destination) -> Report:
        """Verdict and findings at another destination."""
        return self.judgement.report(destination, Selection())

    @cached_property
    def answers(self) -> list[StepAnswer]:
        """The hypercalls of the restore, in its order, each with Xen's answer."""
        return self.judgement.answers(self.destination)

    @property
    def guest(self) -> PvGuest | None:
        """The guest as reconstructed; None unless it is a PV guest, whose stream has got so far as to say so."""
        return self.judgement.pv_guest

    @property
    def placement(self) -> Placement | None:
        """Where the guest's frames would lie; None unless it is a PV guest."""
        return self.judgement.placement(self.destination.placement)

    @cached_property
    def policy(self) -> Policy:
        """What the guest was promised of its processor, as far as the stream says."""
        last = {entry.type: entry for entry in self.log if entry.layer is Layer.LIBXC and entry.type in _POLICIES}
        bodies = self.read((entry.body, min(entry.length, _LONGEST_POLICY)) for entry in last.values())
        found = dict(zip(last, bodies, strict=True))
        return read_policy(found.get(RecordType.X86_CPUID_POLICY, b""), found.get(RecordType.X86_MSR_POLICY))

    @cached_property
    def hvm_cpus(self) -> dict[int, HvmEntry] | None:
        """CPU entries of an HVM guest's vcpus, by number; None where the stream has no context that counts."""
        from migrate.toolstack.hvm import HvmRestore

        kind = self.judgement.restorer.kind
        context = kind.context if isinstance(kind, HvmRestore) else None
        if context is None or context.body is None:
            return None
        return {entry.instance: entry for entry in entries(context.body) if entry.typecode == SaveType.CPU}

    # -- bytes -------------------------------------------------------------------------------------

    def read(self, ranges: Iterable[tuple[int, int]]) -> list[bytes]:
        """Bytes of the stream: one piece per (offset, length), shorter where the input ends in it.

        A compressed stream is decoded for it once more, in all, as far as the last of them.
        """
        found = self.transport.reread(list(ranges))
        assert found is not None  # what cannot be read again was copied first
        return found

    def body(self, entry: Entry, limit: int | None = None) -> bytes:
        """The body of a record or block, or a header's bytes; at most `limit` of them."""
        return self.read([(entry.body, entry.length if limit is None else min(limit, entry.length))])[0]

    def words(self, entries: Iterable[Entry] | None = None) -> Iterator[tuple[Entry, PfnWords]]:
        """PAGE_DATA records with their pfn words, in the order given: by default all, in stream order.

        A record that claims more words than it has room for comes with none.
        """
        records = (entry for entry in (self.log if entries is None else entries) if entry.is_pages)
        while some := list(islice(records, _WORDS_AT_ONCE)):
            heads = self.read((entry.body, PAGE_DATA_HEADER.size) for entry in some)
            counts = [PAGE_DATA_HEADER.unpack(h)[0] if len(h) == PAGE_DATA_HEADER.size else 0 for h in heads]
            sizes = [
                count * PFN_WORD_SIZE if PAGE_DATA_HEADER.size + count * PFN_WORD_SIZE <= entry.length else 0
                for entry, count in zip(some, counts, strict=True)
            ]
            raws = self.read(
                (entry.body + PAGE_DATA_HEADER.size, size) for entry, size in zip(some, sizes, strict=True)
            )
            for entry, raw in zip(some, raws, strict=True):
                yield entry, PfnWords(raw[: len(raw) // PFN_WORD_SIZE * PFN_WORD_SIZE])

    @cached_property
    def _store(self) -> PageStore:
        """All pages of the stream, of whatever guest, to be found by pfn."""
        from migrate.guest.pages import PageStore

        store = PageStore(self.transport, rereads=self.transport.rereads)
        for entry, words in self.words():
            start = entry.body + PAGE_DATA_HEADER.size
            store.note_batch(start, words)
        return store

    def pages(self, pfns: Iterable[int]) -> dict[int, bytes | None]:
        """Newest contents of pages, pfns in the entries of page tables; None for one that came without any."""
        return self._store.find(pfns)


def inspect(
    source: Source,
    destination: Destination | None = None,
    *,
    target: str | None = None,
    placement: str | None = None,
    vcpus: int | None = None,
    host: Host | str | os.PathLike[str] | None = None,
    l3_rule: str | None = None,
    offset: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
    then: Callable[[Inspection], T],
) -> T:
    """Read a stream once, and do something with it while it is open.

    What cannot be read again, a pipe or a block device, is copied to a temporary file first; what is compressed is
    decoded to one, as far as it is looked at again.

    Parameters
    ----------
    then:
        gets the inspection; what it returns is returned.
    Others as for `migrate.check`.

    Raises
    ------
    OSError, TransportError
        for input that cannot be read.
    ValueError
        for an unknown target or placement.
    """
    destination = destination_of(destination, target, placement, l3_rule=l3_rule, vcpus=vcpus, host=host)
    with _rereadable(source, whole=offset > 0) as again, _opened(again) as transport:
        judgement = Judgement(transport, _name(source), destination.vcpus)
        judgement.watch_checkpoints([destination])
        log = Logbook(judgement.restorer)
        drive(Decoder(log, offset=offset).run(), transport, progress)
        refuse_nothing(source, transport, offset)
        judgement.finish(transport.position)
        return then(Inspection(transport, judgement, log, destination))


def _opened(source: Source) -> Transport:
    """The input; what is compressed is decoded here where it is little, else once more at most."""
    transport = open_transport(source)
    if not isinstance(transport, CompressedTransport):
        return transport
    once = DecodedOnce(transport)
    with suppress(TransportError):
        found = once.reread([(0, _DECODED + 1)])
        if found is not None and len(found[0]) <= _DECODED:
            once.close()
            decoded = BytesTransport(found[0])
            decoded.compression = transport.compression
            return decoded
    return once


def _name(source: Source) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else "-"


@contextmanager
def _rereadable(source: Source, *, whole: bool) -> Iterator[Source]:
    """The source, or a copy of what cannot be read again: all of it, or no more than the beginning of no stream."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield source
        return
    fd = 0 if source == "-" else source if isinstance(source, int) else None
    if fd is not None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            yield fd
            return
        with open(fd, "rb", closefd=False) as pipe, _copied(pipe, whole=whole) as copy:
            yield copy
        return
    assert isinstance(source, str | os.PathLike)
    mode = os.stat(source).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        yield source
        return
    with open(source, "rb") as pipe, _copied(pipe, whole=whole) as copy:
        yield copy


def _recognised(head: bytes) -> bool:
    """Whether an input that begins like this is a stream, or may hold one."""
    if any(codec.fits(head) for codec in CODECS):
        return True
    checker = Checker()
    checker.feed(head)
    return checker.judgement.facts.container != StreamFacts("").container


@contextmanager
def _copied(pipe: BinaryIO, *, whole: bool) -> Iterator[int]:
    with tempfile.TemporaryFile(prefix="migrate-") as file:
        head = pipe.read(_HEAD)
        file.write(head)
        if whole or _recognised(head):  # what is no stream may have no end
            shutil.copyfileobj(pipe, file, 1 << 20)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        yield file.fileno()
