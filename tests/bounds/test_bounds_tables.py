"""Page tables in every knot: no recursion runs away, and no table is validated without end."""

import json

import numpy as np
import pytest
from hostile import END, record

from migrate.building.builder import StreamBuilder
from migrate.building.parts import PAE_ROOT, PTE_RO, PTE_RW, TABLE, entry, page_data
from streams.pages import PageType
from streams.wire.framing import RecordType
from streams.wire.paging import PCD, PSE

pytestmark = pytest.mark.slow

SOME = 400
ENTRIES = 512
FULL = slice(273, None)  # of an L4: behind Xen's slots and the one that maps the kernel
HIGH = ("--placement", "high")


def tables(b, level, count, pinned=True):
    return [b.new_table(level, pinned) for _ in range(count)]


def link(b, table, slots, target, flags=TABLE):
    b.table(table)[slots] = entry(target, flags)


def judged(check, b):
    ended = check(b.build(), *HIGH)
    assert ended.code in (0, 1)
    assert len(ended.out) < 10_000
    return ended


def test_all_entries_of_every_table_may_name_one_table(check):
    b = StreamBuilder.pv(8)
    l1, l2, l3 = (b.new_table(level) for level in (1, 2, 3))
    link(b, l2, slice(None), l1)
    link(b, l3, slice(None), l2)
    link(b, b.roots[0], FULL, l3)
    assert judged(check, b).code == 0


def test_every_l1_may_be_shared_by_every_l2(check):
    b = StreamBuilder.pv(8)
    shared = np.array([entry(pfn, TABLE) for pfn in tables(b, 1, ENTRIES, pinned=False)], np.uint64)
    l3 = b.new_table(3)
    for slot, l2 in enumerate(tables(b, 2, SOME, pinned=False)):
        b.table(l2)[:] = shared
        link(b, l3, slot, l2)
    link(b, b.roots[0], FULL, l3)
    assert judged(check, b).code == 0


@pytest.mark.parametrize(("flags", "code"), [(PTE_RO, 0), (PTE_RW, 1)])
def test_an_l4_may_name_itself(check, flags, code):
    b = StreamBuilder.pv(8)
    link(b, b.roots[0], FULL, b.roots[0], flags)
    assert judged(check, b).code == code


@pytest.mark.parametrize("level", [2, 3, 4])
@pytest.mark.parametrize("flags", [PTE_RO, TABLE])
def test_a_chain_of_tables_of_one_level_ends(check, level, flags):
    b = StreamBuilder.pv(8)
    chain = tables(b, level, SOME)
    for one, following in zip(chain, [*chain[1:], chain[0]], strict=True):
        link(b, one, slice(0, 256), following, flags)
    judged(check, b)


@pytest.mark.parametrize("level", [2, 3, 4])
def test_tables_full_of_linear_entries_are_noted_once(check, level):
    b = StreamBuilder.pv(8)
    base = {4: b.roots[0], 3: b.chain(b.roots[0])[1], 2: b.chain(b.roots[0])[2]}[level]
    for one in tables(b, level, SOME):
        link(b, one, slice(0, 256), one if one % 2 else base, PTE_RO)
    assert judged(check, b).code == 0


@pytest.mark.slow
def test_ten_thousand_tables_full_of_linear_entries_are_noted_in_bounded_memory(check):
    b = StreamBuilder.pv(8)
    for one in tables(b, 4, 10_000):
        link(b, one, slice(0, 256), one, PTE_RO)
    assert judged(check, b).code == 0


def failing_subtree(b, count):
    """An L3 over so many tables, the last of which Xen refuses."""
    bad = b.new_table(1)
    link(b, bad, 0, bad, PTE_RW)
    l2, l3 = b.new_table(2), b.new_table(3)
    for slot, l1 in enumerate([*tables(b, 1, count - 1, pinned=False), bad]):
        link(b, l2, slot, l1)
    link(b, l3, 0, l2)
    return l3


@pytest.mark.parametrize("count", [SOME, pytest.param(20_000, marks=pytest.mark.slow)])
def test_roots_that_fail_over_the_same_subtree_are_not_tried_without_end(check, count):
    b = StreamBuilder.pv(8)
    l3 = failing_subtree(b, ENTRIES)
    for root in tables(b, 4, count):
        link(b, root, 272, l3)
    assert "HYP-02" in judged(check, b).out


def test_where_the_replay_ends_early_it_says_so_and_the_verdict_stays(check):
    b = StreamBuilder.pv(8)
    l3 = failing_subtree(b, 2)
    for root in tables(b, 4, 1100):
        link(b, root, 272, l3)
    report = json.loads(check(b.build(), "--format", "json", *HIGH).out)
    assert report["failure"]["rule"] == "HYP-02"
    (told,) = [one for one in report["findings"] if "the replay ends" in one["message"]]
    assert told["severity"] == "info"
    assert "after 1024 refused calls" in told["message"]


@pytest.mark.parametrize("count", [SOME, pytest.param(20_000, marks=pytest.mark.slow)])
def test_tables_that_are_all_mapped_writable_are_refused_one_by_one(check, count):
    b = StreamBuilder.pv(8)
    pinned = tables(b, 1, count)
    l2 = b.chain(b.roots[0])[-2]
    for slot, start in enumerate(range(0, count, ENTRIES), 1):
        mapping = b.new_table(1)
        some = pinned[start : start + ENTRIES]
        b.table(mapping)[: len(some)] = np.array([entry(pfn, PTE_RW) for pfn in some], np.uint64)
        link(b, l2, slot, mapping)
    assert "HYP-03" in judged(check, b).out


@pytest.mark.parametrize(
    ("level", "flags", "rule"), [(2, PTE_RW | PSE, "REC-22"), (3, PTE_RW | PSE, "REC-22"), (1, PTE_RO | PCD, "REC-23")]
)
def test_tables_full_of_refused_flags_are_told_in_a_few_lines(check, level, flags, rule):
    b = StreamBuilder.pv(8)
    for one in tables(b, level, SOME):
        link(b, one, slice(None), b.gdt_pfn, flags)
    assert rule in judged(check, b).out


def test_tables_full_of_data_pages_taken_for_tables_are_refused(check):
    b = StreamBuilder.pv(8)
    data = [b.new_page(content=b"\xff" * 4096) for _ in range(SOME)]
    for one in tables(b, 2, SOME):
        b.table(one)[:SOME] = np.array([entry(pfn, TABLE) for pfn in data], np.uint64)
    assert "HYP-06" in judged(check, b).out


def test_pae_roots_that_share_the_l2_with_xens_slots_are_refused(check):
    b = StreamBuilder.pv(4)
    l2 = b.new_table(2)
    for one in tables(b, 3, SOME):
        link(b, one, 3, l2, PAE_ROOT)
    assert "HYP-12" in check(b.build(), "--placement", "low").out


def test_a_page_that_is_table_and_data_by_turns_is_judged_in_bounded_memory(check):
    b = StreamBuilder.pv(8)
    table = b.new_table(1)
    stream = b.build().removesuffix(END)
    page = bytes(b.table(table))
    turns = [
        record(RecordType.PAGE_DATA, page_data([(table, kind, page)])) for kind in (PageType.L1TAB, PageType.NOTAB)
    ]
    assert check(stream + b"".join(turns) * 1000 + END, *HIGH).code in (0, 1)


@pytest.mark.parametrize("order", ["restore", "build", "bottom-up", "top-down"])
def test_knots_are_traced_in_any_order(confinement, tmp_path, order):
    b = StreamBuilder.pv(8)
    chain = tables(b, 4, 50)
    for one, following in zip(chain, [*chain[1:], chain[0]], strict=True):
        link(b, one, FULL, following, PTE_RO)
    data = b.build()
    (tmp_path / "stream").write_bytes(data)
    assert confinement.run(["trace", "--order", order, tmp_path / "stream"], len(data)).code in (0, 1)


def test_a_filter_holds_no_more_than_a_check(confinement, tmp_path):
    b = StreamBuilder.pv(8)
    l3 = failing_subtree(b, ENTRIES)
    for root in tables(b, 4, SOME):
        link(b, root, 272, l3)
    data = b.build()
    (tmp_path / "stream").write_bytes(data)
    ended = confinement.run(["filter", "--guard", "--quiet"], len(data), stdin=str(tmp_path / "stream"))
    assert ended.code == 1
    assert "stopped the stream" in ended.err
