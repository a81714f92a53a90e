"""Pages between the look at them and their use."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.guest.looked_at import MOST_AT_HAND, LookedAt
from migrate.guest.pages import PagePool
from streams.wire.framing import PAGE_SIZE
from streams.wire.paging import ENTRIES


def run(first: int, count: int) -> np.ndarray:
    """Pages of a run, each of which says where in the record it is: shape (pages, 512)."""
    return np.repeat(np.arange(first, first + count, dtype=np.uint64)[:, None], ENTRIES, axis=1)


def said(contents: bytes) -> list[int]:
    """What some pages say."""
    return np.frombuffer(contents, "<u8")[:: PAGE_SIZE // 8].tolist()


@given(
    runs=st.lists(st.lists(st.booleans(), min_size=1, max_size=8), max_size=4),
    picks=st.integers(0, (1 << 32) - 1),
    waits=st.booleans(),
)
def test_pages_are_found_by_their_place_in_the_record(runs, picks, waits):
    looked_at, kept, first = LookedAt(PagePool()), [], 0
    for wanted in runs:
        rows = np.flatnonzero(wanted)
        looked_at.put(first, run(first, len(wanted)), rows)
        kept += (first + rows).tolist()
        first += len(wanted)
    if waits:
        looked_at.put_by()
    assert (looked_at.ordinals().tolist(), len(looked_at)) == (kept, len(kept))
    which = [one for one in kept if picks >> one & 1]
    assert said(looked_at.contents(np.array(which, np.int64))) == which


def test_more_pages_than_are_kept_at_hand_are_found_too():
    looked_at, count = LookedAt(PagePool()), MOST_AT_HAND + 3
    looked_at.put(0, run(0, count), np.arange(count))
    which = np.array([0, MOST_AT_HAND, count - 1])
    assert said(looked_at.contents(which)) == which.tolist()


@pytest.mark.parametrize("waits", [False, True])
def test_what_is_dropped_is_gone_and_its_room_is_used_again(waits):
    pool = PagePool()
    looked_at = LookedAt(pool)
    looked_at.put(0, run(0, 4), np.arange(4))
    if waits:
        looked_at.put_by()
    looked_at.drop()
    assert (len(looked_at), looked_at.ordinals().tolist()) == (0, [])
    assert sorted(pool.put_all(run(9, 4).tobytes()).tolist()) == [0, 1, 2, 3]
