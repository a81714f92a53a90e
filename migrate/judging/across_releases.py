"""One stream asked about at every release: which of them answer alike, and which change makes the others differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from migrate.destination.destination import Destination
from migrate.destination.releases import CHANGES, Change, Release, differences, like, spans
from migrate.judging.check import Source, judge
from migrate.judging.report import Report, damages
from migrate.rules.declaring import Severity
from migrate.rules.selection import Selection
from streams.compression import MAX_EXPANSION
from streams.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.judging.judgement import Judgement

Ask = Callable[[Destination], Report]
# What of an answer counts: the verdict, what fails and how, what comes back damaged, and why nothing is known.
Answer = tuple[object, ...]
# Where nobody says where frames lie, a 32-bit guest is asked about both sides of 4 GiB: it depends on that.
OTHER_PLACEMENT = "low"


@dataclass(slots=True)
class AnswerGroup:
    """Releases that answer alike.

    Attributes
    ----------
    report:
        the report for the first of them.
    other:
        the report for that one under the other placement that was asked about; None where there is none.
    releases:
        all of them, ascending.
    warnings:
        the numbers of warnings that their reports have.
    """

    report: Report
    other: Report | None = None
    releases: list[Release] = field(default_factory=list)
    warnings: set[int] = field(default_factory=set)

    @property
    def spans(self) -> str:
        """The releases in runs: 4.14.0–4.14.4, 4.15.0–4.15.2."""
        return spans(self.releases)

    @property
    def damage(self) -> tuple[str, ...]:
        """Rules that tell of a guest that comes back damaged."""
        return damage_of(self.report)


def answer_of(report: Report) -> Answer:
    """What two reports have in common that answer alike."""
    failure = report.failure
    failed = failure and (failure.rule, failure.step, failure.call, failure.errno, failure.vcpu, failure.pfn)
    return report.verdict, failed, damage_of(report), report.unjudged_because, report.l3_rule


def damage_of(report: Report) -> tuple[str, ...]:
    """Rules by which a guest comes back damaged."""
    return tuple(sorted({finding.rule.id for finding in report.findings if damages(finding)})) if report.damaged else ()


def groups(reports: Sequence[Report], others: Sequence[Report] = ()) -> list[AnswerGroup]:
    """The groups that the reports for all distinct releases make up, the oldest first.

    `others` are those for the other placement, in the same order; empty where none was asked about.
    """
    found: dict[Answer, AnswerGroup] = {}
    for number, report in enumerate(reports):
        other = others[number] if others else None
        key = answer_of(report) + (() if other is None else answer_of(other))
        group = found.setdefault(key, AnswerGroup(report, other))
        group.releases = sorted({*group.releases, *like(report.destination.release)})
        group.warnings.add(sum(f.count for f in report.findings if f.severity is Severity.WARNING))
    return list(found.values())


def deciding_changes(reports: Sequence[Report], ask: Ask) -> tuple[Change, ...]:
    """The changes that make releases answer otherwise, in the order of the table.

    Where two neighbouring releases of a branch, or the first ones of two branches, answer otherwise, each change
    between them is supposed away alone: it decides if the newer one would then answer as the older does. A difference
    that takes several changes at once is left unexplained.

    Parameters
    ----------
    reports:
        for releases and otherwise the same destination.
    ask:
        gives the report for a destination, be it a supposed one.
    """
    by_release = {report.destination.release: report for report in reports}
    decided = {
        change
        for older, newer in _neighbours(sorted(by_release))
        if answer_of(by_release[older]) != answer_of(by_release[newer])
        for change in _decides(by_release[older], by_release[newer], ask)
    }
    return tuple(change for change in CHANGES.values() if change in decided)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One stream at many releases, and otherwise the same destination.

    Attributes
    ----------
    reports:
        one for each destination that was asked about.
    changes:
        what makes some of them answer otherwise.
    others:
        the same for the other placement, where it was not said which one is meant and some release answers otherwise
        there.
    """

    reports: list[Report]
    changes: tuple[Change, ...]
    others: tuple[Report, ...] = ()

    @property
    def groups(self) -> list[AnswerGroup]:
        """The releases that answer alike."""
        return groups(self.reports, self.others)


def compare(
    source: Source,
    destinations: Sequence[Destination],
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    verify: bool = False,
    max_expansion: int = MAX_EXPANSION,
    offset: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> Comparison:
    """Reports of one stream for releases and, if wanted, forms of the 4 GiB rule, from one reading.

    Parameters are those of `migrate.judging.check.survey`; all destinations have the same number of vcpus.
    """
    selection = Selection(select, ignore)

    def then(judgement: Judgement) -> Comparison:
        def ask(destination: Destination) -> Report:
            return judgement.report(destination, selection)

        reports = [ask(destination) for destination in destinations]
        others = []
        if judgement.facts.width == 4 and all(one.placement_assumed for one in destinations):
            others = [ask(destination.but(placement=OTHER_PLACEMENT)) for destination in destinations]
            if all(answer_of(one) == answer_of(other) for one, other in zip(reports, others, strict=True)):
                others = []
        forms: dict[tuple[str | None, str], list[Report]] = {}
        for report in (*reports, *others):
            forms.setdefault((report.l3_rule, report.placement), []).append(report)
        decided = {change for those in forms.values() for change in deciding_changes(those, ask)}
        return Comparison(reports, tuple(change for change in CHANGES.values() if change in decided), tuple(others))

    compared: Comparison = judge(
        source,
        vcpus=next((destination.vcpus for destination in destinations), None),
        progress=progress,
        questions=destinations,
        verify=verify,
        max_expansion=max_expansion,
        offset=offset,
        then=then,
    )
    return compared


def _neighbours(releases: Sequence[Release]) -> Iterator[tuple[Release, Release]]:
    for older, newer in pairwise(releases):
        if older.branch == newer.branch:
            yield older, newer
    yield from pairwise(release for release in releases if release.point == 0)


def _decides(older: Report, newer: Report, ask: Ask) -> Iterator[Change]:
    candidates = differences(older.destination.release, newer.destination.release)
    if len(candidates) == 1:
        yield candidates[0]
        return
    for change in candidates:
        supposed = newer.destination.but(release=newer.destination.release.supposing(change))
        if answer_of(ask(supposed)) == answer_of(older):
            yield change
