"""Which of some hosts would take which stream: a matrix, why not, and who takes all.

One stream has a line for each host, with the reason in it. Of several streams there is a matrix with a cell for each
pair, and below it what the cells are about.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from migrate.judging.report import Outcome
from migrate.reports.markdown import escaped, table
from migrate.rules.declaring import Effect, Severity, Verdict
from migrate.safe import safe
from streams.counting import count

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.judging.report import Report
    from migrate.rules.findings import Finding

Row = dict[str, str]

ANSWERS = {
    Outcome.RESTORES: "takes it",
    Outcome.DAMAGED: "takes it, damaged",
    Outcome.REFUSED: "refuses",
    Outcome.UNJUDGED: "open",
}


def answer_of(report: Report) -> Outcome:
    """What a host would do: not judged also where too little is known of it."""
    if report.verdict == Verdict.ACCEPT and report.left_to_host is not None:
        return Outcome.UNJUDGED
    return report.outcome


def host_name(report: Report) -> str:
    """What a host is called: by its file, else by its own name."""
    host = report.destination.host
    return "-" if host is None else host.label


def _about(report: Report) -> tuple[str, str]:
    """What an answer hangs on, or what the guest would find there; and the rule, "" where it is none."""
    if report.failure is not None:
        return report.failure.message, report.failure.rule
    found = report.damage or report.left_to_host or next(filter(_is_risk, report.findings), None)
    return (found.message, found.rule.id) if found else (report.unjudged_because or "", "")


def _is_risk(finding: Finding) -> bool:
    return finding.effect is Effect.HOST and finding.severity is Severity.WARNING


def reason_of(report: Report) -> str:
    """Why a host does not take a stream as it is, or what it takes away; "" where there is nothing to say."""
    message, rule = _about(report)
    return f"{message} ({rule})" if rule else message


def rows(reports: Sequence[Report]) -> list[Row]:
    """A row for each host that was asked about one stream."""
    return [
        {
            "host": host_name(report),
            "Xen": report.destination.release.short,
            "answer": ANSWERS[answer_of(report)],
            "why": reason_of(report),
        }
        for report in reports
    ]


def _matrix(reports: Sequence[Report]) -> list[Row]:
    """A cell for each stream and host; whatever there is more of goes down the side."""
    streams = list(dict.fromkeys(report.stream.name for report in reports))
    hosts = list(dict.fromkeys(map(host_name, reports)))
    cells = {(report.stream.name, host_name(report)): _cell(report) for report in reports}
    if len(hosts) <= len(streams):
        heads = _told_apart(hosts)
        return [
            {"stream": stream} | {heads[host]: cells.get((stream, host), "") for host in hosts} for stream in streams
        ]
    heads = _told_apart(streams)
    return [{"host": host} | {heads[stream]: cells.get((stream, host), "") for stream in streams} for host in hosts]


def _cell(report: Report) -> str:
    return f"{ANSWERS[answer_of(report)]} {_about(report)[1]}".rstrip()


def _told_apart(names: Sequence[str]) -> dict[str, str]:
    """By name, the last parts of it where those tell it apart from the others."""
    short = {name: os.path.basename(name) for name in names}
    return short if len(set(short.values())) == len(names) else {name: name for name in names}


def _reasons(reports: Sequence[Report]) -> list[Row]:
    """A row for each answer that there is more to say of: how many cells have it, and what the first one says."""
    alike: dict[str, list[Report]] = {}
    for report in reports:
        if reason_of(report):
            alike.setdefault(_cell(report), []).append(report)
    return [
        {"answer": cell, "cells": str(len(those)), "why, for the first": _about(those[0])[0]}
        for cell, those in sorted(alike.items())
    ]


def _tables(reports: Sequence[Report]) -> list[list[Row]]:
    if len({report.stream.name for report in reports}) == 1:
        return [rows(reports)]
    return [some for some in (_matrix(reports), _reasons(reports)) if some]


def summary(reports: Sequence[Report]) -> Iterator[str]:
    """For each stream how many of several hosts take it; of one the table says that already."""
    by_stream: dict[str, list[Report]] = {}
    for report in reports:
        by_stream.setdefault(report.stream.name, []).append(report)
    for name, those in by_stream.items():
        if len(those) == 1:
            continue
        takers = [host_name(report) for report in those if answer_of(report) is Outcome.RESTORES]
        some = f"{len(takers)} of {count(len(those), 'host')}"
        yield f"{safe(name)}: {some} would take it" + (f": {', '.join(map(safe, takers))}" if takers else "")


def render(reports: Sequence[Report], console: Console) -> None:
    """Print the tables, and who takes what."""
    from migrate.reports.tables import print_table

    for some in _tables(reports):
        print_table(some, console)
        console.print()
    for line in summary(reports):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def markdown(reports: Sequence[Report]) -> str:
    """The same in Markdown."""
    lines: list[str] = []
    for some in _tables(reports):
        cells = [[escaped(safe(cell)) for cell in row.values()] for row in some]
        lines += [*table([escaped(safe(head)) for head in some[0]], cells), ""]
    return "\n".join([*lines, *(f"- {escaped(line)}" for line in summary(reports))]).rstrip("\n")
