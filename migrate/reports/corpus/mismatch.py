"""A stream that is not what is expected of it: what differs, where it comes from, and how to see it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from io import StringIO
from itertools import islice
from typing import TYPE_CHECKING

from migrate.corpus.expected_verdict import serious
from migrate.judging.check import judge
from migrate.judging.judgement import Judgement
from migrate.reports.verdict import text, trace
from migrate.rules.selection import Selection
from migrate.safe import safe
from streams.counting import count

if TYPE_CHECKING:
    from migrate.corpus.expectations import Expectation
    from migrate.corpus.results import Comparison
    from migrate.judging.report import Report

# A guest whose every pin fails would fill the screen.
TRACE_LINES = 24
_INDENT = " " * 4


def differences(comparison: Comparison) -> list[str]:
    """Each difference from what is expected, in a line."""
    return [f"{one.aspect}: expected {one.expected}, found {one.observed}" for one in comparison.differences]


def check_command(name: str, vcpus: int | None, expectation: Expectation, command: str = "check") -> str:
    """The command line that asks the same question of the stream of that name."""
    name = f"./{name}" if name.startswith("-") else name
    words = ["migrate", command, name, "--target", expectation.target, "--placement", expectation.placement]
    words += ["--host", expectation.host.path] if expectation.host else []
    return shlex.join(words + (["--vcpus", str(vcpus)] if vcpus else []))


def mismatch(path: str, name: str, vcpus: int | None, comparison: Comparison) -> str:
    """All there is to tell of a difference, for a terminal: several lines, of any width.

    The stream is judged once more. Shown are the differences, what real Xen said where that is known, the report
    with the findings that differ, the calls of the restore that fail, and the command that shows them. `name` is
    what the stream at `path` is called there.

    Raises
    ------
    OSError, TransportError
        for a stream that cannot be read any more.
    """
    expectation = comparison.expectation

    def texts(judgement: Judgement) -> tuple[list[str], list[str]]:
        judgement.facts.name = name
        return list(_report(judgement, expectation)), list(_failing_calls(judgement, expectation))

    report, calls = judge(path, vcpus=vcpus, then=texts)
    lines = [f"{name}: not as expected under Xen {expectation.target}, placement {expectation.placement}"]
    if expectation.host:
        lines[0] += f", on {expectation.host.name}"
    lines += [_INDENT + line for line in differences(comparison)]
    if (measured := expectation.measured) is not None:
        lines += [
            f"real Xen: {measured.outcome}",
            *(_INDENT + line for line in (measured.error, *measured.xen_log) if line),
        ]
    lines += ["", *report]
    if calls:
        lines += ["", "calls that fail:", *(_INDENT + line for line in islice(calls, TRACE_LINES))]
        if len(calls) > TRACE_LINES:
            lines.append(f"{_INDENT}… and {count(len(calls) - TRACE_LINES, 'line')} more")
        lines += ["", f"see it:  {check_command(name, vcpus, expectation)}"]
        lines.append(f"         {check_command(name, vcpus, expectation, 'trace')} --only failed")
    else:
        lines += ["", f"see it:  {check_command(name, vcpus, expectation)}"]
    return "\n".join(safe(line) for line in lines)


def _report(judgement: Judgement, expectation: Expectation) -> Iterator[str]:
    """The report, with those findings alone that make the difference."""
    destination = expectation.asked.destination()
    whole = judgement.report(destination, Selection())
    rules = _differing(whole, expectation)
    shown = judgement.report(destination, Selection(rules)) if rules else whole
    out = StringIO()
    text.render(shown, text.console_for(out))
    yield from out.getvalue().splitlines()


def _differing(report: Report, expectation: Expectation) -> list[str]:
    """Ids of the rules whose findings make the difference; none where every finding may."""
    found = serious(report)
    rules = set() if report.failure is None else {report.failure.rule}
    if expectation.rules is not None:
        rules |= {id for id in found.keys() | expectation.rules.keys() if found.get(id) != expectation.rules.get(id)}
    return sorted(rules)


def _failing_calls(judgement: Judgement, expectation: Expectation) -> Iterator[str]:
    """The trace's lines about calls that fail."""
    answers = judgement.answers(expectation.asked.destination())
    return trace.lines(answers, judgement.placement(expectation.placement), only_failed=True)
