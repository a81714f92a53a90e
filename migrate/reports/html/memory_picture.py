"""A guest's memory as pictures: a row of cells per 64 bins, by pfn and by machine frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from migrate.inspection.memory.pagemap import NEVER_SENT, kind_name, page_map
from streams.counting import count
from streams.pages import LEVEL_MASK, PIN_BIT, TABLE_TYPES, PageType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from migrate.inspection.memory.pagemap import PageMap, Space
    from migrate.inspection.reading import Inspection

BINS = 2048
# Cells that stay together however narrow the page is, and those of a row where there is room for all.
STRIP = 16
COLUMNS = 4 * STRIP
_FOUR_GIB = "4 GiB"


class Look(NamedTuple):
    """How a cell is drawn: class of its colour, the letter that says the same, and whether it is underlined."""

    colour: str
    letter: str = ""
    underlined: bool = False


NOTHING = Look("k-absent")
_LOOKS: dict[int, Look] = {
    NEVER_SENT: NOTHING,
    PageType.NOTAB: Look("k-data"),
    PageType.BROKEN: Look("k-other", "b"),
    PageType.XALLOC: Look("k-other", "a"),
    PageType.XTAB: Look("k-absent", "·"),
    **{kind: Look(f"k-{kind & LEVEL_MASK}", f"{kind & LEVEL_MASK}", bool(kind & PIN_BIT)) for kind in TABLE_TYPES},
}
_UNKNOWN = Look("k-other", "?")
_ROOT, _HIGH, _FAILING = "v", "H", "!"


class Run(NamedTuple):
    """Neighbouring cells that look alike; `letters` has a character for each."""

    look: Look
    letters: str
    title: str
    failing: bool


class Strip(NamedTuple):
    """Cells that stay together, and what their first frame is called."""

    label: str
    runs: list[Run]


class Line(NamedTuple):
    """What stands below one another: a row of strips, rows that are all alike as one, or words between rows.

    Attributes
    ----------
    label:
        first frame of rows that are alike.
    look:
        that of all their cells; None for words, and where there are strips.
    limit:
        whether it marks 4 GiB.
    """

    strips: tuple[Strip, ...] = ()
    label: str = ""
    look: Look | None = None
    text: str = ""
    limit: bool = False


class Entry(NamedTuple):
    """A line of the legend."""

    look: Look
    name: str
    frames: int


@dataclass(frozen=True, slots=True)
class Picture:
    """Cells in rows; each stands for `step` frames."""

    lines: list[Line]
    description: str
    step: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Both pictures, what their letters mean, and what they do not show.

    The one by machine frame is left out where it would look the same: a note says so.
    """

    guest: Picture
    machine: Picture | None
    legend: list[Entry]
    marks: list[tuple[str, str]]
    notes: list[str]


def memory(inspection: Inspection, failing: frozenset[int]) -> Memory:
    """Pictures of a guest's memory.

    Parameters
    ----------
    failing:
        pfns that lead to what stops the restore.

    Raises
    ------
    NotInStream
        where the stream names no page.
    """
    found = page_map(inspection, BINS)
    placement = inspection.placement
    frames = frozenset(placement.mfn(pfn) for pfn in failing) - {-1} if placement is not None else frozenset()
    guest = _picture(found.guest, "pfn", failing, None)
    differs = found.machine is not None and found.shift is None
    machine = _picture(found.machine, "mfn", frames, found.four_gib) if found.machine and differs else None
    legend = [Entry(_LOOKS.get(k, _UNKNOWN), kind_name(k), n) for k, n in enumerate(found.guest.totals.tolist()) if n]
    pictures = [picture for picture in (guest, machine) if picture is not None]
    strips = [strip for picture in pictures for line in picture.lines for strip in line.strips]
    letters = {letter for strip in strips for run in strip.runs for letter in run.letters}
    marks = [
        (letter, meaning)
        for letter, meaning in (
            (_ROOT, "the root of a vcpu"),
            (_HIGH, "an L3 table that lies above 4 GiB, of a 32-bit guest"),
            (_FAILING, "on the way to what stops the restore"),
        )
        if letter in letters
    ]
    return Memory(guest, machine, legend, marks, list(_notes(found)))


def _notes(found: PageMap) -> Iterator[str]:
    if found.machine is not None and found.shift is not None:
        yield f"By machine frame it looks the same: {_same(found.machine, found.shift, found)}."
    if found.guest.step > 1 and found.guest.totals[list(TABLE_TYPES)].any():
        yield (
            f"Each cell stands for {count(found.guest.step, 'page', form=',')} and shows the highest level of page "
            "table that is a 64th of them, else their commonest type."
        )
    if found.unplaced:
        yield f"Of {count(found.unplaced, 'page')} nobody knows the machine frame."
    if found.beyond:
        yield f"{count(found.beyond, 'pfn')} too far out to be drawn: named by the stream, or claimed to exist."


def _same(machine: Space, shift: int, found: PageMap) -> str:
    """Where frames lie that all have the same distance from their pfns."""
    lies = "each page lies at its pfn" + (f" {'+' if shift > 0 else '-'} {abs(shift):#x}" if shift else "")
    if machine.starts[0] >= found.four_gib:
        return f"{lies}, above 4 GiB"
    below = ", below 4 GiB" if machine.end <= found.four_gib else f"; pfn {found.four_gib - shift:#x} is at 4 GiB"
    return lies + below


def _picture(space: Space, what: str, failing: frozenset[int], limit: int | None) -> Picture:
    hit = {at for frame in failing if (at := space.bin_of(frame)) is not None}
    return Picture(list(_lines(space, what, hit, limit)), _description(space, what, limit), space.step)


def _lines(space: Space, what: str, hit: set[int], limit: int | None) -> Iterator[Line]:
    above = _words_above(space, what, limit)
    kinds = space.prominent.tolist()
    marks = [_mark(space, at, hit) for at in range(len(space))]

    def kind_of_all(row: range) -> int | None:
        """What all cells of a row show; None where they differ, are few, or one is marked."""
        some = set(kinds[row.start : row.stop])
        return None if len(some) > 1 or len(row) < STRIP or any(marks[row.start : row.stop]) else some.pop()

    for first, end in pairwise(sorted({0, *above, len(space)})):
        if words := above.pop(first, None):
            yield Line(text=words, limit=words.startswith(_FOUR_GIB))
        rows = (range(at, min(at + COLUMNS, end)) for at in range(first, end, COLUMNS))
        for kind, group in groupby(rows, key=kind_of_all):
            alike = list(group)
            if kind is not None:
                cells = range(alike[0].start, alike[-1].stop)
                yield Line(label=f"{space.starts[cells.start]:#x}", look=look_of(kind), text=_title(space, cells, what))
                continue
            for row in alike:
                yield Line(
                    tuple(_strip(space, row[at : at + STRIP], what, kinds, marks) for at in range(0, len(row), STRIP))
                )
    for words in above.values():
        yield Line(text=words, limit=True)


def _strip(space: Space, strip: range, what: str, kinds: list[int], marks: list[str]) -> Strip:
    runs = []
    for (kind, mark), group in groupby(strip, key=lambda at: (kinds[at], marks[at])):
        some = list(group)
        look = look_of(kind)
        title = _title(space, range(some[0], some[-1] + 1), what)
        runs.append(Run(look, (mark or look.letter or " ") * len(some), title, mark == _FAILING))
    return Strip(f"{space.starts[strip.start]:#x}", runs)


def look_of(kind: int) -> Look:
    """How a cell is drawn that shows a kind of page; -1 for none."""
    return NOTHING if kind < 0 else _LOOKS.get(kind, _UNKNOWN)


def _title(space: Space, bins: range, what: str) -> str:
    """Which frames some cells stand for, and what is in them."""
    first, last = bins[0], bins[-1]
    start, end = int(space.starts[first]), min(int(space.starts[last]) + space.step, space.end) - 1
    span = f"{what} {start:#x}" + (f" to {end:#x}" if end > start else "")
    return f"{span}: {_contents(space.counts[first : last + 1].sum(axis=0))}"


def _words_above(space: Space, what: str, limit: int | None) -> dict[int, str]:
    """What is written above the row that begins with a bin; behind the last bin, at the foot of the picture."""
    above = {at: f"{frames:,} {what}s without any page of the guest" for at, frames in space.gaps}
    if limit is not None:
        at = int(np.searchsorted(space.starts, limit))
        where = {0: "every frame of the guest lies above", len(space): "every frame of the guest lies below"}.get(at)
        above[at] = "; ".join(filter(None, (_FOUR_GIB, where, above.get(at))))
    return above


def _mark(space: Space, at: int, hit: set[int]) -> str:
    if at in hit:
        return _FAILING
    if space.high_l3s[at]:
        return _HIGH
    return _ROOT if space.roots[at] else ""


def _contents(counts: NDArray[np.int64]) -> str:
    kinds = [
        f"{counts[kind]} {kind_name(kind)}" for kind in np.argsort(-counts, kind="stable").tolist() if counts[kind]
    ]
    return ", ".join(kinds) or "none of the guest's"


def _description(space: Space, what: str, limit: int | None) -> str:
    sentence = f"{what}s {space.starts[0]:#x} to {space.end - 1:#x}: {_contents(space.totals)}."
    if limit is None:
        return sentence
    high = int(space.counts[space.starts >= limit].sum())
    return (
        f"{sentence} {count(int(space.counts.sum()) - high, 'page')} below 4 GiB, {count(high, 'page')} above; "
        f"L3 tables above that a 32-bit guest would be refused for: {int(space.high_l3s.sum())}."
    )
