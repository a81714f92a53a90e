"""From a stream to a file: one reading, whatever the input is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from os import truncate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.extraction.coredump import CoreDump, Dumped
from migrate.extraction.final_pages import Memory
from migrate.extraction.pagefile import CAME, FULL, PageFile
from migrate.guest.pages import Pages
from migrate.inspection.logbook import Layer
from migrate.judging.check import refuse_nothing
from streams.counting import count
from streams.decoder import Decoder, drive
from streams.opening import open_transport
from streams.pages import PFN_MASK
from streams.transports import TransportError
from streams.wire.framing import PAGE_DATA_HEADER, PAGE_SIZE, PFN_WORD_SIZE, RecordType

if TYPE_CHECKING:
    from migrate.inspection.logbook import Entry
    from migrate.inspection.reading import Inspection

if TYPE_CHECKING:
    from migrate.judging.check import Source


class NothingError(Exception):
    """There is nothing in the stream to extract; the message says why.

    Attributes
    ----------
    readable:
        whether it is a stream of a kind that is read at all.
    """

    def __init__(self, why: str, *, readable: bool = True) -> None:
        super().__init__(why)
        self.readable = readable


class Form(StrEnum):
    """What the guest's memory can be written as."""

    RAW = "raw"
    ELF = "elf"


@dataclass(frozen=True, slots=True)
class Extracted:
    """What is in the file, and what should be and is not.

    Attributes
    ----------
    pages:
        pages of the guest that came with contents.
    holes:
        pages of the file that nothing was written to: they were zeros, or never came.
    size:
        of the file, in bytes; holes count.
    missing:
        why this is not all of the guest, one line for each reason; empty if it is.
    remarks:
        what else there is to know.
    frames:
        what a core says of machine frames; None for a raw image.
    """

    pages: int
    holes: int
    size: int
    missing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    frames: Dumped | None = None


class _RawImage:
    """Takes the pages of a guest into a raw image: the page of a pfn at pfn * 4096."""

    def __init__(self, fd: int) -> None:
        self.pages = PageFile(fd)

    def take(self, pfns: NDArray[np.int64], tables: NDArray[np.bool_], pages: Pages) -> None:
        """Pages in the order in which they count."""
        self.pages.put(pfns, tables, pages)

    @property
    def size(self) -> int:
        """Up to the last page that came."""
        return self.pages.slots * PAGE_SIZE

    def finish(self, memory: Memory) -> None:
        """Holes at the end, too, are part of the image."""
        truncate(self.pages.fd, self.size)


def extract(
    source: Source,
    fd: int,
    form: Form,
    progress: Callable[[int, int | None], None] | None = None,
    *,
    offset: int = 0,
) -> Extracted:
    """Write a guest's memory to a file, as the receiver of its stream would have it.

    Of a stream that breaks off everything is written that came whole.

    Parameters
    ----------
    source:
        as for `migrate.check`; read once, from front to back.
    fd:
        descriptor of an empty regular file, open for reading and writing.
    form:
        raw: the page of a pfn at pfn * 4096, page tables as in the stream: with pfns in their entries.
        elf: as `CoreDump` has it.
    offset:
        byte of the source at which the stream begins.

    Raises
    ------
    NothingError
        where no page of a guest came.
    OSError, TransportError
        for input that cannot be read, or a file that cannot be written, which its descriptor then names.
    """
    sink = CoreDump(fd) if form is Form.ELF else _RawImage(fd)
    memory = Memory(sink)
    unread = None
    with closing(memory), open_transport(source) as transport:
        try:
            drive(Decoder(memory, offset=offset).run(), transport, progress)
            refuse_nothing(source, transport, offset)
        except TransportError as error:
            if not sink.pages.count(CAME):
                raise
            unread = str(error)
    if not sink.pages.count(CAME):
        raise _nothing(memory)
    if form is Form.ELF and memory.kind is None:
        raise NothingError(f"domain type {memory.saver.type if memory.saver else 0} is neither a PV nor an HVM guest")
    frames = sink.finish(memory)
    came = sink.pages.count(CAME)
    return Extracted(
        pages=came,
        holes=sink.pages.slots - sink.pages.count(FULL),
        size=sink.size,
        missing=_missing(memory, came, unread, frames),
        remarks=_remarks(memory),
        frames=frames,
    )


def _nothing(memory: Memory) -> NothingError:
    doubt = memory.session.course.doubt
    if doubt and memory.saver is None:
        return NothingError(doubt, readable=False)
    return NothingError(memory.broken.message if memory.broken else "no page of a guest is in it")


def _missing(memory: Memory, came: int, unread: str | None, frames: Dumped | None) -> list[str]:
    """Why the file is not all of the guest."""
    sentences = []
    # A checkpointed stream just stops: the secondary goes on from its last checkpoint.
    broken = memory.broken.message if memory.broken and not _complete(memory) else None
    if unread or broken:
        sentences.append(unread or broken or "")
        if memory.facts.max_pfn is not None:
            sentences.append(f"{count(came, 'page')} came; the guest has room for {memory.facts.max_pfn + 1}")
    if memory.left_out:
        records = count(memory.left_out, "PAGE_DATA record")
        sentences.append(f"left out: {records} without all the pages that are announced")
    if memory.too_far:
        sentences.append(
            f"{count(memory.too_far, 'page lies', 'pages lie')} far beyond all that the stream has sent "
            f"(up to pfn {memory.farthest:#x}): left out"
        )
    if frames is not None:
        sentences += _unknown_frames(frames)
        if not frames.contexts:
            sentences.append("no vcpu's state came")
    return sentences


def _complete(memory: Memory) -> bool:
    """Whether a stream that broke off had told all of the guest."""
    return bool(memory.facts.checkpoints) or memory.session.course.ended


def _unknown_frames(frames: Dumped) -> list[str]:
    sentences = []
    if frames.own_numbers:
        sentences.append("the guest's p2m did not come: every page has its pfn for a machine frame")
    if frames.unknown:
        entries = count(frames.unknown, "page table entry names a frame", "page table entries name frames")
        sentences.append(f"{entries} that the guest's p2m does not know: all ones now")
    if frames.lost:
        sentences.append(
            f"not in the guest's p2m: {count(frames.lost, 'frame')} in the vcpus' contexts, which are all ones now"
        )
    return sentences


def _remarks(memory: Memory) -> list[str]:
    sentences = []
    if memory.facts.checkpoints:
        sentences.append(f"the guest is as at checkpoint {memory.facts.checkpoints}, the last complete one")
    if memory.broken is not None and memory.session.course.ended:
        sentences.append(f"the guest's memory is whole, and the stream is not: {memory.broken.message}")
    if memory.waiting:
        sentences.append(f"{count(memory.waiting, 'page')} that came after the last checkpoint: left out")
    return sentences


# Bytes of a body read in one go.
_PIECE = 16 << 20


def page(inspection: Inspection, pfn: int) -> bytes | None:
    """A page of the guest as its receiver would have it: what a raw image has at pfn * 4096.

    None where it never came with contents. What VERIFY and checkpoints mean is told in `memory`.
    """
    if pfn > PFN_MASK:
        return None
    places = []
    for entry, words in inspection.words(islice(inspection.log, _that_count(inspection))):
        start = PAGE_DATA_HEADER.size + len(words) * PFN_WORD_SIZE
        if entry.length == start + words.data_pages * PAGE_SIZE:
            hits = np.flatnonzero(words.pfns[words.has_data] == pfn)
            places += [entry.body + start + hit * PAGE_SIZE for hit in hits.tolist()]
    for place in reversed(places):
        contents = inspection.read([(place, PAGE_SIZE)])[0]
        if len(contents) == PAGE_SIZE:  # else the input ends in it
            return contents
    return None


def _that_count(inspection: Inspection) -> int:
    """How many entries of the logbook stand before the last checkpoint, if there is one, and before VERIFY."""
    last = len(inspection.log)
    for number, entry in enumerate(inspection.log):
        if entry.layer is Layer.LIBXC and entry.type == RecordType.VERIFY:
            return min(last, number)
        if entry.layer is Layer.LIBXC and entry.type == RecordType.CHECKPOINT:
            last = number
    return last


def record_body(inspection: Inspection, entry: Entry) -> Iterator[bytes]:
    """The body of a record or block in pieces, as far as the input has it."""
    at = 0
    while at < entry.length and (piece := inspection.read([(entry.body + at, min(_PIECE, entry.length - at))])[0]):
        yield piece
        at += len(piece)
