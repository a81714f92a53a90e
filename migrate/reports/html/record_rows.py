"""The records of a stream as rows of a table: one each, or folded where that would be too many to use."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from migrate.inspection.records.contents import contents
from streams.counting import count

if TYPE_CHECKING:
    from migrate.inspection.reading import Inspection
    from migrate.inspection.records.contents import Line
    from migrate.reports.html.anchors import Anchors

# Of more records than this those that are alike share a row.
MOST_SINGLE = 256
MOST_ROWS = 1500


@dataclass(frozen=True, slots=True)
class Records:
    """The table: its lines, the types to choose from, and what it leaves out."""

    lines: list[Line]
    types: list[str]
    total: int
    left_out: int

    @property
    def paged(self) -> bool:
        """Whether any is part of a pass over the guest's memory."""
        return any(line.first.round is not None for line in self.lines)

    @property
    def short_of(self) -> str:
        """What the table leaves out, in a sentence; empty for nothing."""
        folded = sum(line.count for line in self.lines if line.count > 1)
        notes = [f"{count(folded, 'record')} that are alike share lines"] if folded else []
        notes += [f"{count(self.left_out, 'record')} behind these are left out"] if self.left_out else []
        return "; ".join(notes)


def records(inspection: Inspection, anchors: Anchors) -> Records:
    """The rows for a stream's log; tells the anchors which have a place."""
    total = len(inspection.log)
    lines = list(islice(contents(inspection, everything=total <= MOST_SINGLE), MOST_ROWS))
    for line in lines:
        anchors.records.add(line.first.offset)
        anchors.blamed.update(dict.fromkeys(map(id, line.findings), line.first.offset))
    return Records(lines, sorted({line.first.name for line in lines}), total, total - sum(line.count for line in lines))
