"""How often which rule is broken, over many streams."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from migrate.judging.report import Outcome
from migrate.reports.verdict.sentences import outcomes_told
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Severity
from streams.counting import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from migrate.judging.report import Report

# A rule, and how much a breach of it weighed.
Kind = tuple[str, Severity]


class Statistics:
    """Counts over the streams that were added."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.answers: Counter[Kind] = Counter()
        self.findings: Counter[Kind] = Counter()
        self.streams: Counter[Kind] = Counter()
        self.judged = 0
        self.unreadable = 0

    def add(self, reports: Sequence[Report]) -> None:
        """Count one more stream, by what is said of it: of several destinations the one with most findings counts."""
        self.judged += 1
        most: Counter[Kind] = Counter()
        for report in reports:
            self.outcomes[report.outcome] += 1
            broken: Counter[Kind] = Counter()
            for finding in report.findings:
                broken[finding.rule.id, finding.severity] += finding.count
            self.answers.update(broken.keys())
            most |= broken
        self.findings.update(most)
        self.streams.update(most.keys())

    @property
    def several(self) -> bool:
        """Whether there is more than one answer about a stream."""
        return self.outcomes.total() > self.judged

    def rows(self) -> list[dict[str, str | int]]:
        """A row for each rule and severity, the worst and the most frequent first."""
        kinds = sorted(self.findings, key=lambda kind: (-kind[1].rank, -self.findings[kind], kind[0]))
        return [
            {
                "findings": self.findings[rule, severity],
                "streams": self.streams[rule, severity],
                **({"answers": self.answers[rule, severity]} if self.several else {}),
                "severity": severity.value,
                "rule": f"{rule} {RULES[rule].slug}",
            }
            for rule, severity in kinds
        ]

    def headline(self) -> str:
        """How many streams came out how, or with several destinations how many answers."""
        outcomes = outcomes_told(self.outcomes)
        streams = count(self.judged, "stream")
        lines = [
            f"{streams}, {count(self.outcomes.total(), 'answer')}: {outcomes}"
            if self.several
            else f"{streams}: {outcomes}"
        ]
        lines = lines if outcomes else []
        lines += [f"{self.unreadable} cannot be read"] if self.unreadable else []
        return "; ".join(lines) or "nothing was judged"


def render(statistics: Statistics, console: Console | None = None) -> None:
    """Print the table, and how many streams came out how."""
    from migrate.reports.tables import print_table
    from migrate.reports.verdict.text import console_for

    console = console or console_for()
    if rows := statistics.rows():
        print_table(rows, console)
        console.print()
    console.print(statistics.headline())
