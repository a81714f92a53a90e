"""The restore as a sequence of hypercalls, with Xen's answer to each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from migrate.reports.verdict.sentences import link_text
from migrate.xen.hypercalls import (
    PIN_BATCH,
    MapP2m,
    Pin,
    Refusal,
    SetAddressSize,
    SetContext,
    SetCpuPolicy,
    SetExtended,
    SetHvmParam,
    SetMsrs,
    SetTscInfo,
    SetXsave,
    Step,
)
from streams.counting import count
from streams.wire.framing import CPUID_LEAF_SIZE, MSR_ENTRY_SIZE
from streams.wire.hvm_names import param_name

if TYPE_CHECKING:
    from migrate.destination.placement import Placement
    from migrate.rules.findings import Finding
    from migrate.xen.answers import StepAnswer


def describe(step: Step, placement: Placement | None) -> str:
    """A step in the words of a trace, without its answer."""
    match step:
        case SetAddressSize():
            return f"{step.call}({step.bits} bit)"
        case SetCpuPolicy():
            parts = ((step.cpuid, CPUID_LEAF_SIZE, "leaf", "leaves"), (step.msrs, MSR_ENTRY_SIZE, "MSR", "MSRs"))
            brought = (count(record.place.length // size, *names) for record, size, *names in parts if record)
            return f"{step.call}({', '.join(brought)})"
        case SetTscInfo():
            return f"{step.call}(mode {step.mode}, {step.khz} kHz)"
        case SetHvmParam():
            return f"{step.call}({param_name(step.index)} = {step.value:#x})"
        case SetContext():
            named = [f"cr3 pfn {step.root:#x}"] if step.root is not None else []
            named += [f"cr1 pfn {step.user_root:#x}"] if step.user_root is not None else []
            return f"{step.call}(vcpu {step.vcpu}{''.join(', ' + name for name in named)})"
        case SetExtended() | SetXsave() | SetMsrs():
            return f"{step.call}(vcpu {step.vcpu}, {count(len(step.content), 'byte')})"
        case Pin():
            mfn = placement.mfn(step.pfn) if placement else -1
            return f"pin L{step.level} pfn {step.pfn:#x}" + (f" mfn {mfn:#x}" if mfn >= 0 else "")
        case MapP2m():
            return f"map {count(len(step.frames), 'p2m page')}"
        case _:
            return step.call


def answer(finding: Finding | None) -> str:
    """0, or what the step failed with and by which rule."""
    if finding is None:
        return "0"
    if finding.errno is not None:
        return f"-{finding.errno} ({finding.rule.id})"
    return f"refused ({finding.rule.id})"


def lines(answers: Iterable[StepAnswer], placement: Placement | None, *, only_failed: bool) -> Iterator[str]:
    """One line per hypercall; a refused one is followed by the chain of tables that led there."""
    for one in answers:
        finding = one.finding
        if only_failed and finding is None:
            continue
        what = describe(one.step, placement)
        if isinstance(one.step, Refusal) and finding is not None:
            yield f"libxc: {finding.message} ({finding.rule.id})"
            continue
        yield f"{what} → {answer(finding)}"
        if finding is not None:
            if finding.chain:
                head = "pin" if isinstance(one.step, Pin) else one.step.call
                yield f"    {' → '.join((head, *map(link_text, finding.chain)))}"
            yield f"    {finding.message}"


def objects(
    answers: Iterable[StepAnswer], placement: Placement | None, *, only_failed: bool
) -> Iterator[dict[str, Any]]:
    """One JSON object per hypercall."""
    pins = 0
    for number, one in enumerate(answers):
        step, finding = one.step, one.finding
        batch = None
        if isinstance(step, Pin):
            batch, pins = pins // PIN_BATCH, pins + 1
        if only_failed and finding is None:
            continue
        mfn = placement.mfn(step.pfn) if placement and isinstance(step, Pin) else None
        yield {
            "index": number,
            "call": step.call,
            "what": describe(step, placement),
            "vcpu": getattr(step, "vcpu", None),
            "pfn": getattr(step, "pfn", None),
            "mfn": mfn if mfn is None or mfn >= 0 else None,
            "level": getattr(step, "level", None),
            "batch": batch,
            "result": 0 if finding is None else -1,
            "errno": finding.errno if finding else None,
            "rule": finding.rule.id if finding else None,
            "message": finding.message if finding else None,
            "chain": [link._asdict() for link in finding.chain] if finding else [],
        }
