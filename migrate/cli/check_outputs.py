"""What `migrate check` prints: one class per format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from migrate.cli.ending import ExitCode, UsageError, echo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from migrate.cli.options import Question
    from migrate.judging.across_releases import Comparison
    from migrate.judging.report import Report

MORE_FORMATS = ("sarif", "junit", "github", "markdown")


class Wanted(Enum):
    """How a text is to tell it."""

    FOLDED = "by rule"
    QUIET = "verdicts only"
    VERBOSE = "each finding by itself"
    CONCISE = "a line per finding"
    STATISTICS = "counts per rule"

    @classmethod
    def of(cls, ways: Mapping[str, bool]) -> Wanted:
        """What is wanted by the one option that is set."""
        return next((cls[option.removeprefix("--").upper()] for option, is_set in ways.items() if is_set), cls.FOLDED)


class Output:
    """One of the formats.

    Attributes
    ----------
    compares:
        where all releases are asked about: whether it tells which answer alike, in place of each answer.
    """

    compares = False

    def compare(self, comparison: Comparison) -> None:
        """Take the answers of all releases about one stream."""
        raise NotImplementedError

    def show(self, report: Report, ending: ExitCode) -> None:
        """Take the report of one stream, and what it makes the exit code."""

    def answered(self, reports: Sequence[Report]) -> None:
        """All reports of one stream have been shown."""

    def lost(self, name: str, why: str) -> None:
        """A stream could not be read; stderr tells it anyway."""

    def close(self) -> None:
        """All streams have been judged."""


class TextOutput(Output):
    """For people: each stream as soon as it is judged, a blank line between two."""

    def __init__(self, *, verbose: bool) -> None:
        from migrate.reports.verdict.text import printer_for

        self.console = printer_for()
        self.verbose = verbose
        self.first = True

    def show(self, report: Report, ending: ExitCode) -> None:
        """Print the report."""
        from migrate.reports.verdict.text import render

        if not self.first:
            self.console.print()
        self.first = False
        render(report, self.console, verbose=self.verbose)


class QuietOutput(Output):
    """For people in a hurry: verdict lines, and only of streams that are not fine."""

    def show(self, report: Report, ending: ExitCode) -> None:
        """Print the verdict line."""
        if ending != ExitCode.FINE:
            from migrate.reports.verdict.text import printer_for, render_verdict_line

            render_verdict_line(report, printer_for())


class ConciseOutput(Output):
    """For editors and grep: a line per finding."""

    def answered(self, reports: Sequence[Report]) -> None:
        """Print the lines."""
        from migrate.reports.verdict.sentences import concise_lines
        from migrate.safe import safe

        for line in concise_lines(reports):
            echo(safe(line))


class StatisticsOutput(Output):
    """For people with many streams: how often which rule is broken."""

    def __init__(self) -> None:
        from migrate.reports.verdict.statistics import Statistics

        self.statistics = Statistics()

    def answered(self, reports: Sequence[Report]) -> None:
        """Count."""
        self.statistics.add(reports)

    def lost(self, name: str, why: str) -> None:
        """Count it."""
        self.statistics.unreadable += 1

    def close(self) -> None:
        """Print the table."""
        from migrate.reports.verdict.statistics import render

        render(self.statistics)


class ReleasesOutput(Output):
    """For people who compare releases: those that answer alike, and which change makes the others differ."""

    compares = True

    def __init__(self, *, verbose: bool) -> None:
        self.first = True
        self.verbose = verbose

    def compare(self, comparison: Comparison) -> None:
        """Print the groups and the changes."""
        from migrate.reports.verdict.releases import render_comparison
        from migrate.reports.verdict.text import console_for, render

        console = console_for()
        if not self.first:
            console.print()
        self.first = False
        if self.verbose:  # of releases that answer alike, what the first one answers
            for group in comparison.groups:
                render(group.report, console, verbose=True)
                console.print()
        render_comparison(comparison, console)


def _print_whole(report: Report) -> None:
    """Print all that is to be said of one answer, where a table of all follows."""
    from migrate.reports.verdict.text import printer_for, render

    console = printer_for()
    render(report, console, verbose=True)
    console.print()


class TableOutput(Output):
    """For people who compare: a table of verdicts per stream, a row per form of the 4 GiB rule."""

    def __init__(self, *, verbose: bool) -> None:
        self.rows: list[dict[str, str]] = []
        self.verbose = verbose

    def show(self, report: Report, ending: ExitCode) -> None:
        """Keep a row."""
        from migrate.reports.verdict.sentences import failure_place
        from migrate.rules.extended_cr3 import L3_RULES

        if self.verbose:
            _print_whole(report)
        failure = report.failure
        row = {"stream": report.stream.name, "target": report.target, "verdict": str(report.outcome)}
        if report.l3_rule is not None:
            row["4 GiB rule"] = f"{report.l3_rule} {L3_RULES[report.l3_rule].name}"
        where = failure_place(failure) if failure else report.unjudged_because or ""
        self.rows.append(row | {"rule": failure.rule if failure else "", "where": where})

    def close(self) -> None:
        """Print the table."""
        from migrate.reports.tables import print_table

        names = {row["stream"] for row in self.rows}
        if len(names) == 1:
            # One stream needs no column of its own, which leaves the others room on a narrow terminal.
            from migrate.safe import safe

            echo(safe(*names))
            self.rows = [{key: value for key, value in row.items() if key != "stream"} for row in self.rows]
        if self.rows:
            print_table(self.rows)


class JsonLinesOutput(Output):
    """For programs: one object per line, as soon as the stream is judged."""

    def show(self, report: Report, ending: ExitCode) -> None:
        """Print the object."""
        self._print(report.to_dict())

    def lost(self, name: str, why: str) -> None:
        """Print an object that says so."""
        from migrate.judging.report_json import error_object

        self._print(error_object(name, why))

    @staticmethod
    def _print(made: dict[str, Any]) -> None:
        from migrate.judging.report_json import dumps

        echo(dumps(made))


class JsonOutput(Output):
    """For programs: one document at the end, an array if more than one stream was asked for."""

    def __init__(self, several: bool) -> None:
        self.several = several
        self.objects: list[dict[str, Any]] = []

    def show(self, report: Report, ending: ExitCode) -> None:
        """Keep the object."""
        self.objects.append(report.to_dict())

    def lost(self, name: str, why: str) -> None:
        """Keep an object that says so."""
        from migrate.judging.report_json import error_object

        self.objects.append(error_object(name, why))

    def close(self) -> None:
        """Print the document."""
        from migrate.judging.report_json import dumps

        if self.several:
            echo(dumps(self.objects, indent=2))
        elif self.objects:
            echo(dumps(self.objects[0], indent=2))


class DocumentOutput(Output):
    """For programs: one document at the end, of all reports and of the streams that could not be read."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.unreadable: list[tuple[str, str]] = []

    def show(self, report: Report, ending: ExitCode) -> None:
        """Keep the report."""
        self.reports.append(report)

    def lost(self, name: str, why: str) -> None:
        """Keep what is the matter."""
        self.unreadable.append((name, why))

    def close(self) -> None:
        """Print the document."""
        echo(self.document())

    def document(self) -> str:
        """The document, without the end of its last line."""
        raise NotImplementedError


class SarifOutput(DocumentOutput):
    """For code scanning."""

    def document(self) -> str:
        """The SARIF log file."""
        from migrate.judging.report_json import dumps
        from migrate.reports.verdict import sarif

        return dumps(sarif.document(self.reports, self.unreadable), indent=2)


class JunitOutput(DocumentOutput):
    """For CI servers: a test case per stream and question.

    Parameters
    ----------
    fail_on:
        least severity of a finding that fails a test case.
    """

    def __init__(self, fail_on: str) -> None:
        super().__init__()
        self.fail_on = fail_on

    def document(self) -> str:
        """The XML document."""
        from migrate.reports.verdict import junit
        from migrate.rules.declaring import Severity

        cases = junit.from_reports(self.reports, Severity(self.fail_on), self.unreadable)
        return junit.document("migrate check", cases).rstrip()


class GithubOutput(Output):
    """For GitHub Actions: annotations, as soon as the stream is judged."""

    def show(self, report: Report, ending: ExitCode) -> None:
        """Print a line per finding."""
        from migrate.reports.verdict.github import workflow_commands

        for line in workflow_commands(report):
            echo(line)

    def lost(self, name: str, why: str) -> None:
        """Print a line about a stream that cannot be read."""
        from migrate.reports.verdict.github import workflow_command

        echo(workflow_command("error", name, "cannot be read", why))


class PoolOutput(Output):
    """For people with several hosts: which of them would take it?"""

    def __init__(self, *, as_markdown: bool, verbose: bool = False) -> None:
        self.reports: list[Report] = []
        self.as_markdown = as_markdown
        self.verbose = verbose

    def show(self, report: Report, ending: ExitCode) -> None:
        """Keep it."""
        if self.verbose:
            _print_whole(report)
        self.reports.append(report)

    def close(self) -> None:
        """Print the table."""
        from migrate.reports.verdict.pool import markdown, render
        from migrate.reports.verdict.text import console_for

        if self.reports and self.as_markdown:
            echo(markdown(self.reports))
        elif self.reports:
            render(self.reports, console_for())


def output_for(form: str, question: Question, wanted: Wanted, *, several: bool, fail_on: str) -> Output:
    """The output of that format.

    Parameters
    ----------
    question:
        what is asked: as text, releases that answer alike, a table of forms of a rule or of hosts.
    wanted:
        how a text tells it.
    several:
        whether there may be more than one answer.
    fail_on:
        least severity of a finding that is a failure.
    """
    match form:
        case "json":
            return JsonOutput(several)
        case "jsonl":
            return JsonLinesOutput()
        case "sarif":
            return SarifOutput()
        case "junit":
            return JunitOutput(fail_on)
        case "github":
            return GithubOutput()
        case "markdown":
            if all(destination.host is None for destination in question.destinations):
                raise UsageError("--format markdown is a table of hosts: it needs --host")
            return PoolOutput(as_markdown=True)
    match wanted:
        case Wanted.QUIET:
            return QuietOutput()
        case Wanted.CONCISE:
            return ConciseOutput()
        case Wanted.STATISTICS:
            return StatisticsOutput()
    verbose = wanted is Wanted.VERBOSE
    if question.several_hosts:
        return PoolOutput(as_markdown=False, verbose=verbose)
    if question.every_release:
        return ReleasesOutput(verbose=verbose)
    return TableOutput(verbose=verbose) if question.every_form else TextOutput(verbose=verbose)
