"""The report for people: what the stream is, what was found, and the verdict in a sentence."""

from __future__ import annotations

import os
import sys
from io import StringIO

from migrate.judging.report import Outcome
from migrate.reports.folding import folds, is_placed, place
from migrate.reports.lines import UNLIMITED, PlainConsole, Text
from migrate.reports.rules.commands import explain_command
from migrate.reports.verdict.sentences import (
    answer,
    assumption,
    broken_rule,
    cause_sentence,
    circumstances,
    facts_told,
    link_text,
    repair_sentence,
    short_facts,
    tally,
    times_and_places,
    verdict_sentence,
)
from migrate.rules.declaring import Effect, Severity
from migrate.safe import safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    import rich.text
    from rich.console import Console

    from migrate.judging.report import Report
    from migrate.reports.folding import Fold
    from migrate.rules.declaring import Rule
    from migrate.rules.findings import Finding

SEVERITY_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
OUTCOME_STYLE = {
    Outcome.RESTORES: "bold green",
    Outcome.DAMAGED: "bold magenta",
    Outcome.REFUSED: "bold red",
    Outcome.UNJUDGED: "bold yellow",
}
_BECAUSE = "because   "
_ID_WIDTH = 8
_KEY_WIDTH = 13
_SEVERITY_WIDTH = 9


# What makes rich take a file for a terminal.
_TERMINAL_ANYWAY = frozenset({"FORCE_COLOR", "TTY_COMPATIBLE"})


def printer_for(file: TextIO | None = None) -> Console | PlainConsole:
    """What prints lines on a file, by default on stdout: rich on a terminal alone.

    Raises BrokenPipeError where there is no stdout.
    """
    file = file or sys.stdout
    if file is None or file.isatty() or not _TERMINAL_ANYWAY.isdisjoint(os.environ):
        return console_for(file)
    return PlainConsole(file)


def console_for(file: TextIO | None = None) -> Console:
    """A console on a file, by default on stdout: plain and of unlimited width where it is no terminal.

    With NO_COLOR set (to anything but an empty word) nothing is styled at all, not in bold either: some of those who
    set it have a terminal that cannot, or a reader that speaks the codes. So it is on a dumb terminal (TERM).

    Raises BrokenPipeError where there is no stdout.
    """
    from rich.console import Console

    class ReportConsole(Console):
        def on_broken_pipe(self) -> None:
            # Newer versions of rich would exit here with a code of their own.
            raise

    file = file or sys.stdout
    if file is None:
        raise BrokenPipeError("stdout is closed")
    width = None if file.isatty() else UNLIMITED
    unstyled = bool(os.environ.get("NO_COLOR"))
    return ReportConsole(
        file=file,
        width=width,
        no_color=unstyled,
        color_system=None if unstyled else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )


def render(report: Report, console: Console | PlainConsole, *, verbose: bool = False) -> None:
    """Print the report of one stream: the verdict with its cause, the findings by rule, what the stream is.

    Everything is wrapped to the width of the console.

    Parameters
    ----------
    verbose:
        tell each finding by itself, and all facts.
    """
    render_verdict(report, console)
    entries = folds(report)
    if entries:
        console.print()
    if verbose:
        for finding in (finding for entry in entries for finding in entry.findings):
            _finding(finding, console)
    elif entries:
        _entries(entries, report.decisive or report.damage, console)
    console.print()
    facts = facts_told(report) if verbose else short_facts(report)
    for key, value in facts:
        hanging(console, Text(f"{key:<{_KEY_WIDTH}}"), safe(value))


def text_of(report: Report) -> str:
    """What `render` prints where no terminal is, without the end of its last line."""
    file = StringIO()
    render(report, PlainConsole(file))
    return file.getvalue().rstrip()


def render_head(report: Report, console: Console | PlainConsole) -> None:
    """Print what the stream is, and what was asked of it."""
    _print(console, Text(safe(report.stream.name), "bold"))
    for key, value in facts_told(report):
        hanging(console, Text(f"    {key:<{_KEY_WIDTH}}"), safe(value))


def render_verdict(report: Report, console: Console | PlainConsole) -> None:
    """Print the verdict, its cause, and what to do about it."""
    assumed = assumption(report)
    counts = tally(finding for finding in report.findings if finding.severity is not Severity.INFO)
    cause, rule, repair = cause_sentence(report), broken_rule(report), repair_sentence(report)
    asked = f"{circumstances(report)}{f' ({assumed})' if assumed else ''}"
    line = Text.assemble(
        (f"{report.outcome}: ", OUTCOME_STYLE[report.outcome]),
        (safe(report.stream.name), "bold"),
        safe(f" {asked}" + (f"; {counts}" if counts and not cause else "")),
    )
    _wrapped(console, line, len(_BECAUSE))
    if cause:
        explain = f" ({' '.join(explain_command(rule))})" if rule else ""
        hanging(console, Text(_BECAUSE), safe(cause + explain))
    if repair:
        hanging(console, Text(f"{'repair':<{len(_BECAUSE)}}"), safe(repair))


def render_verdict_line(report: Report, console: Console | PlainConsole) -> None:
    """Print all that in one line, however long."""
    head = Text(f"{report.outcome}: ", OUTCOME_STYLE[report.outcome])
    sentence = verdict_sentence(report).removeprefix(report.outcome).removeprefix(":").strip()
    _print(console, Text.assemble(*head.pieces, safe(f"{report.stream.name} {sentence}")))


def _entries(entries: list[Fold], decisive: Finding | None, console: Console | PlainConsole) -> None:
    """Findings by rule, without what the verdict has told already; those that are for information only in a line.

    What is left to the host is no mere information where nothing else decides.
    """
    decided = decisive is not None and decisive.fatal
    infos = []
    for entry in entries:
        if entry.severity is Severity.INFO and (decided or entry.effect is not Effect.HOST):
            infos.append(f"{entry.rule.id} {entry.rule.slug}")
        else:
            _entry(entry, decisive, console)
    if infos:
        head = Text(f"{'info':<{_ID_WIDTH}}", SEVERITY_STYLE[Severity.INFO])
        hanging(console, head, f"{', '.join(infos)} (-v tells all)")


def _entry(entry: Fold, decisive: Finding | None, console: Console | PlainConsole) -> None:
    """A rule, where it is broken, and how."""
    for number, cause in enumerate(entry.causes):
        said = cause.first is decisive
        where = _where(cause.first) if cause.count == 1 else times_and_places(cause)
        place_told = safe(_joined(entry.rule.slug, where) if number == 0 else where)
        hanging(console, _head(entry.rule if number == 0 else None, entry.severity), place_told)
        if not said:
            hanging(console, Text(" " * _ID_WIDTH), safe(cause.message))
        elif cause.first.chain:
            _chain(cause.first, console)


def _finding(finding: Finding, console: Console | PlainConsole) -> None:
    """One finding by itself."""
    rule = finding.rule
    more = f"and {finding.count - 1} more like it" if finding.count > 1 else ""
    hanging(console, _head(rule, finding.severity), safe(_joined(rule.slug, _where(finding), more)))
    hanging(console, Text(" " * _ID_WIDTH), safe(finding.message))
    if finding.errno is not None or finding.signal is not None:
        hanging(console, Text(" " * _ID_WIDTH), safe(answer(finding)))
    if finding.chain:
        _chain(finding, console)
    hanging(console, Text(" " * _ID_WIDTH), f"explain: {' '.join(explain_command(rule))}", "dim")


def _head(rule: Rule | None, severity: Severity) -> Text:
    return Text.assemble(
        (f"{rule.id if rule else '':<{_ID_WIDTH}}", "bold"),
        (f"{severity.value if rule else '':<{_SEVERITY_WIDTH}}", SEVERITY_STYLE[severity]),
    )


def _chain(finding: Finding, console: Console | PlainConsole) -> None:
    hanging(console, Text(" " * _ID_WIDTH), safe(f"by way of {', '.join(map(link_text, finding.chain))}"), "dim")


def _where(finding: Finding) -> str:
    """The place, and the byte that it begins at."""
    where = place(finding) if is_placed(finding) else ""
    at = "" if finding.offset is None or where.startswith("byte") else f"at {finding.offset:#x}"
    record = f"record {finding.record} {finding.record_type or ''}".rstrip() if finding.record is not None else ""
    return _joined(where, record if record != where else "", at)


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _wrapped(console: Console | PlainConsole, line: Text, indent: int) -> None:
    """Print a line, wrapped to the console's width, what follows the first one indented."""
    if isinstance(console, PlainConsole):
        console.print(line)
        return
    from rich.text import Text as Styled

    first, *rest = line.__rich__().wrap(console, console.width) or [Styled()]
    _print(console, first)
    if rest:
        for part in rest:
            part.rstrip()
        hanging(console, Text(" " * indent), Styled(" ").join(rest))


_LEAST_BESIDE = 16  # columns: with fewer, what stands beside something stands on end
_BELOW = 4  # columns that it is indented by instead


def hanging(
    console: Console | PlainConsole,
    head: Text | rich.text.Text,
    body: str | rich.text.Text,
    style: str = "",
    *,
    width: int = UNLIMITED,
) -> None:
    """Print `head` and beside it `body`, wrapped under itself, within `width` columns and those of the console.

    Where hardly any columns are left beside the head, the body stands below it.
    """
    if isinstance(console, PlainConsole):
        console.print(head.plain + (body if isinstance(body, str) else body.plain))
        return
    from rich.text import Text as Styled

    styled = head.__rich__() if isinstance(head, Text) else head
    text = Styled(body, style) if isinstance(body, str) else body
    room = min(width, console.width) - len(styled)
    if room < min(_LEAST_BESIDE, len(text)):
        _print(console, styled)
        styled = Styled(" " * _BELOW)
        room = max(min(width, console.width) - _BELOW, 1)
    for line in text.wrap(console, room) or [Styled()]:
        _print(console, Styled.assemble(styled, line))
        styled = Styled(" " * len(styled))


def _print(console: Console | PlainConsole, line: Text | rich.text.Text) -> None:
    if isinstance(console, PlainConsole):
        console.print(line)
        return
    styled = line.__rich__() if isinstance(line, Text) else line
    styled.rstrip()
    # Lines are broken already; and a name is never cut off.
    console.print(styled, soft_wrap=True)
