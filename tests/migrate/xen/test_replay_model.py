"""The replay of the end of a restore, against an independent model of Xen and against the catalogue's own damages.

The default budget is small; `REPLAY_MODEL_EXAMPLES=5000 pytest tests/migrate/test_replay_model.py` looks harder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from itertools import pairwise
from typing import Any

import pytest
from asking import check
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from reference_model import Placement, Received, Step, restore
from trying import examples

from migrate.building.builder import StreamBuilder
from migrate.building.parts import PTE_RO, PTE_RW, TABLE, entry, page_data
from migrate.destination.destination import Destination
from migrate.destination.releases import RELEASES
from migrate.judging.check import Checker, judge
from migrate.judging.judgement import Judgement
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Severity
from migrate.rules.findings import Finding
from migrate.testing.strategies import (
    damaged_streams,
    damaging_rules,
    descriptors,
    guests,
    live_tables,
    older_pages,
    streams,
)
from migrate.xen.hypercalls import MapP2m, Pin, Refusal, SetContext
from migrate.xen.replay import Trace
from streams.pages import PageType
from streams.wire.paging import NX, RW, G, P

EXAMPLES = int(os.environ.get("REPLAY_MODEL_EXAMPLES", "0"))


def budget(number: int) -> Any:
    """A share of the test's time. No failing example is made smaller under a large budget: that takes hours."""
    return settings(
        max_examples=EXAMPLES or examples(number),
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, *([] if EXAMPLES else [Phase.shrink])],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


# -- the engine's answers and the model's ------------------------------------------------------------

# Any frames will do that lie on the same side of 4 GiB, as long as no raw entry hits one of them by chance.
PLACEMENTS: dict[str, Placement] = {"high": lambda pfn: 0x15_0000 + pfn, "low": lambda pfn: 0x5_0000 + pfn}
L3_RULE = {"4.17": False, "4.20": True}
CASES = [(target, placement) for target in L3_RULE for placement in (*PLACEMENTS, "source")]


def source_frames(b: StreamBuilder, pages: Collection[int]) -> dict[int, int] | None:
    """The frames that the guest's own p2m names for some pages; None where there is no p2m, or one frame for two."""
    mfns: dict[int, int] = {}
    for pfn in pages:
        page, index = divmod(pfn, 4096 // b.width)
        holder = b.memory.get(b.p2m_frames[page])
        content = holder.data() if holder else None
        if content is None:
            return None
        mfn = int.from_bytes(content[index * b.width : (index + 1) * b.width], "little")
        if mfn < 1 << 30:
            mfns[pfn] = mfn
    return mfns if len(set(mfns.values())) == len(mfns) else None


def placement_of(name: str, b: StreamBuilder) -> Placement | None:
    if name != "source":
        return PLACEMENTS[name]
    mfns = source_frames(b, Received(b, lambda pfn: pfn).with_data)
    return None if mfns is None else lambda pfn: mfns.get(pfn, 0x7_0000 + pfn)


def answers(trace: Trace) -> tuple[list[Step], bool]:
    """The engine's steps up to the first refusal, and whether it was libxc that refused."""
    steps: list[Step] = []
    for outcome in trace.answers:
        match outcome.step:
            case Refusal():
                return steps, True
            case SetContext(vcpu=number):
                what = "context"
            case Pin(pfn=number):
                what = "pin"
            case MapP2m():
                what, number = "p2m", 0
            case _:
                assert outcome.finding is None
                continue
        answer = outcome.finding.errno if outcome.finding else 0
        assert answer is not None
        steps.append(Step(what, number, answer))
        if answer:
            break
    return steps, False


def agree(b: StreamBuilder) -> None:
    """The engine answers as the model does, under every target and placement."""
    stream = b.build()
    traces = judge(stream, then=lambda j: {case: j.replay(Destination(*case)) for case in CASES})
    if None in traces.values():  # an entry names no pfn of the guest: the restore never gets this far
        failure = check(stream).failure
        assert failure is not None
        assert failure.rule == "REC-20"
        return
    for (target, placement), trace in traces.items():
        frames = placement_of(placement, b)
        if frames is None:
            continue
        engine, libxc_refused = answers(trace)
        model = restore(b, frames, l3_rule=L3_RULE[target])
        if libxc_refused:
            assert engine == model[: len(engine)], (target, placement)
        else:
            assert engine == model, (target, placement)


# -- edits -------------------------------------------------------------------------------------------

TYPES = [0x0, 0x1, 0x2, 0x3, 0x4, 0x9, 0xA, 0xB, 0xC, 0xD, 0xE, 0xF]
FLAG_BITS = [0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 52, 58, 62, 63]
SLOTS = [0, 1, 2, 3, 3, 4, 100, 255, 256, 271, 272, 427, 428, 511]
FOREIGN = [0, 0xFF, 0x100, 0x2A10, 0xFF_FFFF, 0x100_0000, (1 << 40) - 2, (1 << 40) - 1]
FRAMES = ((1 << 40) - 1) << 12


def used_gdt_frames(b: StreamBuilder) -> set[int]:
    return {pfn for vcpu in b.vcpus for pfn in vcpu.basic.gdt_frames[: (vcpu.basic.gdt_ents + 511) // 512]}


class Editor:
    """Random edits of a guest, each of one thing."""

    def __init__(self, draw: st.DrawFn, b: StreamBuilder) -> None:
        self.draw = draw
        self.b = b
        self.live = live_tables(b)

    def pick(self, options: Any) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def pfn(self) -> int:
        return self.draw(st.integers(0, self.b.max_pfn))

    def tables(self, *levels: int) -> list[int]:
        """Tables of some levels, most often live ones; of any level, or any pages, where there are none of these."""
        live = self.draw(st.integers(0, 7)) > 0
        memory = self.b.memory
        pages = [pfn for pfn in (self.live if live else sorted(memory)) if memory[pfn].is_table]
        return [pfn for pfn in pages if not levels or memory[pfn].type & 7 in levels] or pages or sorted(memory)

    def used(self, pfn: int) -> int:
        """A slot with something in it; any where all are empty."""
        used = self.b.table(pfn).nonzero()[0].tolist()
        return self.pick(used or SLOTS)

    def put(self, pfn: int, slot: int, value: int) -> None:
        if value & P and (value & FRAMES) >> 12 > self.b.max_pfn:
            value = value & ~FRAMES | self.pfn() << 12
        note(f"pfn {pfn:#x} slot {slot}: {int(self.b.table(pfn)[slot]):#x} becomes {value:#x}")
        self.b.table(pfn)[slot] = value

    def tag(self, pfn: int, kind: int) -> None:
        note(f"pfn {pfn:#x}: type {self.b.memory[pfn].type:#x} becomes {kind:#x}")
        self.b.memory[pfn].type = kind

    # What is done.

    def flip_flag(self) -> None:
        pfn = self.pick(self.tables())
        slot = self.used(pfn)
        self.put(pfn, slot, int(self.b.table(pfn)[slot]) ^ 1 << self.pick(FLAG_BITS))

    def retarget(self) -> None:
        pfn = self.pick(self.tables())
        slot = self.used(pfn)
        self.put(pfn, slot, int(self.b.table(pfn)[slot]) & ~FRAMES | self.pfn() << 12)

    def retarget_to_table(self) -> None:
        pfn = self.pick(self.tables(2, 3, 4))
        slot = self.used(pfn)
        target = self.pick(self.tables())
        self.put(pfn, slot, int(self.b.table(pfn)[slot]) & ~FRAMES | target << 12)

    def new_entry(self) -> None:
        pfn = self.pick(self.tables())
        self.put(pfn, self.pick(SLOTS), entry(self.pfn(), self.pick([PTE_RW, PTE_RO, P, P | RW, TABLE | NX])))

    def map_table_writable(self) -> None:
        self.put(self.pick(self.tables(1)), self.pick(SLOTS), entry(self.pick(self.tables()), PTE_RW))

    def map_linear(self) -> None:
        level = self.pick([2, 3, 4])
        flags = self.pick([PTE_RO, PTE_RO, PTE_RW])
        self.put(self.pick(self.tables(level)), self.pick(SLOTS), entry(self.pick(self.tables(level)), flags))

    def map_linear_chain(self) -> None:
        """Read-only entries among a few tables of a level, allowed or not by who comes first."""
        memory, linear = self.b.memory, (2,) if self.b.width == 4 else (2, 3, 4)
        tables = [[pfn for pfn in self.live if memory[pfn].type & 7 == level] for level in linear]
        several = self.pick([pfns for pfns in tables if len(pfns) > 1] or [self.tables()])
        some = self.draw(st.lists(st.sampled_from(several), min_size=2, max_size=3, unique=len(several) > 1))
        if self.draw(st.integers(0, 4)):
            some.sort(key=several.index)
        for earlier, later in pairwise(some):
            self.put(later, self.pick([5, 6, 200]), entry(earlier, PTE_RO))

    def slot_3(self) -> None:
        first, second = (self.pick(self.tables(3)) for _ in range(2))
        value = int(self.b.table(second)[self.pick([0, 1, 2, 3, 3, 3])])
        self.put(first, self.pick([0, 2, 3, 3, 3]), self.pick([value, value, value, 0, value | NX]))

    def at_xens_slots(self) -> None:
        """An entry just inside or outside the slots that Xen keeps to itself."""
        slots = {2: [427, 428], 3: [3, 4], 4: [255, 256, 271, 272]}
        pfn = self.pick(self.tables(*slots))
        slot = self.pick(slots.get(self.b.memory[pfn].type & 7, SLOTS))
        self.put(pfn, slot, entry(self.pfn(), self.pick([PTE_RO, TABLE, TABLE | G])))

    def retype(self) -> None:
        self.tag(self.pick(self.tables() if self.draw(st.booleans()) else self.b.memory), self.pick(TYPES))

    def pin_or_not(self) -> None:
        pfn = self.pick(self.tables())
        self.tag(pfn, self.b.memory[pfn].type ^ 8)

    def untag(self) -> None:
        """A table becomes data, which keeps the source's frames in its entries."""
        pfn = self.pick(self.tables())
        self.tag(pfn, 0)
        table = self.b.table(pfn)
        frame = self.pick(FOREIGN)
        for slot in table.nonzero()[0].tolist():
            table[slot] = int(table[slot]) & ~FRAMES | frame << 12

    def untag_saved(self) -> None:
        """A table becomes data, with the very frames that the source had."""
        frames = source_frames(self.b, self.b.memory) or {}
        pfn = self.pick(self.tables())
        self.tag(pfn, 0)
        table = self.b.table(pfn)
        for slot in table.nonzero()[0].tolist():
            value = int(table[slot])
            if value & P and (value & FRAMES) >> 12 in frames:
                table[slot] = value & ~FRAMES | frames[(value & FRAMES) >> 12] << 12

    def untag_as_is(self) -> None:
        self.tag(self.pick(self.tables()), 0)

    def forget(self) -> None:
        """A page that the stream never mentions, though it may be mapped."""
        kept = {self.b.start_info_pfn, *self.b.p2m_frames, *self.live}
        pfn = self.pick([pfn for pfn in self.b.memory if pfn not in kept])
        note(f"pfn {pfn:#x}: forgotten")
        del self.b.memory[pfn]
        self.b.rounds = [[other for other in pfns if other != pfn] for pfns in self.b.rounds]
        basic = self.b.vcpus[0].basic
        if self.draw(st.booleans()):
            basic.gdt_frames[0], basic.gdt_ents = pfn, max(basic.gdt_ents, 1)

    def root(self) -> None:
        vcpu = self.pick(self.b.vcpus)
        pfn = self.pick(self.tables(self.b.levels))
        note(f"vcpu {vcpu.id}: root {vcpu.root:#x} becomes {pfn:#x}")
        vcpu.root = pfn

    def user_root(self) -> None:
        vcpu = self.pick(self.b.vcpus)
        if self.b.width == 8:
            cr1 = self.pick([entry(self.pick(self.tables(4)), 1), 0x5000])
            note(f"vcpu {vcpu.id}: cr1 {vcpu.basic.ctrlreg[1]:#x} becomes {cr1:#x}")
            vcpu.basic.ctrlreg[1] = cr1

    def gdt_frame(self) -> None:
        basic = self.pick(self.b.vcpus).basic
        index = self.pick([0, 0, 1, 2])
        basic.gdt_frames[index] = self.pfn()
        basic.gdt_ents = max(basic.gdt_ents, index * 512 + 1)
        note(f"GDT: frame {index} is {basic.gdt_frames[index]:#x}")

    def descriptor(self) -> None:
        used = sorted(used_gdt_frames(self.b) & self.b.memory.keys())
        value = self.draw(st.integers(0, (1 << 64) - 1) | st.integers(0, (1 << 64) - 1).map(lambda n: n | 1 << 47))
        value ^= self.pick([0, 1 << 44])
        valid = self.draw(descriptors(self.b.width)) ^ 1 << self.pick([31, 32, 36, 39, 40, 43, 44, 47, 53])
        self.put(self.pick(used or [self.b.start_info_pfn]), self.pick([0, 1, 511]), self.pick([value, valid]))

    def p2m_frame(self) -> None:
        index = self.pick(range(len(self.b.p2m_frames)))
        self.b.p2m_frames[index] = self.pfn()
        note(f"p2m: frame {index} is {self.b.p2m_frames[index]:#x}")


EDITS: list[Callable[[Editor], None]] = [
    Editor.flip_flag,
    Editor.retarget,
    Editor.retarget_to_table,
    Editor.new_entry,
    Editor.map_table_writable,
    Editor.map_linear,
    Editor.map_linear_chain,
    Editor.slot_3,
    Editor.at_xens_slots,
    Editor.retype,
    Editor.forget,
    Editor.pin_or_not,
    Editor.untag,
    Editor.untag_saved,
    Editor.untag_as_is,
    Editor.root,
    Editor.user_root,
    Editor.gdt_frame,
    Editor.descriptor,
    Editor.p2m_frame,
]


@st.composite
def edited_guests(draw: st.DrawFn, most: int = 3) -> StreamBuilder:
    b = draw(guests())
    edit = Editor(draw, b)
    for kind in draw(st.lists(st.sampled_from(EDITS), min_size=1, max_size=most)):
        kind(edit)
    _with_history(draw, b)
    return b


@st.composite
def live_guests(draw: st.DrawFn) -> StreamBuilder:
    b = draw(guests())
    _with_history(draw, b)
    return b


def _with_history(draw: st.DrawFn, b: StreamBuilder) -> None:
    if draw(st.booleans()):
        b.insert("PAGE_DATA", draw(older_pages(b)), before="PAGE_DATA")


# -- consistent guests -------------------------------------------------------------------------------


@given(streams())
@budget(30)
def test_valid_stream_is_accepted_without_errors(stream: bytes) -> None:
    report = check(stream)
    assert [f for f in report.findings if f.severity is Severity.ERROR] == []
    assert report.verdict == "accept"


@pytest.mark.parametrize("sent", [True, False], ids=["XRC-42", "REC-21"])
def test_table_that_is_ballooned_out_names_nothing(sent: bool) -> None:
    b = StreamBuilder.pv(8)
    table, page = b.new_page(PageType.XTAB), b.new_page(PageType.XTAB)
    before = [(table, PageType.L1TAB, entry(page).to_bytes(8, "little").ljust(4096, b"\0"))]
    if sent:
        before.append((page, PageType.NOTAB, bytes(4096)))
    b.insert("PAGE_DATA", page_data(before), before="PAGE_DATA")
    assert [f.rule.id for f in check(b.build()).findings if f.severity is Severity.ERROR] == []


@given(live_guests())
@budget(20)
def test_replay_of_a_consistent_guest_is_the_models(b: StreamBuilder) -> None:
    agree(b)


@given(guests(8) | guests(4, extended=True))
@budget(20)
def test_guest_that_no_frame_can_harm_passes_the_model_everywhere(b: StreamBuilder) -> None:
    for placement in PLACEMENTS.values():
        assert {step.answer for step in restore(b, placement, l3_rule=True)} == {0}


def first_fatal(trace: Trace | None) -> Finding | None:
    assert trace is not None
    return next((finding for finding in trace.findings if finding.fatal), None)


def test_descriptors_that_were_never_sent_are_refused() -> None:
    b = StreamBuilder.pv(4)
    del b.memory[b.gdt_pfn]  # an L1 maps it, so it has a frame all the same
    failure = check(b.build(), target="4.20").failure
    assert failure is not None
    assert (failure.rule, failure.errno) == ("HYP-05", "EINVAL")


@given(edited_guests() | live_guests())
@budget(30)
def test_leaving_out_what_cannot_fail_changes_no_answer(b: StreamBuilder) -> None:
    def both(j: Judgement) -> list[list[Finding | None]]:
        if not j.steps:
            return []
        return [
            [first_fatal(j.replay(Destination(target, placement), exact=exact)) for exact in (True, False)]
            for target, placement in CASES
        ]

    for exact, quick in judge(b.build(), then=both):
        assert quick == exact


@given(edited_guests())
@budget(20)
def test_pipe_is_replayed_as_a_file_is(b: StreamBuilder) -> None:
    stream = b.build()
    checker = Checker()
    for start in range(0, len(stream), 50_000):
        checker.feed(stream[start : start + 50_000])
    checker.close()
    for target, placement in CASES:
        piped = checker.judgement.replay(Destination(target, placement))
        filed = judge(stream, then=lambda j: j.replay(Destination(target, placement)))  # noqa: B023 - called at once
        assert (piped is None) == (filed is None)
        assert piped is None or answers(piped) == answers(filed)


# -- edited guests -----------------------------------------------------------------------------------


@given(edited_guests())
@budget(60)
def test_replay_of_an_edited_guest_is_the_models(b: StreamBuilder) -> None:
    agree(b)


# -- damage by name ----------------------------------------------------------------------------------

REFUSED_BY_XEN = [id for id in damaging_rules() if id.startswith("HYP") or id in ("REC-22", "REC-23", "REC-24")]


def newest_with(id: str) -> str:
    return next(release.name for release in reversed(RELEASES) if RULES[id].in_force(release))


@given(damaged_streams())
@budget(30)
def test_damage_is_found_by_its_own_rule(damaged: tuple[bytes, str]) -> None:
    stream, id = damaged
    report = check(stream, target=newest_with(id))
    assert id in {finding.rule.id for finding in report.findings}


@pytest.mark.parametrize("id", [id for id in REFUSED_BY_XEN if RULES[id].effect.fatal])
def test_illegal_edit_is_refused_by_the_rule_that_names_it(id: str) -> None:
    @given(damaged_streams([id]))
    @settings(max_examples=EXAMPLES // 20 or examples(4), deadline=None, phases=[Phase.explicit, Phase.generate])
    def refused(damaged: tuple[bytes, str]) -> None:
        report = check(damaged[0])
        assert report.failure is not None
        assert report.failure.rule == id
        assert report.failure.errno in (RULES[id].errno or "").split("/")

    refused()


# -- the model itself --------------------------------------------------------------------------------


def model(b: StreamBuilder, placement: str = "low", *, l3_rule: bool = True) -> list[Step]:
    return restore(b, PLACEMENTS[placement], l3_rule=l3_rule)


@pytest.mark.parametrize("width", [4, 8])
def test_model_passes_the_sound_guest(width: int) -> None:
    b = StreamBuilder.pv(width, vcpus=2)
    assert model(b, "high") == [
        Step("context", 0, 0),
        Step("context", 1, 0),
        Step("pin", b.roots[0], 0),
        Step("p2m", 0, 0),
    ]


def test_model_refuses_a_second_vcpus_high_root() -> None:
    b = StreamBuilder.pv(4, vcpus=2, roots=2)
    assert model(b, "high") == [Step("context", 0, 0), Step("context", 1, "ERANGE")]
    assert model(b, "high", l3_rule=False)[-1].answer == 0


def test_model_refuses_a_high_root_at_its_pin() -> None:
    b = StreamBuilder.pv(4, roots=2)
    assert model(b, "high") == [Step("context", 0, 0), Step("pin", b.roots[0], 0), Step("pin", b.roots[1], "ERANGE")]


def test_model_refuses_frames_of_an_unconverted_table_by_their_kind() -> None:
    for frame, errno in ((0xFF, "EPERM"), (0x100, "EBUSY"), (0x100_0000, "EPERM"), ((1 << 40) - 1, "EINVAL")):
        b = StreamBuilder.pv(4)
        l1 = b.chain(b.roots[0])[-1]
        b.memory[l1].type = 0
        b.table(l1)[:] = 0
        b.table(l1)[7] = frame << 12 | PTE_RO
        assert model(b) == [Step("context", 0, errno)]


def test_model_reads_an_unwritten_frame_as_an_empty_table_but_not_as_descriptors() -> None:
    b = StreamBuilder.pv(4)
    _, l2, _ = b.chain(b.roots[0])
    b.table(l2)[1] = entry(b.absent_pfn, TABLE)
    assert model(b)[-1] == Step("p2m", 0, 0)
    b = StreamBuilder.pv(4)
    b.vcpus[0].basic.gdt_frames[0] = b.absent_pfn
    b.table(b.chain(b.roots[0])[-1])[b.absent_pfn] = entry(b.absent_pfn, PTE_RO)
    assert model(b) == [Step("context", 0, "EINVAL")]
