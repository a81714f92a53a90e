"""Page tables among a guest's first pages name its last ones: tracked late, they count as if tracked at once."""

from contextlib import contextmanager

import pytest
from asking import check, through_a_pipe, told
from hypothesis import given, settings
from hypothesis import strategies as st
from trying import examples

from migrate.building.builder import StreamBuilder
from migrate.building.parts import PTE_RW, entry
from migrate.guest import memory
from migrate.judging.check import judge
from migrate.testing import strategies
from streams.wire.paging import PCD, P

QUESTION = {"target": "4.20", "placement": "high"}


@contextmanager
def little_room(free=1):
    """Arrays that may cover no more than what the stream has named."""
    patch = pytest.MonkeyPatch()
    patch.setattr(memory, "FREE_PFNS", free)
    patch.setattr(memory, "PFNS_PER_NAMED", 1)
    patch.setattr(memory, "PFNS_PER_PAGE", 0)
    try:
        yield
    finally:
        patch.undo()


@settings(deadline=None, max_examples=examples(15))
@given(b=strategies.guests() | strategies.guests(max_tables=30), batch=st.integers(1, 8), data=st.data())
def test_the_room_there_is_changes_nothing(b, batch, data):
    b.batch = batch
    if data.draw(st.booleans()):
        b.rounds = [sorted(b.memory), sorted(b.memory)[::2]]
    stream = b.build()
    expected = told(check(stream, **QUESTION))
    with little_room():
        assert told(check(stream, **QUESTION)) == expected


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("spoil", [None, "unsound", "missing", "retyped"])
def test_tables_are_tracked_late_on_a_pipe_too(width, spoil):
    b = StreamBuilder.pv(width, roots=2)
    b.batch = 2
    l1 = b.chain(b.roots[0])[-1]
    if spoil == "unsound":
        b.table(l1)[0] |= PCD
    elif spoil == "missing":
        b.table(l1)[1] = b.max_pfn << 12 | P
    elif spoil == "retyped":
        b.rounds = [[l1]]
    stream = b.build()
    expected = told(check(stream, **QUESTION))
    with little_room():
        assert told(through_a_pipe(stream, **QUESTION)) == expected


def test_a_guest_larger_than_the_free_room_is_judged():
    b = StreamBuilder.pv(8)
    b.batch = 4
    with little_room(free=4):
        assert check(b.build(), **QUESTION).verdict == "accept"
        known = judge(b.build(), then=lambda judgement: len(judgement.pv_guest.types))
    assert known > b.max_pfn


def sparse():
    """A guest whose last page, which a table names, never comes; nor does most of its memory."""
    b = StreamBuilder.pv(8)
    b.p2m_frames += [b.new_page() for _ in range(7)]
    b.max_pfn = 8 * b.pfns_per_p2m_page - 1
    b.table(b.chain(b.roots[0])[-1])[1] = b.max_pfn << 12 | P
    return b


def test_pages_that_never_come_leave_a_guest_unjudged():
    b = sparse()
    with little_room(free=8):
        report = check(b.build(), **QUESTION)
    assert report.verdict == "unjudged"
    assert f"pfn {b.max_pfn:#x}" in report.reason
    assert check(b.build(), **QUESTION).verdict != "unjudged"


def test_a_refusal_before_that_is_certain():
    b = sparse()
    b.domain["page_shift"] = 13
    with little_room(free=8):
        report = check(b.build(), **QUESTION)
    assert (report.verdict, report.failure.rule) == ("refuse", "HDR-10")


def test_a_table_that_names_pfns_too_far_off_is_not_counted_with_those_that_map_tables_writable():
    b = StreamBuilder.pv(8)
    far, mapping, mapped = (b.new_table(1, pinned=True) for _ in range(3))
    b.table(far)[0] = entry(1 << 28, PTE_RW)
    b.table(mapping)[0] = entry(mapped, PTE_RW)
    b.record("X86_PV_P2M_FRAMES").body += bytes(8)  # refused: how far pfns go is not known
    assert check(b.build(), **QUESTION).failure.rule == "REC-42"
