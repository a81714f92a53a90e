"""A guest as a core in the format of `xl dump-core`: as if it had been dumped on the host that saved it.

A saver replaces machine frames by pfns in a PV guest's page tables and contexts. Here the frames of the source
come back, from the guest's own p2m, so that tools which follow machine addresses can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from migrate.extraction import core_layout
from migrate.extraction.core_layout import Note, Section, SectionType
from migrate.extraction.pagefile import ByPfn, PageFile
from migrate.extraction.vcpus import Frames, hvm_contexts, pv_contexts
from migrate.guest.memory import INVALID_MFN
from migrate.guest.pages import Pages
from migrate.toolstack.hvm import HvmRestore
from migrate.toolstack.pv import PvRestore
from streams.wire.framing import PAGE_SHIFT, PAGE_SIZE, SHARED_INFO_SIZE
from streams.wire.paging import FRAME_MASK, P
from streams.wire.views import dtype_of

if TYPE_CHECKING:
    from migrate.extraction.final_pages import Memory

# The headers fit in the first page; all else follows the pages.
_PAGES_AT = PAGE_SIZE
_TABLES_AT_ONCE = 256
_ROWS_AT_ONCE = 1 << 15

_FRAME_BITS = np.uint64(FRAME_MASK)
_ENTRY_BITS = ~_FRAME_BITS
_SHIFT = np.uint64(PAGE_SHIFT)
_PRESENT = np.uint64(P)


@dataclass(slots=True)
class Dumped:
    """What became of machine frames, of which only a PV guest's dump speaks.

    Attributes
    ----------
    translated, unknown:
        present entries of page tables whose frame is known, and others: their frame is all ones, and no
        machine has such.
    contexts:
        vcpus whose context is in the dump.
    lost:
        frames of contexts that are not known.
    own_numbers:
        whether the guest's p2m was nowhere to be found, so that every page has its pfn for a machine frame.
    """

    translated: int = 0
    unknown: int = 0
    contexts: int = 0
    lost: int = 0
    own_numbers: bool = False


@dataclass(slots=True)
class _Sections:
    """Section headers and their names, in the order in which they are added."""

    headers: list[dict[str, int]] = field(default_factory=list)
    names: bytes = b"\0"

    def add(self, name: Section, kind: SectionType, offset: int, size: int, align: int, entry: int) -> None:
        self.headers.append(
            {
                "name": len(self.names),
                "type": kind,
                "offset": offset,
                "size": size,
                "addralign": align,
                "entsize": entry,
            }
        )
        self.names += name.encode() + b"\0"


class CoreDump:
    """Takes the pages of a guest into a core; `finish` adds the rest.

    Pages stand in the order in which they first came, which the format leaves open.

    Parameters
    ----------
    fd:
        descriptor of an empty regular file, open for reading and writing.
    """

    def __init__(self, fd: int) -> None:
        self.pages = PageFile(fd, _PAGES_AT)
        self.count = 0
        self._slots = ByPfn(np.int32)  # one more than the slot of a page
        self._end = 0

    def take(self, pfns: NDArray[np.int64], tables: NDArray[np.bool_], pages: Pages) -> None:
        """Pages in the order in which they count."""
        new = np.unique(pfns[self._slots[pfns] == 0])
        if len(new):
            self._slots[new] = np.arange(self.count, self.count + len(new), dtype=np.int32) + np.int32(1)
            self.count += len(new)
        self.pages.put(self._slots[pfns].astype(np.int64) - 1, tables, pages)

    @property
    def size(self) -> int:
        """Bytes of the finished file."""
        return self._end

    def finish(self, memory: Memory) -> Dumped:
        """Put machine frames back, and write what goes with the pages."""
        done = Dumped()
        pv = isinstance(memory.kind, PvRestore)
        frames = _source_frames(memory, done)
        contexts = _contexts(memory, frames, done)
        if pv:
            self._translate(frames, done)
        sections = _Sections()
        sections.headers.append(dict.fromkeys(("name", "type", "offset", "size", "addralign", "entsize"), 0))
        sections.add(Section.PAGES, SectionType.PROGBITS, _PAGES_AT, self.count * PAGE_SIZE, PAGE_SIZE, PAGE_SIZE)
        self._end = _PAGES_AT + self.count * PAGE_SIZE
        self._write_frames(sections, frames, pv=pv)
        done.contexts = len(contexts)
        self._append(sections, Section.CONTEXTS, b"".join(contexts), core_layout.CONTEXT_ROOM)
        if isinstance(memory.kind, PvRestore) and memory.kind.guest.shared_info is not None:
            self._append(sections, Section.SHARED_INFO, memory.kind.guest.shared_info, SHARED_INFO_SIZE)
        notes = self._notes(memory, len(contexts))
        sections.add(Section.NOTES, SectionType.NOTE, self._end, len(notes), core_layout.NOTE_ALIGN, 0)
        self._write(notes)
        self._write_headers(sections)
        return done

    def _translate(self, frames: Frames, done: Dumped) -> None:
        for slots in self.pages.tables():
            for some in np.split(slots, range(_TABLES_AT_ONCE, len(slots), _TABLES_AT_ONCE)):
                entries = self.pages.get(some)
                present = entries & _PRESENT != 0
                mfns = frames(((entries & _FRAME_BITS) >> _SHIFT).astype(np.int64))
                known = present & (mfns >= 0)
                done.translated += int(known.sum())
                done.unknown += int(present.sum()) - int(known.sum())
                machine = (entries & _ENTRY_BITS) | ((mfns.astype(np.uint64) << _SHIFT) & _FRAME_BITS)
                self.pages.put(some, np.ones(len(some), np.bool_), np.where(present, machine, entries))

    def _write_frames(self, sections: _Sections, frames: Frames, *, pv: bool) -> None:
        """Which frame each page is: (pfn, machine frame) of a PV guest, pfns of any other."""
        kind = dtype_of(core_layout.P2M_ENTRY) if pv else dtype_of(core_layout.PFN_ENTRY)
        by_slot = np.empty(self.count, np.int64)
        for pfns, slots in self._slots.parts():
            by_slot[slots - 1] = pfns
        size = self.count * kind.itemsize
        name = Section.P2M if pv else Section.PFN
        sections.add(name, SectionType.PROGBITS, self._end, size, core_layout.ALIGN, kind.itemsize)
        for start in range(0, self.count, _ROWS_AT_ONCE):
            some = by_slot[start : start + _ROWS_AT_ONCE]
            rows: NDArray[Any] = np.zeros(len(some), kind)
            rows["pfn"] = some
            if pv:
                rows["gmfn"] = frames(some).astype(np.uint64)  # -1 becomes NO_FRAME
            self._write(rows.tobytes())

    def _notes(self, memory: Memory, vcpus: int) -> bytes:
        pv = isinstance(memory.kind, PvRestore)
        width = memory.kind.guest.width if isinstance(memory.kind, PvRestore) else max(core_layout.XEN_VERSION)
        saver = memory.saver
        version = core_layout.XEN_VERSION[width].build(
            {
                "major": saver.xen_major if saver else 0,
                "minor": saver.xen_minor if saver else 0,
                "page_size": PAGE_SIZE,
            }
        )
        header = core_layout.DUMP_HEADER.build(
            {
                "magic": core_layout.MAGIC_PV if pv else core_layout.MAGIC_HVM,
                "vcpus": vcpus,
                "pages": self.count,
                "page_size": PAGE_SIZE,
            }
        )
        notes = {
            Note.NONE: b"",
            Note.HEADER: header,
            Note.XEN_VERSION: version,
            Note.FORMAT_VERSION: core_layout.DUMP_FORMAT.build({"version": core_layout.FORMAT_VERSION}),
        }
        return b"".join(
            bytes(
                core_layout.NOTE_HEADER.build({"namesz": len(core_layout.NOTE_NAME), "descsz": len(body), "type": kind})
            )
            + body
            for kind, body in notes.items()
        )

    def _append(self, sections: _Sections, name: Section, body: bytes, entry: int) -> None:
        sections.add(name, SectionType.PROGBITS, self._end, len(body), core_layout.ALIGN, entry)
        self._write(body)

    def _write(self, body: bytes) -> None:
        self.pages.write(self._end, body)
        self._end += len(body)

    def _write_headers(self, sections: _Sections) -> None:
        """The names, and in front of everything the headers."""
        names = len(sections.headers)
        sections.add(Section.STRINGS, SectionType.STRTAB, self._end, 0, 1, 0)
        sections.headers[names]["size"] = len(sections.names)
        self._write(sections.names)
        header = core_layout.ELF_HEADER.build(
            {
                "shoff": core_layout.ELF_HEADER.sizeof(),
                "ehsize": core_layout.ELF_HEADER.sizeof(),
                "shentsize": core_layout.SECTION_HEADER.sizeof(),
                "shnum": len(sections.headers),
                "shstrndx": names,
            }
        )
        self.pages.write(0, header + b"".join(core_layout.SECTION_HEADER.build(one) for one in sections.headers))


def _source_frames(memory: Memory, done: Dumped) -> Frames:
    """What tells the frames of the host that saved the guest; pfns themselves, where its p2m is nowhere."""
    mfns = memory.kind.guest.source_mfns() if isinstance(memory.kind, PvRestore) else np.zeros(0, np.int64)
    if not (mfns >= 0).any():
        done.own_numbers = isinstance(memory.kind, PvRestore)
        return lambda pfns: pfns

    def frames(pfns: NDArray[np.int64]) -> NDArray[np.int64]:
        found = np.full(pfns.shape, INVALID_MFN, np.int64)
        inside = (pfns >= 0) & (pfns < len(mfns))
        found[inside] = mfns[pfns[inside]]
        return found

    return frames


def _contexts(memory: Memory, frames: Frames, done: Dumped) -> list[bytes]:
    match memory.kind:
        case PvRestore(guest=guest):
            contexts, done.lost = pv_contexts(guest, frames)
            return contexts
        case HvmRestore(context=record) if record is not None and record.body is not None:
            return hvm_contexts(record.body)
    return []
