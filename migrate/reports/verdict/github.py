"""Findings as GitHub workflow commands: lines that a job prints, and that become annotations of a commit.

Source: GitHub's documentation, "Workflow commands for GitHub Actions". A file's annotations hang on its lines;
a stream has none, so the byte offset stands in the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from migrate.reports.folding import folds
from migrate.reports.verdict.sentences import cause_line, verdict_sentence
from migrate.rules.declaring import Severity
from migrate.safe import safe

if TYPE_CHECKING:
    from migrate.judging.report import Report

COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def workflow_commands(report: Report) -> Iterator[str]:
    """A line per rule and cause, and one for a stream that was not judged."""
    name = report.stream.name
    for entry in folds(report):
        title = f"{entry.rule.id} {entry.rule.slug}"
        for cause in entry.causes:
            yield workflow_command(COMMANDS[entry.severity], name, title, cause_line(cause))
    if report.verdict == "unjudged":
        yield workflow_command("warning", name, "not judged", verdict_sentence(report))


def workflow_command(command: str, name: str, title: str, message: str) -> str:
    """One workflow command."""
    return f"::{command} file={_property(name)},title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    # What is not printable has become an escape; a percent sign begins one of GitHub's own.
    return safe(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
