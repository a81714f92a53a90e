"""The model of Xen by itself: where it says a refusal lies, what a refused call leaves behind, and what it counts."""

import pytest

from migrate import check
from migrate.building.builder import StreamBuilder
from migrate.building.parts import PTE_RO, PTE_RW, TABLE, entry
from migrate.destination.answers import Answer
from migrate.destination.destination import Destination
from migrate.judging.check import judge
from migrate.judging.judgement import Judgement
from migrate.reports.verdict.sentences import link_text
from migrate.rules.catalogue import RULES
from migrate.rules.extended_cr3 import L3_RULES
from migrate.rules.findings import Finding, Link
from migrate.rules.hypervisor import NEEDS_PLACEMENT
from migrate.xen import frame_types
from migrate.xen.frame_types import Cost, Hypervisor
from migrate.xen.held_types import FrameType, Refused
from migrate.xen.hypercalls import Pin, SetContext
from migrate.xen.replay import Trace
from streams.wire.paging import PWT, P

# The tables of a built 32-bit guest, the GDT after them, and the first page that a violation adds.
ROOT, L2, L1, GDT, NEW = 4, 5, 6, 8, 9
XEN_L2 = f"L2 with Xen's slots pfn {L2:#x}"


def broken(rule: str) -> Finding:
    """What a rule's own violation of a built guest is told as."""
    b = StreamBuilder.pv(4)
    RULES[rule].violation(b)
    report = check(b.build(), placement=NEEDS_PLACEMENT.get(rule, "source"))
    return next(finding for finding in report.findings if finding.rule.id == rule)


def replay(b: StreamBuilder, target: str = "4.17", placement: str = "low") -> Trace:
    trace = judge(b.build(), then=lambda j: j.replay(Destination(target, placement)))
    assert trace is not None
    return trace


def answers(trace: Trace) -> list[tuple[str, str | None]]:
    """Contexts and pins, and the rule by which each is refused."""
    return [
        (
            f"vcpu {outcome.step.vcpu}" if isinstance(outcome.step, SetContext) else f"pin {outcome.step.pfn:#x}",
            outcome.finding and outcome.finding.rule.id,
        )
        for outcome in trace.answers
        if isinstance(outcome.step, SetContext | Pin)
    ]


def alone(b: StreamBuilder, ask, **more: object) -> object:
    """Ask a hypervisor that has not been asked anything about the guest yet."""

    def then(j: Judgement) -> object:
        return ask(Hypervisor(j.pv_guest, j.placement("low"), L3_RULES["L3V-2"], **more))

    return judge(b.build(), then=then)


def refusal(b: StreamBuilder, pfn: int, want: FrameType, **options) -> Refused:
    """The refusal of a type on an idle host."""

    def ask(xen: Hypervisor) -> Refused:
        with pytest.raises(Refused) as refused:
            xen.take(pfn, want)
        return refused.value

    return alone(b, ask, **options)


# -- where a refusal lies ----------------------------------------------------------------------------

# Rule, errno, pfn, slot, and the tables from the root to the entry that is refused, with what that entry names.
PLACES = [
    ("HYP-01", "EINVAL", ROOT, 1, [f"L3 pfn {ROOT:#x} slot 3", f"{XEN_L2} slot 1", f"pfn {ROOT:#x} (L3)"]),
    (
        "HYP-02",
        "EBUSY",
        L1,
        ROOT,
        [f"L3 pfn {ROOT:#x} slot 3", f"{XEN_L2} slot 0", f"L1 pfn {L1:#x} entry {ROOT}", f"RW pfn {ROOT:#x} (L3)"],
    ),
    ("HYP-03", "EINVAL", NEW, None, []),
    (
        "HYP-04",
        "EBUSY",
        L1,
        GDT,
        [
            f"L3 pfn {ROOT:#x} slot 3",
            f"{XEN_L2} slot 0",
            f"L1 pfn {L1:#x} entry {GDT}",
            f"RW pfn {GDT:#x} (descriptor table)",
        ],
    ),
    ("HYP-05", "EINVAL", GDT, 3, []),
    ("HYP-06", "EINVAL", NEW, 0, [f"L3 pfn {ROOT:#x} slot 3", f"{XEN_L2} slot 1", f"L1 pfn {NEW:#x} entry 0"]),
    ("HYP-07", "EPERM", L1, 0, [f"L3 pfn {ROOT:#x} slot 3", f"{XEN_L2} slot 0", f"L1 pfn {L1:#x} entry 0"]),
    ("HYP-10", "EINVAL", ROOT, 3, []),
    ("HYP-11", "EINVAL", L2, 3, [f"L3 pfn {ROOT:#x} slot 3", f"pfn {L2:#x} (L2)"]),
    ("HYP-12", "EINVAL", NEW, 3, []),
    ("HYP-13", "EINVAL", L2, None, []),
    ("HYP-17", "EINVAL", L2, 1, [f"L3 pfn {ROOT:#x} slot 3", f"{XEN_L2} slot 1", f"pfn {L2:#x} (L2 with Xen's slots)"]),
    ("HYP-18", "EINVAL", L2, 3, [f"L3 pfn {ROOT:#x} slot 3", f"pfn {L2:#x} (L1)"]),
    ("HYP-22", "ERANGE", NEW, None, []),
    ("REC-22", "EINVAL", L2, 0, [f"L3 pfn {ROOT:#x} slot 3", f"{XEN_L2} slot 0"]),
    ("REC-23", "EINVAL", L1, 0, [f"L3 pfn {ROOT:#x} slot 3", f"{XEN_L2} slot 0", f"L1 pfn {L1:#x} entry 0"]),
    ("REC-24", "EINVAL", ROOT, 3, []),
]


@pytest.mark.parametrize(("rule", "errno", "pfn", "slot", "chain"), PLACES, ids=[place[0] for place in PLACES])
def test_a_refusal_names_the_frame_the_entry_and_the_way_there(rule, errno, pfn, slot, chain):
    found = broken(rule)
    assert (found.errno, found.pfn, found.slot) == (errno, pfn, slot)
    assert tuple(map(link_text, found.chain)) == tuple(chain)
    assert f"pfn {pfn:#x}" in found.message


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("HYP-01", "needed as L1, but is in use as L3"),
        ("HYP-02", "writable, which is in use as L3"),
        ("HYP-03", "needed as L1, but is mapped writable"),
        ("HYP-04", "writable, which is in use as descriptor table"),
        ("HYP-05", "descriptor 3"),
        ("HYP-06", "has flags 0x4000000000000010"),  # of 0x5151…51 the cache attribute, and the grant table's mark
        ("HYP-07", "machine frame 0x0, I/O space"),
        ("HYP-12", f"slot 3, pfn {L2:#x}, has other users"),
        ("HYP-16", f"maps {XEN_L2} as a linear table"),
        ("HYP-17", "it is writable"),
        ("HYP-22", "(mfn 0x123456) lies above 4 GiB"),
    ],
)
def test_a_refusal_says_why(rule, words):
    assert words in broken(rule).message


@pytest.mark.parametrize("slot", range(4))
def test_a_32_bit_root_is_told_with_the_slot_that_is_refused(slot):
    b = StreamBuilder.pv(4)
    b.table(ROOT)[slot] = entry(L2, P | PWT)
    refused = refusal(b, ROOT, FrameType.L3)
    assert (refused.rule, refused.pfn, refused.chain) == ("REC-24", ROOT, [Link("L3", ROOT, slot)])
    assert refused.message.startswith(f"L3 pfn {ROOT:#x}, entry {slot}, has flags ")


def test_a_table_that_violates_the_4_gib_rule_is_told_with_its_machine_frame():
    assert broken("HYP-22").mfn == 0x12_3456
    assert broken("HYP-12").mfn is None


def linear_pair() -> tuple[StreamBuilder, int, int]:
    """A 64-bit guest and two L2 tables of it, the second of which maps the first read-only in slot 5."""
    b = StreamBuilder.pv(8)
    first, second = b.new_table(2), b.new_table(2)
    b.table(second)[5] = entry(first, PTE_RO)
    return b, first, second


@pytest.mark.parametrize(
    ("flags", "why"),
    [(PTE_RO, None), (PTE_RW, "it is writable")],
)
def test_a_linear_entry_is_refused_where_it_is_writable(flags, why):
    b, first, second = linear_pair()
    b.table(second)[5] = entry(first, flags)

    def ask(xen: Hypervisor) -> Refused | list[str]:
        xen.take(first, FrameType.L2)
        try:
            xen.take(second, FrameType.L2)
        except Refused as refused:
            return refused
        return list(xen.notes.values())

    answer = alone(b, ask)
    if why is None:
        assert answer == [f"L2 pfn {second:#x} maps L2 pfn {first:#x} as a linear table"]
        return
    said = f"L2 pfn {second:#x}, entry 5, maps L2 pfn {first:#x} as a linear table, but {why}"
    assert (answer.rule, answer.message, answer.errno) == ("HYP-17", said, "EINVAL")
    assert answer.chain == [Link("L2", second, 5)]


@pytest.mark.parametrize("mapped", [2, 3, 4])
@pytest.mark.parametrize("mapping", [2, 3, 4])
def test_a_linear_entry_names_a_table_of_its_own_level(mapping, mapped):
    b = StreamBuilder.pv(8)
    first, second = b.new_table(mapped), b.new_table(mapping)
    b.table(second)[5] = entry(first, PTE_RO)

    def ask(xen: Hypervisor) -> str | None:
        xen.take(first, FrameType(mapped))
        try:
            xen.take(second, FrameType(mapping))
        except Refused as refused:
            return refused.rule
        return None

    # One level below is what the entry is for; of any other level it is a conflict.
    assert alone(b, ask) == (None if mapped in (mapping, mapping - 1) else "HYP-01")


@pytest.mark.parametrize("third_maps", ["the table that maps another", "the table that is mapped"])
def test_linear_tables_form_no_chains(third_maps):
    b, first, second = linear_pair()
    third = b.new_table(2)
    b.table(third)[5] = entry(second if third_maps == "the table that maps another" else first, PTE_RO)

    def ask(xen: Hypervisor) -> str | None:
        xen.take(first, FrameType.L2)
        xen.take(second, FrameType.L2)
        try:
            xen.take(third, FrameType.L2)
        except Refused as refused:
            return f"{refused.rule}: {refused.message}"
        return None

    told = alone(b, ask)
    if third_maps == "the table that is mapped":
        assert told is None  # a table may be mapped by any number of others
    else:
        assert told is not None
        assert told.startswith("HYP-17: ")
        assert told.endswith("such chains may be one table long")
        assert alone(b, ask, linear_restricted=False) is None


def test_a_host_may_have_linear_tables_switched_off():
    b = StreamBuilder.pv(8)
    table = b.new_table(2)
    b.table(table)[7] = entry(table, PTE_RO)
    switched_off = Answer(False, "xen_commandline has pv-linear-pt=false")
    refused = refusal(b, table, FrameType.L2, linear_allowed=switched_off)
    assert (refused.rule, refused.errno) == ("HYP-17", "EINVAL")
    assert refused.message.endswith("as a linear table, but xen_commandline has pv-linear-pt=false")


@pytest.mark.parametrize(("kind", "levels"), [(FrameType.L2, 2), (FrameType.L3, 3), (FrameType.L4, 4)])
@pytest.mark.parametrize(("flags", "rule"), [(PTE_RO, None), (PTE_RW, "HYP-17")])
def test_a_table_of_a_64_bit_guest_may_map_itself_unless_writable(kind, levels, flags, rule):
    b = StreamBuilder.pv(8)
    table = b.new_table(levels)
    b.table(table)[7] = entry(table, flags)

    def ask(xen: Hypervisor) -> tuple[str | None, list[str]]:
        try:
            xen.take(table, kind)
        except Refused as refused:
            return refused.rule, list(xen.notes.values())
        return None, list(xen.notes.values())

    said = f"{kind} pfn {table:#x} maps {kind} pfn {table:#x} as a linear table"
    assert alone(b, ask) == (rule, [] if rule else [said])


def test_a_32_bit_l3_has_no_linear_entries():
    b = StreamBuilder.pv(4)
    b.table(ROOT)[0] = entry(ROOT, P)
    assert refusal(b, ROOT, FrameType.L3).rule == "HYP-01"


@pytest.mark.parametrize(
    ("frame", "in_l1", "what"),
    [
        (0xFF, "EPERM", "I/O space"),
        (0x100, "EBUSY", "not the guest's"),
        (0xFF_FFFF, "EBUSY", "not the guest's"),
        (0x100_0000, "EPERM", "I/O space"),
        ((1 << 40) - 1, "EINVAL", "no frame at all"),
    ],
)
def test_a_frame_that_is_not_the_guests_is_refused_by_its_kind_in_an_l1_alone(frame, in_l1, what):
    b = StreamBuilder.pv(8)
    page = b.new_page()
    b.table(page)[7] = frame << 12 | P
    for kind, errno in ((FrameType.L1, in_l1), (FrameType.L2, "EINVAL"), (FrameType.L4, "EINVAL")):
        refused = refusal(b, page, kind)
        assert (refused.rule, refused.errno, refused.chain) == ("HYP-07", errno, [Link(str(kind), page, 7)])
        assert refused.message.endswith(f"machine frame {frame:#x}, {what}")
        assert refused.message.startswith(f"pfn {page:#x} was not sent as a page table: its entry 7 ")


@pytest.mark.parametrize(("slot", "told"), [(427, False), (428, True), (511, True)])
def test_what_stands_in_xens_slots_of_a_32_bit_l2_is_ignored_and_told(slot, told):
    b = StreamBuilder.pv(4)
    b.table(L2)[slot] = entry(b.new_table(1), TABLE)
    trace = replay(b)
    assert {outcome.finding for outcome in trace.answers} == {None}
    assert [(note.rule.id, note.pfn) for note in trace.notes] == ([("REC-26", L2)] if told else [])


@pytest.mark.parametrize(("pinned", "rule"), [(True, "HYP-13"), (False, None)])
def test_an_l2_that_is_pinned_already_cannot_go_into_slot_3(pinned, rule):
    b = StreamBuilder.pv(4)
    l2 = b.new_table(2, pinned)
    root = b.new_root()
    b.table(root)[3] = entry(l2, P)
    assert answers(replay(b))[-1] == (f"pin {root:#x}", rule)


def test_xens_l2_of_one_root_is_refused_in_a_low_slot_of_another():
    b = StreamBuilder.pv(4, roots=2)
    b.table(b.roots[1])[0] = b.table(ROOT)[3]
    assert answers(replay(b))[-1] == (f"pin {b.roots[1]:#x}", "HYP-11")


def test_a_table_pinned_at_two_levels_is_a_type_conflict_at_the_second():
    b = StreamBuilder.pv(8)
    table = b.new_table(2)

    def ask(xen: Hypervisor) -> tuple[str, str]:
        xen.pin(table, 2)
        with pytest.raises(Refused) as other:
            xen.pin(table, 1)
        with pytest.raises(Refused) as again:
            xen.pin(table, 2)
        return other.value.rule, f"{again.value.rule} {again.value.errno} pfn {again.value.pfn:#x}"

    assert alone(b, ask) == ("HYP-01", f"HYP-19 EINVAL pfn {table:#x}")


# -- what a refused call leaves behind ---------------------------------------------------------------


def test_a_refused_call_gives_back_every_type_it_took():
    b = StreamBuilder.pv(8)
    l4, l3, *_ = b.chain(b.roots[0])
    b.table(l3)[511] = entry(b.new_table(2), TABLE | PWT)

    def ask(xen: Hypervisor) -> list[int]:
        with pytest.raises(Refused):
            xen.take(l4, FrameType.L4)
        return xen.types.nonzero()[0].tolist()

    assert alone(b, ask) == []


def test_a_refused_call_gives_back_only_what_it_took_itself():
    b = StreamBuilder.pv(8, roots=2)
    first, second = b.roots
    b.table(b.chain(second)[1])[511] = entry(b.new_table(2), TABLE | PWT)

    def ask(xen: Hypervisor) -> bool:
        xen.take(first, FrameType.L4)
        held = xen.types.tolist()
        with pytest.raises(Refused):
            xen.take(second, FrameType.L4)
        return xen.types.tolist() == held

    assert alone(b, ask) is True


def test_linear_entries_of_a_refused_call_do_not_count_afterwards():
    b = StreamBuilder.pv(8)
    l4, l3, *_ = b.chain(b.roots[0])
    empty, mapped, mapping = b.new_table(2, pinned=True), b.new_table(2, pinned=True), b.new_table(2)
    b.table(mapped)[5] = entry(empty, PTE_RO)  # in the refused call an L1, which anyone may map; pinned it is an L2
    b.table(mapping)[5] = entry(mapped, PTE_RO)
    for slot, value in ((1, entry(mapped, TABLE)), (2, entry(mapping, TABLE)), (3, entry(empty, TABLE | PWT))):
        b.table(l3)[slot] = value
    assert answers(replay(b)) == [
        ("vcpu 0", "REC-23"),
        (f"pin {l4:#x}", "REC-23"),
        (f"pin {empty:#x}", None),
        (f"pin {mapped:#x}", None),
    ]


@pytest.mark.parametrize("before", ["another root", "a linear entry"])
def test_xens_l2_has_one_user(before):
    b = StreamBuilder.pv(4, roots=2)
    (first, xens, _), (second, *_) = (b.chain(root) for root in b.roots)
    user = b.new_table(2)
    b.table(user)[1] = entry(xens, PTE_RO)
    b.table(second)[3] = entry(xens, P)

    def ask(xen: Hypervisor) -> str:
        xen.take(first, FrameType.L3)
        if before == "a linear entry":
            xen.take(user, FrameType.L2)
        with pytest.raises(Refused) as refused:
            xen.take(second, FrameType.L3)
        return refused.value.rule

    assert alone(b, ask) == "HYP-12"


def test_xens_l2_is_free_again_after_its_root_was_refused():
    b = StreamBuilder.pv(4, roots=2)
    (first, xens, _), (second, *_) = (b.chain(root) for root in b.roots)
    b.table(xens)[1] = entry(first, TABLE)  # an L3 where an L1 should be, as long as this root takes it
    b.table(first)[3] = b.table(second)[3] = entry(xens, P)

    def ask(xen: Hypervisor) -> list[bool]:
        taken = []
        for root in (first, second):
            try:
                xen.take(root, FrameType.L3)
            except Refused:
                taken.append(False)
            else:
                taken.append(True)
        return taken

    # As an L1 the refused root is sound: its one entry is read-only.
    assert alone(b, ask) == [False, True]


# -- what is counted ---------------------------------------------------------------------------------


def test_the_cost_of_a_restore_is_that_of_its_tables():
    # Three address spaces of four tables each. Two are taken by vcpus, and found validated by their pins.
    trace = replay(StreamBuilder.pv(8, vcpus=2, roots=3))
    assert trace.hypervisor is not None
    assert trace.hypervisor.cost == Cost(recursive=9, deepest=4, entries=12 * 512, already=2)


def test_tables_side_by_side_are_no_deeper_than_one():
    b = StreamBuilder.pv(8)
    for slot in range(1, 6):
        b.table(b.chain(b.roots[0])[2])[slot] = entry(b.new_table(1), TABLE)
    trace = replay(b)
    assert trace.hypervisor is not None
    assert trace.hypervisor.cost == Cost(recursive=3 + 5, deepest=4, entries=(4 + 5) * 512, already=1)


def test_a_refused_call_does_not_make_later_ones_deeper():
    b = StreamBuilder.pv(8, roots=3)
    b.table(b.chain(b.roots[1])[2])[1] = entry(b.new_table(1), TABLE | PWT)
    trace = replay(b)
    assert [rule for _, rule in answers(trace)] == [None, None, "REC-23", None]
    assert trace.hypervisor is not None
    # Of the refused root all tables were looked at, and none of them kept.
    assert trace.hypervisor.cost == Cost(recursive=9, deepest=4, entries=12 * 512, already=1)


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_notes_beyond_some_number_are_counted_on_the_last_one_told(most, monkeypatch):
    monkeypatch.setattr(frame_types, "NOTES_TOLD", most)
    b = StreamBuilder.pv(8, roots=3)
    for root in b.roots:
        b.table(root)[300] = entry(root, PTE_RO)
    trace = replay(b)
    told = [(note.rule.id, note.pfn, note.count) for note in trace.notes]
    expected = [("HYP-16", root, 1) for root in b.roots[:most]]
    if most < 3:
        expected[-1] = ("HYP-16", b.roots[most - 1], 1 + 3 - most)
    assert told == expected
