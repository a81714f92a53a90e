"""Runs what libxc asks for at END through the model of Xen, one hypercall after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.destination import releases
from migrate.guest.memory import which
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, GuestKind, Severity, Stage
from migrate.rules.extended_cr3 import L3_RULES
from migrate.rules.findings import Finding
from migrate.xen.answers import Answering, StepAnswer, Trace
from migrate.xen.cpu_policy import processor
from migrate.xen.entries import bad_descriptors
from migrate.xen.frame_types import Hypervisor
from migrate.xen.held_types import FrameType, Refused
from migrate.xen.hypercalls import (
    MapP2m,
    Pin,
    Refusal,
    SetContext,
    SetExtended,
    SetMsrs,
    SetXsave,
    Step,
)
from migrate.xen.linear_tables import ALLOWED
from migrate.xen.program import Program
from migrate.xen.pv_vcpu import context_objections, extended_objections, msrs_objections, xsave_objections
from streams.counting import count
from streams.pages import LEVEL_MASK, PIN_BIT, are_tables
from streams.values import dataclass
from streams.wire.framing import PAGE_SHIFT
from streams.wire.paging import ENTRIES, FRAME_MASK, PAE_L3_LIMIT, RW, P
from streams.wire.vcpu import CONTEXT, PAE_EXTENDED_CR3
from streams.wire.views import view

if TYPE_CHECKING:
    from migrate.destination.placement import Placement
    from migrate.guest.memory import PvGuest
    from migrate.xen.plainly_sound import SoundnessTally

# The first refusal decides. What else would be refused is told as well, but a refused call gives back all the types
# it took, so that the next one begins anew: an end comes with so many refusals, or when so many tables have been
# looked at, and each of the guest's that often.
MOST_REFUSED = 1024
FREE_TABLES = 1 << 13
REPLAYED_TIMES = 8
# Frames for which it is told who maps them writable.
MOST_MAPPERS = 64


@dataclass(slots=True)
class PvTrace(Trace):
    """The restore of a PV guest from END on."""

    hypervisor: Hypervisor | None = None


def _unpinned(types: NDArray[np.uint8]) -> NDArray[np.bool_]:
    unpinned: NDArray[np.bool_] = are_tables(types) & (types & PIN_BIT == 0)
    return unpinned


def _not_asked(first: Finding, refused: int, left: int) -> Finding:
    return Finding.of(
        first.rule,
        f"the replay ends after {count(refused, 'refused call')}, the first of which decides; "
        f"{count(left, 'more is', 'more are')} not asked for",
        effect=Effect.TOLERATED,
        severity=Severity.INFO,
        step=first.step,
        call=first.call,
    )


class PvReplay(Answering):
    """Xen's answers to a PV guest's restore from END on, page types included.

    Parameters
    ----------
    before:
        what answered the calls made until then.
    """

    def __init__(self, guest: PvGuest, before: Answering, placement: Placement, vcpus: int) -> None:
        super().__init__(before.destination, GuestKind.PV, vcpus)
        self.policy = before.policy
        self.guest = guest
        self.placement = placement
        self._domain_vcpus = vcpus
        self._cleared = False
        self._mappers: dict[int, str] = {}  # which entry maps a frame writable, where that was asked
        self.cpu = processor(
            self.policy, self.kind, self.release, width=guest.width, host_max=before.host_max, intel=before.intel
        )
        self.xen = Hypervisor(
            guest,
            placement,
            L3_RULES[self.destination.l3_rule_in_force],
            linear_restricted=self.release.has(releases.linear_pt_restricted),
            linear_allowed=ALLOWED if self.host is None else self.host.linear_page_tables,
        )

    def run(self, program: Program, tally: SoundnessTally | None = None) -> PvTrace:
        """Run the steps in the order given, past refusals.

        Parameters
        ----------
        tally:
            where it finds the guest sound, types are not replayed one by one; and only answers with findings are kept.
        """
        trace = PvTrace(hypervisor=self.xen)
        steps: Sequence[Step] = program
        if tally is not None and self._sound(program.others, tally):
            self._cleared = True
            steps = [step for step in program.others if not isinstance(step, MapP2m)]
        first = None
        refused = 0
        patience = ENTRIES * max(FREE_TABLES, REPLAYED_TIMES * len(self.guest.store.tables()[0]))
        for number, step in enumerate(steps, 1):
            outcome = self.answer(step)
            if tally is None or outcome.findings:
                trace.answers.append(outcome)
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
            yield Finding.of(rule, message, pfn=pfn, count=count, step=Stage.PIN, call="xen")

    def _tags(self) -> Iterable[Finding]:
        """HYP-08, HYP-09: what the stream calls a table, against what Xen found it to be."""
        held, types = self.xen.types, self.guest.types

        def in_use(part: slice) -> NDArray[np.bool_]:
            level = held[part]
            level = np.where(level == np.uint8(FrameType.L2X), np.uint8(FrameType.L2), level)
            found: NDArray[np.bool_] = _unpinned(types[part]) & are_tables(level) & (level != types[part])
            return found

        def writable(part: slice) -> NDArray[np.bool_]:
            found: NDArray[np.bool_] = _unpinned(types[part]) & (held[part] == np.uint8(FrameType.WRITABLE))
            return found

        for rule_id, wrong, what in (
            ("HYP-08", in_use, "is in use as L{held}"),
            ("HYP-09", writable, "is part of no live table and is mapped writable"),
        ):
            pfns = which(len(types), wrong)
            if len(pfns):
                pfn = int(pfns[0])
                level = FrameType.L2 if held[pfn] == FrameType.L2X else held[pfn]
                message = f"pfn {pfn:#x} was sent as L{types[pfn]} and {what.format(held=int(level))}"
                yield Finding.of(RULES[rule_id], message, pfn=pfn, count=len(pfns))

    def answer(self, step: Step) -> StepAnswer:
        """The answer to one call."""
        match step:
            case SetContext():
                return self._set_context(step)
            case SetExtended():
                found = extended_objections(step.content, step.vcpu, self._domain_vcpus, self.release, self.cpu.intel)
                return self.answered(step, found, step.place)
            case SetXsave():
                found = xsave_objections(step.content, step.vcpu, self.release, self.cpu)
                return self.answered(step, found, step.place)
            case SetMsrs():
                found = msrs_objections(step.content, step.vcpu, self.release, self.cpu)
                return self.answered(step, found, step.place)
            case Pin():
                return self._pin(step)
            case MapP2m():
                return self._map_p2m(step)
            case _:
                return super().answer(step)

    def _set_context(self, step: SetContext) -> StepAnswer:
        """arch_set_info_guest: fields, vm_assist, GDT, cr3, cr1, and then the vcpu is initialised."""
        found = context_objections(step.content, self.guest.width, step.vcpu, self.release)
        answer = self.answered(step, found, step.place)
        if step.vcpu == 0:
            assist = int(view(CONTEXT[self.guest.width], step.content)["vm_assist"])
            self.xen.extended_cr3 = bool(assist & PAE_EXTENDED_CR3)
        if self._cleared:
            return answer
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
            refusal = self._refusal(refused, Stage.CONTEXT, step)
            answer = StepAnswer(step, refusal, answer.findings) if not answer.finding else answer
        if step.vcpu == 0:
            self.xen.vcpu0_initialised = True
        return answer

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
            return StepAnswer(step, self._refusal(refused, Stage.PIN, step))
        return StepAnswer(step)

    def _map_p2m(self, step: MapP2m) -> StepAnswer:
        """A p2m page that Xen holds as a page table cannot be mapped writable."""
        frames = np.array(step.frames, np.int64)
        held = self.xen.types[frames]
        for at in np.flatnonzero((held != np.uint8(FrameType.NONE)) & (held != np.uint8(FrameType.WRITABLE)))[:1]:
            pfn, kind = int(frames[at]), FrameType(int(held[at]))
            message = f"p2m page pfn {pfn:#x} is in use as {kind}: libxc cannot map it to rewrite it"
            return StepAnswer(
                step, Finding.of(RULES["XRC-30"], message, pfn=pfn, errno="EBUSY", step=Stage.P2M, call=step.call)
            )
        return StepAnswer(step)

    # -- findings ----------------------------------------------------------------------------------

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
            rows = np.flatnonzero(hits.any(axis=1))
            found += zip(tables[rows].tolist(), hits[rows].argmax(axis=1).tolist(), strict=True)
        return " (by L1 pfn {:#x}, entry {})".format(*min(found)) if found else ""

    @property
    def _placed_so(self) -> str:
        """The fact of the host, in brackets, that places frames as they are; "" where it is none."""
        above = None if self.host is None else self.host.memory_above_4g
        return f" ({above.because})" if above and above.value and self.destination.placement == "high" else ""

    def _refusal(self, refused: Refused, within: Stage, step: SetContext | Pin) -> Finding:
        chain = (*reversed(refused.chain), *([refused.target] if refused.target else []))
        mapped_by = self._mapped_by(refused.pfn) if refused.rule == "HYP-03" and refused.pfn is not None else ""
        context = step if isinstance(step, SetContext) else None
        high = refused.rule == "HYP-22" and refused.pfn is not None
        return Finding.of(
            RULES[refused.rule],
            f"{refused.message}{mapped_by}{self._placed_so if high else ''}",
            context.place if context else None,
            effect=Effect.HYPERCALL,
            severity=Severity.ERROR,
            pfn=refused.pfn,
            mfn=self.placement.mfn(refused.pfn) if high and refused.pfn is not None else None,
            vcpu=context.vcpu if context else None,
            slot=refused.chain[0].slot if refused.chain else refused.slot,
            errno=refused.errno,
            step=within,
            call=step.call,
            chain=chain if len(chain) > 1 else (),
        )
