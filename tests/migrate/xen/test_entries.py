"""What entries and descriptors mean to Xen, looked at by the page."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from migrate.xen.entries import GDT_HEAD, look_like_gdts

# Access bytes: present, of segments, of both, and of neither.
WORDS = st.sampled_from([0, 1 << 47, 1 << 44, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, (1 << 64) - 1, 0xFFFF])


def is_segment(word: int) -> bool:
    return bool(word >> 47 & 1 and word >> 44 & 1)


@given(st.lists(st.lists(WORDS, min_size=GDT_HEAD - 1, max_size=GDT_HEAD - 1), max_size=6))
def test_a_page_looks_like_a_gdt_if_any_of_its_first_descriptors_is_of_a_present_segment(rows):
    heads = np.array([[0, *row] for row in rows], np.uint64).reshape(-1, GDT_HEAD)
    expected = {at for at, row in enumerate(rows) if any(map(is_segment, row))}
    assert set(look_like_gdts(heads).tolist()) == expected


def test_a_page_of_zeros_does_not_look_like_a_gdt():
    assert not len(look_like_gdts(np.zeros((3, GDT_HEAD), np.uint64)))
