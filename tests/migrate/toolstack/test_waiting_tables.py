"""Page tables of several records are looked at together: what is told is as if each record's were looked at alone."""

from contextlib import contextmanager

import numpy as np
import pytest
from asking import check, through_a_pipe, told
from hypothesis import given, settings
from hypothesis import strategies as st
from trying import examples

from migrate.building.builder import StreamBuilder
from migrate.building.parts import page_data
from migrate.judging.check import judge
from migrate.testing import strategies
from migrate.toolstack import pv_pages
from streams.pages import PageType
from streams.wire.framing import PAGE_DATA_HEADER, PAGE_SIZE, PFN_WORD_SIZE, RECORD_HEADER, RecordType
from streams.wire.paging import PCD, P

QUESTION = {"target": "4.20", "placement": "high"}


@contextmanager
def together(tables):
    """So many tables are looked at together at most."""
    patch = pytest.MonkeyPatch()
    patch.setattr(pv_pages, "TABLES_AT_ONCE", tables)
    try:
        yield
    finally:
        patch.undo()


@settings(deadline=None, max_examples=examples(20))
@given(b=strategies.guests() | strategies.guests(max_tables=30), batch=st.integers(1, 5), data=st.data())
def test_how_many_tables_are_looked_at_together_changes_nothing(b, batch, data):
    b.batch = batch
    pages = sorted(b.memory)
    if data.draw(st.booleans(), label="sent again"):
        b.rounds = [pages, data.draw(st.lists(st.sampled_from(pages), unique=True).map(sorted))]
    stream = bytearray(b.build())
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(stream) - 1), st.integers(0, 255)), max_size=2)):
        stream[at] = byte
    answers = []
    for tables in (1, 3, 112):
        with together(tables):
            answers += [told(check(bytes(stream), **QUESTION)), told(through_a_pipe(stream, **QUESTION))]
    assert answers[0::2] == answers[:1] * 3
    assert answers[1::2] == answers[1:2] * 3


def guest():
    """L1s, each in a record of its own."""
    b = StreamBuilder.pv(8)
    b.batch = 1
    return b, [b.new_table(1) for _ in range(6)]


def test_the_record_is_told_whose_table_names_a_pfn_beyond_max_pfn():
    b, tables = guest()
    for pfn in (tables[1], tables[4]):
        b.table(pfn)[[7, 9]] = (b.max_pfn + 1) << 12 | P
    report = check(b.build(), **QUESTION)
    one, other = (f for f in report.findings if f.rule.id == "REC-20")
    assert [(f.pfn, f.slot, f.count) for f in (one, other)] == [(tables[1], 7, 2), (tables[4], 7, 2)]
    assert other.record - one.record == 3
    assert other.offset - one.offset == 3 * (PAGE_SIZE + RECORD_HEADER.size + PAGE_DATA_HEADER.size + PFN_WORD_SIZE)


def test_what_waits_is_told_before_what_a_later_record_says():
    b, tables = guest()
    b.new_page(PageType.XALLOC)
    b.table(tables[1])[7] = (b.max_pfn + 1) << 12 | P
    found = [f.rule.id for f in check(b.build(), **QUESTION).findings]
    assert found.index("REC-20") < found.index("REC-13")


@pytest.mark.parametrize("kind", [PageType.NOTAB, PageType.L2TAB])
def test_a_table_that_waits_and_is_sent_again_is_what_came_last(kind):
    b, tables = guest()
    b.table(tables[1])[0] = PCD | P  # which Xen would refuse of an L1
    again = page_data([(tables[1], kind, bytes(PAGE_SIZE))])
    b.insert(RecordType.PAGE_DATA, again, before=RecordType.X86_TSC_INFO)
    with together(112):
        stores = judge(b.build(), then=lambda judgement: judgement.pv_guest.store.levels(np.array(tables)).tolist())
    assert stores == [1, kind, 1, 1, 1, 1]
    assert check(b.build(), **QUESTION).verdict == "accept"


def test_a_table_that_comes_again_and_then_as_data_is_no_table_any_more():
    b, tables = guest()
    for kind in (PageType.L1TAB, PageType.NOTAB):
        again = page_data([(tables[1], kind, bytes(PAGE_SIZE))])
        b.insert(RecordType.PAGE_DATA, again, before=RecordType.X86_TSC_INFO)
    assert judge(b.build(), then=lambda judgement: judgement.pv_guest.store.is_table(tables[1])) is False


def test_the_record_is_told_whose_table_has_an_entry_left_over():
    b, tables = guest()
    b.table(tables[3])[5] = 1 << 12
    (note,) = (f for f in check(b.build(), **QUESTION).findings if f.rule.id == "REC-29")
    of_pages = [i for i, record in enumerate(b.records) if record.type == RecordType.PAGE_DATA]
    assert (note.pfn, note.record) == (tables[3], of_pages[sorted(b.memory).index(tables[3])])
