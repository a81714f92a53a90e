"""Which of some hosts would take which stream: a line for each pair, and who takes all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from migrate.counting import count
from migrate.rules.declaring import Verdict
from migrate.safe import safe

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.judging.report import Report

TAKES, DAMAGED, REFUSES, OPEN = "takes it", "takes it, damaged", "refuses", "open"


def host_name(report: Report) -> str:
    """What a host is called: by its file, else by its own name."""
    host = report.destination.host
    return "-" if host is None else host.label


def answer_of(report: Report) -> str:
    """What a host would do with a stream, in a word or two."""
    if report.verdict == Verdict.REFUSE:
        return REFUSES
    if report.verdict == Verdict.UNJUDGED:
        return OPEN
    return DAMAGED if report.damaged else TAKES


def reason_of(report: Report) -> str:
    """Why a host does not take a stream as it is; "" where it does."""
    if report.failure is not None:
        return f"{report.failure.message} ({report.failure.rule})"
    if report.unjudged_because is not None:
        return report.unjudged_because
    damage = report.damage
    return "" if damage is None else f"{damage.message} ({damage.rule.id})"


def rows(reports: Sequence[Report]) -> list[dict[str, str]]:
    """A row for each stream and host."""
    several = len({report.stream.name for report in reports}) > 1
    return [
        ({"stream": report.stream.name} if several else {})
        | {
            "host": host_name(report),
            "Xen": report.destination.release.short,
            "answer": answer_of(report),
            "why": reason_of(report),
        }
        for report in reports
    ]


def summary(reports: Sequence[Report]) -> Iterator[str]:
    """For each stream how many hosts take it."""
    by_stream: dict[str, list[Report]] = {}
    for report in reports:
        by_stream.setdefault(report.stream.name, []).append(report)
    for name, those in by_stream.items():
        takers = [host_name(report) for report in those if answer_of(report) == TAKES]
        some = f"{len(takers)} of {count(len(those), 'host')}"
        yield f"{safe(name)}: {some} would take it" + (f": {', '.join(map(safe, takers))}" if takers else "")


def render(reports: Sequence[Report], console: Console) -> None:
    """Print the table, and who takes what."""
    from migrate.reports.tables import print_table

    print_table(rows(reports), console)
    console.print()
    for line in summary(reports):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def markdown(reports: Sequence[Report]) -> str:
    """The same as a Markdown table."""
    table = rows(reports)
    lines = ["| " + " | ".join(table[0]) + " |", "|" + " --- |" * len(table[0])]
    lines += ["| " + " | ".join(safe(cell).replace("|", "\\|") for cell in row.values()) + " |" for row in table]
    return "\n".join([*lines, "", *summary(reports)])
