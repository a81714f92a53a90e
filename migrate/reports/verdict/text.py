"""The report for people: what the stream is, what was found, and the verdict in a sentence."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.text import Text

from migrate.reports.rules.pages import explain_command
from migrate.reports.verdict.sentences import facts_told, link_text, verdict_sentence
from migrate.rules.declaring import Severity
from migrate.safe import safe

if TYPE_CHECKING:
    from migrate.judging.report import Report
    from migrate.rules.findings import Finding

# Wider than any line: where nobody looks at a screen, nothing is broken into lines.
UNLIMITED = 1 << 20

SEVERITY_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_VERDICT_STYLE = {"accept": "bold green", "refuse": "bold red", "unjudged": "bold yellow"}
_VERDICT_WIDTH = 9
_ID_WIDTH = 8
_KEY_WIDTH = 13
_SLUG_WIDTH = 13
_SEVERITY_WIDTH = 9
_EXPLAIN_GAP = " " * 6
# A message gets at least so many columns; in a narrower window it starts on a line of its own.
_NARROWEST = 40


class _ReportConsole(Console):
    def on_broken_pipe(self) -> None:
        # Newer versions of rich would exit here with a code of their own.
        raise


def console_for(file: TextIO | None = None) -> Console:
    """A console on a file, by default on stdout: plain and of unlimited width where it is no terminal.

    With NO_COLOR set (to anything but an empty word) nothing is styled at all, not in bold either: some of those who
    set it have a terminal that cannot, or a reader that speaks the codes. So it is on a dumb terminal (TERM).

    Raises BrokenPipeError where there is no stdout.
    """
    file = file or sys.stdout
    if file is None:
        raise BrokenPipeError("stdout is closed")
    width = None if file.isatty() else UNLIMITED
    unstyled = bool(os.environ.get("NO_COLOR"))
    return _ReportConsole(
        file=file,
        width=width,
        no_color=unstyled,
        color_system=None if unstyled else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )


def render(report: Report, console: Console) -> None:
    """Print the whole report of one stream, wrapped to the width of the console."""
    render_head(report, console)
    if report.findings:
        console.print()
        slug_width = max(_SLUG_WIDTH, *(len(finding.rule.slug) for finding in report.findings))
        for finding in report.findings:
            _finding(finding, console, slug_width)
    console.print()
    render_verdict(report, console)


def render_head(report: Report, console: Console) -> None:
    """Print what the stream is, and what was asked of it."""
    _print(console, Text(safe(report.stream.name), "bold"))
    for key, value in facts_told(report):
        hanging(console, Text(f"    {key:<{_KEY_WIDTH}}"), safe(value))


def render_verdict(report: Report, console: Console) -> None:
    """Print the verdict line alone."""
    head = Text(f"{safe(report.verdict):<{_VERDICT_WIDTH}}", _VERDICT_STYLE.get(report.verdict, ""))
    hanging(console, head, safe(f"{report.stream.name}: {verdict_sentence(report)}"))


def _finding(finding: Finding, console: Console, slug_width: int) -> None:
    rule = finding.rule
    head = Text.assemble(
        (f"{rule.id:<{_ID_WIDTH}}", "bold"),
        f"{rule.slug:<{slug_width}}  ",
        (f"{finding.severity.value:<{_SEVERITY_WIDTH}}", SEVERITY_STYLE[finding.severity]),
    )
    if console.width - len(head) >= _NARROWEST:
        hanging(console, head, safe(finding.message))
    else:
        _print(console, head)
        hanging(console, Text(" " * _ID_WIDTH), safe(finding.message))
    if finding.chain:
        hanging(console, Text(" " * _ID_WIDTH), safe(f"by way of {', '.join(map(link_text, finding.chain))}"), "dim")
    explain = f"explain: {' '.join(explain_command(rule))}"
    hanging(console, Text(" " * _ID_WIDTH), safe(_EXPLAIN_GAP.join(filter(None, (_place(finding), explain)))), "dim")


def _place(finding: Finding) -> str:
    parts = []
    if finding.offset is not None:
        parts.append(f"at {finding.offset:#x}")
    if finding.record is not None:
        parts.append(f"record {finding.record} {finding.record_type or ''}".rstrip())
    if finding.count > 1:
        parts.append(f"and {finding.count - 1} more like it")
    return ", ".join(parts)


def hanging(console: Console, head: Text, body: str, style: str = "", *, width: int = UNLIMITED) -> None:
    """Print `head` and beside it `body`, wrapped under itself, within `width` columns and those of the console."""
    room = max(min(width, console.width) - len(head), 1)
    for line in Text(body, style).wrap(console, room) or [Text()]:
        _print(console, Text.assemble(head, line))
        head = Text(" " * len(head))


def _print(console: Console, line: Text) -> None:
    line.rstrip()
    # Lines are broken already; and a name is never cut off.
    console.print(line, soft_wrap=True)
