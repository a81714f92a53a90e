"""The restore as a sequence of hypercalls, with Xen's answer to each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from migrate.xen.hypercalls import (
    PIN_BATCH,
    CallMade,
    MapP2m,
    Pin,
    Refusal,
    SetContext,
    SetExtended,
    SetHvmContext,
    SetMsrs,
    SetXsave,
    Step,
)

if TYPE_CHECKING:
    from migrate.destination.placement import Placement
    from migrate.rules.findings import Finding
    from migrate.xen.replay import StepAnswer

_CALLS: dict[type[Any], str] = {
    SetContext: "setvcpucontext",
    SetExtended: "set_ext_vcpucontext",
    SetXsave: "setvcpuextstate",
    SetMsrs: "set_vcpu_msrs",
    SetHvmContext: "sethvmcontext",
    Pin: "mmuext_op",
    MapP2m: "mmap",
}


def call_of(step: Step) -> str:
    """Name of the hypercall a step makes; libxc for a check of its own."""
    if isinstance(step, CallMade):
        return step.call
    return "libxc" if isinstance(step, Refusal) else _CALLS[type(step)]


def describe(step: Step, placement: Placement | None) -> str:
    """A step in the words of a trace, without its answer."""
    match step:
        case CallMade():
            return f"{step.call}({step.detail})"
        case Refusal():
            return "libxc"
        case SetContext():
            named = [f"cr3 pfn {step.root:#x}"] if step.root is not None else []
            named += [f"cr1 pfn {step.user_root:#x}"] if step.user_root is not None else []
            return f"setvcpucontext(vcpu {step.vcpu}{''.join(', ' + name for name in named)})"
        case Pin():
            mfn = placement.mfn(step.pfn) if placement else -1
            return f"pin L{step.level} pfn {step.pfn:#x}" + (f" mfn {mfn:#x}" if mfn >= 0 else "")
        case MapP2m():
            return f"map {len(step.frames)} p2m pages"
        case SetHvmContext():
            return "sethvmcontext"
        case _:
            return f"{call_of(step)}(vcpu {step.vcpu}, {len(step.content)} bytes)"


def answer(finding: Finding | None) -> str:
    """0, or what the step failed with and by which rule."""
    if finding is None:
        return "0"
    if finding.errno is not None:
        return f"-{finding.errno} ({finding.rule.id})"
    return f"refused ({finding.rule.id})"


def lines(outcomes: Iterable[StepAnswer], placement: Placement | None, *, only_failed: bool) -> Iterator[str]:
    """One line per hypercall; a refused one is followed by the chain of tables that led there."""
    for outcome in outcomes:
        finding = outcome.finding
        if only_failed and finding is None:
            continue
        what = describe(outcome.step, placement)
        if isinstance(outcome.step, Refusal) and finding is not None:
            yield f"libxc: {finding.message} ({finding.rule.id})"
            continue
        yield f"{what} → {answer(finding)}"
        if finding is not None:
            if finding.chain:
                head = "pin" if isinstance(outcome.step, Pin) else call_of(outcome.step)
                yield f"    {' → '.join((head, *finding.chain))}"
            yield f"    {finding.message}"


def objects(
    outcomes: Iterable[StepAnswer], placement: Placement | None, *, only_failed: bool
) -> Iterator[dict[str, Any]]:
    """One JSON object per hypercall."""
    pins = 0
    for number, outcome in enumerate(outcomes):
        step, finding = outcome.step, outcome.finding
        batch = None
        if isinstance(step, Pin):
            batch, pins = pins // PIN_BATCH, pins + 1
        if only_failed and finding is None:
            continue
        mfn = placement.mfn(step.pfn) if placement and isinstance(step, Pin) else None
        yield {
            "index": number,
            "call": call_of(step),
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
            "chain": list(finding.chain) if finding else [],
        }
