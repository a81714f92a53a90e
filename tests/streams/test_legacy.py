"""Streams from before Xen 4.6: recognised, and PV ones read for what they say of the guest."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.decoder import Consumer, Decoder, drive
from streams.legacy import LegacyStream
from streams.records import Damage, Event, Recognised, Unread
from streams.transports import BytesTransport
from streams.wire.legacy import RECOGNISED_BY, LegacyKind, recognise

XL_MAGIC = b"Xen saved domain, xl format\n \x00 \r"
XAPI_LEGACY = b"XenSavedDomain\n"
CONTEXT_SIZE = {4: 2800, 8: 5168}
VM_ASSIST_AT = {4: 2796, 8: 5136}
EXTENDED_CR3 = 1 << 3
NOTAB, L1, L2, L3, L4, PIN, XALLOC, XTAB = 0, 1, 2, 3, 4, 8, 0xE, 0xF
TSC_INFO, VCPU_INFO, TOOLSTACK, COMPRESSED = -7, -2, -18, -12


class OldStream:
    """A PV stream as libxc wrote it up to 4.5; edit, then `build`."""

    def __init__(self, word: int = 8, width: int = 4, *, vm_assist: int = 0, pfns: int = 0x800) -> None:
        self.word = word
        self.width = width
        self.pfns = pfns
        context = bytearray(CONTEXT_SIZE[width])
        context[VM_ASSIST_AT[width]] = vm_assist
        self.context = bytes(context)
        self.info = [(b"vcpu", self.context)]
        self.chunks = [self.batch([(0, NOTAB), (4, L3 | PIN), (5, L2), (6, L1)])]
        self.online = 1
        self.unmapped = 0
        self.per_vcpu = b""

    def words(self, *values: int) -> bytes:
        return b"".join(value.to_bytes(self.word, "little") for value in values)

    def batch(self, pages: list[tuple[int, int]]) -> bytes:
        words = self.words(*(kind << 28 | pfn for pfn, kind in pages))
        return struct.pack("<i", len(pages)) + words + bytes(4096 * sum(kind < 0xD for _, kind in pages))

    def build(self) -> bytes:
        info = b"".join(struct.pack("<4sI", name, len(data)) + data for name, data in self.info)
        head = self.words(self.pfns, (1 << 8 * self.word) - 1) + struct.pack("<I", len(info)) + info
        frames = bytes(self.word * -(-self.pfns // (4096 // self.width)))
        body = b"".join(self.chunks) + struct.pack("<i", 0)
        tail = struct.pack("<I", self.unmapped) + bytes(self.word * self.unmapped)
        tail += (self.context + self.per_vcpu) * self.online + bytes(4096)
        return head + frames + body + tail


class Listener(Consumer):
    def __init__(self) -> None:
        self.containers: list[str] = []
        self.found: list[LegacyStream] = []
        self.reasons: list[str] = []
        self.damages: list[Damage] = []

    def event(self, item: Event) -> None:
        match item:
            case Recognised(name):
                self.containers.append(name)
            case LegacyStream():
                self.found.append(item)
            case Unread(reason):
                self.reasons.append(reason)
            case Damage():
                self.damages.append(item)


def listen(data: bytes) -> tuple[Listener, BytesTransport]:
    listener, transport = Listener(), BytesTransport(data)
    assert drive(Decoder(listener, drain=False).run(), transport) is False
    assert not listener.damages
    return listener, transport


def read(data: bytes) -> LegacyStream:
    (found,) = listen(data)[0].found
    return found


every_word = pytest.mark.parametrize("word", [4, 8])
every_width = pytest.mark.parametrize("width", [4, 8])


# -- recognised -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (struct.pack("<QQ", 0x40000, (1 << 64) - 1), LegacyKind(8, "pv", 0x40000)),
        (struct.pack("<III", 0x40000, 0xFFFFFFFF, 99), LegacyKind(4, "pv", 0x40000)),
        (struct.pack("<Qi", 0x40000, 1024), LegacyKind(8, "hvm", 0x40000)),
        (struct.pack("<Qi", 0x40000, -20), LegacyKind(8, "hvm", 0x40000)),
        (struct.pack("<Iii", 0x100, 16, 0), LegacyKind(4, "hvm", 0x100)),
        (struct.pack("<Iii", 0x100, -3, 0), LegacyKind(4, "hvm", 0x100)),
        (struct.pack("<Iii", 0x100, 1025, 0), None),
        (struct.pack("<Iii", 0x100, -21, 0), None),
        (struct.pack("<Qi", 0x100, 0), None),
        (struct.pack("<Qi", 0, 16), None),
        (struct.pack("<Iii", (1 << 28) + 1, 16, 0), None),
        (b"\x7fELF\2\1\1\0\0\0\0\0", None),
        (struct.pack("<QQ", 0x40000, (1 << 64) - 1)[: RECOGNISED_BY - 1], None),
    ],
)
def test_the_first_bytes_tell_the_toolstacks_word_and_the_kind_of_guest(head: bytes, kind: Any) -> None:
    assert recognise(head[: max(RECOGNISED_BY, 1)]) == kind


def test_an_hvm_stream_is_named_and_not_read() -> None:
    listener, transport = listen(struct.pack("<Qi", 0x40000, 16) + bytes(4096))
    assert listener.containers == ["legacy"]
    assert listener.found == [LegacyStream(8, "hvm", 0x40000)]
    assert transport.position == 12


# -- read -------------------------------------------------------------------------------------------


@every_word
@every_width
def test_a_pv_stream_is_read_to_its_end(word: int, width: int) -> None:
    data = OldStream(word, width).build()
    listener, transport = listen(data + b"what follows")
    assert listener.containers == ["legacy"]
    assert listener.reasons == ["a pre-4.6 stream"]
    assert transport.position == len(data)
    assert listener.found == [LegacyStream(word, "pv", 0x800, width, False, 1, {4: True}, complete=True)]


@every_width
@pytest.mark.parametrize("vm_assist", [0, EXTENDED_CR3, 0x2D, 0x37])
def test_extended_cr3_is_bit_3_of_the_vcpu_blocks_vm_assist(width: int, vm_assist: int) -> None:
    assert read(OldStream(8, width, vm_assist=vm_assist).build()).extended_cr3 is bool(vm_assist & EXTENDED_CR3)


def test_extv_has_nothing_to_do_with_extended_cr3() -> None:
    old = OldStream()
    old.info.append((b"extv", b""))
    old.per_vcpu = bytes(128)
    found = read(old.build())
    assert (found.extended_cr3, found.complete) == (False, True)


@every_word
def test_vcpus_are_those_online_with_all_their_state(word: int) -> None:
    old = OldStream(word)
    old.info += [(b"extv", b""), (b"xcnt", struct.pack("<I", 16 + 576))]
    old.online, old.per_vcpu = 3, bytes(128) + struct.pack("<QQ", 7, 576) + bytes(576)
    old.chunks.insert(0, struct.pack("<iiQQ", VCPU_INFO, 64, 0b101, 1))
    data = old.build()
    listener, transport = listen(data)
    assert (listener.found[0].vcpus, listener.found[0].complete) == (3, True)
    assert transport.position == len(data)


def test_l3_tables_are_those_of_the_last_word_on_each_pfn() -> None:
    old = OldStream()
    old.chunks = [
        old.batch([(1, L3), (2, L3 | PIN), (3, L3), (4, NOTAB), (5, L3 | PIN), (6, L3), (7, L4 | PIN), (8, L2 | PIN)]),
        old.batch([(1, NOTAB), (2, L3), (3, L3 | PIN), (4, L3)]),
        old.batch([(5, XTAB), (6, XALLOC)]),  # nothing was sent of these: what is known of them stays
    ]
    assert read(old.build()).l3 == {2: False, 3: True, 4: False, 5: True, 6: False}


def test_runs_of_nothing_say_nothing_of_pfn_0() -> None:
    old = OldStream()
    old.chunks = [old.batch([(0, L3 | PIN)]), old.batch([(0, XTAB), (0, XTAB), (9, NOTAB)])]
    found = read(old.build())
    assert (found.l3, found.complete) == ({0: True}, True)


@every_word
def test_other_chunks_are_passed_over(word: int) -> None:
    old = OldStream(word)
    old.chunks += [
        struct.pack("<i", -1),  # from here on pages are sent to be verified
        struct.pack("<iIQII", TSC_INFO, 0, 1, 2, 3),
        struct.pack("<iIQ", -8, 0, 5),
        struct.pack("<iI", TOOLSTACK, 5) + b"12345",
        struct.pack("<i", -9),
        old.batch([(7, L3)]),
    ]
    old.unmapped = 3
    found = read(old.build())
    assert (found.l3, found.complete) == ({4: True, 7: False}, True)


@pytest.mark.parametrize("pfns", [1, 511, 512, 513, 1024, 1025])
@every_width
def test_the_list_of_p2m_pages_is_as_long_as_the_guest_needs(width: int, pfns: int) -> None:
    assert read(OldStream(width=width, pfns=pfns).build()).complete


# -- inside others ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "container", "reason"),
    [
        (XL_MAGIC + struct.pack("<IIII", 0x01020304, 1, 0, 4) + bytes(4), "xl", "a pre-4.6 stream in an xl file"),
        (XAPI_LEGACY, "xapi-legacy", "a pre-4.6 stream in a xapi suspend image"),
    ],
)
@every_word
def test_a_stream_inside_another_is_read_likewise(head: bytes, container: str, reason: str, word: int) -> None:
    old = OldStream(word, vm_assist=EXTENDED_CR3)
    listener, transport = listen(head + old.build() + b"QemuDeviceModelRecord\n")
    assert (listener.containers, listener.reasons) == ([container], [reason])
    assert listener.found == [LegacyStream(word, "pv", 0x800, 4, True, 1, {4: True}, complete=True)]
    assert transport.position == len(head + old.build())


def test_an_xl_file_whose_old_payload_is_something_else_is_left_at_that() -> None:
    data = XL_MAGIC + struct.pack("<IIII", 0x01020304, 1, 0, 0) + b"#!/bin/sh\n" * 3
    listener, _ = listen(data)
    assert (listener.reasons, listener.found) == (["a pre-4.6 stream in an xl file"], [])


# -- damage -----------------------------------------------------------------------------------------


def test_wherever_the_input_ends_it_says_so() -> None:
    old = OldStream()
    old.info += [(b"extv", b""), (b"xcnt", struct.pack("<I", 592))]
    old.per_vcpu = bytes(128) + struct.pack("<QQ", 7, 576) + bytes(576)
    old.chunks.append(struct.pack("<iiQ", VCPU_INFO, 0, 1))
    data = old.build()
    for length in range(RECOGNISED_BY, len(data), 97):
        found = read(data[:length])
        assert not found.complete
        assert found.stopped is not None
        assert found.stopped.startswith("the input ends in ")


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda old: old.info.append((b"what", b"12")), "unknown block b'what'"),
        (lambda old: old.info.clear(), "no vcpu context"),
        (lambda old: old.info.__setitem__(0, (b"vcpu", bytes(2796))), "2796 bytes"),
        (lambda old: old.chunks.append(struct.pack("<i", 1025)), "at most 1024"),
        (lambda old: old.chunks.append(struct.pack("<i", -21)), "unknown chunk -21"),
        (lambda old: old.chunks.append(struct.pack("<i", COMPRESSED)), "COMPRESSED_DATA"),
        (lambda old: old.chunks.append(struct.pack("<ii", VCPU_INFO, 4096)), "vcpu id 4096"),
        (lambda old: old.chunks.append(struct.pack("<ii", VCPU_INFO, -1)), "vcpu id -1"),
        (lambda old: old.chunks.append(struct.pack("<iI", TOOLSTACK, 0xFFFFFFFF)), "TOOLSTACK"),
        (lambda old: old.info.append((b"xcnt", b"12")), "unknown block b'xcnt' of 2 bytes"),
        (lambda old: old.info.append((b"xcnt", b"\xff" * 4)), "vcpus' contexts"),
    ],
)
def test_what_cannot_be_read_stops_the_reading_and_says_why(edit: Any, why: str) -> None:
    old = OldStream()
    edit(old)
    found = read(old.build())
    assert not found.complete
    assert why in (found.stopped or "")


def test_extended_info_that_is_shorter_than_its_blocks_is_noticed() -> None:
    data = bytearray(OldStream().build())
    struct.pack_into("<I", data, 16, 8 + 2800 - 1)
    assert "1 byte longer" in (read(bytes(data)).stopped or "")


@given(st.integers(0, 400), st.binary(max_size=300), st.sampled_from([4, 8]))
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_it_raise(cut: int, data: bytes, word: int) -> None:
    good = OldStream(word).build()
    listen(good[:RECOGNISED_BY] + data)
    listen(good[: RECOGNISED_BY + 12 + 2800 + cut] + data)
