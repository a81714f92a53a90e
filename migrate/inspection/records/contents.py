"""The table of contents of a stream: its records line by line, those that are alike folded, with what is wrong."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING

import numpy as np

from migrate.inspection.logbook import Entry, Layer, Logbook
from migrate.inspection.names import by_type_name
from migrate.inspection.records.image import pages_line
from migrate.inspection.records.shown import CUT, needed, summary
from migrate.rules.declaring import Severity
from streams.pages import TYPES
from streams.wire.framing import padded

if TYPE_CHECKING:
    from migrate.inspection.reading import Inspection
    from migrate.rules.findings import Finding
    from migrate.toolstack.passes import Round
    from streams.pages import PfnWords

# Of more records of one type in a row than this, only the first few are shown one by one.
LONGEST_RUN = 16
RUN_SHOWN = 4
# Bodies that are read in one go: the more, the fewer times compressed input is decoded again.
_LINES_AT_ONCE = 1 << 14
_BYTES_AT_ONCE = 16 << 20


@dataclass(frozen=True, slots=True)
class Pages:
    """What one or several PAGE_DATA records bring: lowest and highest pfn, pfn words, and words of each page type."""

    lowest: int
    highest: int
    words: int
    types: dict[str, int]


@dataclass(frozen=True, slots=True)
class Line:
    """A header, block or record, or several of one type that follow one another.

    Attributes
    ----------
    first, last:
        the same where it is one.
    length:
        bytes of their bodies.
    depth:
        how many layers are around it.
    summary:
        what it says, not escaped.
    pages:
        of PAGE_DATA only.
    findings:
        about these records; one with more than an INFO has a line of its own.
    """

    first: Entry
    last: Entry
    count: int
    length: int
    depth: int
    summary: str = ""
    pages: Pages | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Blame:
    """Which record each finding is about.

    Attributes
    ----------
    records:
        findings by the number of an entry in the log.
    nowhere:
        those about no record in particular.
    """

    records: dict[int, list[Finding]] = field(default_factory=dict)
    nowhere: list[Finding] = field(default_factory=list)


def blame(inspection: Inspection) -> Blame:
    """Find the record of every finding, by its offset or else by its index among libxc's records."""
    found = Blame()
    for finding in inspection.report.findings:
        number = _number_of(inspection.log, finding)
        if number is None:
            found.nowhere.append(finding)
        else:
            found.records.setdefault(number, []).append(finding)
    return found


def number_at(log: Logbook, offset: int) -> int | None:
    """Number in the log of the innermost entry around an offset, padding included; None where there is none."""
    number = bisect_right(range(len(log)), offset, key=lambda n: log[n].offset) - 1
    if number < 0:
        return None
    entry = log[number]
    return number if offset < max(entry.body + padded(entry.length), entry.offset + 1) else None


def _number_of(log: Logbook, finding: Finding) -> int | None:
    offset = finding.offset
    if offset is None and finding.record is not None:
        entry = log.find(Layer.LIBXC, finding.record)
        offset = None if entry is None else entry.offset
    return None if offset is None else number_at(log, offset)


def contents(inspection: Inspection, *, everything: bool = False) -> Iterator[Line]:
    """The lines, in stream order, made as they are asked for.

    PAGE_DATA records of one pass share a line, and so do most of a long run of others of one type; a record
    with a warning or an error stands alone.

    Parameters
    ----------
    everything:
        fold nothing.
    """
    yield from _with_summaries(inspection, _lines(inspection, blame(inspection).records, everything))


Numbered = Iterable[tuple[int, Entry]]


def _lines(inspection: Inspection, blamed: dict[int, list[Finding]], everything: bool) -> Iterator[Line]:
    all_words = inspection.words()
    outer: list[Layer] = []
    alone = {number for number, found in blamed.items() if any(f.severity is not Severity.INFO for f in found)}

    def alike(numbered: tuple[int, Entry]) -> object:
        number, entry = numbered
        if everything or number in alone or entry.type is None:
            return number
        return entry.layer, entry.type, entry.round

    def line(entries: Numbered) -> Line:
        """One line of entries that follow one another; what they say is left open."""
        findings: list[Finding] = []
        first, count, length = None, 0, 0
        for number, last in entries:
            first = first or last
            findings += blamed.get(number, ())
            count += 1
            length += last.length
        assert first is not None
        return Line(first, last, count, length, outer.index(first.layer), findings=tuple(findings))

    for _, group in groupby(enumerate(inspection.log), alike):
        rest = iter(group)
        some = list(islice(rest, LONGEST_RUN + 1))
        if some[0][1].layer not in outer:
            outer.append(some[0][1].layer)
        entries = chain(some, rest)
        if some[0][1].is_pages:
            yield _page_line(line, entries, all_words, inspection.log.rounds)
            continue
        for one in some if len(some) <= LONGEST_RUN else some[:RUN_SHOWN]:
            yield line([one])
        if len(some) > LONGEST_RUN:
            yield line(islice(entries, RUN_SHOWN, None))


def _page_line(
    line: Callable[[Numbered], Line],
    entries: Numbered,
    all_words: Iterator[tuple[Entry, PfnWords]],
    passes: list[Round],
) -> Line:
    """One line of PAGE_DATA records, whose words are the next ones of the stream."""
    lowest, highest, words_seen = -1, 0, 0
    types = np.zeros(TYPES, np.int64)

    def counted() -> Iterator[tuple[int, Entry]]:
        nonlocal lowest, highest, words_seen
        for numbered, (_, words) in zip(entries, all_words, strict=False):
            if len(words):
                words_seen += len(words)
                types[:] += np.bincount(words.types, minlength=TYPES)
                least, most = int(words.pfns.min()), int(words.pfns.max())
                lowest, highest = least if lowest < 0 else min(lowest, least), max(highest, most)
            yield numbered

    found = line(counted())
    pages = Pages(max(lowest, 0), highest, words_seen, by_type_name(types))
    text = pages_line(pages.lowest, pages.highest, pages.words, pages.types)
    if found.first.round is not None:
        text = f"{passes[found.first.round].kind} pass, {text}"
    if found.last.cut:
        text = f"{CUT}: {text}"
    return replace(found, summary=text, pages=pages)


def _with_summaries(inspection: Inspection, lines: Iterator[Line]) -> Iterator[Line]:
    width = inspection.judgement.facts.width
    for batch in _batches(lines):
        wanted = [(line.first.body, needed(line.first)) for line in batch if not line.summary and line.count == 1]
        bodies = iter(inspection.read(wanted))
        for line in batch:
            if not line.summary and line.count == 1:
                line = replace(line, summary=summary(line.first, next(bodies), width))
            yield line


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += needed(line.first)
        if len(batch) >= _LINES_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    yield batch
