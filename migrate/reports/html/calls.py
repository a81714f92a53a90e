"""The restore as hypercalls: refused ones told of one by one, what succeeds between them folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from migrate.reports.verdict.trace import describe
from migrate.xen.hypercalls import Pin, Refusal
from streams.counting import count

if TYPE_CHECKING:
    from migrate.inspection.reading import Inspection
    from migrate.rules.findings import Finding
    from migrate.xen.answers import StepAnswer

# Pins that succeed are shown one by one where no more of them than this come together.
PINS_SHOWN = 8
# Rows beyond this are not shown; those that fail always are, up to as many again.
MOST_CALLS = 600
_PIN = "pin"


@dataclass(frozen=True, slots=True)
class Call:
    """A row of the trace: one hypercall, or several pins in a row that Xen accepts.

    `number` is that of the first among all calls, from 1.
    """

    number: int
    name: str
    what: str
    answer: str
    finding: Finding | None = None
    stands_for: int = 1

    @property
    def last(self) -> int:
        """Number of the last call it stands for."""
        return self.number + self.stands_for - 1


@dataclass(frozen=True, slots=True)
class Stretch:
    """Calls in a row that are all answered alike: those that succeed are folded, each that fails stands alone."""

    rows: list[Call]

    @property
    def failed(self) -> Call | None:
        """The one that fails, if it is one that does."""
        return self.rows[0] if self.rows[0].finding is not None else None

    @property
    def what(self) -> str:
        """What was asked for, and how often."""
        names = Counter[str]()
        for row in self.rows:
            names[row.name] += row.stands_for
        return ", ".join(f"{name} × {number}" if number > 1 else name for name, number in names.items())


@dataclass(frozen=True, slots=True)
class Calls:
    """The trace, and what it leaves out."""

    stretches: list[Stretch]
    rest: list[Stretch]  # behind the one that a real restore ends with; all, where it ends before them
    total: int
    failed: int
    left_out: int
    stops_at: int | None  # number of the call that a real restore would end with
    goes_on: str | None  # what stopped the restore before


def calls(inspection: Inspection) -> Calls | None:
    """The hypercalls of a restore; None where it makes none."""
    answers = inspection.answers
    if not answers:
        return None
    rows = list(_rows(inspection, answers))
    failed = [row for row in rows if row.finding is not None]
    kept = [row for at, row in enumerate(rows) if at < MOST_CALLS or row.finding is not None][: 2 * MOST_CALLS]
    fatal = next((row.number for row in failed if row.finding is not None and row.finding.fatal), None)
    failure = inspection.report.failure
    before = failure.message if failure is not None and failure.step in ("headers", "record") else None
    stretches = [
        Stretch(list(alike)) for _, alike in groupby(kept, key=lambda row: row.number if row.finding is not None else 0)
    ]
    last = next((at + 1 for at, stretch in enumerate(stretches) if stretch.rows[0].number == fatal), len(stretches))
    if before:
        last = 0
    return Calls(
        stretches[:last],
        stretches[last:],
        len(answers),
        len(failed),
        len(answers) - sum(row.stands_for for row in kept),
        None if before else fatal,
        before,
    )


def _rows(inspection: Inspection, answers: list[StepAnswer]) -> Iterator[Call]:
    placement = inspection.placement
    number = 1
    for fine, run in groupby(answers, key=lambda one: isinstance(one.step, Pin) and one.finding is None):
        some = list(run)
        if fine and len(some) > PINS_SHOWN:
            yield Call(number, _PIN, _pins(some), "0", stands_for=len(some))
        else:
            for at, one in enumerate(some, number):
                finding = one.finding
                refusal = isinstance(one.step, Refusal) and finding is not None
                what = finding.message if refusal and finding else describe(one.step, placement)
                name = _PIN if isinstance(one.step, Pin) else one.step.call
                yield Call(at, name, what, _answer(finding), finding)
        number += len(some)


def _answer(finding: Finding | None) -> str:
    if finding is None:
        return "0"
    return f"-{finding.errno}" if finding.errno is not None else "refused"


def _pins(some: list[StepAnswer]) -> str:
    pins = [one.step for one in some if isinstance(one.step, Pin)]
    levels = Counter(pin.level for pin in pins)
    by_level = ", ".join(f"{number} L{level}" for level, number in sorted(levels.items()))
    return f"{count(len(pins), 'pin')}: {by_level}, pfn {pins[0].pfn:#x} to {pins[-1].pfn:#x}"
