"""A guest's memory, looked at: its page tables, single pages, addresses, its p2m."""

import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from project import SAMPLES
from rich.console import Console
from trying import examples

from migrate.building.builder import StreamBuilder
from migrate.building.parts import PTE_RO, PTE_RW, TABLE, entry
from migrate.inspection.memory.entries import flag_names, ranges
from migrate.inspection.memory.forest import Link, forest
from migrate.inspection.memory.frame_runs import placed, runs
from migrate.inspection.memory.page_history import history
from migrate.inspection.memory.thinned import REFERENCES_SHOWN
from migrate.inspection.memory.walk import FIVE_LEVELS, FOUR_LEVELS, NO_PAGING, PAE, TWO_LEVELS, paging_mode, walk
from migrate.inspection.reading import NotInStream, inspect
from migrate.judging.report_json import dumps
from migrate.reports.inspection import memory
from migrate.reports.inspection.hexdump import hexdump
from migrate.testing import strategies
from streams.hvm_context import decode_context, encode_context
from streams.pages import PageType
from streams.wire.hvm_names import SaveType
from streams.wire.paging import PSE, RW, US, P

ORACLE = sorted((SAMPLES / "oracle").glob("*.zst"))
FRAME = 0x000F_FFFF_FFFF_F000

# What the guests of some samples printed before they were saved: their roots, pfn to source mfn, and pins by level.
SAID = {
    "x417-pv32.plain.libxc.zst": {
        "cr3": {0: (22, 785595), 1: (25, 785398)},
        "pinned": {1: 2, 2: 2, 3: 7},
        "roots": {
            19: 785568,
            20: 785903,
            21: 785902,
            22: 785595,
            26: 786395,
            24: 785399,
            25: 785398,
            277: 785593,
        },
    },
    "x417-pv32x.live4.libxc.zst": {
        "cr3": {0: (27, 1794075), 1: (92, 1794140)},
        "pinned": {1: 2, 2: 2, 3: 7},
        "roots": {
            27: 1794075,
            37: 1794085,
            47: 1794095,
            57: 1794105,
            98: 1794146,
            108: 1794156,
            92: 1794140,
            277: 1794325,
        },
    },
    "x417-pv64.plain.libxc.zst": {
        "cr3": {0: (216, 1572568), 1: (92, 1572444)},
        "pinned": {1: 2, 2: 2, 3: 1, 4: 7},
        "roots": {
            27: 1572379,
            37: 1572389,
            47: 1572399,
            57: 1572409,
            226: 1572578,
            216: 1572568,
            92: 1572444,
            279: 1572631,
        },
    },
}
KERNEL = {3: 0xC000_0000, 4: 0xFFFF_FFFF_8000_0000}  # where those guests map pfn 0

few = settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))


def asked(stream, question, **how):
    """What a question gets from a stream that is open."""
    if isinstance(stream, str):
        stream = SAMPLES / stream
    return inspect(stream, then=question, **how)


def printed(stream, view, *args, width=80, **how):
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    asked(stream, lambda inspection: view(inspection, console, *args), **how)
    return out.getvalue()


def drawn(inspection):
    found = forest(inspection)
    return found, list(found.branches())


# -- the forest ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAID)
def test_roots_pins_and_frames_are_what_the_guest_printed(name):
    found = asked(name, forest)
    said = SAID[name]
    named = {f"cr3 of vcpu {vcpu}": pfn for vcpu, (pfn, _) in said["cr3"].items()}
    assert {role: pfn for pfn, roles in found.roots.items() for role in roles if "cr3" in role} == named
    levels, counts = np.unique(found.levels[found.pinned], return_counts=True)
    assert dict(zip(levels.tolist(), counts.tolist(), strict=True)) == said["pinned"]
    top = found.levels == found.top
    tables = zip(found.pfns[top].tolist(), found.source_mfns[top].tolist(), strict=True)
    assert {pfn: mfn for pfn, mfn in tables if pfn in said["roots"]} == said["roots"]
    assert int(top.sum()) == len(said["roots"])


def test_all_l3s_of_a_32_bit_guest_lie_above_4_gib_on_a_high_host_and_none_on_a_low_one():
    name = "x417-pv32.plain.libxc.zst"
    assert asked(name, forest, placement="high").high_l3s.tolist() == sorted(SAID[name]["roots"])
    assert asked(name, forest, placement="low").high_l3s.tolist() == []


def test_the_failing_chain_is_the_one_that_the_trace_tells():
    stream = "oracle/pv64.plain__l1_maps_l1_writable.libxc.zst"
    found = asked(stream, forest, target="4.17")
    assert found.chain == ((0xD8, 511), (0x118, 510), (0x119, 1), (0x11B, None))
    assert [pfn for pfn in found.pfns.tolist() if found.table(pfn).failing] == [0xD8, 0x118, 0x119, 0x11B]
    assert [f.rule.id for f in found.table(0x11B).findings] == ["HYP-03"]


def test_a_guest_that_would_come_back_has_no_failing_chain():
    assert asked("x417-pv64.plain.libxc.zst", forest).chain == ()


def test_shared_kernel_tables_are_shown_once_and_then_referred_to():
    found, branches = asked("x417-pv64.plain.libxc.zst", drawn)
    kernel = [branch for branch in branches if branch.pfns == (0x118, 0x118)]  # the L3 that all eight roots share
    assert [branch.link for branch in kernel] == [Link.TABLE] + [Link.AGAIN] * 7
    assert {branch.slots for branch in kernel} == {((511, 511),)}
    assert found.table(0x118).parents == 8


@few
@given(strategies.streams())
def test_the_forest_shows_every_table_exactly_once(stream):
    try:
        found, branches = asked(stream, drawn)
    except NotInStream:
        assert asked(stream, lambda inspection: inspection.guest) is None
        return
    shown = []
    for branch in branches:
        if branch.link is Link.TABLE:
            step = 1 if branch.pfns[1] >= branch.pfns[0] else -1
            shown += range(branch.pfns[0], branch.pfns[1] + step, step)
    assert sorted(shown) == found.pfns.tolist()


@few
@given(strategies.guests(), st.booleans())
def test_the_forest_has_the_edges_and_counts_of_the_tables(b, linear):
    if linear:
        b.table(b.roots[0])[2] = entry(b.roots[0], PTE_RO)
    found = asked(b.build(), forest)
    edges, parents = [], {}
    for pfn, page in sorted(b.memory.items()):
        if not page.is_table:
            continue
        level = page.type & 7
        slots = range(4) if b.width == 4 and level == 3 else range(512)
        words = [(slot, int(word)) for slot, word in enumerate(b.table(pfn)) if slot in slots and word & 1]
        words = [(slot, word) for slot, word in words if level < 4 or not 256 <= slot < 272]
        table = found.table(pfn)
        assert (table.level, table.pinned, table.present) == (level, bool(page.type & 8), len(words))
        assert table.writable == (sum(word >> 1 & 1 for _, word in words) if level == 1 else 0)
        if level > 1:
            edges += [(pfn, slot, (word & FRAME) >> 12) for slot, word in words]
            for _, word in words:
                parents.setdefault((word & FRAME) >> 12, set()).add(pfn)
    told = zip(found.pfns[found.parent].tolist(), found.slot.tolist(), found.target.tolist(), strict=True)
    assert list(told) == edges
    for pfn in found.pfns.tolist():
        assert found.table(pfn).parents == len(parents.get(pfn, set()) - {pfn})


def test_linear_tables_and_entries_that_name_something_else_are_told_apart():
    b = StreamBuilder.pv(8, roots=2)
    root, other = b.roots
    table = b.table(root)
    table[3], table[4], table[5], table[6] = (
        entry(pfn, PTE_RO) for pfn in (root, other, b.store_pfn, b.chain(root)[2])
    )
    links = {branch.slots[0][0]: branch.link for branch in asked(b.build(), drawn)[1] if branch.depth == 1}
    assert links[3] is Link.SELF
    assert links[4] is Link.LINEAR
    assert links[5] is Link.DATA
    assert links[6] is Link.WRONG


def test_tables_that_name_each_other_in_a_circle_end_somewhere():
    b = StreamBuilder.pv(8)
    first, second = b.new_table(4), b.new_table(4)
    b.table(first)[0], b.table(second)[0] = entry(second, PTE_RO), entry(first, PTE_RO)
    _, branches = asked(b.build(), drawn)
    assert [branch.link for branch in branches if branch.pfns[0] == first] == [Link.TABLE, Link.LINEAR]


def test_neighbouring_leaf_tables_without_anything_to_tell_share_a_line():
    b = StreamBuilder.pv(8)
    middle = b.chain(b.roots[0])[2]
    leaves = [b.new_table(1) for _ in range(5)]
    for slot, pfn in enumerate(leaves, 10):
        b.table(middle)[slot] = entry(pfn, TABLE)
    branch = next(x for x in asked(b.build(), drawn)[1] if x.pfns[0] == leaves[0])
    assert (branch.pfns, branch.slots, branch.pages) == ((leaves[0], leaves[-1]), ((10, 14),), 5)


def shared(count):
    """So many L2 tables, each of which names every one of as many L1 tables."""
    b = StreamBuilder.pv(8)
    lower = [entry(b.new_table(1), TABLE) for _ in range(2 * count)][::2]  # neighbours would share a line
    for _ in range(count):
        b.table(b.new_table(2, pinned=True))[:count] = lower
    return b.build()


def test_of_references_to_what_is_shown_elsewhere_each_table_has_a_few():
    lines = printed(shared(40), memory.render_tables).splitlines()
    assert sum("see above" in line for line in lines) == 39 * (REFERENCES_SHOWN + 1)
    assert sum("and 32 more tables, see above" in line for line in lines) == 39


def test_lines_of_a_forest_grow_with_its_tables_and_not_with_what_they_name():
    few, many = (len(printed(shared(count), memory.render_tables).splitlines()) for count in (40, 80))
    assert many < 2.1 * few


def test_an_hvm_guest_has_no_forest():
    with pytest.raises(NotInStream, match="PV"):
        asked(StreamBuilder.hvm().build(), forest)


# -- entries ---------------------------------------------------------------------------------------


def test_flags_are_named_as_the_manuals_name_them():
    assert flag_names(1 << 63 | entry(0x100, 0x67), 1) == ("P", "RW", "US", "A", "D", "NX")
    assert flag_names(0x1FF, 1) == ("P", "RW", "US", "PWT", "PCD", "A", "D", "PAT", "G")
    assert flag_names(0x80, 2) == ("PSE",)
    assert flag_names(1 << 9 | 1 << 52 | 0xFFF << 12, 1) == ("AVL9", "AVL52")


words = st.integers(0, 40).map(lambda pfn: pfn << 12 | 0x67) | st.sampled_from([0, 0x1000, 0xFFFF_FFFF_FFFF_FFFE, 0x63])


@few
@given(st.lists(st.tuples(words, st.integers(1, 6), st.integers(0, 1)), max_size=60))
def test_ranges_rebuild_the_table(pieces):
    table = [word + (n * step << 12) & (1 << 64) - 1 for word, length, step in pieces for n in range(length)]
    found = ranges(np.array(table, np.uint64))
    rebuilt = [r.entry + (n * r.step << 12) for r in found for n in range(r.count)]
    assert rebuilt == table
    assert [r.slot for r in found] == np.cumsum([0, *(r.count for r in found)])[:-1].tolist()


def test_a_table_of_consecutive_pages_is_one_range_and_so_is_one_of_equal_entries():
    assert len(ranges(np.arange(512, dtype=np.uint64) << np.uint64(12) | np.uint64(3))) == 1
    assert len(ranges(np.full(512, 0x5003, np.uint64))) == 1


def test_entries_that_are_not_present_are_no_run_of_pages():
    found = ranges(np.array([0x1000, 0x2000, 0x2000], np.uint64))
    assert [(r.slot, r.count, r.present) for r in found] == [(0, 1, False), (1, 2, False)]


# -- a page ----------------------------------------------------------------------------------------


def test_the_history_of_a_root_is_what_the_guest_printed():
    found = asked("x417-pv32.live4.libxc.zst", lambda inspection: history(inspection, 25))
    assert found.roles == ("cr3 of vcpu 1",)
    assert (found.type, found.source_mfn) == (PageType.L3TAB, 785398)


def test_p2m_pages_and_absent_pages_are_told():
    first, second, absent = asked(
        "x417-pv32.plain.libxc.zst", lambda inspection: [history(inspection, pfn) for pfn in (0x110, 0x111, 0x7F0)]
    )
    assert first.roles == ("p2m page 0 (pfns 0x0 to 0x3ff)",)
    assert second.roles == ("p2m page 1 (pfns 0x400 to 0x7ff)",)
    assert (absent.type, absent.page, absent.source_mfn, absent.placed_mfn) == (PageType.XTAB, None, None, None)


def test_every_sending_of_a_page_is_told_with_where_its_contents_lie():
    b = StreamBuilder.pv(4)
    page = b.new_page(content=b"now")
    b.rounds = [[page], [b.store_pfn, page]]
    stream = b.build()
    found = asked(stream, lambda inspection: history(inspection, page))
    assert [(s.round, s.kind) for s in found.sendings] == [(0, "first"), (1, "dirty"), (2, "final")]
    assert [stream[s.data : s.data + 3] for s in found.sendings] == [b"now"] * 3
    assert found.page == b"now".ljust(4096, b"\0")


def test_start_info_rings_gdt_and_roots_are_told():
    b = StreamBuilder.pv(8, vcpus=2, roots=2)
    b.vcpus[0].basic.gdt_frames[0], b.vcpus[0].basic.gdt_ents = b.gdt_pfn, 512
    pfns = (b.start_info_pfn, b.store_pfn, b.console_pfn, b.roots[1])
    roles = asked(b.build(), lambda inspection: [history(inspection, pfn).roles for pfn in (*pfns, b.gdt_pfn)])
    assert roles[:4] == [("start_info",), ("xenstore ring",), ("console ring",), ("cr3 of vcpu 1",)]
    assert "GDT page 0 of vcpu 0" in roles[4]


def test_the_rings_of_an_hvm_guest_are_told_and_what_names_its_pages_is_not_known():
    b = StreamBuilder.hvm()
    found = asked(b.build(), lambda inspection: history(inspection, b.console_pfn))
    assert (found.roles, found.mappers) == (("console ring",), None)


@few
@given(strategies.guests(), st.data())
def test_who_names_a_page_is_what_a_look_at_every_entry_finds(b, data):
    pfn = data.draw(st.sampled_from(sorted(b.memory)))
    naming = {}
    for table, page in b.memory.items():
        if page.is_table:
            slots = [slot for slot, word in enumerate(b.table(table)) if word & 1 and (int(word) & FRAME) >> 12 == pfn]
            if slots:
                naming[table] = slots
    found = asked(b.build(), lambda inspection: history(inspection, pfn))
    spread = {m.table: [slot for a, z in m.slots for slot in range(a, z + 1)] for m in found.mappers}
    assert spread == naming


def test_a_pfn_that_nothing_names_is_not_in_the_stream():
    stream = StreamBuilder.pv(4).build()
    for pfn in (0x1234_5678, 1 << 60, 1 << 70, -1):
        with pytest.raises(NotInStream):
            asked(stream, lambda inspection, pfn=pfn: history(inspection, pfn))


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAID)
def test_the_kernel_finds_its_own_roots_where_it_maps_its_memory(name):
    said = SAID[name]

    def question(inspection):
        base = KERNEL[forest(inspection).top]
        return [walk(inspection, base + pfn * 4096, vcpu).pfn for vcpu, (pfn, _) in said["cr3"].items()]

    assert asked(name, question) == [pfn for pfn, _ in said["cr3"].values()]


def plain_walk(b, root, address):
    """The pfn behind an address; None where there is none."""
    table = root
    for level in range(b.levels, 0, -1):
        if not b.memory[table].is_table:
            return None
        word = int(b.table(table)[address >> 12 + 9 * (level - 1) & 511])
        if not word & 1:
            return None
        table = (word & FRAME) >> 12
    return table


@few
@given(strategies.guests(), st.data())
def test_walks_agree_with_a_plain_one(b, data):
    vcpu = data.draw(st.sampled_from(range(len(b.vcpus))))
    slots = [
        data.draw(st.sampled_from([0, 0, 1, 3, 272, 511]) if n else st.integers(0, b.max_pfn)) for n in range(b.levels)
    ]
    address = sum(slot << 12 + 9 * n for n, slot in enumerate(slots))
    if b.width == 4:
        address &= 0xFFFF_FFFF
    elif address >> 47:
        address |= 0xFFFF << 48

    def question(inspection):
        found = walk(inspection, address, vcpu)
        return found, found.root

    found, root = asked(b.build(), question)
    if found.stopped and "Xen's own" in found.stopped:
        return
    assert found.pfn == plain_walk(b, root, address)
    assert (found.pfn is None) == (found.stopped is not None)


@pytest.mark.parametrize(
    ("name", "address", "why"),
    [
        ("x417-pv64.plain.libxc.zst", 0x8000_0000_0000, "not canonical"),
        ("x417-pv64.plain.libxc.zst", 1 << 64, "not canonical"),
        ("x417-pv64.plain.libxc.zst", 0xFFFF_8000_0000_0000, "Xen's own"),
        ("x417-pv32.plain.libxc.zst", 0xF580_0000, "Xen's own"),
        ("x417-pv32.plain.libxc.zst", 1 << 32, "beyond 32 bits"),
        ("x417-pv32.plain.libxc.zst", 0, "slot 0 of the L3 is not present"),
    ],
)
def test_a_walk_says_where_and_why_it_ends(name, address, why):
    found = asked(name, lambda inspection: walk(inspection, address, 0))
    assert found.pfn is None
    assert why in found.stopped


def test_a_pv_guest_has_no_large_pages():
    b = StreamBuilder.pv(8)
    b.table(b.chain(b.roots[0])[2])[1] = entry(0x200, PTE_RW | PSE)
    address = 0xFFFF_8000_0000_0000 + (272 - 256 << 39) + (1 << 21)
    assert "PSE" in asked(b.build(), lambda inspection: walk(inspection, address, 0)).stopped


def test_a_vcpu_that_is_not_there_is_not_in_the_stream():
    stream = StreamBuilder.pv(4).build()
    with pytest.raises(NotInStream, match="vcpu 5 is not in the stream: it has vcpus 0"):
        asked(stream, lambda inspection: walk(inspection, 0, 5))


def hvm_guest(pages, **registers):
    """An HVM guest with some pages, on whose first vcpu these registers are set."""
    b = StreamBuilder.hvm()
    for pfn, content in pages.items():
        while b.max_pfn < pfn:
            b.new_page()
        b.memory[pfn].content[:] = content.ljust(4096, b"\0")
    state = decode_context(bytes(b.hvm_context))
    cpu = state.of(SaveType.CPU)[0]
    fields = cpu.parse()
    for name, value in registers.items():
        fields[name] = value
    entries = tuple(cpu.build(fields) if one is cpu else one for one in state.entries)
    b.hvm_context = bytearray(encode_context(type(state)(entries)))
    return b.build()


def table_of(size, **slots):
    page = bytearray(4096)
    for slot, word in slots.items():
        at = int(slot[1:]) * size
        page[at : at + size] = word.to_bytes(size, "little")
    return bytes(page)


PG, LME = 0x8000_0011, 1 << 8
CR4_PSE, CR4_PAE, CR4_LA57 = 0x10, 0x20, 0x1000
LINKED = P | RW | US


def test_the_paging_mode_follows_from_the_control_registers():
    assert paging_mode(0x11, CR4_PAE, LME) is NO_PAGING
    assert paging_mode(PG, 0, 0) is TWO_LEVELS
    assert paging_mode(PG, CR4_PSE, 0).large == {2}
    assert paging_mode(PG, CR4_PAE | CR4_PSE, 0) is PAE
    assert paging_mode(PG, CR4_PAE, LME) is FOUR_LEVELS
    assert paging_mode(PG, CR4_PAE | CR4_LA57, LME) is FIVE_LEVELS


def hvm_walk(stream, address):
    return asked(stream, lambda inspection: walk(inspection, address, 0))


def test_without_paging_an_address_is_a_physical_one():
    found = hvm_walk(hvm_guest({2: b"here"}, cr0=0x11), 0x2000)
    assert (found.pfn, found.data[:4]) == (2, b"here")


def test_two_levels_with_four_byte_entries():
    pages = {8: table_of(4, _1=entry(9, LINKED)), 9: table_of(4, _1023=entry(10, LINKED)), 10: b"\0" * 5 + b"there"}
    found = hvm_walk(hvm_guest(pages, cr0=PG, cr3=8 << 12), (1 << 22) + (1023 << 12) + 5)
    assert (found.pfn, found.offset, found.data[:5]) == (10, 5, b"there")


def test_a_4_mib_page_has_its_high_address_bits_in_the_middle_of_the_entry():
    page = table_of(4, _2=0x00C0_0000 | 0x01 << 13 | LINKED | PSE)
    found = hvm_walk(hvm_guest({8: page}, cr0=PG, cr4=CR4_PSE, cr3=8 << 12), (2 << 22) + 0x12345)
    assert (found.pfn, found.offset, found.page_size) == (0x1_00C1_2345 >> 12, 0x345, 4 << 20)


def test_a_pae_root_may_lie_anywhere_in_a_page():
    pages = {8: table_of(8, _11=entry(9, P)), 9: table_of(8, _0=0x0020_0000 | LINKED | PSE)}
    found = hvm_walk(hvm_guest(pages, cr0=PG, cr4=CR4_PAE, cr3=8 << 12 | 8 * 8), 0xC000_1234)
    assert (found.pfn, found.offset, found.page_size) == (0x201, 0x234, 2 << 20)


def test_a_1_gib_page_of_four_levels():
    pages = {8: table_of(8, _511=entry(9, LINKED)), 9: table_of(8, _510=0x4000_0000 | LINKED | PSE)}
    registers = {"cr0": PG, "cr4": CR4_PAE, "msr_efer": LME, "cr3": 8 << 12}
    found = hvm_walk(hvm_guest(pages, **registers), 0xFFFF_FFFF_8000_3000)
    assert (found.pfn, found.page_size) == (0x40003, 1 << 30)
    assert found.data is None  # the guest has no such page


def test_five_levels():
    pages = {n: table_of(8, _1=entry(n + 1, LINKED)) for n in range(8, 13)}
    registers = {"cr0": PG, "cr4": CR4_PAE | CR4_LA57, "msr_efer": LME, "cr3": 8 << 12}
    address = sum(1 << 12 + 9 * level for level in range(5))
    found = hvm_walk(hvm_guest({**pages, 13: b"five"}, **registers), address)
    assert (found.pfn, found.data[:4], len(found.steps)) == (13, b"five", 5)


def test_a_table_without_contents_ends_the_walk():
    registers = {"cr0": PG, "cr4": CR4_PAE, "msr_efer": LME, "cr3": 0x777 << 12}
    found = hvm_walk(hvm_guest({}, **registers), 0)
    assert found.stopped == "pfn 0x777, which should be an L4 table, came without contents"


# -- the p2m ---------------------------------------------------------------------------------------


@few
@given(st.lists(st.tuples(st.integers(-1, 0x10_0010) | st.integers(0xF_FFF0, 0x10_0010), st.integers(1, 40))))
def test_runs_rebuild_the_p2m_and_none_crosses_4_gib(pieces):
    mfns = [mfn + n if mfn >= 0 else -1 for mfn, length in pieces for n in range(length)]
    found = runs(np.array(mfns, np.int64))
    parts = list(zip(found.pfns.tolist(), found.counts.tolist(), found.mfns.tolist(), strict=True))
    assert [mfn + n if mfn >= 0 else -1 for _, length, mfn in parts for n in range(length)] == mfns
    assert not any(mfn < 0x100000 < mfn + length for _, length, mfn in parts if mfn >= 0)
    assert (found.below, found.above, found.unknown) == (
        sum(0 <= mfn < 0x100000 for mfn in mfns),
        sum(mfn >= 0x100000 for mfn in mfns),
        mfns.count(-1),
    )


def test_the_p2m_of_a_sample_is_what_its_stream_said():
    found = asked("x417-pv32.plain.libxc.zst", placed, placement="low")
    assert found.p2m_pages.tolist() == [0x110, 0x111]
    assert (found.source.unknown, found.target.unknown, found.frames) == (8, 8, 2040)  # 0x7f0 to 0x7f7 are ballooned
    assert (found.target.below, found.target.above) == (2040, 0)


def test_an_hvm_guest_has_no_p2m():
    with pytest.raises(NotInStream, match="p2m"):
        asked(StreamBuilder.hvm().build(), placed)


# -- what is printed -------------------------------------------------------------------------------


def test_a_hexdump_folds_lines_that_repeat():
    data = b"Xen\x1b[2J".ljust(16, b"\xff") + bytes(48) + b"end"
    assert list(hexdump(data, 0x1000, digits=4)) == [
        "1000  58 65 6e 1b 5b 32 4a ff  ff ff ff ff ff ff ff ff  |Xen.[2J.........|",
        "1010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|",
        "*",
        "1040  65 6e 64                                          |end|",
    ]


def test_a_page_of_zeros_takes_a_word():
    b = StreamBuilder.pv(4)
    assert "zeros, the whole page" in printed(b.build(), memory.render_pfn, b.store_pfn)


def test_a_page_is_printed_with_what_it_is_for_and_who_names_it():
    text = printed("x417-pv32.plain.libxc.zst", memory.render_pfn, 25)
    assert "L3TAB: an L3 page table" in text
    assert "0xbfbf6, below 4 GiB" in text  # 785398
    assert "cr3 of vcpu 1" in text
    assert "sent         1 time" in text


def test_the_trees_tell_why_the_restore_fails_where_it_does():
    text = printed("x417-pv32.plain.libxc.zst", memory.render_tables, width=200, target="4.20", placement="high")
    assert "L3 above 4 GiB: 8" in text
    assert "the restore fails at: pfn 0x19" in text
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if line.strip().startswith("L3 pfn 0x19,"))
    assert "above 4 GiB" in lines[at]
    assert lines[at + 1].strip().startswith("HYP-22 L3 pfn 0x19")


def test_json_tells_the_same_tables():
    told = asked("x417-pv64.plain.libxc.zst", lambda inspection: json.loads(dumps(memory.tables_object(inspection))))
    assert {t["pfn"]: t["source_mfn"] for t in told["tables"] if t["level"] == 4} == SAID["x417-pv64.plain.libxc.zst"][
        "roots"
    ]
    kernel = next(t for t in told["tables"] if t["pfn"] == 0x118)
    assert (kernel["parents"], kernel["names"]) == (8, [[510, 0x119]])


# -- damaged streams -------------------------------------------------------------------------------

PFNS = (0, 0x19, 0x117, 0x110, 0x7F0, 1 << 45, 1 << 64)
ADDRESSES = (0, 0xC000_1000, 0xFFFF_FFFF_8000_1000, 0xF580_0000, 1 << 70)


def look_at_everything(inspection):
    """Every view of memory; what comes out is safe for a terminal."""
    out = io.StringIO()
    console = Console(file=out, width=80, highlight=False, markup=False, emoji=False)
    calls = [
        *((memory.render_pfn, memory.pfn_object, (pfn,)) for pfn in PFNS),
        *((memory.render_walk, memory.walk_object, (address, 0)) for address in ADDRESSES),
        (memory.render_tables, memory.tables_object, ()),
        (memory.render_p2m, memory.p2m_object, ()),
    ]
    for render, as_object, args in calls:
        try:
            render(inspection, console, *args)
            dumps(as_object(inspection, *args))
        except NotInStream:
            continue
    assert all(character.isprintable() or character == "\n" for character in out.getvalue())


@pytest.mark.parametrize("path", ORACLE[::24], ids=lambda path: path.name)
def test_damaged_streams_can_be_looked_at(path):
    inspect(path, then=look_at_everything)


@pytest.mark.slow
@pytest.mark.parametrize("path", ORACLE, ids=lambda path: path.name)
def test_all_damaged_streams_can_be_looked_at(path):
    inspect(path, then=look_at_everything, placement="high")


@few
@given(strategies.damaged_streams())
def test_streams_that_break_a_rule_can_be_looked_at(damaged):
    inspect(damaged[0], then=look_at_everything)


@few
@given(strategies.streams(), st.data())
def test_streams_that_break_off_or_have_a_wrong_byte_can_be_looked_at(stream, data):
    stream = bytearray(stream[: data.draw(st.integers(0, len(stream)))])
    for at in data.draw(st.lists(st.integers(0, len(stream) - 1), max_size=4)) if stream else ():
        stream[at] = data.draw(st.integers(0, 255))
    inspect(bytes(stream), then=look_at_everything)
