"""The passes of a live migration as bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from migrate.inspection.memory.resent import Pass, live
from migrate.reports.verdict.sentences import live_sentences
from streams.pages import TABLE_TYPES, type_name

if TYPE_CHECKING:
    from migrate.inspection.reading import Inspection

LONGEST = 1000  # length of the longest bar, in its own units
MOST_BARS = 60
_TABLES = frozenset(map(type_name, TABLE_TYPES))


class Bar(NamedTuple):
    """One pass: how long its bar is, and what it tells."""

    length: int
    done: Pass
    number: int
    tables: int


@dataclass(frozen=True, slots=True)
class Passes:
    """The bars, what they add up to, and how many are left out."""

    bars: list[Bar]
    notes: list[str]
    left_out: int
    longest: int = LONGEST


def passes(inspection: Inspection) -> Passes | None:
    """The passes over a guest's memory; None for a stream without any."""
    if not inspection.log.rounds:
        return None
    found = live(inspection)
    most = max(one.round.pages for one in found.passes) or 1
    bars = [
        Bar(max(1, one.round.pages * LONGEST // most), one, at + 1, _tables(one))
        for at, one in enumerate(found.passes[:MOST_BARS])
    ]
    return Passes(bars, list(live_sentences(found)), len(found.passes) - len(bars))


def _tables(one: Pass) -> int:
    return sum(pages for kind, pages in one.types.items() if kind in _TABLES)
