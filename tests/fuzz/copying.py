"""What holds of the files that are made of any stream: `migrate extract`, `corpus shrink` and `corpus scrub`."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from zlib import crc32

import numpy as np
from elftools.elf.elffile import ELFFile
from laws import holds, question
from limits import bounded, compressed

from migrate import check
from migrate.extraction.extract import Extracted, Form, NothingError, extract, page, record_body
from migrate.inspection.reading import Inspection, inspect
from migrate.reducing.scrub import Scrubbed, ScrubError, changed, scrub
from migrate.reducing.shrink import NothingToShowError, Shrunk, shrink
from streams.decoder import Consumer, Decoder, drive
from streams.pages import TABLE_TYPES, PfnWords
from streams.records import Damage, Event, PageData, Place, Record
from streams.transports import BytesTransport
from streams.wire.framing import P2M_HEADER, PAGE_SIZE, RecordType

# A file that is made for a guest seems so large at most unless that much was sent; pfns beyond may be left out.
NEAR = 1 << 23
# Sections of a core that hold whole pages, and their frames by the guest's type.
FRAMES = {"pv": ".xen_p2m", "hvm": ".xen_pfn"}
SECONDS_OF_SHRINKING = 0.5

# -- what a stream says of memory -----------------------------------------------------------------------


class Sent(Consumer):
    """Which pages a stream sends, taken from its bytes at the places that its grammar gives them.

    Attributes
    ----------
    pages:
        offsets in the stream of the contents that a receiver would have, by pfn.
    tables:
        pfns whose newest contents came as a page table.
    doubtful:
        pfns of a record that the input ends in: some of its pages came, and count.
    every:
        (pfn, type, offset) of all pages of whole records, compared ones among them.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.pages: dict[int, int] = {}
        self.tables: set[int] = set()
        self.doubtful: set[int] = set()
        self.every: list[tuple[int, int, int]] = []
        self._waiting: list[tuple[int, int, int]] | None = None
        self._last: list[tuple[int, int, int]] = []
        self._compared = False
        drive(Decoder(self).run(), BytesTransport(data))

    def wants_body(self, place: Place) -> bool:
        return False

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
        full = words.has_data
        start = place.body + place.length - words.data_pages * PAGE_SIZE
        offsets = range(start, place.body + place.length, PAGE_SIZE)
        self._last = list(zip(words.pfns[full].tolist(), words.types[full].tolist(), offsets, strict=True))
        return ()

    def event(self, item: Event) -> None:
        match item:
            case PageData():
                self.every += self._last
                if not self._compared and self._waiting is None:
                    self._take(self._last)
                elif not self._compared and self._waiting is not None:
                    self._waiting += self._last
                self._last = []
            case Record() if item.type == RecordType.VERIFY:
                self._compared = True
            case Record() if item.type == RecordType.CHECKPOINT:
                self._take(self._waiting or [])
                self._waiting = []
            case Damage():
                self.doubtful |= {pfn for pfn, _, _ in self._last}

    def _take(self, pages: list[tuple[int, int, int]]) -> None:
        for pfn, kind, offset in pages:
            self.pages[pfn] = offset
            (self.tables.add if kind in TABLE_TYPES else self.tables.discard)(pfn)

    def contents(self, pfn: int) -> bytes:
        return self.data[self.pages[pfn] :][:PAGE_SIZE]


# -- extract ------------------------------------------------------------------------------------------


def extracts(data: bytes) -> None:
    """What is written of a guest's memory is what its stream has of it, in either form, page by page as well."""
    if compressed(data):
        return
    sent = Sent(data)
    sure = {pfn for pfn in sent.pages if pfn < NEAR} - sent.doubtful
    for form in Form:
        fd = os.memfd_create("out")
        try:
            written = bounded(_extracted, data, fd, form)
            if written is None:
                holds(form is Form.ELF or not sure, "nothing is written of a guest whose pages came")
                continue
            holds(os.fstat(fd).st_size == written.size, f"{written.size} bytes are said to be written")
            holds(written.pages >= len(sure), "fewer pages are said to be written than came")
            (_raw_holds if form is Form.RAW else _core_holds)(fd, written, sent, sure)
        finally:
            os.close(fd)
    bounded(inspect, data, then=lambda inspection: _parts_hold(inspection, data, sent, sure))


def _extracted(data: bytes, fd: int, form: Form) -> Extracted | None:
    try:
        return extract(data, fd, form)
    except NothingError:
        return None


def _raw_holds(fd: int, written: Extracted, sent: Sent, sure: set[int]) -> None:
    known = {pfn for pfn in sent.pages.keys() | sent.doubtful if pfn < NEAR}
    for pfn in sure:
        holds(os.pread(fd, PAGE_SIZE, pfn * PAGE_SIZE) == sent.contents(pfn), f"pfn {pfn:#x} has other contents")
    holds(written.size % PAGE_SIZE == 0, "the image does not end with a page")
    full = written.size // PAGE_SIZE - written.holes
    holds(full <= len(sent.pages.keys() | sent.doubtful), "more pages have contents than came")
    if not any(pfn >= NEAR for pfn in sent.pages.keys() | sent.doubtful) and not sent.doubtful:
        holds(written.size == (max(known) + 1) * PAGE_SIZE, "the image ends elsewhere than with the last page")


def _core_holds(fd: int, written: Extracted, sent: Sent, sure: set[int]) -> None:
    with open(fd, "rb", closefd=False) as file:
        elf = ELFFile(file)
        for one in elf.iter_sections():
            holds(one["sh_offset"] + one["sh_size"] <= written.size, f"{one.name} ends beyond the core's end")
        pages = elf.get_section_by_name(".xen_pages")
        table = elf.get_section_by_name(".xen_p2m") or elf.get_section_by_name(".xen_pfn")
        rows = np.frombuffer(table.data(), "<u8")
        pfns = rows[::2] if table.name == ".xen_p2m" else rows
    holds(pages["sh_size"] == len(pfns) * PAGE_SIZE == written.pages * PAGE_SIZE, "pages and frames differ in number")
    rows_of = {pfn: row for row, pfn in enumerate(pfns.tolist())}
    holds(len(rows_of) == len(pfns), "a page is twice in the core")
    holds(sure <= rows_of.keys(), "a page that came is not in the core")
    translated = sent.tables if table.name == ".xen_p2m" else frozenset()
    for pfn in sure - translated:
        at = pages["sh_offset"] + rows_of[pfn] * PAGE_SIZE
        holds(os.pread(fd, PAGE_SIZE, at) == sent.contents(pfn), f"pfn {pfn:#x} has other contents in the core")


def _parts_hold(inspection: Inspection, data: bytes, sent: Sent, sure: set[int]) -> None:
    turn = crc32(data)
    some = sorted(sure)[turn % 5 :: max(1, len(sure) // 3)]
    for pfn in some:
        holds(page(inspection, pfn) == sent.contents(pfn), f"pfn {pfn:#x} by itself has other contents")
    absent = next(pfn for pfn in range(NEAR) if pfn not in sent.pages and pfn not in sent.doubtful)
    holds(page(inspection, absent) is None, "a page that never came has contents")
    if len(inspection.log):
        entry = inspection.log[turn % len(inspection.log)]
        body = b"".join(record_body(inspection, entry))
        holds(body == data[entry.body : entry.body + entry.length], f"the body of the {entry.name} is another")


# -- shrink -------------------------------------------------------------------------------------------


def shrinks(data: bytes) -> None:
    """What is left of a stream is no longer, and shows the same; where there was time for all, nothing can go."""
    if compressed(data):
        return
    asked = question(data)
    before = bounded(check, data, **asked)
    # What a restore fails of, or a finding of another kind.
    found = sorted({finding.rule.id for finding in before.findings})
    rule = None if before.failure is not None or not found else found[crc32(data) % len(found)]
    small = _shrunk(data, rule, asked)
    if small is None:
        holds(before.failure is None and rule is None, "a stream does not show what it was found to show")
        return
    rule = rule or (before.failure.rule if before.failure else None)
    after = bounded(check, small.stream, **asked)
    holds(len(small.stream) <= len(data), "the smaller stream is longer")
    holds(small.finding.rule.id == rule, f"{small.finding.rule.id} was kept, and not {rule}")
    holds(after.verdict == before.verdict, f"verdict {after.verdict}, and {before.verdict} before")
    holds(any(finding.rule.id == rule for finding in after.findings), f"{rule} is no longer shown")
    if before.failure is not None and before.failure.rule == rule:
        holds(after.failure is not None and after.failure.rule == rule, "the restore fails of something else")
    holds(small.after.bytes == len(small.stream), "another size is told than the stream has")
    if small.finished:
        again = _shrunk(small.stream, rule, asked)
        holds(again is not None and again.stream == small.stream, "what was shrunk can be shrunk further")


def _shrunk(data: bytes, rule: str | None, asked: dict[str, str]) -> Shrunk | None:
    try:
        return bounded(shrink, data, rule, **asked, seconds=SECONDS_OF_SHRINKING)
    except NothingToShowError:
        return None


# -- scrub --------------------------------------------------------------------------------------------


class Names(Sent):
    """Which pages of a PV guest are named by what is not memory: its p2m's."""

    def __init__(self, data: bytes) -> None:
        self.p2m: set[int] = set()
        super().__init__(data)

    def wants_body(self, place: Place) -> bool:
        return place.type == RecordType.X86_PV_P2M_FRAMES

    def event(self, item: Event) -> None:
        super().event(item)
        if isinstance(item, Record) and item.type == RecordType.X86_PV_P2M_FRAMES and item.body:
            listed = item.body[P2M_HEADER.size :]
            self.p2m |= set(np.frombuffer(listed[: len(listed) // 8 * 8], "<u8").tolist())


def scrubs(data: bytes) -> None:
    """A scrubbed stream has the length, the verdict and the findings that it had, and zeros for memory that is data."""
    if compressed(data):
        return
    try:
        told, clean = bounded(_scrubbed, data)
    except ScrubError:
        holds(check(data).verdict == "unjudged", "a stream that is judged is not scrubbed")
        return
    holds(len(clean) == len(data) == told.size, f"{len(clean)} bytes of {len(data)}, told as {told.size}")
    was, now = np.frombuffer(data, np.uint8), np.frombuffer(clean, np.uint8)
    holds(((was == now) | (now == 0)).all(), "something else than zeros is written")
    turn = question(data)
    difference = bounded(changed, data, clean, target=turn["target"])
    holds(difference is None, f"judged otherwise: {difference}")
    again, same = bounded(_scrubbed, clean)
    holds(same == clean, "scrubbed once more, a stream is another")
    holds(again.left == told.left, "scrubbed once more, something else is left")
    _memory_is_gone(clean, told)


def _scrubbed(data: bytes) -> tuple[Scrubbed, bytes]:
    out = io.BytesIO()
    return scrub(data, out), out.getvalue()


def _memory_is_gone(clean: bytes, told: Scrubbed) -> None:
    """Of pages that are no tables only those have contents that are told to be left."""
    found = Names(clean)
    full = [(pfn, kind) for pfn, kind, at in found.every if any(clean[at : at + PAGE_SIZE])]
    data = [pfn for pfn, kind in full if kind not in TABLE_TYPES]
    named = [pfn for pfn in data if pfn not in found.p2m]
    tables = len(full) - len(data)
    holds(tables <= told.left.get("page table", 0), "more tables have contents than are told to be left")
    left = sum(count for what, count in told.left.items() if "page" in what and what not in ("p2m page", "page table"))
    holds(len(named) <= left, f"{len(named)} pages have contents, and {left} are told to be left")
