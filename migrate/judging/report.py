"""Findings, and the report they make up."""

from __future__ import annotations

from enum import StrEnum

from migrate.destination.destination import Destination
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Severity, Verdict
from migrate.rules.findings import Failure, Finding
from migrate.toolstack.facts import StreamFacts
from streams.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 2


def damages(finding: Finding) -> bool:
    """Whether it is an error that does not stop the restore."""
    return finding.severity is Severity.ERROR and not finding.fatal


class Outcome(StrEnum):
    """What would become of a guest, in the words that people see."""

    RESTORES = "restores"
    DAMAGED = "restores, but damaged"
    REFUSED = "refused"
    UNJUDGED = "not judged"


def outcome_of(verdict: str, damaged: bool) -> Outcome:
    """A verdict in the words that people see."""
    if verdict == Verdict.ACCEPT:
        return Outcome.DAMAGED if damaged else Outcome.RESTORES
    return Outcome.REFUSED if verdict == Verdict.REFUSE else Outcome.UNJUDGED


@dataclass(frozen=True, slots=True)
class CheckpointVerdict:
    """Would the secondary come up if the primary died at this checkpoint?"""

    checkpoint: int  # from 1
    offset: int
    verdict: Verdict
    failure: Failure | None = None


@dataclass(slots=True)
class Report:
    """What would become of one stream at one destination."""

    stream: StreamFacts
    destination: Destination
    verdict: Verdict
    failure: Failure | None
    findings: list[Finding]
    unjudged_because: str | None = None
    checkpoints: list[CheckpointVerdict] = field(default_factory=list)  # of a checkpointed stream, one by one
    damaged: bool = False  # it restores, and yet there are errors: the guest is not as it was saved

    def __str__(self) -> str:
        """What `migrate check` prints of it, in lines of any length."""
        from migrate import text_of

        return text_of(self)

    @property
    def outcome(self) -> Outcome:
        """The verdict in the words that people see."""
        return outcome_of(self.verdict, self.damaged)

    @property
    def ok(self) -> bool:
        """Whether the guest would come back as it was saved."""
        return self.outcome is Outcome.RESTORES

    @property
    def left_to_host(self) -> Finding | None:
        """What may make the restore fail, and what is known of the host does not tell; None where all is told."""
        return next((finding for finding in self.findings if finding.left_to_host), None)

    @property
    def reason(self) -> str | None:
        """Why it is refused, damaged or not judged, in a sentence; None where all is well."""
        if self.failure is not None:
            return self.failure.message
        return self.damage.message if self.damage is not None else self.unjudged_because

    @property
    def target(self) -> str:
        """The release asked about, as people write it."""
        return self.destination.release.short

    @property
    def placement(self) -> str:
        """The placement asked about."""
        return self.destination.placement

    @property
    def l3_rule(self) -> str | None:
        """The form of the 4 GiB rule that was tried instead of the release's own."""
        return self.destination.l3_rule

    @property
    def decisive(self) -> Finding | None:
        """The finding that stops the restore; None where nothing does, or it is not among those that are reported."""
        if (failure := self.failure) is None:
            return None
        return next((f for f in self.findings if f is failure.finding), None)

    @property
    def damage(self) -> Finding | None:
        """The first finding by which a guest that restores is damaged; None where there is none, or it is not told."""
        return next((finding for finding in self.findings if damages(finding)), None) if self.damaged else None

    def explain(self) -> str:
        """The outcome with its reason, and all there is to know of the rule that was broken; several paragraphs."""
        parts = [] if self.reason is None else [f"{self.outcome}: {self.reason}"]
        rule = RULES.get(self.failure.rule) if self.failure else self.damage.rule if self.damage else None
        if rule is not None:
            parts += [f"{rule.id} {rule.slug}: {rule.title}"]
            parts += [f"{heading}: {text}" for heading, text in rule.sections.items()]
        return "\n\n".join(parts or [self.outcome])

    def worst(self) -> Severity | None:
        """The worst severity among the findings."""
        return max((f.severity for f in self.findings), key=lambda s: s.rank, default=None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `migrate check --format json`."""
        from migrate.judging.report_json import report_object

        return report_object(self)
