"""What was last said of each of many pfns."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from migrate.guest import newest
from migrate.guest.newest import NONE, NewestByPfn, among, counted, distinct

PFNS = st.integers(0, 12) | st.just((1 << 52) - 1)
PUTS = st.lists(st.lists(st.tuples(PFNS, st.integers(NONE, 5)), max_size=6), max_size=12)


def columns(pairs):
    return tuple(np.array([pair[at] for pair in pairs], np.int64) for at in (0, 1))


@given(PUTS, st.lists(PFNS, max_size=6), st.sampled_from([1, 4, 100]))
def test_the_last_number_put_of_a_pfn_is_found(puts, asked, fresh):
    kept, known = NewestByPfn(), {}
    before, newest.MOST_FRESH = newest.MOST_FRESH, fresh
    try:
        for pairs in puts:
            kept.put(*columns(pairs))
            known.update(pairs)
            assert kept.find(np.array(asked, np.int64)).tolist() == [known.get(pfn, NONE) for pfn in asked]
    finally:
        newest.MOST_FRESH = before
    left = {pfn: number for pfn, number in sorted(known.items()) if number != NONE}
    assert dict(zip(*(column.tolist() for column in kept.items()), strict=True)) == left
    assert list(kept.items()[0]) == sorted(left)
    assert len(kept) == len(left)
    assert [kept.get(pfn) for pfn in asked] == [left.get(pfn, NONE) for pfn in asked]
    assert all(kept.may_have_any(pfn) for pfn in left)


def test_what_is_dropped_is_gone():
    kept = NewestByPfn()
    kept.put(np.arange(10), np.arange(10))
    kept.drop(np.array([3, 30]))
    assert kept.find(np.array([2, 3, 30])).tolist() == [2, NONE, NONE]
    assert len(kept) == 9


def test_many_small_puts_are_moved_a_few_times_each():
    kept, moved = NewestByPfn(), 0
    sort, number = kept._sort, 0

    def counting(least):
        nonlocal moved
        sort(least)
        moved += len(kept._runs[-1][0]) if kept._runs else 0

    kept._sort = counting
    count = 64 * newest.MOST_FRESH
    for number in range(0, count, 512):
        kept.put(np.arange(number, number + 512)[::-1] * 7 % count, np.arange(512))
    assert moved < 8 * count
    assert number + 512 == count


@given(st.lists(st.integers(-3, 9)))
def test_distinct_pfns_come_once_and_ascending(pfns):
    assert distinct(np.array(pfns, np.int64)).tolist() == sorted(set(pfns))


@given(st.lists(st.integers(-3, 9)))
def test_pfns_are_counted_as_numpy_does(pfns):
    pfns = np.array(pfns, np.int64)
    for ours, numpys in zip(counted(pfns), np.unique(pfns, return_counts=True), strict=True):
        assert ours.tolist() == numpys.tolist()


@given(st.lists(st.integers(-3, 9)), st.lists(st.integers(-3, 9)))
def test_pfns_are_found_among_others_as_numpy_does(pfns, others):
    pfns, others = np.array(pfns, np.int64), np.array(others, np.int64)
    assert among(pfns, others).tolist() == np.isin(pfns, others).tolist()
