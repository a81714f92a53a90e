"""Memory as a picture: the bins it is made of, and what a terminal shows of them."""

import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from project import SAMPLES
from rich.cells import cell_len
from rich.console import Console
from trying import examples

from migrate.building.builder import StreamBuilder
from migrate.inspection.memory.pagemap import NEVER_SENT, kind_name, page_map
from migrate.inspection.reading import NotInStream, inspect
from migrate.judging.report_json import dumps
from migrate.reports.inspection import picture
from migrate.reports.lines import UNLIMITED
from migrate.testing import strategies
from streams.pages import PageType

ORACLE = sorted((SAMPLES / "oracle").glob("*.zst"))
REAL = [
    "x417-pv32.live4.libxc.zst",
    "x417-pv64.plain.libxc.zst",
    "x417-pvh.plain.libxc.zst",
    "x417-pv32.remus.libxc.zst",
]
FOUR_GIB = 0x100000

few = settings(max_examples=examples(15), deadline=None, suppress_health_check=list(HealthCheck))


def asked(stream, question, **how):
    if isinstance(stream, str):
        stream = SAMPLES / stream
    return inspect(stream, then=question, **how)


def drawn(stream, *, width=80, encoding="utf-8", **how):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    asked(stream, lambda inspection: picture.render_map(inspection, console), **how)
    out.flush()
    return out.buffer.getvalue().decode(encoding).splitlines()


def totals(space):
    return {kind_name(kind): int(pages) for kind, pages in enumerate(space.totals) if pages}


# -- bins ------------------------------------------------------------------------------------------


def test_the_pages_of_a_32_bit_sample_are_what_its_stream_said():
    found = asked("x417-pv32.plain.libxc.zst", page_map)
    told = totals(found.guest)
    assert sum(told.values()) == 2048
    assert told["XTAB"] == 8  # 0x7f0 to 0x7f7
    assert (told["L1TAB_PINNED"], told["L2TAB_PINNED"], told["L3TAB_PINNED"]) == (2, 2, 7)
    assert told["L3TAB"] == 1  # eight roots in all
    assert int(found.guest.roots.sum()) == 2


def test_the_hole_of_an_hvm_guest_is_left_out():
    found = asked("x417-pvh.plain.libxc.zst", page_map)
    assert found.machine is None
    assert found.guest.end == 0xFF000
    assert totals(found.guest) == {"NOTAB": 2056, "XTAB": 0xFEFF8 - 0x800}
    assert found.guest.gaps == [(len(found.guest) - 2, 0xFEFF8 - 0x800)]
    assert found.guest.step == 4  # 2056 pages in about 1024 bins


def test_a_high_host_has_all_l3s_and_all_frames_above_4_gib_and_a_low_one_none():
    high = asked("x417-pv32.plain.libxc.zst", page_map, placement="high")
    low = asked("x417-pv32.plain.libxc.zst", page_map, placement="low")
    assert (int(high.guest.high_l3s.sum()), int(high.machine.high_l3s.sum())) == (8, 8)
    assert (int(low.guest.high_l3s.sum()), int(low.machine.high_l3s.sum())) == (0, 0)
    assert high.machine.starts[0] >= FOUR_GIB
    assert low.machine.end <= FOUR_GIB


def test_a_64_bit_guest_may_have_its_l3s_anywhere():
    assert int(asked("x417-pv64.plain.libxc.zst", page_map, placement="high").guest.high_l3s.sum()) == 0


def test_pages_that_were_never_sent_are_a_kind_of_their_own():
    b = StreamBuilder.pv(4)
    left_out = b.new_page()
    b.new_page()
    del b.memory[left_out]
    found = asked(b.build(), page_map)
    assert int(found.guest.totals[NEVER_SENT]) == 1
    assert found.guest.counts[found.guest.bin_of(left_out), NEVER_SENT] == 1


def test_a_table_stands_out_of_a_bin_where_it_is_one_page_in_64():
    def shown(pages):
        b = StreamBuilder.pv(4)
        while b.max_pfn + 1 < pages:
            b.new_page()
        return asked(b.build(), lambda inspection: page_map(inspection, bins=1)).guest.prominent.tolist()

    assert shown(64) == [PageType.L3TAB_PINNED]
    assert shown(65) == [PageType.NOTAB]


@few
@given(strategies.streams(), st.sampled_from([1, 3, 16, 1024]))
def test_bins_count_every_page_once(stream, bins):
    def question(inspection):
        kinds = {}
        for _, words in inspection.words():
            kinds.update(zip(words.pfns.tolist(), words.types.tolist(), strict=True))
        return kinds, inspection.placement, page_map(inspection, bins)

    kinds, placement, found = asked(stream, question)
    space = found.guest
    assert len(space) <= bins + 2 * (len(space.gaps) + 1)
    assert (space.starts % space.step == 0).all()
    expected = np.zeros_like(space.counts)
    for pfn in range(space.end):
        at = space.bin_of(pfn)
        if at is None:
            assert kinds.get(pfn, NEVER_SENT) in (NEVER_SENT, PageType.XTAB)
        else:
            expected[at, kinds.get(pfn, NEVER_SENT)] += 1
    assert (space.counts == expected).all()
    if found.machine is not None:
        framed = [pfn for pfn, kind in kinds.items() if kind not in (PageType.XTAB, PageType.BROKEN)]
        placed = [pfn for pfn in framed if placement.mfn(pfn) >= 0]
        assert int(found.machine.counts.sum()) == len(placed)
        assert found.unplaced == len(framed) - len(placed)
        for pfn in placed:
            assert found.machine.counts[found.machine.bin_of(placement.mfn(pfn)), kinds[pfn]]
        shifts = {placement.mfn(pfn) - pfn for pfn in placed}
        assert found.shift == (shifts.pop() if len(shifts) == 1 else None)


# -- the picture -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_picture_fits_the_window(name, width):
    lines = drawn(name, width=width)
    assert max(map(cell_len, lines)) <= width


def test_a_wide_window_gets_wider_rows():
    narrow, wide = (max(map(len, drawn("x417-pv64.plain.libxc.zst", width=width))) for width in (80, 300))
    assert narrow <= 80 < wide


def test_where_nobody_looks_it_is_80_columns_wide():
    assert max(map(cell_len, drawn("x417-pv32.live4.libxc.zst", width=UNLIMITED))) <= 80


@pytest.mark.parametrize("name", REAL)
def test_ascii_is_enough(name):
    assert all("?" not in line for line in drawn(name, encoding="ascii"))  # nothing had to be replaced


def test_a_dumb_terminal_gets_ascii(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert all(line.isascii() for line in drawn("x417-pv32.live4.libxc.zst"))


def test_every_page_is_where_the_stream_has_it():
    lines = drawn("x417-pv32.plain.libxc.zst", placement="high")
    row = next(line for line in lines if line.strip().startswith("0x0 ")).split(maxsplit=1)[1]
    # Two pages to a cell: the L3s 0x13 to 0x16, 0x18 to 0x1a.
    assert [at for at, letter in enumerate(row) if letter == "!"] == [9, 10, 11, 12, 13]
    last = next(line for line in lines if line.strip().startswith("0x780 ")).split(maxsplit=1)[1]
    assert [at for at, letter in enumerate(last) if letter == "x"] == [56, 57, 58, 59]
    assert any("! L3 above 4 GiB 8" in line for line in lines)


def test_a_line_at_4_gib_parts_frames_on_both_sides_of_it():
    # The saving host had its roots below, the rest above.
    lines = drawn(
        "x417-pv32.plain.libxc.zst", placement="source"
    )  # the saving host had its roots below, the rest above
    at = next(n for n, line in enumerate(lines) if " 4 GiB ─" in line)
    frames = {n: int(line.split()[0], 16) for n, line in enumerate(lines) if line.strip().startswith("0xb")}
    assert frames
    assert all(n < at for n in frames)
    above = [line for line in lines[at + 1 :] if line.strip().startswith("0x1")]
    assert above
    assert all(int(line.split()[0], 16) >= FOUR_GIB for line in above)


def test_passes_are_bars_as_long_as_what_they_sent():
    b = StreamBuilder.pv(4)
    pages = [b.new_page() for _ in range(8)]
    b.rounds = [pages[:4], pages[:2]]
    lines = drawn(b.build())
    first, dirty, final = lines[-3:]
    assert (first.split()[:2], dirty.split()[:3], final.split()[:3]) == (
        ["0", "first"],
        ["1", "dirty", "4"],
        ["2", "final", "2"],
    )
    assert dirty.count("█") == pytest.approx(2 * final.count("█"), abs=1)
    assert first.count("█") > dirty.count("█")


def test_of_very_many_passes_the_middle_is_summed_up():
    b = StreamBuilder.pv(4)
    b.rounds = [[b.store_pfn]] * 99
    lines = drawn(b.build())
    assert "… 76 more passes, 76 pages" in [line.strip() for line in lines]
    assert len(lines) < 50


def test_json_has_the_same_bins():
    told = asked("x417-pv32.plain.libxc.zst", lambda i: json.loads(dumps(picture.map_object(i))))
    assert told["pfns"]["totals"]["XTAB"] == 8
    assert [0x7F0, {"XTAB": 2}] in told["pfns"]["bins"]
    assert told["four_gib"] == FOUR_GIB


def test_a_stream_without_pages_has_no_picture():
    b = StreamBuilder.hvm()
    b.drop("PAGE_DATA")
    with pytest.raises(NotInStream, match="no page"):
        asked(b.build(), page_map)


# -- damaged streams -------------------------------------------------------------------------------


def look(inspection):
    console = Console(file=io.StringIO(), width=80)
    try:
        picture.render_map(inspection, console)
        dumps(picture.map_object(inspection))
    except NotInStream:
        return
    assert all(character.isprintable() or character == "\n" for character in console.file.getvalue())


def test_pfns_far_out_are_counted_and_not_shown():
    b = StreamBuilder.hvm()
    far = b.new_page()
    b.memory[1 << 45] = b.memory.pop(far)
    found = asked(b.build(), page_map)
    assert found.beyond == 1
    assert found.guest.end == far
    asked(b.build(), look)


@pytest.mark.parametrize("path", ORACLE[7::24], ids=lambda path: path.name)
def test_damaged_streams_can_be_drawn(path):
    inspect(path, then=look)


@pytest.mark.slow
@pytest.mark.parametrize("path", ORACLE, ids=lambda path: path.name)
def test_all_damaged_streams_can_be_drawn(path):
    inspect(path, then=look, placement="high")


@few
@given(strategies.streams(), st.data())
def test_streams_that_break_off_or_have_a_wrong_byte_can_be_drawn(stream, data):
    stream = bytearray(stream[: data.draw(st.integers(0, len(stream)))])
    for at in data.draw(st.lists(st.integers(0, len(stream) - 1), max_size=4)) if stream else ():
        stream[at] = data.draw(st.integers(0, 255))
    inspect(bytes(stream), then=look)
