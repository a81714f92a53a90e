"""The decoder: what it tells, what it asks for, and that no bytes make it raise."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import containers
from streams.containers import BODY_LIMIT
from streams.decoder import PAGES_PER_GIVE, Consumer, Decoder, drive
from streams.feeder import Feeder
from streams.pages import PfnWords
from streams.records import (
    Breach,
    Damage,
    DomainStart,
    Event,
    ImageStart,
    LibxlRecord,
    LibxlStart,
    PageData,
    Place,
    Recognised,
    Record,
    Trailing,
    Unread,
    XapiBlock,
    XlStart,
)
from streams.requests import Give, Skip
from streams.transports import BytesTransport
from streams.wire.framing import DomainHeader, ImageHeader, RecordType, XlHeader

PAGE = 4096


class Listener(Consumer):
    """Writes down what it is told; wants the bodies of the given types, and the given runs of pages."""

    def __init__(self, bodies: Iterable[int] = (), runs: Iterable[tuple[int, int]] = ()) -> None:
        self.bodies = set(bodies)
        self.runs = tuple(runs)
        self.keeps = True
        self.seen: list[tuple[int, bytes]] = []
        self.told: list[Any] = []
        self.damages: list[Damage] = []
        self.reasons: list[str] = []
        self.records: list[Record | PageData] = []

    def wants_body(self, place: Place) -> bool:
        return place.type in self.bodies

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
        return self.runs

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        self.seen.append((first, bytes(data)))
        return bytes(data) if self.keeps else None

    def event(self, item: Event) -> None:
        match item:
            case Recognised(name):
                self.told.append(name)
            case XlStart():
                self.told.append((item.header, item.optional_data))
            case LibxlStart() | ImageStart() | DomainStart():
                self.told.append((item.header, item.offset))
            case PageData() | Record():
                self.records.append(item)
            case Damage():
                self.damages.append(item)
            case Unread(reason):
                self.reasons.append(reason)
            case Trailing():
                self.told.append(("trailing", item.offset, item.length))
            case LibxlRecord() | XapiBlock():
                self.told.append(item)


class Logged(BytesTransport):
    """Bytes in memory that remember which ranges were given."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.given: list[tuple[int, int]] = []

    def give(self, n: int) -> memoryview:
        start = self.position
        data = super().give(n)
        self.given.append((start, self.position))
        return data


def rec(kind: int, body: bytes = b"", padding: bytes = bytes(7)) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + padding[: -len(body) % 8]


def listen(data: bytes, listener: Listener | None = None) -> Listener:
    listener = listener or Listener()
    drive(Decoder(listener).run(), BytesTransport(data))
    return listener


def page(i: int) -> bytes:
    return struct.pack("<I", i) * (PAGE // 4)


def page_data(types: list[int]) -> bytes:
    words = [kind << 60 | 0x1000 + i for i, kind in enumerate(types)]
    with_data = [i for i, kind in enumerate(types) if kind < 0xD]
    body = struct.pack(f"<II{len(words)}Q", len(words), 0, *words)
    return rec(0x01, body + b"".join(page(ordinal) for ordinal in range(len(with_data))))


HEADERS = struct.pack(">QIIHHI", (1 << 64) - 1, 0x58454E46, 3, 0, 0, 0) + struct.pack("<IHHII", 1, 12, 0, 4, 18)
SMALL = HEADERS + rec(0x02, bytes.fromhex("0403000000000000")) + rec(0x10) + rec(0x09, b"context", b"p") + rec(0x00)
LIBXL = b"LibxlFmt" + struct.pack(">II", 2, 0) + rec(1) + SMALL + rec(3, bytes(40)) + rec(0)
XL_MAGIC = b"Xen saved domain, xl format\n \x00 \r"
XL = XL_MAGIC + struct.pack("<IIII", 0x01020304, 3, 0, 7) + b"\3\0\0\0{}\0" + LIBXL


# -- what is told -----------------------------------------------------------------------------------


def test_headers_are_told_with_their_offsets() -> None:
    assert listen(SMALL).told == [
        "libxc",
        (ImageHeader((1 << 64) - 1, 0x58454E46, 3, 0, 0, 0), 0),
        (DomainHeader(1, 12, 0, 4, 18), 24),
    ]


def test_the_outermost_container_is_told_and_the_inner_headers_stand_where_they_do() -> None:
    told = listen(XL).told
    assert told[0] == "xl"
    assert told[1] == (XlHeader(XL_MAGIC, 0x01020304, 3, 0, 7), b"\3\0\0\0{}\0")
    assert [entry[1] for entry in told[2:6] if isinstance(entry, tuple)] == [55, 79, 103]


def test_records_are_told_in_order_with_bodies_only_where_wanted() -> None:
    records = listen(SMALL, Listener(bodies=[RecordType.HVM_CONTEXT])).records
    assert records == [
        Record(Place(40, 0, 0x02, 8), None),
        Record(Place(56, 1, 0x10, 0), None),
        Record(Place(64, 2, 0x09, 7), b"context", b"p"),
        Record(Place(80, 3, 0x00, 0), None),
    ]


def test_padding_is_told_of_bodies_that_nobody_wanted() -> None:
    assert listen(SMALL).records[2] == Record(Place(64, 2, 0x09, 7), None, b"p")


def test_what_follows_the_end_is_counted_and_left_unread_on_request() -> None:
    assert listen(SMALL + bytes(44)).told[-1] == ("trailing", len(SMALL), 44)
    transport = BytesTransport(SMALL + bytes(44))
    assert drive(Decoder(Listener(), drain=False).run(), transport) is True
    assert transport.position == len(SMALL)


class Counted(BytesTransport):
    """Bytes in memory that count what is asked of them."""

    asked = 0

    def give(self, n: int) -> memoryview:
        self.asked += 1
        return super().give(n)

    def skip(self, n: int) -> int:
        self.asked += 1
        return super().skip(n)


@pytest.mark.parametrize("records", [0, 10, 200, 500])
def test_progress_is_told_with_every_64th_answer(records: int) -> None:
    transport, told = Counted(HEADERS + rec(0x0E) * records + rec(0x00)), []
    drive(Decoder(Listener()).run(), transport, lambda position, size: told.append((position, size)))
    assert len(told) == transport.asked // 64
    assert told == sorted(told)
    assert {size for _, size in told} <= {len(HEADERS) + 8 * records + 8}


@pytest.mark.parametrize("more", [0, 1])
def test_a_device_models_state_is_kept_whole_unless_it_is_longer_than_any(more: int) -> None:
    length = BODY_LIMIT + more
    data = LIBXL.replace(rec(3, bytes(40)), rec(3, bytes(length)))
    listener = Listener()
    drive(Decoder(listener).run(), Logged(data))
    (kept,) = [r for r in listener.told if isinstance(r, LibxlRecord) and r.type == 3]
    assert kept.length == length
    assert len(kept.body) == length if not more else len(kept.body) < 1024


def test_libxl_records_are_told_with_their_offsets_and_numbers() -> None:
    records = [r for r in listen(LIBXL).told if isinstance(r, LibxlRecord)]
    after = 16 + 8 + len(SMALL)
    assert [(r.offset, r.index, r.type, r.length) for r in records] == [
        (16, 0, 1, 0),
        (after, 1, 3, 40),
        (after + 48, 2, 0, 0),
    ]


@pytest.mark.parametrize(("length", "kept"), [(100, 100), (103, 103), (104, 104), (105, 13)])
def test_libxl_bodies_are_kept_whole_up_to_a_limit(length: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "BODY_LIMIT", 104)
    monkeypatch.setattr(containers, "HEAD_SIZE", 5)
    body = bytes(range(length))
    listener = listen(LIBXL[:16] + rec(2, body) + rec(0))
    first, last = (r for r in listener.told if isinstance(r, LibxlRecord))
    assert (first.length, first.body) == (length, body[:kept])
    assert (last.offset, last.type) == (16 + 8 + length + -length % 8, 0)
    assert not listener.damages


@pytest.mark.parametrize("limit", [4, 7, 8])
def test_the_optional_data_of_an_xl_file_are_told_up_to_a_limit(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "BODY_LIMIT", limit)
    assert listen(XL).told[1] == (XlHeader(XL_MAGIC, 0x01020304, 3, 0, 7), b"\3\0\0\0{}\0"[:limit])
    assert [r.type for r in listen(XL).records] == [0x02, 0x10, 0x09, 0x00]
    (damage,) = listen(XL[:54]).damages
    assert (damage.breach, damage.message) == (
        Breach.OPTIONAL_DATA_CUT,
        "the input ends in the optional data: 6 of 7 bytes",
    )


def test_libxl_takes_over_at_a_checkpoint_and_gives_back_at_its_end() -> None:
    data = b"LibxlFmt" + struct.pack(">II", 2, 0) + rec(1) + HEADERS + rec(0x0D) + rec(0x0E)
    data += rec(2, bytes(8)) + rec(4) + rec(0x0D) + rec(0x00) + rec(0)
    listener = listen(data)
    assert [record.type for record in listener.records] == [0x0D, 0x0E, 0x0D, 0x00]
    assert [record.place.index for record in listener.records] == [0, 1, 2, 3]
    assert [r.type for r in listener.told if isinstance(r, LibxlRecord)] == [1, 2, 4, 0]
    assert not listener.damages


def test_a_raw_libxc_stream_goes_on_after_a_checkpoint() -> None:
    listener = listen(HEADERS + rec(0x0E) + rec(0x0D) + rec(0x0E))
    assert [record.type for record in listener.records] == [0x0E, 0x0D, 0x0E]
    assert [damage.breach for damage in listener.damages] == [Breach.NO_END]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"XenSavedDomain\n" + bytes(16), "xapi-legacy"),
        (b"xl migration receiver ready, send binary domain data.\n", "banner"),
        (struct.pack("<QQ", 0x40000, (1 << 64) - 1), "legacy"),
        (struct.pack("<II", 0x40000, 0xFFFFFFFF) + bytes(8), "legacy"),
        (b"\x7fELF" + bytes(60), "unknown"),
        (b"XenSavvyDomain" + bytes(60), "unknown"),
    ],
)
def test_other_streams_are_recognised_and_not_read_further(data: bytes, name: str) -> None:
    listener = listen(data)
    assert listener.told == [name]
    assert len(listener.reasons) == 1
    assert not listener.damages


# -- pages ------------------------------------------------------------------------------------------


@st.composite
def selections(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]]]:
    """Types of a batch, and ascending runs of its data pages."""
    types = draw(st.lists(st.sampled_from([0, 1, 2, 3, 9, 0xB, 0xD, 0xE, 0xF]), min_size=1, max_size=24))
    left = sum(kind < 0xD for kind in types)
    runs, at = [], 0
    while at < left:
        at += draw(st.integers(0, 3))
        pages = draw(st.integers(1, 4))
        if at + pages > left:
            break
        runs.append((at, pages))
        at += pages
    return types, runs


@given(selections())
@settings(max_examples=100, deadline=None)
def test_wanted_pages_are_delivered_and_no_other_is_asked_for(drawn: tuple[list[int], list[tuple[int, int]]]) -> None:
    types, runs = drawn
    data = HEADERS + page_data(types) + rec(0x00)
    listener, transport = Listener(runs=runs), Logged(data)
    assert drive(Decoder(listener).run(), transport) is True

    batch = listener.records[0]
    assert isinstance(batch, PageData)
    assert list(batch.runs) == [(at, b"".join(map(page, range(at, at + pages)))) for at, pages in runs]

    wanted = {ordinal for at, pages in runs for ordinal in range(at, at + pages)}
    for ordinal in set(range(sum(kind < 0xD for kind in types))) - wanted:
        start = batch.data_offset + ordinal * PAGE
        assert not [r for r in transport.given if r[0] < start + PAGE and r[1] > start]


def test_a_long_run_is_asked_for_in_bounded_pieces() -> None:
    pages = 2 * PAGES_PER_GIVE + 3
    listener, transport = Listener(runs=[(1, pages - 1)]), Logged(HEADERS + page_data([0] * pages) + rec(0x00))
    assert drive(Decoder(listener).run(), transport) is True
    batch = listener.records[0]
    assert isinstance(batch, PageData)
    assert [first for first, _ in batch.runs] == [1, 1 + PAGES_PER_GIVE, 1 + 2 * PAGES_PER_GIVE]
    assert b"".join(data for _, data in batch.runs) == b"".join(map(page, range(1, pages)))
    assert max(end - start for start, end in transport.given) == PAGES_PER_GIVE * PAGE


def test_pages_that_are_looked_at_and_not_kept_are_in_no_record() -> None:
    listener = Listener(runs=[(0, 1), (2, 1)])
    listener.keeps = False
    batch = listen(HEADERS + page_data([0, 0, 0]) + rec(0x00), listener).records[0]
    assert isinstance(batch, PageData)
    assert listener.seen == [(0, page(0)), (2, page(2))]
    assert batch.runs == ()


def test_data_offset_is_where_the_first_page_stands() -> None:
    data = HEADERS + page_data([0xF, 0, 0]) + rec(0x00)
    batch = listen(data).records[0]
    assert isinstance(batch, PageData)
    assert data[batch.data_offset : batch.data_offset + PAGE] == page(0)
    assert (batch.count, batch.words.pfns.tolist()) == (3, [0x1000, 0x1001, 0x1002])


@pytest.mark.parametrize(("missing", "whole"), [(1, 2), (PAGE, 2), (PAGE + 1, 1), (2 * PAGE + 1, 0)])
def test_of_a_batch_that_is_cut_short_the_pages_that_came_whole_are_told(missing: int, whole: int) -> None:
    listener = Listener(runs=[(0, 3)])
    listen((HEADERS + page_data([0, 0, 0]))[:-missing], listener)
    assert listener.seen == ([(0, b"".join(map(page, range(whole))))] if whole else [])
    assert not listener.records
    assert [damage.breach for damage in listener.damages] == [Breach.RECORD_CUT]


def test_padding_is_told_of_a_batch_that_does_not_add_up() -> None:
    listener = listen(HEADERS + rec(0x01, bytes(11), b"padding") + rec(0x00))
    assert [record.padding for record in listener.records] == [b"paddi", b""]


def test_no_page_is_offered_of_a_batch_that_does_not_add_up() -> None:
    body = struct.pack("<IIQ", 1, 0, 0x10) + bytes(PAGE - 8)
    listener = Listener(runs=[(0, 1)])
    assert drive(Decoder(listener).run(), BytesTransport(HEADERS + rec(0x01, body) + rec(0x00))) is True
    batch = listener.records[0]
    assert isinstance(batch, PageData)
    assert batch.runs == ()


def test_words_are_not_read_beyond_the_record() -> None:
    listener = listen(HEADERS + rec(0x01, struct.pack("<IIQ", 1 << 31, 7, 1)) + rec(0x00))
    batch = listener.records[0]
    assert isinstance(batch, PageData)
    assert (batch.count, batch.reserved, len(batch.words)) == (1 << 31, 7, 0)
    assert listener.records[1].type == RecordType.END


# -- damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [SMALL, LIBXL, XL, HEADERS + page_data([1, 0xF, 0xB]) + rec(0x00)])
@pytest.mark.parametrize(
    "wanting", [Listener, lambda: Listener(frozenset(RecordType), [(0, 1)])], ids=["nothing", "all"]
)
def test_every_truncation_is_damage(data: bytes, wanting: Any) -> None:
    for length in range(len(data)) if len(data) < PAGE else [*range(0, 80), *range(80, len(data), 97)]:
        listener = wanting()
        assert drive(Decoder(listener).run(), BytesTransport(data[:length])) is False
        assert len(listener.damages) + len(listener.reasons) == 1
        # What a magic of 8 or 32 bytes would have become cannot be told from less of it.
        assert listener.damages or length < 8
        assert all(damage.offset <= length for damage in listener.damages)


@pytest.mark.parametrize("version", [2, 3])
def test_a_big_endian_image_is_told_as_such_and_not_misread(version: int) -> None:
    head = struct.pack(">QIIHHI", (1 << 64) - 1, 0x58454E46, version, 1, 0, 0)
    listener = listen(head + struct.pack(">IHHII", 1, 12, 0, 4, 18) + struct.pack(">II", 0x02, 8) + bytes(8))
    assert [(damage.breach, damage.offset) for damage in listener.damages] == [(Breach.IMAGE_BIG_ENDIAN, 16)]
    assert not listener.records
    assert not [entry for entry in listener.told if isinstance(entry, tuple) and isinstance(entry[0], DomainHeader)]


@pytest.mark.parametrize(
    ("at", "replacement", "breach"),
    [
        (8, b"XENG", Breach.IMAGE_ID),
        (12, struct.pack(">I", 1), Breach.IMAGE_VERSION),
        (12, struct.pack("<I", 3), Breach.IMAGE_VERSION),
    ],
)
def test_a_damaged_image_header_is_named(at: int, replacement: bytes, breach: Breach) -> None:
    listener = listen(SMALL[:at] + replacement + SMALL[at + len(replacement) :])
    assert [(damage.breach, damage.offset) for damage in listener.damages] == [(breach, at)]


@pytest.mark.parametrize(
    ("data", "breach"),
    [
        (XL_MAGIC[:-1] + b"!" + XL[32:], Breach.XL_MAGIC),
        (XL[:50], Breach.OPTIONAL_DATA_CUT),
        (XL[:55] + b"LibxlFmu" + XL[63:], Breach.NO_LIBXL_STREAM),
        (LIBXL[:12], Breach.LIBXL_HEADER_CUT),
        (LIBXL[:8] + struct.pack(">II", 1, 0) + LIBXL[16:], Breach.LIBXL_VERSION),
        (LIBXL[:8] + struct.pack(">II", 2, 1) + LIBXL[16:], Breach.LIBXL_BIG_ENDIAN),
        (LIBXL[:20], Breach.RECORD_HEADER_CUT),
        (LIBXL[:-30], Breach.LIBXL_RECORD_CUT),
    ],
)
def test_a_damaged_wrapper_is_named(data: bytes, breach: Breach) -> None:
    assert [damage.breach for damage in listen(data).damages] == [breach]


XAPI = b"XenSavedDomv2-\n" + struct.pack("<QQ", 0x0F, 4) + b"(())" + struct.pack("<QQ", 0xF0, 0) + SMALL
IN_LIBXL = LIBXL.index(rec(3, bytes(40)))
CUTS = [
    (b"", Breach.IMAGE_HEADER_CUT, 0, "the input is empty; expected the 24-byte image header of a stream"),
    (SMALL[:10], Breach.IMAGE_HEADER_CUT, 0, "the input ends in the image header: 10 of 24 bytes"),
    (SMALL[:30], Breach.DOMAIN_HEADER_CUT, 24, "the input ends in the domain header: 6 of 16 bytes"),
    (SMALL[:40], Breach.NO_END, 40, "the stream stops here, without an END record"),
    (SMALL[:43], Breach.RECORD_HEADER_CUT, 40, "the input ends in a record header: 3 of 8 bytes"),
    (SMALL[:50], Breach.RECORD_CUT, 40, "the input ends in record 0 X86_PV_INFO: 2 of 8 bytes"),
    (SMALL[:79], Breach.RECORD_CUT, 64, "the input ends in record 2 HVM_CONTEXT: 7 of 8 bytes"),
    (XL[:40], Breach.XL_MAGIC, 40, "the input ends in the xl header: 40 of 48 bytes"),
    (XL[:50], Breach.OPTIONAL_DATA_CUT, 50, "the input ends in the optional data: 2 of 7 bytes"),
    (XL[:60], Breach.NO_LIBXL_STREAM, 55, "the payload begins with 4c 69 62 78 6c; expected a libxl stream (LibxlFmt)"),
    (XL[:65], Breach.LIBXL_HEADER_CUT, 55, "the input ends in the libxl header: 10 of 16 bytes"),
    (XL[:74], Breach.RECORD_HEADER_CUT, 71, "the input ends in a libxl record header: 3 of 8 bytes"),
    (XL[:90], Breach.IMAGE_HEADER_CUT, 79, "the input ends in the image header: 11 of 24 bytes"),
    (
        LIBXL[: IN_LIBXL + 30],
        Breach.LIBXL_RECORD_CUT,
        IN_LIBXL,
        "the input ends in libxl record 1 (type 3): 22 of 40 bytes",
    ),
    (XAPI[:20], Breach.RECORD_HEADER_CUT, 15, "the input ends in a block header: 5 of 16 bytes"),
    (XAPI[:33], Breach.RECORD_CUT, 15, "the input ends in block 0 (id 0xf): 2 of 4 bytes"),
    (XAPI, Breach.NO_END, len(XAPI), "no End_of_image block here"),
]


@pytest.mark.parametrize(("data", "breach", "offset", "message"), CUTS, ids=[f"{cut[1]} at {cut[2]}" for cut in CUTS])
@pytest.mark.parametrize("wanted", [(), frozenset(RecordType)], ids=["nothing", "all"])
def test_where_the_input_ends_is_told_with_how_much_there_was(
    wanted: Iterable[int], data: bytes, breach: Breach, offset: int, message: str
) -> None:
    (damage,) = listen(data, Listener(wanted)).damages
    assert (damage.breach, damage.offset, damage.message) == (breach, offset, message)


@pytest.mark.parametrize(
    ("data", "breach", "offset", "words"),
    [
        (b"\xff" * 7 + b"\0" + SMALL[8:], Breach.IMAGE_MARKER, 0, "marker 0xffffffffffffff00; expected all ones"),
        (SMALL[:8] + b"XENG" + SMALL[12:], Breach.IMAGE_ID, 8, "id 0x58454e47; expected 0x58454e46 (XENF)"),
        (SMALL[:15] + b"\4" + SMALL[16:], Breach.IMAGE_VERSION, 12, "version 4; expected 2 or 3"),
        (
            SMALL[:17] + b"\1" + SMALL[18:],
            Breach.IMAGE_BIG_ENDIAN,
            16,
            "the body is big-endian, which no toolstack can restore",
        ),
        (XL_MAGIC[:-1] + b"!" + XL[32:], Breach.XL_MAGIC, 0, "the xl magic does not match in all of its 32 bytes"),
        (XL[:66] + b"\3" + XL[67:], Breach.LIBXL_VERSION, 63, "libxl version 3; expected 2"),
        (
            XL[:70] + b"\1" + XL[71:],
            Breach.LIBXL_BIG_ENDIAN,
            67,
            "the libxl stream is big-endian, which no x86 host can read",
        ),
        (
            XAPI[:14] + b"\r" + XAPI[15:],
            Breach.XAPI_SIGNATURE,
            0,
            "the signature is b'XenSavedDomv2-\\r'; expected b'XenSavedDomv2-\\n'",
        ),
    ],
)
def test_a_field_that_breaks_the_grammar_is_told_where_it_stands(
    data: bytes, breach: Breach, offset: int, words: str
) -> None:
    (damage,) = listen(data).damages
    assert (damage.breach, damage.offset, damage.message) == (breach, offset, words)


def test_a_record_cut_short_is_named_with_its_place() -> None:
    (damage,) = listen(SMALL[:75]).damages
    assert (damage.breach, damage.offset, damage.place) == (Breach.RECORD_CUT, 64, Place(64, 2, 0x09, 7))


def test_a_payload_that_is_not_libxl_v2_is_not_judged() -> None:
    data = XL_MAGIC + struct.pack("<IIII", 0x01020304, 1, 0, 0) + struct.pack("<QQ", 0x40000, (1 << 64) - 1)
    assert listen(data).reasons == ["a pre-4.6 stream in an xl file"]


heads = st.sampled_from([b"", b"\xff" * 8, HEADERS, SMALL[:56], LIBXL[:16], LIBXL[:24], XL[:48], XL[:55], XL_MAGIC])


@given(heads, st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_it_raise(head: bytes, data: bytes) -> None:
    listener = Listener(frozenset(RecordType), [(0, 1)])
    complete = drive(Decoder(listener).run(), BytesTransport(head + data))
    assert complete is not bool(listener.damages or listener.reasons)


@given(heads, st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_bytes_in_pieces_tell_what_the_whole_tells(head: bytes, data: bytes, chunks: list[int]) -> None:
    whole, pieces = Listener([0x02, 0x09]), Listener([0x02, 0x09])
    drive(Decoder(whole).run(), BytesTransport(head + data))
    feeder = Feeder(Decoder(pieces).run())
    left, turn = head + data, 0
    while left:
        size = chunks[turn % len(chunks)]
        feeder.feed(left[:size])
        left, turn = left[size:], turn + 1
    feeder.close()
    assert pieces.told == whole.told
    assert pieces.records == whole.records
    assert (pieces.damages, pieces.reasons) == (whole.damages, whole.reasons)


def test_nothing_is_asked_for_that_a_length_merely_claims() -> None:
    huge = struct.pack("<II", 7, 0xFFFFFFF8)
    decoding = Decoder(Listener()).run()
    request, at, data = next(decoding), 0, LIBXL[:16] + huge
    asked = []
    while at < len(data):
        assert isinstance(request, Give)
        asked.append(request.n)
        request, at = decoding.send(data[at : at + request.n]), at + request.n
    assert max(asked) <= 24
    # The body of a libxl record that long is passed over but for its first bytes.
    assert isinstance(request, Give)
    assert request.n <= BODY_LIMIT
    assert isinstance(decoding.send(bytes(request.n)), Skip)
