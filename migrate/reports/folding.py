"""Findings as people read them: those of one rule together, what stops the restore first, then the worst.

Nothing here is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from migrate.rules.declaring import Stage
from streams.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.judging.report import Report
    from migrate.rules.declaring import Effect, Rule, Severity
    from migrate.rules.findings import Finding

_NUMBER = r"\b(?:0x[0-9a-f]+|\d+)\b"

STEPS = {
    Stage.CREATE: "as the domain is made",
    Stage.HEADERS: "in the headers",
    Stage.RECORD: "among the records",
    Stage.CONTEXT: "as the vcpus are set up",
    Stage.PIN: "as page tables are pinned",
    Stage.P2M: "as the p2m is rewritten",
    Stage.DEVICE_MODEL: "as the device model starts",
}
"""When in the course of a restore something is found that lies at no one place of the stream."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Findings of one rule that say the same of different places, in stream order.

    The one that stops the restore comes first, if it is among them.
    """

    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        """The one that is told in full."""
        return self.findings[0]

    @property
    def message(self) -> str:
        """What is said, of the first of its places."""
        return self.first.message

    @property
    def count(self) -> int:
        """How many there are, those that the findings only count among them."""
        return sum(finding.count for finding in self.findings)

    def places(self, most: int | None = None) -> str:
        """Where it was found: "pfn 0x13, 0x14; vcpu 1"; with "…" where there are more than are told."""
        named = list(dict.fromkeys(_named_place(finding) for finding in self.findings))
        runs = groupby(named[:most], key=lambda place: place[0])
        places = "; ".join(f"{what} {', '.join(where for _, where in run)}".strip() for what, run in runs)
        more = len(named) > len(named[:most]) or any(finding.count > 1 for finding in self.findings)
        return places + (", …" if more else "")


@dataclass(frozen=True, slots=True)
class Fold:
    """All findings of one rule that weigh the same: an entry of a list of findings.

    Attributes
    ----------
    decisive:
        whether one of them is what stops the restore; it is then the first of the first cause.
    """

    rule: Rule
    severity: Severity
    effect: Effect
    causes: tuple[Cause, ...]
    decisive: bool

    @property
    def first(self) -> Finding:
        """The one that is told in full."""
        return self.causes[0].first

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, cause by cause."""
        return tuple(finding for cause in self.causes for finding in cause.findings)

    @property
    def count(self) -> int:
        """How many there are, those that the findings only count among them."""
        return sum(cause.count for cause in self.causes)


def folds(report: Report) -> list[Fold]:
    """The entries of a report, in the order in which they are told."""
    return folded(report.findings, report.decisive)


def folded(findings: Sequence[Finding], decisive: Finding | None = None) -> list[Fold]:
    """Findings by rule and cause.

    Parameters
    ----------
    findings:
        in stream order, which entries that weigh the same keep.
    decisive:
        the one among them that stops the restore; it makes its entry the first.
    """
    ordered = sorted(findings, key=lambda finding: finding is not decisive)
    by_kind: dict[tuple[str, Severity, Effect], list[Finding]] = {}
    for finding in ordered:
        by_kind.setdefault((finding.rule.id, finding.severity, finding.effect), []).append(finding)
    entries = [_fold(alike, decisive) for alike in by_kind.values()]
    return sorted(entries, key=lambda entry: (not entry.decisive, -entry.severity.rank))


def _fold(alike: list[Finding], decisive: Finding | None) -> Fold:
    by_cause: dict[str, list[Finding]] = {}
    for finding in alike:
        by_cause.setdefault(cause_of(finding) if len(alike) > 1 else "", []).append(finding)
    first = alike[0]
    causes = tuple(Cause(tuple(those)) for those in by_cause.values())
    return Fold(first.rule, first.severity, first.effect, causes, decisive is not None and first is decisive)


def cause_of(finding: Finding) -> str:
    """What two findings of a rule have in common that say the same of different places: all but the numbers."""
    import re

    return re.sub(_NUMBER, "#", finding.message)


def place(finding: Finding) -> str:
    """Where one thing was found, in a few words; when in the restore, where it lies at no one place."""
    return " ".join(filter(None, _named_place(finding)))


def is_placed(finding: Finding) -> bool:
    """Whether it lies at some place of the stream."""
    return any(part is not None for part in (finding.pfn, finding.vcpu, finding.record, finding.offset))


def _named_place(finding: Finding) -> tuple[str, str]:
    """What kind of place it is, and which one."""
    vcpu = "" if finding.vcpu is None else f" (vcpu {finding.vcpu})"
    if finding.pfn is not None:
        return "pfn", f"{finding.pfn:#x}" + ("" if finding.slot is None else f" slot {finding.slot}") + vcpu
    if finding.vcpu is not None:
        return "vcpu", str(finding.vcpu)
    if finding.record is not None:
        return "record", f"{finding.record} {finding.record_type or ''}".rstrip()
    if finding.offset is not None:
        return "byte", f"{finding.offset:#x}"
    return "", STEPS[finding.step]
