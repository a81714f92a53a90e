"""The answers of all releases about one stream, for people: which answer alike, and what makes the difference."""

from __future__ import annotations

from rich.text import Text

from migrate.judging.across_releases import damage_of
from migrate.reports.tables import print_table
from migrate.reports.verdict.sentences import failure_place, placed
from migrate.reports.verdict.text import hanging
from migrate.safe import safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.console import Console

    from migrate.judging.across_releases import AnswerGroup, Comparison
    from migrate.judging.report import Report

_INDENT = "  - "


def render_comparison(comparison: Comparison, console: Console) -> None:
    """Print a row for each group of releases, and under them the changes that set the groups apart."""
    groups = comparison.groups
    console.print(Text(safe(groups[0].report.stream.name), "bold"), soft_wrap=True)
    print_table([_row(group) for group in groups], console)
    if not comparison.changes:
        return
    console.print()
    console.print("what makes the difference:", soft_wrap=True)
    for change in comparison.changes:
        hanging(console, Text(_INDENT), f"{change.what}: {change.spans}")


def _row(group: AnswerGroup) -> dict[str, str]:
    report, failure = group.report, group.report.failure
    if group.other is None:
        row = {"releases": group.spans, "verdict": str(report.outcome)}
    else:
        row = {"releases": group.spans} | {placed(one.placement): _in_short(one) for one in (report, group.other)}
    if report.l3_rule is not None:
        from migrate.rules.extended_cr3 import L3_RULES

        row["4 GiB rule"] = f"{report.l3_rule} {L3_RULES[report.l3_rule].name}"
    least, most = min(group.warnings), max(group.warnings)
    row["warnings"] = str(least) if least == most else f"{least}–{most}"
    if group.other is not None:
        return row
    rule = failure.rule if failure else ", ".join(group.damage)
    return row | {"rule": rule, "where": failure_place(failure) if failure else report.unjudged_because or ""}


def _in_short(report: Report) -> str:
    rules = report.failure.rule if report.failure else ", ".join(damage_of(report))
    return f"{report.outcome} ({rules})" if rules else str(report.outcome)
