"""Which pfns of an HVM guest have a page: the same as if every word were looked at one by one."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from migrate.guest.populated import BATCH, MOST_RUNS, PopulatedPfns
from streams.pages import FRAMELESS_TYPES, TYPE_SHIFT, PageType, PfnWords


def words(*listed):
    return PfnWords(struct.pack(f"<{len(listed)}Q", *listed))


def populated(*records):
    pfns = PopulatedPfns()
    for record in records:
        pfns.add(record)
    return pfns


LEGAL = st.sampled_from(sorted(PageType))
RUN = st.builds(
    lambda first, count: [(PageType.NOTAB, first + at) for at in range(count)], st.integers(0, 200), st.integers(1, 60)
)
LOOSE = st.lists(st.tuples(LEGAL, st.integers(0, 300)), min_size=1, max_size=20)


@given(st.lists(RUN | LOOSE, max_size=12))
def test_a_pfn_is_there_if_a_word_gave_it_a_frame(records):
    pfns = populated(*(words(*(kind << TYPE_SHIFT | pfn for kind, pfn in record)) for record in records))
    expected = {pfn for record in records for kind, pfn in record if kind not in FRAMELESS_TYPES}
    assert {pfn for pfn in range(400) if pfn in pfns} == expected


def test_nothing_is_there_at_first():
    assert 0 not in PopulatedPfns()
    assert 0 not in populated(words())


def test_reserved_bits_of_a_word_are_no_part_of_the_pfn():
    assert 7 in populated(words(1 << 55 | 7, 1 << 52 | 9))


def test_a_page_that_is_sent_again_as_absent_stays():
    assert 3 in populated(words(3), words(PageType.XTAB << TYPE_SHIFT | 3))


def test_a_record_longer_than_savers_write_is_read_all_the_same():
    pfns = populated(words(*range(5, 5 + 2 * BATCH)))
    assert (4 in pfns, 5 in pfns, 4 + 2 * BATCH in pfns, 5 + 2 * BATCH in pfns) == (False, True, True, False)


def test_of_a_guest_in_too_many_pieces_every_page_counts_as_there():
    pfns = PopulatedPfns()
    for first in range(0, 2 * MOST_RUNS + 4, 2048):
        pfns.add(words(*range(first, first + 2048, 2)))
    assert pfns.lost_track
    assert 1 in pfns
