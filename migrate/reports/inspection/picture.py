"""A guest's memory as a picture for a terminal: what kind of pages lie where, and what each pass sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.text import Text

from migrate.inspection.memory.pagemap import KINDS, NEVER_SENT, PageMap, Space, kind_name, page_map
from migrate.reports.lines import UNLIMITED
from migrate.reports.verdict.text import hanging
from migrate.safe import safe, well_formed
from streams.counting import count
from streams.pages import LEVEL_MASK, TABLE_TYPES, PageType

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.inspection.reading import Inspection
    from migrate.toolstack.passes import Round

# Where nobody looks at a screen, the picture is as wide as the narrowest usual one.
_USUAL_WIDTH = 80
_MOST_CELLS = 256
_ROWS = 16
_MARGIN = 2
# Of very many passes the first and the last are drawn.
_PASSES_AT_EACH_END = 12

_HIGH, _ROOT, _NOTHING, _DATA, _UNKNOWN = "!", "R", " ", ".", "?"
_LETTERS: dict[int, str] = {
    PageType.NOTAB: _DATA,
    **{kind: str(kind & LEVEL_MASK) for kind in TABLE_TYPES},
    PageType.XTAB: "x",
    PageType.XALLOC: "o",
    PageType.BROKEN: "B",
    NEVER_SENT: "_",
    -1: _NOTHING,
}
_STYLES = {
    _HIGH: "bold white on red",
    _ROOT: "bold green",
    "4": "bold magenta",
    "3": "magenta",
    "2": "blue",
    "1": "cyan",
    "x": "dim",
    "o": "yellow",
    "B": "red",
    "_": "dim yellow",
    _DATA: "dim",
}
_MEANINGS = {
    _DATA: "data",
    "x": "absent (XTAB)",
    "o": "allocated without contents (XALLOC)",
    "B": "broken",
    "_": "never sent",
    _UNKNOWN: "of no known type",
    **{str(level): f"L{level} table" for level in range(1, 5)},
}


class _Glyphs:
    """What a console can show: its encoding, or a dumb terminal, may leave no more than ASCII."""

    def __init__(self, console: Console) -> None:
        plain = not console.encoding.lower().startswith("utf") or os.environ.get("TERM") == "dumb"
        self.data = _DATA if plain else "·"
        self.line = "-" if plain else "─"
        self.bar = "#" if plain else "█"
        self.dots = "..." if plain else "…"

    def cell(self, letter: str) -> str:
        """A letter as it is drawn."""
        return self.data if letter == _DATA else letter


def render_map(inspection: Inspection, console: Console) -> None:
    """Draw where what kind of pages lie, by pfn and by machine frame, and the passes that sent them.

    Fits 80 columns and uses more where there are; with letters only, so that no colours are needed.

    Raises NotInStream where the stream names no page.
    """
    glyphs = _Glyphs(console)
    width = _USUAL_WIDTH if console.width >= UNLIMITED else console.width
    cells = _cells(page_map(inspection, bins=1), width)
    found = page_map(inspection, bins=cells * _ROWS)
    guest = found.guest
    _print(console, Text(f"pfns 0x0 to {guest.end - 1:#x}, {_scale(guest)}", "bold"))
    for line in _rows(guest, cells, glyphs, None):
        _print(console, line)
    for text in _legend(found, glyphs):
        hanging(console, Text("  "), text, width=width)
    if found.beyond:
        hanging(
            console,
            Text("  "),
            f"not shown: {count(found.beyond, 'pfn that lies', 'pfns that lie')} too far out",
            width=width,
        )
    if found.machine is not None:
        _machine(found, found.machine, cells, glyphs, console, width)
    rounds = inspection.log.rounds
    if rounds:
        console.print()
        _print(console, Text("passes over memory", "bold"))
        for line in _timeline(rounds, width, glyphs):
            _print(console, line)


def _machine(found: PageMap, machine: Space, cells: int, glyphs: _Glyphs, console: Console, width: int) -> None:
    console.print()
    head = f"machine frames {machine.starts[0]:#x} to {machine.end - 1:#x}, {_scale(machine)}"
    hanging(console, Text(), f"{head}, placement {safe(found.placement)}", "bold", width=width)
    for line in _rows(machine, cells, glyphs, found.four_gib):
        _print(console, line)
    below = machine.end <= found.four_gib
    if below or machine.starts[0] >= found.four_gib:
        _print(console, Text(f"  all {'below' if below else 'above'} 4 GiB"))
    if found.unplaced:
        _print(console, Text(f"  of unknown frame: {count(found.unplaced, 'page')}"))


def _scale(space: Space) -> str:
    return f"{count(space.step, 'page')} to a cell"


def _label_width(found: PageMap) -> int:
    highest = max(found.guest.end, found.machine.end if found.machine else 0, found.four_gib)
    return len(f"{highest:#x}") + _MARGIN


def _cells(found: PageMap, width: int) -> int:
    """Cells in a row: a power of two, so that rows begin at round addresses."""
    room = width - _label_width(found) - _MARGIN
    cells = 1
    while cells * 2 <= min(room, _MOST_CELLS):
        cells *= 2
    return cells


def letters(space: Space) -> str:
    """One letter for each bin: its kind of page, R where a vcpu's root lies, ! for an L3 above 4 GiB."""
    shown = [_LETTERS.get(kind, _UNKNOWN) for kind in space.prominent.tolist()]
    for at in np.flatnonzero(space.roots).tolist():
        shown[at] = _ROOT
    for at in np.flatnonzero(space.high_l3s).tolist():
        shown[at] = _HIGH
    return "".join(shown)


def _rows(space: Space, cells: int, glyphs: _Glyphs, line_at: int | None) -> Iterator[Text]:
    """Rows with the frame of their first cell; a line at 4 GiB where frames lie on both sides of it."""
    shown, starts = letters(space), space.starts.tolist()
    gaps = dict(space.gaps)
    margin = len(f"{space.end - 1:#x}") + _MARGIN
    at = 0
    while at < len(shown):
        stop = at + 1
        crosses = line_at is not None and starts[at] >= line_at and at > 0 and starts[at - 1] < line_at
        if at in gaps:
            yield Text(f"{glyphs.dots:>{margin}}  {gaps[at]} without a page", "dim")
        if crosses:
            yield Text(" " * margin + _MARGIN * " " + " 4 GiB ".center(cells, glyphs.line), "bold yellow")
        while stop < len(shown) and stop - at < cells and stop not in gaps:
            if line_at is not None and starts[stop - 1] < line_at <= starts[stop]:
                break
            stop += 1
        row = Text(f"{starts[at]:#{margin}x}  ")
        for letter, alike in groupby(shown[at:stop]):
            row.append(glyphs.cell(letter) * len(list(alike)), _STYLES.get(letter, ""))
        yield row
        at = stop


def _legend(found: PageMap, glyphs: _Glyphs) -> Iterator[str]:
    totals = found.guest.totals
    by_letter: dict[str, list[int]] = {}
    for kind in np.flatnonzero(totals).tolist():
        letter = _LETTERS.get(kind, _UNKNOWN)
        pages = by_letter.setdefault(letter, [0, 0])
        pages[0] += int(totals[kind])
        pages[1] += int(totals[kind]) if kind_name(kind).endswith("_PINNED") else 0
    parts = [
        f"{glyphs.cell(letter)} {_MEANINGS[letter]} {pages}{f' ({pinned} pinned)' if pinned else ''}"
        for letter, (pages, pinned) in by_letter.items()
    ]
    if roots := int(found.guest.roots.sum()):
        parts.append(f"{_ROOT} root of a vcpu {roots}")
    if high := int(found.guest.high_l3s.sum()):
        parts.append(f"{_HIGH} L3 above 4 GiB {high}")
    yield "   ".join(parts)
    if found.guest.step > 1:
        yield "a cell shows its highest table level that is at least 1 page in 64, else what most of its pages are"


def _timeline(rounds: list[Round], width: int, glyphs: _Glyphs) -> Iterator[Text]:
    most = max(done.pages for done in rounds) or 1
    number, pages = len(str(len(rounds) - 1)), len(str(most))
    kinds = max(len(done.kind) for done in rounds)
    room = max(width - _MARGIN - number - kinds - pages - 4 * _MARGIN, 1)
    left_out = range(_PASSES_AT_EACH_END, len(rounds) - _PASSES_AT_EACH_END)
    for at, done in enumerate(rounds):
        if at in left_out:
            if at == left_out.start:
                some = rounds[left_out.start : left_out.stop]
                sent = sum(one.pages for one in some)
                yield Text(f"  {glyphs.dots} {count(len(some), 'more pass', 'more passes')}, {count(sent, 'page')}")
            continue
        bar = glyphs.bar * (max(1, done.pages * room // most) if done.pages else 0)
        row = Text(f"  {at:>{number}}  {done.kind:<{kinds}}  {done.pages:>{pages}}  ")
        yield row.append(bar, "blue")


def _print(console: Console, line: Text) -> None:
    line.rstrip()
    console.print(line, soft_wrap=True)


def map_object(inspection: Inspection) -> dict[str, Any]:
    """The same as a JSON object: bins as [first frame, {kind: pages}], those without any page left out."""
    found = page_map(inspection)
    return {
        "placement": well_formed(found.placement),
        "pfns": _space_object(found.guest),
        "machine_frames": None if found.machine is None else _space_object(found.machine),
        "four_gib": found.four_gib,
        "unplaced": found.unplaced,
        "beyond": found.beyond,
        "rounds": [{"kind": done.kind, "pages": done.pages, "bytes": done.bytes} for done in inspection.log.rounds],
    }


def _space_object(space: Space) -> dict[str, Any]:
    filled = np.flatnonzero(space.counts.any(axis=1)).tolist()
    return {
        "end": space.end,
        "pages_per_bin": space.step,
        "totals": {kind_name(kind): int(space.totals[kind]) for kind in range(KINDS) if space.totals[kind]},
        "l3_above_4g": int(space.high_l3s.sum()),
        "bins": [
            [
                int(space.starts[at]),
                {kind_name(kind): int(space.counts[at, kind]) for kind in np.flatnonzero(space.counts[at]).tolist()},
            ]
            for at in filled
        ],
    }
