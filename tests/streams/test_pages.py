"""pfn words: what is answered for all words at once is what a look at each of them says."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.pages import PageType, PfnWords, type_name

# Bits 63..60 are the type, 59..52 reserved, 51..0 the pfn; these types carry no page of data.
DATALESS = {0xD, 0xE, 0xF}
ILLEGAL = {5, 6, 7, 8}
TABLES = {1, 2, 3, 4, 9, 0xA, 0xB, 0xC}

types = st.integers(0, 15)
reserved = st.just(0) | st.just(0) | st.integers(0, 255)
pfns = st.integers(0, 0xFFFFF) | st.integers(0, (1 << 52) - 1)
word = st.builds(lambda kind, res, pfn: kind << 60 | res << 52 | pfn, types, reserved, pfns)
# Most lists of few types and small pfns too, so that "none of them" is an answer as often as "some".
modest = st.builds(lambda kind, pfn: kind << 60 | pfn, st.sampled_from([0, 1, 0xB, 0xF]), st.integers(0, 0xFFFFF))
lists = st.lists(word, max_size=40) | st.lists(modest, max_size=40)


def packed(words: list[int]) -> PfnWords:
    return PfnWords(struct.pack(f"<{len(words)}Q", *words))


@given(lists)
@settings(max_examples=200, deadline=None)
def test_counts_and_flags_are_those_of_a_look_at_each_word(words: list[int]) -> None:
    bulk = packed(words)
    kinds = [w >> 60 for w in words]
    assert len(bulk) == len(words)
    assert bulk.data_pages == sum(kind not in DATALESS for kind in kinds)
    assert bulk.has_illegal_type == any(kind in ILLEGAL for kind in kinds)
    assert bulk.has_tables == any(kind in TABLES for kind in kinds)
    assert bulk.has_reserved_bits == any(w >> 52 & 0xFF for w in words)
    assert bulk.beyond_32_bits == any((w & ((1 << 52) - 1)) >= 1 << 32 for w in words)


@given(lists)
@settings(max_examples=100, deadline=None)
def test_arrays_hold_what_a_look_at_each_word_says(words: list[int]) -> None:
    bulk = packed(words)
    assert bulk.types.tolist() == [w >> 60 for w in words]
    assert bulk.pfns.tolist() == [w & ((1 << 52) - 1) for w in words]
    assert bulk.has_data.tolist() == [w >> 60 not in DATALESS for w in words]


@given(lists, st.sampled_from(PageType))
@settings(max_examples=100, deadline=None)
def test_a_type_is_found_where_a_word_has_it(words: list[int], kind: PageType) -> None:
    bulk = packed(words)
    kinds = [w >> 60 for w in words]
    assert bulk.has_type(kind) == (kind in kinds)
    assert bulk.first_with(frozenset({kind, PageType.XTAB})) == next(
        (i for i, k in enumerate(kinds) if k in (kind, 0xF)), -1
    )


@given(st.lists(word, min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_single_words_can_be_had(words: list[int]) -> None:
    bulk = packed(words)
    assert [bulk.word(i) for i in range(len(words))] == words
    assert [bulk.pfn(i) for i in range(len(words))] == [w & ((1 << 52) - 1) for w in words]


@given(st.lists(st.tuples(pfns, types), max_size=20))
@settings(max_examples=50, deadline=None)
def test_words_are_built_from_pfns_and_types(pairs: list[tuple[int, int]]) -> None:
    built = PfnWords.build(np.array([p for p, _ in pairs], np.int64), np.array([t for _, t in pairs], np.uint8))
    assert built == packed([kind << 60 | pfn for pfn, kind in pairs])
    assert hash(built) == hash(packed([kind << 60 | pfn for pfn, kind in pairs]))


def test_no_words_have_nothing() -> None:
    none = PfnWords(b"")
    assert (len(none), none.data_pages, none.has_tables, none.has_illegal_type) == (0, 0, False, False)
    assert none.first_with(frozenset(range(16))) == -1
    assert none.pfns.shape == none.types.shape == none.has_data.shape == (0,)


def test_words_equal_only_words() -> None:
    assert packed([1]) != packed([2])
    assert packed([1]) != struct.pack("<Q", 1)


@pytest.mark.parametrize(("kind", "name"), [(0x9, "L1TAB_PINNED"), (0xF, "XTAB"), (0x5, "type 5")])
def test_types_are_named(kind: int, name: str) -> None:
    assert type_name(kind) == name
