"""Runs what libxc asks for at END through the model of Xen, one hypercall after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from migrate.destination import releases
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, Severity
from migrate.rules.extended_cr3 import L3_RULES
from migrate.rules.findings import Finding
from migrate.xen.cpu_policy import processor
from migrate.xen.entries import bad_descriptors
from migrate.xen.frame_types import FrameType, Hypervisor, Refused
from migrate.xen.hypercalls import (
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
from migrate.xen.pv_vcpu import Objection, context_objections, extended_objections, msrs_objections, xsave_objections
from streams.pages import LEVEL_MASK, PIN_BIT
from streams.wire.framing import PAGE_SHIFT
from streams.wire.paging import ENTRIES, FRAME_MASK, PAE_L3_LIMIT, RW, P
from streams.wire.vcpu import CONTEXT, PAE_EXTENDED_CR3
from streams.wire.views import view

if TYPE_CHECKING:
    from migrate.destination.destination import Destination
    from migrate.destination.placement import Placement
    from migrate.guest.memory import PvGuest
    from migrate.xen.plainly_sound import SoundnessTally
    from streams.records import Place

# The first refusal decides. What else would be refused is told as well, but a refused call gives back all the types
# it took, so that the next one begins anew: an end comes with so many refusals, or when so many tables have been
# looked at, and each of the guest's that often.
MOST_REFUSED = 1024
FREE_TABLES = 1 << 13
REPLAYED_TIMES = 8
# Frames for which it is told who maps them writable.
MOST_MAPPERS = 64


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
    """The restore from END on, under one target and placement."""

    outcomes: list[StepAnswer] = field(default_factory=list)
    hypervisor: Hypervisor | None = None
    notes: list[Finding] = field(default_factory=list)  # about no step in particular

    @property
    def findings(self) -> Iterable[Finding]:
        """All findings, in restore order."""
        yield from (finding for outcome in self.outcomes for finding in outcome.findings)
        yield from self.notes


def _not_asked(first: Finding, refused: int, left: int) -> Finding:
    return Finding(
        first.rule,
        f"the replay ends after {refused} refused calls, the first of which decides: {left} more are not asked for",
        Severity.INFO,
        Effect.TOLERATED,
        step=first.step,
        call=first.call,
    )


class PvReplay:
    """Xen's answers to a PV guest's restore.

    Parameters
    ----------
    vcpus:
        how many vcpus the domain has.
    """

    def __init__(self, guest: PvGuest, destination: Destination, placement: Placement, vcpus: int) -> None:
        self.guest = guest
        self.release = destination.release
        self.placement = placement
        self.vcpus = vcpus
        self._cleared = False
        self._mappers: dict[int, str] = {}  # which entry maps a frame writable, where that was asked
        self.cpu = processor(guest.policy, "pv", self.release, width=guest.width)
        self.xen = Hypervisor(
            guest,
            placement,
            L3_RULES[destination.l3_rule_in_force],
            linear_restricted=self.release.has(releases.linear_pt_restricted),
        )

    def run(self, steps: Sequence[Step], tally: SoundnessTally | None = None) -> Trace:
        """Run the steps in the order given, past refusals.

        Parameters
        ----------
        tally:
            where it finds the guest sound, types are not replayed one by one, and pins leave no outcome.
        """
        trace = Trace(hypervisor=self.xen)
        if tally is not None and self._sound(steps, tally):
            self._cleared = True
            steps = [step for step in steps if not isinstance(step, Pin | MapP2m)]
        first = None
        refused = 0
        patience = ENTRIES * max(FREE_TABLES, REPLAYED_TIMES * len(self.guest.store.tables))
        for number, step in enumerate(steps, 1):
            outcome = self._answer(step)
            trace.outcomes.append(outcome)
            if outcome.finding is not None:
                first, refused = first or outcome.finding, refused + 1
            if first and number < len(steps) and (refused == MOST_REFUSED or self.xen.cost.entries > patience):
                trace.notes.append(_not_asked(first, refused, len(steps) - number))
                break
        trace.notes += [*self._noted(), *self._tags()]
        return trace

    def _sound(self, steps: Sequence[Step], tally: SoundnessTally) -> bool:
        """Whether nothing about page types can be refused or noted, in whatever order they are taken."""
        contexts = [step for step in steps if isinstance(step, SetContext)]
        if any(isinstance(step, Refusal) for step in steps) or any(c.user_mfn is not None for c in contexts):
            return False
        roots = [root for c in contexts for root in (c.root, c.user_root) if root is not None]
        descriptor_tables = {pfn for c in contexts for pfn in c.gdt}
        if not tally.sound(roots, list(descriptor_tables)):
            return False
        if not all(self.guest.came_with_data(pfn) for pfn in descriptor_tables):
            return False  # what a frame holds that was never written decides
        for page in self.guest.store.find(descriptor_tables).values():
            if page is not None and len(bad_descriptors(np.frombuffer(page, "<u8"), self.guest.width)):
                return False
        return self._l3_rule_passes(contexts)

    def _l3_rule_passes(self, contexts: Sequence[SetContext]) -> bool:
        """The 4 GiB rule over the order of a restore: vcpu 0's root first, then all other live L3 tables."""
        rule, pae = self.xen.l3_rule.answer, self.guest.width == 4
        assist = next((view(CONTEXT[self.guest.width], c.content)["vm_assist"] for c in contexts if c.vcpu == 0), 0)
        extended = bool(int(assist) & PAE_EXTENDED_CR3)
        if not pae:
            return rule(pae, extended, True, True) is None and rule(pae, extended, True, False) is None
        first = next((c.root for c in contexts if c.vcpu == 0), None)
        pinned, levels = self.guest.pinned()
        for pfn in {*pinned[levels == 3].tolist(), *(c.root for c in contexts if c.root is not None)}:
            high = self.placement.mfn(pfn) >= PAE_L3_LIMIT
            if rule(pae, extended, high, pfn != first) is not None:
                return False
        return True

    def _noted(self) -> Iterable[Finding]:
        """What the hypervisor tolerated."""
        last = dict(self.xen.notes.keys())  # of each rule, which speaks for those not told one by one
        for (rule_id, pfn), message in self.xen.notes.items():
            rule = RULES[rule_id]
            count = 1 + (self.xen.more_notes.get(rule_id, 0) if last[rule_id] == pfn else 0)
            yield Finding(rule, message, rule.severity, rule.effect, pfn=pfn, count=count, step="pin", call="xen")

    def _tags(self) -> Iterable[Finding]:
        """HYP-08, HYP-09: what the stream calls a table, against what Xen found it to be."""
        held = self.xen.types
        level = np.where(held == np.uint8(FrameType.L2X), np.uint8(FrameType.L2), held)
        tag = self.guest.types & LEVEL_MASK
        tagged = (tag >= 1) & (tag <= 4) & (self.guest.types & PIN_BIT == 0)
        for rule_id, wrong, what in (
            ("HYP-08", tagged & (level >= 1) & (level <= 4) & (level != tag), "is in use as L{held}"),
            (
                "HYP-09",
                tagged & (held == np.uint8(FrameType.WRITABLE)),
                "is part of no live table and is mapped writable",
            ),
        ):
            pfns = np.flatnonzero(wrong)
            if len(pfns):
                pfn = int(pfns[0])
                rule = RULES[rule_id]
                yield Finding(
                    rule,
                    f"pfn {pfn:#x} was sent as L{int(tag[pfn])} and {what.format(held=int(level[pfn]))}",
                    rule.severity,
                    rule.effect,
                    pfn=pfn,
                    count=len(pfns),
                )

    def _answer(self, step: Step) -> StepAnswer:
        match step:
            case Refusal(finding):
                return StepAnswer(step, finding)
            case SetContext():
                return self._set_context(step)
            case SetExtended():
                found = extended_objections(step.content, step.vcpu, self.vcpus, self.release, self.cpu.intel)
                return self._objected(step, "set_ext_vcpucontext", step.vcpu, step.place, found)
            case SetXsave():
                found = xsave_objections(step.content, step.vcpu, self.release, self.cpu)
                return self._objected(step, "setvcpuextstate", step.vcpu, step.place, found)
            case SetMsrs():
                found = msrs_objections(step.content, step.vcpu, self.release, self.cpu)
                return self._objected(step, "set_vcpu_msrs", step.vcpu, step.place, found)
            case Pin():
                return self._pin(step)
            case MapP2m():
                return self._map_p2m(step)
            case SetHvmContext() | CallMade():
                return StepAnswer(step)

    def _set_context(self, step: SetContext) -> StepAnswer:
        """arch_set_info_guest: fields, vm_assist, GDT, cr3, cr1, and then the vcpu is initialised."""
        found = context_objections(step.content, self.guest.width, step.vcpu, self.release)
        outcome = self._objected(step, "setvcpucontext", step.vcpu, step.place, found)
        if step.vcpu == 0:
            assist = int(view(CONTEXT[self.guest.width], step.content)["vm_assist"])
            self.xen.extended_cr3 = bool(assist & PAE_EXTENDED_CR3)
        if self._cleared:
            return outcome
        try:
            self.xen.take_gdt(step.gdt)
            root = FrameType(self.guest.levels)
            if step.root is not None:
                self.xen.take(step.root, root)
            if step.user_root is not None:
                self.xen.take(step.user_root, root)
            if step.user_mfn is not None:
                self._user_mfn(step, root)
        except Refused as refused:
            refusal = self._refusal(refused, f"vcpu {step.vcpu} context", "context", "setvcpucontext", step)
            outcome = StepAnswer(step, refusal, outcome.findings) if not outcome.finding else outcome
        if step.vcpu == 0:
            self.xen.vcpu0_initialised = True
        return outcome

    def _user_mfn(self, step: SetContext, root: FrameType) -> None:
        """A cr1 that libxc did not convert names a machine frame; usually not the guest's."""
        assert step.user_mfn is not None
        pfn = int(self.placement.pfns_of(np.array([step.user_mfn], np.int64))[0])
        if pfn < 0:
            raise Refused("XRC-15", "EINVAL", f"cr1 names machine frame {step.user_mfn:#x}, which is not the guest's")
        self.xen.take(pfn, root)

    def _pin(self, step: Pin) -> StepAnswer:
        try:
            self.xen.pin(step.pfn, step.level)
        except Refused as refused:
            what = "pin" if refused.pfn == step.pfn else f"pin L{step.level} pfn {step.pfn:#x}"
            return StepAnswer(step, self._refusal(refused, what, "pin", "mmuext_op", step))
        return StepAnswer(step)

    def _map_p2m(self, step: MapP2m) -> StepAnswer:
        """A p2m page that Xen holds as a page table cannot be mapped writable."""
        frames = np.array(step.frames, np.int64)
        held = self.xen.types[frames]
        for at in np.flatnonzero((held != np.uint8(FrameType.NONE)) & (held != np.uint8(FrameType.WRITABLE)))[:1]:
            pfn, kind = int(frames[at]), FrameType(int(held[at]))
            rule = RULES["XRC-30"]
            return StepAnswer(
                step,
                Finding(
                    rule,
                    f"p2m page pfn {pfn:#x} is in use as {kind}: libxc cannot map it to rewrite it",
                    rule.severity,
                    rule.effect,
                    pfn=pfn,
                    errno="EBUSY",
                    step="p2m",
                    call="mmap",
                ),
            )
        return StepAnswer(step)

    # -- findings ----------------------------------------------------------------------------------

    def _objected(self, step: Step, call: str, vcpu: int, place: Place, objections: Iterable[Objection]) -> StepAnswer:
        findings = []
        for objection in objections:
            rule = RULES[objection.rule]
            certain = objection.certain and objection.errno is not None
            outlook = f"{call} → -{objection.errno}" if certain else "whether Xen takes it depends on the host"
            findings.append(
                Finding(
                    rule,
                    f"{objection.message}: {outlook}" if objection.errno else objection.message,
                    objection.severity
                    or (Severity.ERROR if certain else Severity.WARNING if objection.errno else rule.severity),
                    objection.effect
                    or (Effect.HYPERCALL if certain else Effect.HOST if objection.errno else rule.effect),
                    offset=place.offset,
                    record=place.index,
                    record_type=place.name,
                    vcpu=vcpu,
                    errno=objection.errno if certain else None,
                    step="context",
                    call=call,
                )
            )
        fatal = next((f for f in findings if f.fatal), None)
        return StepAnswer(step, fatal, tuple(f for f in findings if f is not fatal))

    def _mapped_by(self, pfn: int) -> str:
        """Which entry of an L1 maps a frame writable, in words; told of a few frames, for it takes all tables."""
        if pfn not in self._mappers:
            if len(self._mappers) == MOST_MAPPERS:
                return ""
            self._mappers[pfn] = self._first_mapper(pfn)
        return self._mappers[pfn]

    def _first_mapper(self, pfn: int) -> str:
        entry = np.uint64(pfn << PAGE_SHIFT | P | RW)
        wanted = np.uint64(FRAME_MASK | P | RW)
        found: list[tuple[int, int]] = []
        for tables, entries in self.guest.store.table_batches():
            # By tag: what the failed call itself had taken has been given back.
            first_level = self.guest.types[tables] & LEVEL_MASK == 1
            hits = (entries & wanted == entry) & first_level[:, None]
            found += ((tables[row], int(np.argmax(hits[row]))) for row in np.flatnonzero(hits.any(axis=1)).tolist())
        return " (by L1 pfn {:#x}, entry {})".format(*min(found)) if found else ""

    def _refusal(self, refused: Refused, what: str, step_name: str, call: str, step: SetContext | Pin) -> Finding:
        rule = RULES[refused.rule]
        place = step.place if isinstance(step, SetContext) else None
        chain = tuple(
            f"{kind} pfn {pfn:#x}"
            + ("" if slot is None else f" entry {slot}" if kind in ("L1", str(FrameType.SEG)) else f" slot {slot}")
            for kind, pfn, slot in reversed(refused.chain)
        )
        if refused.target is not None:
            chain += (refused.target,)
        if len(chain) < 2:
            chain = ()
        mapped_by = self._mapped_by(refused.pfn) if refused.rule == "HYP-03" and refused.pfn is not None else ""
        return Finding(
            rule,
            f"{what}: {refused.message}{mapped_by}: {call} → -{refused.errno}",
            Severity.ERROR,
            Effect.HYPERCALL,
            offset=place.offset if place else None,
            record=place.index if place else None,
            record_type=place.name if place else None,
            pfn=refused.pfn,
            mfn=self.placement.mfn(refused.pfn) if refused.pfn is not None and refused.rule == "HYP-22" else None,
            vcpu=step.vcpu if isinstance(step, SetContext) else None,
            slot=refused.chain[0][2] if refused.chain else refused.slot,
            errno=refused.errno,
            step=step_name,
            call=call,
            chain=chain,
        )
