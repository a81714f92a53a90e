"""How often which rule is broken, over many streams."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from migrate.counting import count
from migrate.judging.report import Outcome
from migrate.reports.verdict.sentences import outcomes_told
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Severity

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.judging.report import Report


class Statistics:
    """Counts over the reports that were added."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.findings: Counter[tuple[str, Severity]] = Counter()
        self.streams: Counter[tuple[str, Severity]] = Counter()

    def add(self, report: Report) -> None:
        """Count one more."""
        self.outcomes[report.outcome] += 1
        broken: Counter[tuple[str, Severity]] = Counter()
        for finding in report.findings:
            broken[finding.rule.id, finding.severity] += finding.count
        self.findings.update(broken)
        self.streams.update(broken.keys())

    def rows(self) -> list[dict[str, str | int]]:
        """A row for each rule and severity, the worst and the most frequent first."""
        kinds = sorted(self.findings, key=lambda kind: (-kind[1].rank, -self.findings[kind], kind[0]))
        return [
            {
                "findings": self.findings[rule, severity],
                "streams": self.streams[rule, severity],
                "severity": severity.value,
                "rule": f"{rule} {RULES[rule].slug}",
            }
            for rule, severity in kinds
        ]

    def headline(self) -> str:
        """How many streams came out how."""
        told = outcomes_told(self.outcomes)
        return f"{count(self.outcomes.total(), 'answer')}: {told}" if told else "nothing was judged"


def render(statistics: Statistics, console: Console | None = None) -> None:
    """Print the table, and how many streams came out how."""
    from migrate.reports.tables import print_table
    from migrate.reports.verdict.text import console_for

    console = console or console_for()
    if rows := statistics.rows():
        print_table(rows, console)
        console.print()
    console.print(statistics.headline())
