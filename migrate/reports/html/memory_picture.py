"""A guest's memory as pictures: a row of cells per 64 bins, by pfn and by machine frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from migrate.counting import count
from migrate.inspection.memory.pagemap import NEVER_SENT, kind_name, page_map
from streams.pages import LEVEL_MASK, PIN_BIT, TABLE_TYPES, PageType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from migrate.inspection.memory.pagemap import PageMap, Space
    from migrate.inspection.reading import Inspection

BINS = 2048
COLUMNS = 64
# Of the drawing, in user units.
CELL = 14
LEFT = 88
BASELINE = 11  # of a letter, below the top of its cell
GAP = 16  # above a row that something is left out before, or that 4 GiB begin with
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
    """Neighbouring cells that look alike."""

    x: int
    y: int
    width: int
    look: Look
    letters: str
    title: str
    failing: bool


class Line(NamedTuple):
    """A line across the picture."""

    y: int
    text: str


class Entry(NamedTuple):
    """A line of the legend."""

    look: Look
    name: str
    frames: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing of cells: `labels` are the first frames of rows, `gaps` says what is left out above a row."""

    width: int
    height: int
    runs: list[Run]
    labels: list[Line]
    gaps: list[Line]
    limit: Line | None
    description: str
    step: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Both pictures, what their letters mean, and what they do not show."""

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
    machine = None if found.machine is None else _picture(found.machine, "mfn", frames, found.four_gib)
    legend = [Entry(_LOOKS.get(k, _UNKNOWN), kind_name(k), n) for k, n in enumerate(found.guest.totals.tolist()) if n]
    letters = {letter for p in (guest, machine) if p is not None for run in p.runs for letter in run.letters}
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
    if found.guest.step > 1 and found.guest.totals[list(TABLE_TYPES)].any():
        yield (
            f"Each cell stands for {found.guest.step:,} pages and shows the highest level of page table that is a "
            "64th of them, else their commonest type."
        )
    if found.unplaced:
        yield f"Of {count(found.unplaced, 'page')} nobody knows the machine frame."
    if found.beyond:
        yield f"{count(found.beyond, 'pfn')} too far out to be drawn: named by the stream, or claimed to exist."


def _picture(space: Space, what: str, failing: frozenset[int], limit: int | None) -> Picture:
    hit = {at for frame in failing if (at := space.bin_of(frame)) is not None}
    above = _words_above(space, what, limit)
    runs: list[Run] = []
    labels: list[Line] = []
    gaps: list[Line] = []
    border: Line | None = None
    y = 0
    for row in _rows(len(space), above):
        if words := above.pop(row.start, None):
            y += GAP
            if words.startswith(_FOUR_GIB):
                border = Line(y - 4, words)
            else:
                gaps.append(Line(y - 4, words))
        labels.append(Line(y + BASELINE, f"{space.starts[row.start]:#x}"))
        runs += _runs(space, row, y, what, hit)
        y += CELL
    for words in above.values():
        y += GAP
        border = Line(y - 4, words)
    return Picture(
        LEFT + COLUMNS * CELL + 1, y + 1, runs, labels, gaps, border, _description(space, what, limit), space.step
    )


def _words_above(space: Space, what: str, limit: int | None) -> dict[int, str]:
    """What is written above the row that begins with a bin; behind the last bin, at the foot of the picture."""
    above = {at: f"{frames:,} {what}s without any page of the guest" for at, frames in space.gaps}
    if limit is not None:
        at = int(np.searchsorted(space.starts, limit))
        where = {0: "every frame of the guest lies above", len(space): "every frame of the guest lies below"}.get(at)
        above[at] = "; ".join(filter(None, (_FOUR_GIB, where, above.get(at))))
    return above


def _rows(bins: int, breaks: Iterable[int]) -> Iterator[range]:
    """Bins in rows; each break begins a new one."""
    for first, end in pairwise(sorted({0, *breaks, bins})):
        for start in range(first, end, COLUMNS):
            yield range(start, min(start + COLUMNS, end))


def _runs(space: Space, row: range, y: int, what: str, hit: set[int]) -> Iterator[Run]:
    kinds = space.prominent[row.start : row.stop].tolist()

    def alike(at: int) -> tuple[int, str]:
        return kinds[at - row.start], _mark(space, at, hit)

    for (kind, mark), group in groupby(row, key=alike):
        some = list(group)
        first, last = some[0], some[-1]
        look = NOTHING if kind < 0 else _LOOKS.get(kind, _UNKNOWN)
        start, end = int(space.starts[first]), min(int(space.starts[last]) + space.step, space.end) - 1
        span = f"{what} {start:#x}" + (f" to {end:#x}" if end > start else "")
        yield Run(
            LEFT + (first - row.start) * CELL,
            y,
            len(some) * CELL,
            look,
            (mark or look.letter) * len(some),
            f"{span}: {_contents(space.counts[first : last + 1].sum(axis=0))}",
            mark == _FAILING,
        )


def _mark(space: Space, at: int, hit: set[int]) -> str:
    if at in hit:
        return _FAILING
    if space.high_l3s[at]:
        return _HIGH
    return _ROOT if space.roots[at] else ""


def _contents(counts: NDArray[np.int64]) -> str:
    told = [f"{counts[kind]} {kind_name(kind)}" for kind in np.argsort(-counts, kind="stable").tolist() if counts[kind]]
    return ", ".join(told) or "none of the guest's"


def _description(space: Space, what: str, limit: int | None) -> str:
    told = f"{what}s {space.starts[0]:#x} to {space.end - 1:#x}: {_contents(space.totals)}."
    if limit is None:
        return told
    high = int(space.counts[space.starts >= limit].sum())
    return (
        f"{told} {count(int(space.counts.sum()) - high, 'page')} below 4 GiB, {count(high, 'page')} above; "
        f"L3 tables above that a 32-bit guest would be refused for: {int(space.high_l3s.sum())}."
    )
