"""Where frames live: the placements by name, and maps from files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.building.builder import StreamBuilder
from migrate.destination.placement import Placement, check_name, place
from migrate.guest.memory import PvGuest
from migrate.guest.pages import PageStore
from migrate.judging.check import judge
from streams.pages import PageType

LIMIT = 0x100000  # the first frame at 4 GiB


def guest(count: int) -> PvGuest:
    """A guest of so many pfns, without contents."""
    made = PvGuest(PageStore(None, rereads=False))
    made.types = np.zeros(count, np.uint8)
    made.state = np.zeros(count, np.uint8)
    return made


def frames(b: StreamBuilder) -> Placement:
    """The source placement of a built guest."""
    return judge(b.build(), then=lambda judgement: place("source", judgement.pv_guest))


def test_high_puts_every_frame_at_or_above_4_gib():
    assert place("high", guest(2000)).mfns.min() >= LIMIT


@pytest.mark.parametrize("count", [1, 2000, LIMIT + 5])
def test_low_puts_every_frame_below_4_gib(count):
    assert place("low", guest(count)).mfns.max() < LIMIT


def test_identity_takes_pfn_for_mfn():
    assert place("identity", guest(5)).mfns.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["high", "low", "identity", "source"])
def test_a_pfn_that_nobody_has_lies_nowhere(name):
    placement = place(name, guest(5))
    assert (placement.mfn(5), placement.mfn(-1), placement.mfn(1 << 52)) == (-1, -1, -1)


def test_source_reads_the_guests_own_p2m():
    b = StreamBuilder.pv(4)
    b.place(b.store_pfn, 0xABCDE)
    placement = frames(b)
    assert placement.mfn(b.store_pfn) == 0xABCDE
    assert placement.mfn(b.absent_pfn) == -1


def test_source_reads_every_page_of_the_p2m():
    b = StreamBuilder.pv(8)
    while b.max_pfn < 2 * b.pfns_per_p2m_page:
        last = b.new_page()
    b.place(last, 0x77777)
    assert len(b.p2m_frames) == 3
    assert frames(b).mfn(last) == 0x77777


def test_source_takes_the_newest_copy_of_the_p2m():
    b = StreamBuilder.pv(4)
    b.place(b.store_pfn, 0x11111)
    b.rounds = [[b.p2m_frames[0]]]
    stale = bytes(b.memory[b.p2m_frames[0]].content or b"")
    b.place(b.store_pfn, 0x22222)
    first = b.record("PAGE_DATA").body
    fresh = bytes(b.memory[b.p2m_frames[0]].content or b"")
    at = first.index(fresh)
    first[at : at + len(stale)] = stale
    assert frames(b).mfn(b.store_pfn) == 0x22222


def test_only_pages_with_contents_have_a_source_frame():
    b = StreamBuilder.pv(4)
    gone = b.new_page(PageType.BROKEN)
    b.place(gone, 0x5000)
    assert frames(b).mfn(gone) == -1


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=50, unique=True))
def test_an_exact_placement_finds_the_pfn_behind_a_frame(mfns):
    placement = Placement("source", lambda: np.array(mfns, np.int64), exact=True)
    assert placement.pfns_of(placement.mfns).tolist() == list(range(len(mfns)))
    others = np.array([mfn + 1 for mfn in mfns if mfn + 1 not in mfns], np.int64)
    assert (placement.pfns_of(others) == -1).all()


@pytest.mark.parametrize("name", ["high", "low"])
def test_a_frame_number_of_another_host_is_never_taken_for_the_guests(name):
    placement = place(name, guest(100))
    assert (placement.pfns_of(placement.mfns) == -1).all()


def test_a_map_has_a_pfn_and_an_mfn_on_a_line(tmp_path):
    path = tmp_path / "map"
    path.write_text("# pfn mfn\n0 0x1000\n0x2 17 # comment\n\n99 5\n")
    placement = place(f"file:{path}", guest(4))
    assert placement.mfns.tolist() == [0x1000, -1, 17, -1]
    assert placement.pfns_of(np.array([17, 5], np.int64)).tolist() == [2, -1]


@pytest.mark.parametrize("line", ["1", "1 2 3", "one two", "1 2x", "\x80\xff 1"])
def test_a_line_that_is_no_pair_of_numbers_is_named(tmp_path, line):
    path = tmp_path / "map"
    path.write_text(f"0 1\n{line}\n", "latin-1")
    with pytest.raises(ValueError, match="line 2"):
        place(f"file:{path}", guest(4))


@pytest.mark.parametrize("number", ["-1", "0xffffffffffffffffffff"])
def test_a_frame_number_that_no_host_has_is_a_value_error(tmp_path, number):
    path = tmp_path / "map"
    path.write_text(f"1 {number}\n")
    with pytest.raises(ValueError, match="line 1"):
        place(f"file:{path}", guest(4))


def test_a_map_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        place(f"file:{tmp_path / 'none'}", guest(4))


@pytest.mark.parametrize("name", ["", "High", "higher", "file", "sauce"])
def test_an_unknown_placement_is_a_value_error_that_tells_the_known_ones(name):
    with pytest.raises(ValueError, match="source, high, low, identity"):
        check_name(name)
