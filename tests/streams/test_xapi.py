"""xapi suspend images: their blocks, the image in them, and what xenopsd and QEMU put beside it."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.decoder import Consumer, Decoder, drive
from streams.encoder import DecodeError, Recorder, XapiStart, decode, encode
from streams.feeder import Feeder
from streams.legacy import LegacyStream
from streams.records import Breach, Damage, Event, PageData, Recognised, Record, Trailing, Unread, XapiBlock
from streams.requests import Give
from streams.sexp import SexpError, fields, parse
from streams.transports import BytesTransport
from streams.wire.qemu import HEAD_SIZE, DeviceState, device_state

SIGNATURE = b"XenSavedDomv2-\n"
XENOPS, LIBXC, LIBXL, LIBXC_LEGACY, QEMU, QEMU_XEN = 0x0F, 0xF0, 0xF1, 0xF2, 0xF00, 0xF01
DEMU, VARSTORED, SWTPM0, SWTPM, END = 0xF10, 0xF11, 0xF12, 0xF13, 0xFFFF
STATE = b"((time 20240101T00:00:00Z)(word_size 64))"


def rec(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def block(id: int, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<QQ", id, len(body) if length is None else length) + body


HEADERS = struct.pack(">QIIHHI", (1 << 64) - 1, 0x58454E46, 3, 0, 0, 0) + struct.pack("<IHHII", 2, 12, 0, 4, 18)
IMAGE = HEADERS + rec(0x10) + rec(0x09, b"context") + rec(0x00)
UEFI = (
    SIGNATURE
    + block(XENOPS, STATE)
    + block(LIBXC)
    + IMAGE
    + block(VARSTORED, b"variables")
    + block(SWTPM, b"one")
    + block(SWTPM, b"")
    + block(SWTPM0, b"raw")
    + block(QEMU, b"QEVM\0\0\0\3")
    + block(END)
)


class Listener(Consumer):
    def __init__(self) -> None:
        self.told: list[Any] = []
        self.damages: list[Damage] = []
        self.reasons: list[str] = []

    def event(self, item: Event) -> None:
        match item:
            case Recognised(name):
                self.told.append(name)
            case Record() | PageData():
                self.told.append(item.place.name)
            case Damage():
                self.damages.append(item)
            case Unread(reason):
                self.reasons.append(reason)
            case Trailing():
                self.told.append(("trailing", item.offset, item.length))
            case XapiBlock() | LegacyStream():
                self.told.append(item)

    @property
    def ids(self) -> list[int]:
        return [told.id for told in self.told if isinstance(told, XapiBlock)]


def listen(data: bytes) -> Listener:
    listener = Listener()
    drive(Decoder(listener).run(), BytesTransport(data))
    return listener


# -- blocks -----------------------------------------------------------------------------------------


def test_blocks_are_told_in_order_and_go_on_after_the_image() -> None:
    listener = listen(UEFI)
    assert listener.told[0] == "xapi"
    assert listener.ids == [XENOPS, LIBXC, VARSTORED, SWTPM, SWTPM, SWTPM0, QEMU, END]
    assert listener.told[2:6] == [
        XapiBlock(15 + 16 + len(STATE), 1, LIBXC, 0, b""),
        "STATIC_DATA_END",
        "HVM_CONTEXT",
        "END",
    ]
    assert not listener.damages
    assert not listener.reasons


def test_a_block_is_told_with_its_offset_and_payload() -> None:
    assert listen(UEFI).told[1] == XapiBlock(15, 0, XENOPS, len(STATE), STATE)
    varstored = next(b for b in listen(UEFI).told if isinstance(b, XapiBlock) and b.id == VARSTORED)
    assert varstored == XapiBlock(UEFI.index(block(VARSTORED, b"variables")), 2, VARSTORED, 9, b"variables")


def test_records_of_the_image_stand_where_they_do_in_the_file() -> None:
    recorder = decode(UEFI)
    (context,) = [item for item in recorder.records if item.type == 0x09]
    assert UEFI[context.place.offset :][:8] == struct.pack("<II", 9, 7)


def test_any_order_of_blocks_is_read() -> None:
    data = SIGNATURE + block(QEMU, b"QEVM") + block(DEMU) + block(LIBXC) + IMAGE + block(XENOPS, STATE) + block(END)
    listener = listen(data)
    assert listener.ids == [QEMU, DEMU, LIBXC, XENOPS, END]
    assert not listener.damages


@pytest.mark.parametrize("id", [1, LIBXL, QEMU_XEN, 1 << 63])
def test_a_block_that_no_one_knows_is_passed_over_by_its_length(id: int) -> None:
    listener = listen(SIGNATURE + block(id, b"whatever") + block(LIBXC) + IMAGE + block(END))
    assert listener.ids == [id, LIBXC, END]
    assert not listener.damages


@pytest.mark.parametrize("id", [LIBXC, END])
def test_what_a_block_without_payload_claims_as_its_length_is_not_read(id: int) -> None:
    image = block(LIBXC, length=99 if id == LIBXC else 0) + IMAGE
    listener = listen(SIGNATURE + image + block(END, length=99 if id == END else 0))
    assert listener.ids == [LIBXC, END]
    assert not listener.damages


def test_what_follows_the_end_of_the_image_is_counted() -> None:
    assert listen(UEFI + b"junk").told[-1] == ("trailing", len(UEFI), 4)


def test_nothing_is_read_behind_the_end_on_request() -> None:
    transport = BytesTransport(UEFI + b"junk")
    assert drive(Decoder(Listener(), drain=False).run(), transport) is True
    assert transport.position == len(UEFI)


def test_an_image_of_a_pre_4_6_libxc_is_not_judged() -> None:
    listener = listen(SIGNATURE + block(LIBXC_LEGACY) + struct.pack("<II", 0x400, 16) + bytes(64))
    assert listener.reasons == ["a pre-4.6 stream in a xapi suspend image"]
    assert isinstance(listener.told[-1], LegacyStream)
    assert (listener.told[-1].word, listener.told[-1].guest) == (4, "hvm")


# -- damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "breach", "offset"),
    [
        (SIGNATURE[:-1] + b"\r", Breach.XAPI_SIGNATURE, 0),
        (SIGNATURE[:12], Breach.XAPI_SIGNATURE, 0),
        (b"XenSavedDomv3-\n" + UEFI[15:], Breach.XAPI_SIGNATURE, 0),
        (SIGNATURE, Breach.NO_END, 15),
        (SIGNATURE + block(XENOPS, STATE)[:5], Breach.RECORD_HEADER_CUT, 15),
        (SIGNATURE + block(XENOPS, STATE)[:-1], Breach.RECORD_CUT, 15),
        (SIGNATURE + block(XENOPS, STATE, length=1 << 63), Breach.RECORD_CUT, 15),
        (SIGNATURE + block(LIBXC), Breach.IMAGE_HEADER_CUT, 31),
        (SIGNATURE + block(LIBXC) + IMAGE[:-8], Breach.NO_END, 31 + len(IMAGE) - 8),
        (UEFI[:-16], Breach.NO_END, len(UEFI) - 16),
    ],
)
def test_damage_is_told_with_its_rule_and_place(data: bytes, breach: Breach, offset: int) -> None:
    listener = listen(data)
    assert [(damage.breach, damage.offset) for damage in listener.damages] == [(breach, offset)]


def test_a_claimed_length_asks_for_no_more_than_is_worth_keeping() -> None:
    decoding = Decoder(Listener()).run()
    data, at = SIGNATURE + block(QEMU, length=1 << 62), 0
    request = next(decoding)
    while at < len(data):
        assert isinstance(request, Give)
        request, at = decoding.send(data[at : at + request.n]), at + request.n
    assert isinstance(request, Give)
    assert request.n <= HEAD_SIZE


# -- back to bytes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        UEFI,
        UEFI + b"junk",
        SIGNATURE + block(7, b"seven") + block(LIBXC, length=3) + IMAGE + block(END, length=5),
        SIGNATURE + block(END),
    ],
    ids=["uefi", "trailing", "odd lengths", "empty"],
)
def test_an_image_comes_back_byte_for_byte(data: bytes) -> None:
    assert encode(decode(data)) == data


def test_large_payloads_are_kept_whole() -> None:
    data = SIGNATURE + block(QEMU, b"QEVM" + bytes(100_000)) + block(LIBXC) + IMAGE + block(END)
    stream = decode(data)
    assert stream.items[0] == XapiStart(0)
    assert encode(stream) == data


def test_a_payload_of_another_length_takes_its_length_along() -> None:
    stream = decode(UEFI)
    old = stream.items[1]
    assert isinstance(old, XapiBlock)
    changed = stream.with_item(old, XapiBlock(0, 0, XENOPS, 0, b"()"))
    assert encode(changed) == UEFI.replace(block(XENOPS, STATE), block(XENOPS, b"()"))


blocks = st.tuples(st.sampled_from([XENOPS, QEMU, DEMU, VARSTORED, SWTPM0, SWTPM, 1]), st.binary(max_size=40))


@given(st.lists(blocks, max_size=4), st.lists(blocks, max_size=4), st.lists(st.integers(1, 50), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_any_blocks_come_back_and_read_the_same_in_pieces(
    before: list[tuple[int, bytes]], after: list[tuple[int, bytes]], chunks: list[int]
) -> None:
    data = SIGNATURE + b"".join(block(*b) for b in before) + block(LIBXC) + IMAGE
    data += b"".join(block(*b) for b in after) + block(END)
    assert encode(decode(data)) == data
    pieces = Listener()
    feeder = Feeder(Decoder(pieces).run())
    left, turn = data, 0
    while left:
        size = chunks[turn % len(chunks)]
        feeder.feed(left[:size])
        left, turn = left[size:], turn + 1
    feeder.close()
    assert pieces.told == listen(data).told


@given(st.sampled_from([SIGNATURE, UEFI[:60], UEFI[:75], UEFI[: -len(block(END))]]), st.binary(max_size=120))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_an_image_or_damage_at_an_offset_inside(head: bytes, data: bytes) -> None:
    recorder = Recorder()
    drive(recorder.run(), BytesTransport(head + data))
    if recorder.broken is None:
        assert encode(recorder.stream()) == head + data
    else:
        assert 0 <= recorder.broken.offset <= len(head + data)
        with pytest.raises(DecodeError):
            recorder.stream()


def test_the_body_of_a_record_inside_is_recorded() -> None:
    (context,) = [item for item in decode(UEFI).records if item.type == 0x09]
    assert not isinstance(context, Record)
    assert encode([context]) == rec(0x09, b"context")


# -- xenopsd's record -------------------------------------------------------------------------------


def test_fields_of_xenopsds_record_are_read() -> None:
    text = rb'((time 20240101T00:00:00Z)(word_size 64)(vm_str "{\"id\":\"a\\b\"}")(xs_subtree ((a b)("c d" ""))))'
    found = fields(parse(text))
    assert found[b"word_size"] == b"64"
    assert found[b"vm_str"] == rb'{"id":"a\b"}'
    assert found[b"xs_subtree"] == [[b"a", b"b"], [b"c d", b""]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"atom", b"atom"),
        (b" ( a ( ) ; a comment\n b ) ", [b"a", [], b"b"]),
        (rb'"\065\x42\n\"\\"', b'AB\n"\\'),
        (b'"one \\\n   two"', b"one two"),
    ],
)
def test_an_s_expression_is_read(text: bytes, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("text", [b"", b"  ", b"a b", b"(a", b"a)", b"(a))", b'"a', b'("\\', rb'"\999"'])
def test_what_is_no_s_expression_is_refused(text: bytes) -> None:
    with pytest.raises(SexpError):
        parse(text)


@pytest.mark.parametrize("text", [b"a", b"(a)", b"((a))", b"((a b c))", b"(((a) b))", b"((a b)(a c))"])
def test_what_is_no_record_is_refused(text: bytes) -> None:
    with pytest.raises(SexpError):
        fields(parse(text))


def test_deep_nesting_needs_no_stack() -> None:
    with pytest.raises(SexpError, match="more than 64 deep"):
        parse(b"(" * 100_000)


@given(st.binary(max_size=60))
@example(b"()")
def test_any_text_is_an_s_expression_or_refused(text: bytes) -> None:
    try:
        value = parse(text)
    except SexpError:
        return
    assert isinstance(value, bytes | list)


# -- the device model -------------------------------------------------------------------------------


def section(name: bytes) -> bytes:
    return b"\4" + struct.pack(">IB", 2, len(name)) + name + struct.pack(">II", 0, 2)


@pytest.mark.parametrize(
    ("head", "state"),
    [
        (b"QEVM\0\0\0\3", DeviceState(3, None, None)),
        (b"QEVM\0\0\0\3" + section(b"timer"), DeviceState(3, None, "timer")),
        (
            b"QEVM\0\0\0\3\7" + struct.pack(">I", 5) + b"xenfv" + section(b"cpu"),
            DeviceState(3, "xenfv", "cpu"),
        ),
        (b"QEVM\0\0\0\3\7" + struct.pack(">I", 1 << 31) + b"x" * 600, DeviceState(3, "x" * 256, None)),
        (b"QEVM\0\0\0\2\xff", DeviceState(2, None, None)),
        (b"QEVM\0\0", None),
        (b"qevm\0\0\0\3", None),
        (b"", None),
    ],
)
def test_the_beginning_of_qemus_state_is_named(head: bytes, state: DeviceState | None) -> None:
    assert device_state(head) == state


@given(st.binary(max_size=40))
def test_any_bytes_after_qemus_magic_are_named(data: bytes) -> None:
    state = device_state(b"QEVM\0\0\0\3" + data)
    assert state is not None
    assert str(state).startswith("QEMU state version 3")
