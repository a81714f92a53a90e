"""What Xen answers to the calls of a restore, one after the other: all but those about page types.

Nothing here imports numpy or construct: a filter in front of an HVM guest stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from migrate.destination import releases
from migrate.destination.releases import Change, Release
from migrate.guest.cpu_policy import Policy, read_policy
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, GuestKind, Severity, Stage, in_range
from migrate.xen.hvm_context import context_objections
from migrate.xen.hvm_params import ONCE, param_objection
from migrate.xen.hypercalls import Refusal, SetCpuPolicy, SetHvmContext, SetHvmParam, SetTscInfo, Step
from migrate.xen.policy_checks import policy_objections

if TYPE_CHECKING:
    from migrate.destination.destination import Destination
    from migrate.rules.findings import Finding
    from streams.records import Place


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """One step of the restore, and the answer to it: no finding means 0."""

    step: Step
    finding: Finding | None = None
    more: tuple[Finding, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that was found at this step."""
        return (self.finding, *self.more) if self.finding else self.more


@dataclass(frozen=True, slots=True)
class Objection:
    """Something that Xen has against a call, or takes and holds otherwise.

    Attributes
    ----------
    errno:
        what the call fails with; None where Xen takes it, and the guest comes back otherwise.
    certain:
        false where only the destination host can tell.
    offset:
        file offset of what it is about, where that is not the record's.
    effect, severity, since:
        where they differ from what the rule declares.
    """

    rule: str
    errno: str | None
    message: str
    certain: bool = True
    offset: int | None = None
    vcpu: int | None = None
    effect: Effect | None = None
    severity: Severity | None = None
    since: Change | None = None

    def in_force(self, release: Release) -> bool:
        """Whether a release has it."""
        rule = RULES[self.rule]
        return in_range(release, self.since or rule.since, rule.until)


@dataclass(slots=True)
class Trace:
    """The answers to a sequence of steps."""

    answers: list[StepAnswer] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)  # about no step in particular

    @property
    def findings(self) -> Iterator[Finding]:
        """All findings, in restore order."""
        yield from (finding for answer in self.answers for finding in answer.findings)
        yield from self.notes


def _finding(step: Step, objection: Objection, place: Place | None, within: Stage) -> Finding:
    rule, errno = RULES[objection.rule], objection.errno
    certain = objection.certain and bool(errno)
    effect = objection.effect or (Effect.HYPERCALL if certain else Effect.HOST if errno else rule.effect)
    severity = objection.severity
    if severity is None:
        # What hangs on the host is a risk, or what the rule of just that says.
        host = rule.severity if rule.effect is Effect.HOST else Severity.WARNING
        severity = Severity.ERROR if certain else host if errno else rule.severity
    outlook = f": {step.call} → -{errno}" if certain else ": whether Xen takes it depends on the host" if errno else ""
    return rule.finding(
        objection.message + outlook,
        place,
        effect=effect,
        severity=severity,
        offset=objection.offset,
        vcpu=getattr(step, "vcpu", None) if objection.vcpu is None else objection.vcpu,
        errno=errno if certain else None,
        step=within,
        call=step.call,
    )


class Answering:
    """Xen at one destination, as the calls of one restore come; what was set before is remembered.

    Parameters
    ----------
    kind:
        of guest: pv or hvm.
    vcpus:
        how many the domain has; None where that is not known.
    """

    def __init__(self, destination: Destination, kind: GuestKind, vcpus: int | None) -> None:
        self.destination = destination
        self.release = destination.release
        self.kind = kind
        self.vcpus = vcpus
        self.policy: Policy | None = None  # what the stream promises of the processor
        self._params: dict[int, int] = {}

    def answered(
        self, step: Step, objections: Iterable[Objection], place: Place | None, within: Stage = Stage.CONTEXT
    ) -> StepAnswer:
        """The answer to a call to which there may be objections: it fails with the first that Xen refuses for.

        Parameters
        ----------
        place:
            the record that the call comes from.
        within:
            the step of the restore: record or context.
        """
        raised = (objection for objection in objections if objection.in_force(self.release))
        findings = [_finding(step, objection, place, within) for objection in raised]
        fatal = next((finding for finding in findings if finding.fatal), None)
        return StepAnswer(step, fatal, tuple(finding for finding in findings if finding is not fatal))

    def answer(self, step: Step) -> StepAnswer:
        """The answer to one call."""
        match step:
            case Refusal(finding):
                return StepAnswer(step, finding if finding.in_force(self.destination) else None)
            case SetCpuPolicy():
                return self._set_cpu_policy(step)
            case SetTscInfo():
                return self.answered(step, self._tsc(step), step.place, Stage.RECORD)
            case SetHvmParam():
                return self._set_param(step)
            case SetHvmContext():
                return self._set_hvm_context(step)
            case _:
                return StepAnswer(step)

    def _set_cpu_policy(self, step: SetCpuPolicy) -> StepAnswer:
        """XEN_DOMCTL_set_cpu_policy: the CPUID leaves, then the MSRs."""
        cpuid, msrs = (record.body if record else None for record in (step.cpuid, step.msrs))
        self.policy = read_policy(cpuid or b"", msrs)
        found = list(policy_objections(cpuid, msrs, self.kind, self.release))
        if not found:
            return StepAnswer(step)
        # Either it is refused, or the host has its say: one thing to be told, however much of it there is.
        told = found[-1] if found[-1].certain else found[0]
        record = step.cpuid if told.cpuid and step.cpuid else step.msrs or step.cpuid
        assert record is not None
        at = record.place.body + told.offset
        if told.certain:
            objection = Objection("REC-106", told.errno, f"{told.message} ({told.position})", offset=at)
        else:
            message = "; ".join(objection.message for objection in found)
            objection = Objection("REC-113", told.errno, message, certain=False, offset=at)
        return self.answered(step, [objection], record.place, Stage.RECORD)

    def _tsc(self, step: SetTscInfo) -> Iterator[Objection]:
        """tsc_set_info."""
        if step.mode > 2:
            known = "Xen knows 0 (default), 1 (always emulate) and 2 (never emulate)"
            since = releases.every_release if step.mode > 3 else None  # only mode 3 was ever good
            yield Objection("REC-102", "EINVAL", f"TSC mode {step.mode}; {known}", since=since)

    def _set_param(self, step: SetHvmParam) -> StepAnswer:
        """hvm_set_param."""
        before = self._params.get(step.index, 0) if step.index in ONCE else 0
        found = param_objection(step.index, step.value, before)
        if found is not None and in_range(self.release, found.since, None):
            objection = Objection(found.rule, found.errno, f"HVM param {found.message}", offset=step.offset)
            return self.answered(step, [objection], step.place, Stage.RECORD)
        self._params[step.index] = step.value
        return StepAnswer(step)

    def _set_hvm_context(self, step: SetHvmContext) -> StepAnswer:
        """hvm_load."""
        if step.content is None or step.place is None:
            return self.answered(step, [Objection("ORD-17", "ENODATA", "no HVM_CONTEXT")], None)
        # What a policy without leaves leaves out is the host's to say.
        policy = self.policy if self.policy and self.policy.leaves else None
        objections = [
            Objection(
                found.rule,
                found.errno,
                f"HVM_CONTEXT: {found.message}",
                certain=(found.effect or RULES[found.rule].effect).fatal,
                offset=step.place.body + found.offset,
                vcpu=found.vcpu,
                effect=found.effect,
                severity=found.severity,
            )
            for found in context_objections(step.content, self.vcpus, policy)
            if in_range(self.release, found.since, found.until)
        ]
        return self.answered(step, objections, step.place)
