"""Findings, and the report they make up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from migrate.rules.declaring import Effect, Release, Rule, Severity
from migrate.toolstack.passes import Round

if TYPE_CHECKING:
    from migrate.destination.releases import Target

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth telling about a stream, with the place it is about."""

    rule: Rule
    message: str
    severity: Severity
    effect: Effect
    offset: int | None = None
    record: int | None = None
    record_type: str | None = None
    pfn: int | None = None
    mfn: int | None = None
    vcpu: int | None = None
    slot: int | None = None
    errno: str | None = None
    count: int = 1  # how many alike it stands for
    step: str = "record"  # headers, record, context, pin or p2m
    call: str = "libxc"  # the hypercall, or whose own check it is
    signal: int | None = None  # which kills the toolstack's process
    since: Release | None = None  # where the rule's own range does not tell it
    until: Release | None = None
    placement: str | None = None  # the only placement under which it holds
    chain: tuple[str, ...] = ()  # the tables that led there

    def in_force(self, target: Target, placement: str) -> bool:
        """Whether a release behaves so on a host with this placement."""
        if self.placement not in (None, placement):
            return False
        if self.since is None and self.until is None:
            return target.enforces(self.rule)
        release = target.release
        return (self.since is None or release >= self.since) and (self.until is None or release < self.until)

    @property
    def fatal(self) -> bool:
        """Whether the restore fails of it."""
        return self.effect.fatal


@dataclass(frozen=True, slots=True)
class Failure:
    """The first thing that stops the restore."""

    rule: str
    step: str  # headers, record, context, pin or p2m
    call: str  # the hypercall, or "libxc" (libxl, xl) for the toolstack's own checks
    message: str
    vcpu: int | None = None
    pfn: int | None = None
    errno: str | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class CheckpointVerdict:
    """Would the secondary come up if the primary died at this checkpoint?"""

    checkpoint: int  # from 1
    offset: int
    verdict: str  # accept or refuse
    failure: Failure | None = None


@dataclass(slots=True)
class StreamFacts:
    """What the stream is: the "stream" object of the JSON report and the header of the text one."""

    name: str
    container: str = "unknown"
    version: int | None = None
    guest: str | None = None
    width: int | None = None
    levels: int | None = None
    xen: str | None = None
    vcpus: int | None = None
    max_pfn: int | None = None
    bytes: int = 0
    records: int = 0
    extended_cr3: bool | None = None
    pinned: dict[str, int] | None = None
    cr3: list[dict[str, int | None]] | None = None
    rounds: list[Round] = field(default_factory=list)  # passes over the guest's memory
    checkpoints: int = 0
    converted: bool = False  # by the legacy converter
    device_model: str | None = None  # how the device model's state begins
    legacy: dict[str, Any] | None = None  # what a pre-4.6 stream says of itself


@dataclass(slots=True)
class Report:
    """The outcome for one stream, one target and one placement."""

    stream: StreamFacts
    target: str
    placement: str
    verdict: str  # accept, refuse or unjudged
    failure: Failure | None
    findings: list[Finding]
    reason: str | None = None  # why it was not judged
    checkpoints: list[CheckpointVerdict] = field(default_factory=list)  # of a checkpointed stream, one by one
    l3_rule: str | None = None  # the form of the 4 GiB rule that was tried instead of the target's own

    @property
    def decisive(self) -> Finding | None:
        """The finding that stops the restore; None where nothing does, or it is not among those that are reported."""
        if (failure := self.failure) is None:
            return None
        return next((f for f in self.findings if f.rule.id == failure.rule and f.message == failure.message), None)

    def worst(self) -> Severity | None:
        """The worst severity among the findings."""
        return max((f.severity for f in self.findings), key=lambda s: s.rank, default=None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `migrate check --format json`."""
        from migrate.judging.report_json import report_object

        return report_object(self)
