"""What Xen answers to the calls of a restore, one after the other: all but those about page types, and HVM state.

Nothing here imports numpy or construct: a filter in front of an HVM guest stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from migrate.destination import releases
from migrate.destination.host import MAX
from migrate.guest.cpu_policy import Policy, read_policy
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, GuestKind, Severity, Stage
from migrate.rules.findings import TOLD_PER_RULE, Finding
from migrate.xen.hypercalls import (
    CreateDomain,
    Refusal,
    SetAddressSize,
    SetCpuPolicy,
    SetHvmContext,
    SetHvmParam,
    SetTscInfo,
    Step,
)
from migrate.xen.objection import Objection
from migrate.xen.policy_checks import policy_objections
from migrate.xen.policy_comparison import features_lost
from streams.values import dataclass, field, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.destination.destination import Destination
    from migrate.xen.hvm_answers import HvmAnswering
    from streams.records import Place

# A guest may lose dozens of features.
FEATURES_TOLD = 12


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
    severity = objection.severity
    if severity is None:
        # What hangs on the host is a risk, or what the rule of just that says.
        host = rule.severity if rule.effect is Effect.HOST else Severity.WARNING
        severity = Severity.ERROR if objection.refuses else host if errno else rule.severity
    consequence = ": whether Xen takes it depends on the host" if errno and not objection.certain else ""
    return Finding.of(
        rule,
        objection.message + consequence,
        place,
        effect=objection.outcome,
        severity=severity,
        offset=objection.offset,
        vcpu=getattr(step, "vcpu", None) if objection.vcpu is None else objection.vcpu,
        errno=errno if objection.refuses else None,
        step=within,
        call=step.call,
        left_to_host=not objection.certain,
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
        self.host = destination.host
        # The most that the host can give a guest of the kind.
        self.host_max: Policy | None = None if self.host is None else self.host.max_policy(kind.value).value
        self.intel = None if self.host is None else self.host.intel.value
        self._hvm: HvmAnswering | None = None

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
        raised: dict[object, tuple[Finding, int]] = {}  # by kind: the last that is told, and how many there are
        findings: list[Finding] = []
        for objection in objections:
            if not objection.in_force(self.release):
                continue
            kind = objection.rule, objection.outcome, objection.severity
            last, count = raised.get(kind, (None, 0))
            if last is None or count < TOLD_PER_RULE:
                last = _finding(step, objection, place, within)
                findings.append(last)
            raised[kind] = last, count + 1
        for last, count in raised.values():
            if count > TOLD_PER_RULE:
                at = next(number for number, finding in enumerate(findings) if finding is last)
                findings[at] = replace(last, count=1 + count - TOLD_PER_RULE)
        fatal = next((finding for finding in findings if finding.fatal), None)
        return StepAnswer(step, fatal, tuple(finding for finding in findings if finding is not fatal))

    def created(self) -> Finding | None:
        """XEN_DOMCTL_createdomain: why the host has no guests of the kind; None if nothing speaks against it."""
        takes = None if self.host is None else self.host.takes(self.kind.value)
        if takes is None or takes.value is not False:
            return None
        rule = RULES["HYP-30" if self.kind == GuestKind.PV else "HYP-31"]
        message = f"no {self.kind.value.upper()} guest can be created there ({takes.because})"
        return Finding.of(rule, message, errno="EINVAL", step=Stage.CREATE, call=CreateDomain.call)

    def _set_address_size(self, step: SetAddressSize) -> StepAnswer:
        """switch_compat."""
        pv32 = None if self.host is None else self.host.pv32
        if pv32 is None or pv32.value is not False:
            return StepAnswer(step)
        objection = Objection("REC-32", "EOPNOTSUPP", f"the host runs no 32-bit PV guests ({pv32.because})")
        return self.answered(step, [objection], step.place, Stage.RECORD)

    def answer(self, step: Step) -> StepAnswer:
        """The answer to one call."""
        match step:
            case SetAddressSize():
                return self._set_address_size(step)
            case Refusal(finding):
                return StepAnswer(step, finding if finding.in_force(self.destination) else None)
            case SetCpuPolicy():
                return self._set_cpu_policy(step)
            case SetTscInfo():
                return self.answered(step, self._tsc(step), step.place, Stage.RECORD)
            case SetHvmParam() | SetHvmContext():
                return self._of_hvm(step)
            case _:
                return StepAnswer(step)

    def _set_cpu_policy(self, step: SetCpuPolicy) -> StepAnswer:
        """XEN_DOMCTL_set_cpu_policy: the CPUID leaves, then the MSRs."""
        cpuid, msrs = (record.body if record else None for record in (step.cpuid, step.msrs))
        self.policy = read_policy(cpuid or b"", msrs)
        found = list(policy_objections(cpuid, msrs, self.kind, self.release, self.host_max))
        if self.host is not None and self.host.takes(self.kind.value).value is False:
            found = [objection for objection in found if objection.certain]  # the domain cannot even be created
        if not found:
            return self._features_lost(step)
        # Either it is refused, or the host has its say: one thing to be told, however much of it there is.
        decisive = found[-1] if found[-1].certain else found[0]
        record = step.cpuid if decisive.cpuid and step.cpuid else step.msrs or step.cpuid
        assert record is not None
        at = record.place.body + decisive.offset
        if decisive.certain:
            objection = Objection("REC-106", decisive.errno, f"{decisive.message} ({decisive.position})", offset=at)
        else:
            needs = "; ".join(objection.message for objection in found)
            consequence = f"{needs}: {step.call} fails with {decisive.errno} otherwise"
            objection = Objection("REC-113", None, consequence, certain=False, offset=at)
        return self.answered(step, [objection], record.place, Stage.RECORD)

    def _features_lost(self, step: SetCpuPolicy) -> StepAnswer:
        """What of a policy that Xen takes does not reach the guest."""
        if self.host is None or self.host_max is None or self.policy is None or step.cpuid is None:
            return StepAnswer(step)
        lost = [name for name, _ in features_lost(self.policy, self.host_max)]
        more = f" and {len(lost) - FEATURES_TOLD} more" if len(lost) > FEATURES_TOLD else ""
        some = ", ".join(lost[:FEATURES_TOLD]) + more
        message = f"promised to the guest, and not in the {MAX[self.kind]} policy of the host: {some}"
        objections = [Objection("REC-114", None, message, offset=step.cpuid.place.body)] if lost else []
        return self.answered(step, objections, step.cpuid.place, Stage.RECORD)

    def _tsc(self, step: SetTscInfo) -> Iterator[Objection]:
        """tsc_set_info."""
        if step.mode > 2:
            known = "Xen knows 0 (default), 1 (always emulate) and 2 (never emulate)"
            since = releases.every_release if step.mode > 3 else None  # only mode 3 was ever good
            yield Objection("REC-102", "EINVAL", f"TSC mode {step.mode}; {known}", since=since)

    def _of_hvm(self, step: SetHvmParam | SetHvmContext) -> StepAnswer:
        if self._hvm is None:
            from migrate.xen.hvm_answers import HvmAnswering

            self._hvm = HvmAnswering(self)
        return self._hvm.answer(step)
