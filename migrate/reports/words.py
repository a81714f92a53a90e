"""What a report says in sentences, whoever prints them. Nothing here is escaped, and nothing needs rich."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from migrate import targets
from migrate.rules.catalogue import Effect, Severity

if TYPE_CHECKING:
    from migrate.findings import Failure, Finding, Report
    from migrate.rounds import Round

_PLACED = {
    "source": "frames placed as on the source",
    "high": "frames placed above 4 GiB",
    "low": "frames placed below 4 GiB",
    "identity": "frames placed where mfn = pfn",
}
_ROUNDS_TOLD = 8  # one by one, per kind
_TOOLSTACK = ("libxc", "libxl", "xl", "xapi")


def verdict_sentence(report: Report) -> str:
    """What the receiver would do, in a sentence; not escaped."""
    match report.verdict:
        case "accept":
            return _acceptance(report) + _tally(report.findings)
        case "refuse":
            return _refusal(report.failure) if report.failure else "the restore would fail"
        case _:
            return f"not judged: {report.reason or 'no reason given'}"


def _acceptance(report: Report) -> str:
    # An HVM guest's stream has no page tables: its frames may lie anywhere.
    where = "" if report.stream.guest == "hvm" else f" ({placed(report.placement)})"
    corrupt = sorted({finding.rule.id for finding in report.findings if finding.effect is Effect.CORRUPT})
    but = f", but not in the state it was saved in ({', '.join(corrupt)})" if corrupt else ""
    return f"Xen {release(report)} would restore this guest{but}{where}"


def _refusal(failure: Failure) -> str:
    if failure.call in _TOOLSTACK:
        subject, verb = failure.call, "refuses it"
    else:
        subject, verb = failure.call, "fails"
        if failure.vcpu is not None:
            subject = f"vcpu {failure.vcpu}'s {subject}"
        elif failure.pfn is not None:
            subject = f"{subject} for pfn {failure.pfn:#x}"
    if failure.signal is not None:
        verb = f"dies of {_signal_name(failure.signal)}"
    elif failure.errno is not None and failure.call not in _TOOLSTACK:
        verb = f"fails with {failure.errno}"
    return f"{subject} {verb} ({failure.rule}): {failure.message}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tally(findings: list[Finding]) -> str:
    numbers: Counter[Severity] = Counter()
    for finding in findings:
        numbers[finding.severity] += finding.count
    told = [count(numbers[s], s.value) for s in (Severity.ERROR, Severity.WARNING) if numbers[s]]
    return f"; {', '.join(told)}" if told else ""


def placed(placement: str) -> str:
    """Where a placement puts the guest's frames."""
    return _PLACED.get(placement) or f"frames placed by {placement.removeprefix('file:')}"


def release(report: Report) -> str:
    """The target's release, in full."""
    return targets.resolve(report.target).name


def rounds_told(rounds: list[Round]) -> str:
    """The passes of a live migration: their kinds, and how many pages each sent."""
    told = []
    for kind, alike in groupby(rounds, key=lambda done: done.kind):
        pages = [done.pages for done in alike]
        more = f" … ({len(pages)} passes, {sum(pages)} in all)" if len(pages) > _ROUNDS_TOLD else ""
        told.append(f"{kind} {', '.join(map(str, pages[:_ROUNDS_TOLD]))}{more}")
    return "; ".join(told)


def count(number: int, what: str) -> str:
    """A number of things."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def plain_lines(report: Report, least: Severity) -> Iterator[str]:
    """A line per finding of at least some severity, and the verdict."""
    for finding in report.findings:
        if finding.severity.rank >= least.rank:
            rule = finding.rule
            more = f" (and {finding.count - 1} more like it)" if finding.count > 1 else ""
            where = f" at {finding.offset:#x}" if finding.offset is not None else ""
            yield f"{rule.id} {rule.slug} {finding.severity.value}{where}: {finding.message}{more}"
    yield f"{report.verdict}: {verdict_sentence(report)}"
