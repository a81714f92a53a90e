"""Findings as entries of a list, by rule and cause, with links to what each of them is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from migrate.reports.folding import place
from migrate.reports.verdict.sentences import answer, link_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from migrate.reports.folding import Cause, Fold
    from migrate.reports.html.anchors import Anchors
    from migrate.rules.findings import Finding

# Findings beyond this are counted, and not shown.
MOST_FINDINGS = 300


class Where(NamedTuple):
    """A place, and a link to what lies there."""

    text: str
    link: str | None


@dataclass(frozen=True, slots=True)
class Told:
    """A cause: its first finding in full, what that is about, and the places of the others; `more` are only counted.

    `answer` is who refuses it and how, where that is not at the top of the page already.
    """

    finding: Finding
    answer: str
    about: list[Where]
    chain: list[tuple[str, str | None]]
    others: list[Where]
    more: int


class Entry(NamedTuple):
    """What breaks one rule."""

    fold: Fold
    causes: list[Told]


def entries(folds: Sequence[Fold], anchors: Anchors) -> tuple[list[Entry], int]:
    """Entries of a list of findings, and how many findings do not fit into it."""
    room, made, left_out = MOST_FINDINGS, list[Entry](), 0
    for fold in folds:
        causes = []
        for cause in fold.causes:
            if room <= 0:
                left_out += cause.count
                continue
            decisive = fold.decisive and cause is fold.causes[0]
            causes.append(_told(cause, room, anchors, answered=decisive))
            room -= 1 + len(causes[-1].others)
        if causes:
            made.append(Entry(fold, causes))
    return made, left_out


def _told(cause: Cause, room: int, anchors: Anchors, *, answered: bool) -> Told:
    first, *others = cause.findings
    others = others[: room - 1]
    return Told(
        first,
        answer(first) if first.fatal and not answered else "",
        list(_about(first, anchors)),
        [(link_text(link), anchors.table(link.pfn)) for link in first.chain],
        [_where(finding, anchors) for finding in others],
        cause.count - 1 - len(others),
    )


def _about(finding: Finding, anchors: Anchors) -> Iterator[Where]:
    record = anchors.record(finding)
    if finding.record is not None:
        yield Where(f"record {finding.record} {finding.record_type or ''}".rstrip(), record)
    if finding.offset is not None:
        yield Where(f"at {finding.offset:#x}", record if finding.record is None else None)
    if finding.pfn is not None and (table := anchors.table(finding.pfn)):
        yield Where(f"table pfn {finding.pfn:#x}", table)
    if finding.vcpu is not None and (vcpu := anchors.vcpu(finding.vcpu)):
        yield Where(f"vcpu {finding.vcpu}", vcpu)


def _where(finding: Finding, anchors: Anchors) -> Where:
    return Where(place(finding), anchors.table(finding.pfn) or anchors.vcpu(finding.vcpu) or anchors.record(finding))
