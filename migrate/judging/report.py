"""Findings, and the report they make up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from migrate.destination.destination import Destination
from migrate.rules.declaring import Severity, Verdict
from migrate.rules.findings import Failure, Finding
from migrate.toolstack.facts import StreamFacts

SCHEMA = 2


@dataclass(frozen=True, slots=True)
class CheckpointVerdict:
    """Would the secondary come up if the primary died at this checkpoint?"""

    checkpoint: int  # from 1
    offset: int
    verdict: Verdict
    failure: Failure | None = None


@dataclass(slots=True)
class Report:
    """The outcome for one stream at one destination."""

    stream: StreamFacts
    destination: Destination
    verdict: Verdict
    failure: Failure | None
    findings: list[Finding]
    reason: str | None = None  # why it was not judged
    checkpoints: list[CheckpointVerdict] = field(default_factory=list)  # of a checkpointed stream, one by one

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

    def worst(self) -> Severity | None:
        """The worst severity among the findings."""
        return max((f.severity for f in self.findings), key=lambda s: s.rank, default=None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `migrate check --format json`."""
        from migrate.judging.report_json import report_object

        return report_object(self)
