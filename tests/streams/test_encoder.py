"""The law: encode(decode(x)) is x, byte for byte, for every well-formed stream of every container."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from project import SAMPLES

import streams
from streams.bodies import (
    Checkpoint,
    CheckpointDirtyPfnList,
    CpuidPolicy,
    End,
    HvmContext,
    HvmParams,
    MsrPolicy,
    Opaque,
    P2mFrames,
    PvInfo,
    SharedInfo,
    StaticDataEnd,
    TscInfo,
    VcpuBasic,
    VcpuMsrs,
    Verify,
)
from streams.decoder import drive
from streams.encoder import (
    DecodeError,
    DomainStart,
    ImageStart,
    LibxlStart,
    Recorder,
    Stream,
    Trailing,
    XlStart,
    decode,
    encode,
    encode_item,
)
from streams.feeder import Feeder
from streams.opening import open_transport
from streams.pages import PfnWords
from streams.records import Breach, LibxlRecord, PageData, Place
from streams.transports import BytesTransport
from streams.wire.framing import (
    FREE_RECORD_TYPE,
    CpuidLeaf,
    DomainHeader,
    ImageHeader,
    LibxlHeader,
    PolicyMsr,
    RecordType,
    XlHeader,
)

# -- streams as bytes, written down here once more and without the code under test -------------------

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
small = st.binary(max_size=40)


def rec(kind: int, body: bytes = b"", padding: bytes = bytes(7)) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + padding[: -len(body) % 8]


def page(seed: int) -> bytes:
    return bytes([seed]) * 4095 + b"!"


def page_data(words: list[int], reserved: int = 0, extra: bytes = b"", count: int | None = None) -> bytes:
    data = b"".join(page(i & 0xFF) for i, w in enumerate(words) if w >> 60 < 0xD)
    head = struct.pack("<II", len(words) if count is None else count, reserved)
    return head + struct.pack(f"<{len(words)}Q", *words) + data + extra


# Known types with bodies that fit, and whatever else has a type and a length; END and CHECKPOINT make the grammar.
fixed = st.one_of(
    st.tuples(st.just(0x01), st.builds(page_data, st.lists(u64, max_size=3), st.just(0) | u32)),
    st.tuples(st.just(0x01), st.builds(page_data, st.lists(u64, max_size=1), u32, small, st.none() | u32)),
    st.tuples(st.just(0x02), st.binary(min_size=8, max_size=8)),
    st.tuples(st.sampled_from([0x03, 0x0F, 0x0A, 0x0C, 0x12]), st.integers(0, 4).flatmap(lambda n: binary_of(8 * n))),
    st.tuples(st.just(0x07), st.builds(lambda start: start.ljust(4096, b"\x5a"), small)),
    st.tuples(st.just(0x08), st.binary(min_size=24, max_size=24)),
    st.tuples(st.just(0x11), st.integers(0, 2).flatmap(lambda n: binary_of(24 * n))),
    st.tuples(st.sampled_from([0x0D, 0x10]), st.just(b"")),
)


def binary_of(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


kinds = st.sampled_from([k for k in RecordType if k not in (0x00, 0x0E)])
unknown = st.integers(FREE_RECORD_TYPE, 0x7FFFFFFF) | st.integers(0x80000000, 0xFFFFFFFF)
paddings = st.just(bytes(7)) | binary_of(7)
record = st.builds(lambda pair, padding: rec(*pair, padding), fixed | st.tuples(kinds | unknown, small), paddings)
records = st.lists(record, max_size=5).map(b"".join)
end = st.builds(rec, st.just(0x00), st.just(b"") | small, paddings)
checkpoint = st.builds(rec, st.just(0x0E), st.just(b"") | small, paddings)
image_header = st.builds(
    lambda version, options, res1, res2: struct.pack(
        ">QIIHHI", (1 << 64) - 1, 0x58454E46, version, options & ~1, res1, res2
    ),
    st.sampled_from([2, 3]),
    u16,
    u16,
    u32,
)
domain_header = st.builds(lambda *fields: struct.pack("<IHHII", *fields), u32, u16, u16, u32, u32)


@st.composite
def libxc_streams(draw: st.DrawFn) -> bytes:
    rounds = draw(st.lists(st.tuples(records, checkpoint).map(b"".join), max_size=2).map(b"".join))
    head = draw(image_header) + draw(domain_header)
    if rounds and draw(st.booleans()):
        return head + rounds  # a capture, that stops after a checkpoint
    return head + rounds + draw(records) + draw(end)


libxl_kind = st.sampled_from([2, 3, 5]) | st.integers(6, 0xFFFFFFFF)
emulator = st.builds(lambda blob: struct.pack("<II", 2, 0) + b"QEVM" + blob, st.binary(max_size=70))
libxl_record = st.builds(rec, libxl_kind, emulator | small, paddings)
libxl_records = st.lists(libxl_record, max_size=3).map(b"".join)


@st.composite
def libxl_streams(draw: st.DrawFn) -> bytes:
    out = b"LibxlFmt" + struct.pack(">II", 2, draw(u32) & ~1) + draw(libxl_records) + rec(1)
    out += draw(image_header) + draw(domain_header)
    for _ in range(draw(st.integers(0, 2))):
        out += draw(records) + draw(checkpoint)
        if draw(st.integers(0, 9)) == 0:
            return out
        out += draw(libxl_records) + rec(4)
        if draw(st.integers(0, 4)) == 0:
            return out
    return out + draw(records) + draw(end) + draw(libxl_records) + rec(0, draw(st.just(b"") | small))


@st.composite
def xl_files(draw: st.DrawFn) -> bytes:
    optional = draw(st.binary(max_size=100))
    magic = bytes.fromhex("58656e20736176656420646f6d61696e2c20786c20666f726d61740a2000200d")
    head = magic + struct.pack("<IIII", draw(u32), draw(u32) | 2, draw(u32), len(optional))
    return head + optional + draw(libxl_streams())


trailing = st.just(b"") | st.just(b"domain is yours, you are cleared to unpause\0") | small


wellformed = libxc_streams() | libxl_streams() | xl_files()


# -- the law ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.zst")), ids=lambda path: path.name.removesuffix(".zst"))
def test_real_streams_come_back_byte_for_byte(path: Path) -> None:
    data = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
    assert encode(decode(data)) == data


@pytest.mark.slow
def test_real_damaged_streams_come_back_byte_for_byte_or_are_told_to_be_damaged() -> None:
    for path in sorted((SAMPLES / "oracle").glob("*.zst")):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
        recorder = Recorder()
        drive(recorder.run(), BytesTransport(data))
        if recorder.broken is None:
            assert encode(recorder.stream()) == data, path.name
        else:
            assert 0 <= recorder.broken.offset <= len(data), path.name


@given(wellformed)
@settings(max_examples=150, deadline=None)
def test_any_wellformed_stream_comes_back_byte_for_byte(data: bytes) -> None:
    assert encode(decode(data)) == data


@given(records, end, trailing)
@settings(max_examples=40, deadline=None)
def test_what_follows_the_end_comes_back_too(body: bytes, last: bytes, rest: bytes) -> None:
    data = IMAGE + body + last + rest
    stream = decode(data)
    assert encode(stream) == data
    assert [item.content for item in stream if isinstance(item, Trailing)] == ([rest] if rest else [])


# Bodies in their canonical class, each with padding of the length it needs.
def typed(cls: Any, kind: int, *fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(lambda *values: cls(Place(0, 0, kind, 0), *values), *fields)


bodies = st.one_of(
    typed(PvInfo, 0x02, u8, u8, binary_of(6)),
    typed(P2mFrames, 0x03, u32, u32, st.lists(u64, max_size=4).map(tuple)),
    typed(VcpuBasic, 0x04, u32, u32, small),
    typed(VcpuMsrs, 0x0C, u32, u32, small),
    typed(SharedInfo, 0x07, st.just(bytes(range(256)) * 16)),
    typed(TscInfo, 0x08, u32, u32, u64, u32, u32),
    typed(HvmContext, 0x09, small),
    typed(HvmParams, 0x0A, u32, u32, st.lists(st.tuples(u64, u64), max_size=3).map(tuple)),
    typed(Verify, 0x0D),
    typed(Checkpoint, 0x0E),
    typed(CheckpointDirtyPfnList, 0x0F, st.lists(u64, max_size=4).map(tuple)),
    typed(StaticDataEnd, 0x10),
    typed(CpuidPolicy, 0x11, st.lists(st.builds(CpuidLeaf, *[u32] * 6), max_size=3).map(tuple)),
    typed(MsrPolicy, 0x12, st.lists(st.builds(PolicyMsr, u32, u32, u64), max_size=3).map(tuple)),
    unknown.flatmap(lambda kind: typed(Opaque, kind, small)),
)
batches = st.builds(
    lambda words: PageData(
        Place(0, 0, 1, 0),
        len(words),
        0,
        PfnWords(struct.pack(f"<{len(words)}Q", *words)),
        tuple((0, data) for data in [b"".join(page(i) for i, w in enumerate(words) if w >> 60 < 0xD)] if data),
        0,
    ),
    st.lists(u64, max_size=3),
)


def relaid(items: list[Any], padding: bytes) -> Stream:
    """The items with the places they have in their stream, and padding where they need some."""
    laid, offset, index = [], 0, 0
    for item in items:
        size = len(encode_item(item))
        if isinstance(item, Trailing | XlStart | LibxlStart | ImageStart | DomainStart):
            item = replace(item, offset=offset)
        else:
            length = struct.unpack("<I", encode_item(item)[4:8])[0]
            item = replace(item, place=Place(offset, index, item.type, length), padding=padding[: -length % 8])
            index += 1
        if isinstance(item, PageData):
            item = replace(item, data_offset=offset + 16 + 8 * len(item.words))
        laid.append(item)
        offset += size
    return Stream(tuple(laid))


@given(st.lists(bodies | batches, max_size=6), paddings, u16, u32)
@settings(max_examples=100, deadline=None)
def test_any_items_come_back_as_they_were(middle: list[Any], padding: bytes, res1: int, res2: int) -> None:
    start = ImageStart(0, ImageHeader((1 << 64) - 1, 0x58454E46, 3, 0, res1, res2))
    domain = DomainStart(24, DomainHeader(1, 12, 0, 4, 17))
    stream = relaid([start, domain, *middle, End(Place(0, 0, 0, 0)), Trailing(0, 5, b"after")], padding)
    assert decode(encode(stream)) == stream


def test_items_of_all_containers_come_back_as_they_were() -> None:
    stream = decode(XL)
    assert [type(item).__name__ for item in stream] == [
        "XlStart",
        "LibxlStart",
        "LibxlRecord",
        "ImageStart",
        "DomainStart",
        "PvInfo",
        "PageData",
        "End",
        "LibxlRecord",
        "LibxlRecord",
    ]
    assert decode(encode(stream)) == stream


@given(wellformed, st.lists(st.integers(1, 3000), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_chunking_gives_the_same_items(data: bytes, chunks: list[int]) -> None:
    recorder = Recorder()
    feeder = Feeder(recorder.run())
    at = turn = 0
    while at < len(data):
        feeder.feed(data[at : at + chunks[turn % len(chunks)]])
        at += chunks[turn % len(chunks)]
        turn += 1
    feeder.close()
    assert recorder.stream() == decode(data)


def test_byte_by_byte_gives_the_same_items() -> None:
    recorder = Recorder()
    feeder = Feeder(recorder.run())
    for byte in XL:
        feeder.feed(bytes([byte]))
    feeder.close()
    assert recorder.stream() == decode(XL)


# -- what the items say -----------------------------------------------------------------------------

IMAGE = struct.pack(">QIIHHI", (1 << 64) - 1, 0x58454E46, 3, 0, 0, 0) + struct.pack("<IHHII", 1, 12, 0, 4, 18)
PV_INFO = rec(0x02, bytes.fromhex("0403000000000000"))
PLAIN = IMAGE + PV_INFO + rec(0x10) + rec(0x01, page_data([0x10, 0x20 | 0xF << 60])) + rec(0x00)
BLOB = struct.pack("<II", 2, 0) + b"QEVM" + bytes(range(200))
LIBXL = (
    b"LibxlFmt"
    + struct.pack(">II", 2, 0)
    + rec(1)
    + IMAGE
    + PV_INFO
    + rec(0x01, page_data([0x10]))
    + rec(0x00)
    + rec(3, BLOB, b"\1\2\3\4\5\6\7")
    + rec(0)
)
XL = b"Xen saved domain, xl format\n \x00 \r" + struct.pack("<IIII", 0x01020304, 3, 0, 7) + b"\3\0\0\0{}\0" + LIBXL


def test_a_device_models_blob_is_kept_whole_with_its_padding() -> None:
    (blob,) = (item for item in decode(LIBXL) if isinstance(item, LibxlRecord) and item.type == 3)
    assert (blob.body, blob.padding) == (BLOB, b"\1\2\3\4")


def test_optional_data_and_headers_are_kept() -> None:
    xl, libxl = decode(XL).items[:2]
    assert xl == XlStart(0, XlHeader(XL[:32], 0x01020304, 3, 0, 7), b"\3\0\0\0{}\0")
    assert libxl == LibxlStart(55, LibxlHeader(b"LibxlFmt", 2, 0))


def test_records_have_their_place_in_the_whole_file() -> None:
    places = [record.place for record in decode(XL).records]
    assert [(XL.index(PV_INFO), 0, 2, 8)] == [(p.offset, p.index, p.type, p.length) for p in places[:1]]
    assert [place.index for place in places] == [0, 1, 2]


def test_pages_are_kept_in_order() -> None:
    (batch,) = (r for r in decode(PLAIN).records if isinstance(r, PageData))
    assert b"".join(data for _, data in batch.runs) == page(0)
    assert batch.words.pfns.tolist() == [0x10, 0x20]


@pytest.mark.parametrize(
    "body",
    [
        page_data([0x10], extra=b"excess"),
        page_data([0x10])[:-1],
        page_data([0x10], count=2),
        struct.pack("<II", 1 << 31, 0) + bytes(16),
    ],
    ids=["excess", "short", "count-too-high", "absurd-count"],
)
def test_a_page_data_that_does_not_add_up_is_kept_as_it_is(body: bytes) -> None:
    data = IMAGE + rec(0x01, body) + rec(0x00)
    stream = decode(data)
    assert stream.records[0] == Opaque(Place(40, 0, 1, len(body)), body, padding=bytes(-len(body) % 8))
    assert encode(stream) == data


def test_a_capture_of_a_checkpointed_stream_may_stop_after_a_checkpoint() -> None:
    data = IMAGE + PV_INFO + rec(0x0E)
    assert isinstance(decode(data).items[-1], Checkpoint)


@pytest.mark.parametrize("after", [b"", rec(4), rec(3, BLOB) + rec(4)])
def test_a_captured_libxl_stream_may_stop_after_either_half_of_a_checkpoint(after: bytes) -> None:
    data = b"LibxlFmt" + struct.pack(">II", 2, 0) + rec(1) + IMAGE + PV_INFO + rec(0x0E) + after
    assert encode(decode(data)) == data


# -- edits ------------------------------------------------------------------------------------------


def test_one_record_can_be_changed_and_the_rest_stays() -> None:
    stream = decode(PLAIN)
    old = stream.records[0]
    assert isinstance(old, PvInfo)
    edited = encode(stream.with_item(old, replace(old, guest_width=8, pt_levels=4)))
    assert edited == PLAIN.replace(PV_INFO, rec(0x02, bytes.fromhex("0804000000000000")))


def test_a_record_that_grew_has_its_new_length_and_zero_padding() -> None:
    data = IMAGE + rec(0x09, b"abc", b"\xff" * 7) + rec(0x00)
    stream = decode(data)
    old = stream.records[0]
    assert isinstance(old, HvmContext)
    assert old.padding == b"\xff" * 5
    assert encode(stream.with_item(old, replace(old, content=b"abcdef"))) == IMAGE + rec(0x09, b"abcdef") + rec(0x00)


def test_optional_data_that_grew_is_counted_in_the_header() -> None:
    stream = decode(XL)
    old = stream.items[0]
    assert isinstance(old, XlStart)
    edited = encode(stream.with_item(old, replace(old, optional_data=bytes(20))))
    assert edited[44:48] == struct.pack("<I", 20)
    assert edited[68:] == LIBXL


def test_an_item_that_is_not_in_the_stream_cannot_be_replaced() -> None:
    with pytest.raises(ValueError, match="not in"):
        decode(PLAIN).with_item(Trailing(0, 1, b"x"), Trailing(0, 1, b"y"))


def test_what_is_no_item_cannot_be_encoded() -> None:
    with pytest.raises(TypeError, match="no item of a stream"):
        encode_item("END")  # type: ignore[arg-type]


# -- damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [PLAIN, XL], ids=["libxc", "xl"])
def test_every_truncation_is_a_decode_error_with_an_offset_inside(data: bytes) -> None:
    # Inside of a page any offset is like any other: look at a few.
    pages = data.index(page(0)[:64])
    for length in [n for n in range(len(data)) if not pages < n < pages + 4096 or n % 1000 == 0]:
        with pytest.raises(DecodeError) as error:
            decode(data[:length])
        assert 0 <= error.value.offset <= length


@pytest.mark.parametrize(
    ("data", "offset", "breach", "message"),
    [
        (b"", 0, Breach.IMAGE_HEADER_CUT, "empty"),
        (PLAIN[:-8], len(PLAIN) - 8, Breach.NO_END, "END"),
        (PLAIN[:-3], len(PLAIN) - 8, Breach.RECORD_HEADER_CUT, "5 of 8 bytes"),
        (IMAGE + rec(0x09, bytes(64))[:-1], 40, Breach.RECORD_CUT, "63 of 64 bytes"),
        (PLAIN[:12] + struct.pack(">I", 4) + PLAIN[16:], 12, Breach.IMAGE_VERSION, "version 4"),
        (PLAIN[:16] + b"\0\1" + PLAIN[18:], 16, Breach.IMAGE_BIG_ENDIAN, "big-endian"),
        (LIBXL[:-8], len(LIBXL) - 8, Breach.LIBXL_RECORD_CUT, "without an END record"),
        (LIBXL[:-3], len(LIBXL) - 8, Breach.LIBXL_RECORD_CUT, "libxl record header: 5 of 8 bytes"),
        (IMAGE + rec(0x0E) + PV_INFO, 40 + 8 + 16, Breach.NO_END, "END"),
        (IMAGE + rec(0x0E) + b"\0", 40 + 8, Breach.RECORD_HEADER_CUT, "1 of 8 bytes"),
        (b"\x7fELF" + bytes(60), 0, None, "not a Xen stream"),
        (b"XenSavedDomain\n" + bytes(60), 0, None, "xapi"),
    ],
)
def test_damage_is_told_with_offset_rule_and_message(
    data: bytes, offset: int, breach: Breach | None, message: str
) -> None:
    with pytest.raises(DecodeError, match=message) as error:
        decode(data)
    assert (error.value.offset, error.value.breach) == (offset, breach)
    assert message in error.value.message
    assert f"at 0x{offset:x}: " in str(error.value)


def test_what_came_before_the_damage_is_still_there() -> None:
    recorder = Recorder()
    assert drive(recorder.run(), BytesTransport(PLAIN[:-4])) is False
    assert [type(item).__name__ for item in recorder.items[-3:]] == ["PvInfo", "StaticDataEnd", "PageData"]
    assert recorder.broken is not None


@given(st.binary(max_size=200), st.sampled_from([b"", IMAGE, IMAGE + PV_INFO, LIBXL[:16], LIBXL[:24], XL[:55]]))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_stream_or_damage_at_an_offset_inside(data: bytes, head: bytes) -> None:
    recorder = Recorder()
    drive(recorder.run(), BytesTransport(head + data))
    if recorder.broken is None:
        assert encode(recorder.stream()) == head + data
    else:
        assert 0 <= recorder.broken.offset <= len(head + data)


def test_a_claimed_length_of_4_gib_costs_nothing() -> None:
    with pytest.raises(DecodeError, match="of 4294967296 bytes"):
        decode(IMAGE + struct.pack("<II", 0x09, 0xFFFFFFFF) + bytes(100))


# -- transports and names ---------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [bytes, zstandard.ZstdCompressor().compress], ids=["plain", "zstd"])
def test_any_transport_can_be_recorded(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(compress(XL))
    recorder = Recorder()
    with open_transport(path) as transport:
        assert drive(recorder.run(), transport) is True
    assert recorder.stream() == decode(XL)


def test_the_package_has_every_name_it_announces() -> None:
    assert all(getattr(streams, name) is not None for name in streams.__all__)
    assert set(streams.__all__) <= set(dir(streams))
    assert streams.decode is decode
    assert streams.RecordType is RecordType
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = streams.nothing


def test_records_in_their_fields_need_no_construct() -> None:
    whole = zstandard.decompress((SAMPLES / "x417-pv64.plain.libxc.zst").read_bytes())
    code = (
        "import sys, streams; data = sys.stdin.buffer.read();"
        "print(streams.encode(streams.decode(data)) == data, 'construct' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=whole, capture_output=True, check=True)
    assert done.stdout.split() == [b"True", b"False"]


def test_importing_the_package_and_decoding_need_neither_numpy_nor_construct() -> None:
    code = (
        "import sys, streams; streams.Decoder, streams.drive, streams.Feeder, streams.open_transport, streams.Record;"
        "print(sorted({'numpy', 'construct'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
