"""Verdicts as JUnit XML, in the form that Jenkins, GitLab and others read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from migrate.reports.folding import folds
from migrate.reports.verdict.sentences import plain_lines, verdict_sentence
from migrate.rules.declaring import Severity
from migrate.safe import safe

if TYPE_CHECKING:
    from migrate.judging.report import Report


@dataclass(frozen=True, slots=True)
class TestCase:
    """What is said of a test case: a line, and all there is to say."""

    kind: str
    message: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """A stream, or a stream under one question; at most one of skipped, error and failure is there."""

    classname: str
    name: str
    seconds: float | None = None
    skipped: str | None = None
    error: TestCase | None = None
    failure: TestCase | None = None
    output: str = ""


def from_reports(
    reports: Sequence[Report], fail_on: Severity, unreadable: Sequence[tuple[str, str]] = ()
) -> list[Trial]:
    """A test case per report: it fails of a refusal, or of a finding of at least that severity.

    What has no verdict was not tested: it is skipped. `unreadable` are streams with the reason, and errors.
    """
    cases = [_case(report, fail_on) for report in reports]
    cases += [Trial(*placed(name), error=TestCase("unreadable", why)) for name, why in unreadable]
    return cases


def _case(report: Report, fail_on: Severity) -> Trial:
    folder, name = placed(report.stream.name)
    asked = f"{report.target}, {report.placement}" + (f", {report.l3_rule}" if report.l3_rule else "")
    lines = "\n".join(plain_lines(report, Severity.INFO))
    sentence = verdict_sentence(report)
    worst = report.worst()
    failure = skipped = None
    if report.verdict == "refuse":
        failure = TestCase(report.failure.rule if report.failure else "refuse", sentence, lines)
    elif worst is not None and worst.rank >= fail_on.rank:
        first = next(entry for entry in folds(report) if entry.severity is worst)
        failure = TestCase(first.rule.id, sentence if report.damaged else first.first.message, lines)
    elif report.verdict == "unjudged":
        skipped = sentence
    output = lines if failure is None and report.findings else ""
    return Trial(folder, f"{name} ({asked})", None, skipped, None, failure, output)


def placed(path: str) -> tuple[str, str]:
    """A stream's directory and name, as class and name of a test case."""
    folder, name = os.path.split(path)
    return folder or ".", name


def document(suite: str, cases: Iterable[Trial]) -> str:
    """The XML document of one suite."""
    cases = list(cases)
    numbers = {
        "tests": len(cases),
        "failures": sum(case.failure is not None for case in cases),
        "errors": sum(case.error is not None for case in cases),
        "skipped": sum(case.skipped is not None for case in cases),
    }
    timed = [case.seconds for case in cases if case.seconds is not None]
    counts = "".join(f" {name}={quoteattr(str(number))}" for name, number in numbers.items())
    time = f' time="{sum(timed):.3f}"' if timed else ""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<testsuites>",
        f"<testsuite name={_attribute(suite)}{counts}{time}>",
    ]
    lines += map(_element, cases)
    return "\n".join([*lines, "</testsuite>", "</testsuites>"]) + "\n"


def _element(case: Trial) -> str:
    time = "" if case.seconds is None else f' time="{case.seconds:.3f}"'
    children = ""
    if case.skipped is not None:
        children += f"<skipped>{_text(case.skipped)}</skipped>"
    for tag, failed in (("error", case.error), ("failure", case.failure)):
        if failed is not None:
            attributes = f"type={_attribute(failed.kind)} message={_attribute(failed.message)}"
            children += f"<{tag} {attributes}>{_text(failed.text)}</{tag}>"
    if case.output:
        children += f"<system-out>{_text(case.output)}</system-out>"
    return f"<testcase classname={_attribute(case.classname)} name={_attribute(case.name)}{time}>{children}</testcase>"


def _attribute(text: str) -> str:
    return quoteattr(_written(text))


def _text(text: str) -> str:
    return escape(_written(text))


def _written(text: str) -> str:
    # What XML has no way to write is among what is not printable; and a document may be printed on a terminal.
    return "\n".join(map(safe, text.split("\n")))
