"""Record bodies: read as the format says, built back byte for byte, and never lost where they do not fit."""

from __future__ import annotations

import struct
import tomllib
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from project import SAMPLES

from streams.bodies import (
    BODIES,
    Body,
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
    Toolstack,
    TscInfo,
    VcpuBasic,
    VcpuExtended,
    VcpuMsrs,
    VcpuXsave,
    Verify,
    decode_body,
    encode_body,
)
from streams.encoder import Stream, decode
from streams.records import PageData, Place, Record
from streams.wire.constructs import construct_of
from streams.wire.framing import FREE_RECORD_TYPE, RecordType, record_name
from streams.wire.vcpu import CONTEXT, START_INFO_REGISTER, cr3_to_pfn


def record(kind: int, body: bytes, padding: bytes = b"") -> Record:
    return Record(Place(0x28, 0, kind, len(body)), body, padding)


def body_of(kind: int, raw: bytes) -> Any:
    return decode_body(record(kind, raw))


# -- layouts ----------------------------------------------------------------------------------------


def test_every_record_type_but_page_data_has_a_body_of_its_own() -> None:
    assert set(BODIES) == set(RecordType) - {RecordType.PAGE_DATA}
    assert len(set(BODIES.values())) == len(BODIES)


def test_pv_info_is_width_levels_and_six_reserved_bytes() -> None:
    body = body_of(0x02, bytes.fromhex("04 03 010203040506"))
    assert isinstance(body, PvInfo)
    assert (body.guest_width, body.pt_levels, body.reserved) == (4, 3, b"\1\2\3\4\5\6")


def test_p2m_frames_are_an_inclusive_range_and_u64_pfns() -> None:
    body = body_of(0x03, struct.pack("<IIQQ", 0, 7, 1, (1 << 52) - 1))
    assert isinstance(body, P2mFrames)
    assert (body.start_pfn, body.end_pfn, body.pfns) == (0, 7, (1, (1 << 52) - 1))


@pytest.mark.parametrize(
    ("kind", "expected"), [(0x04, VcpuBasic), (0x05, VcpuExtended), (0x06, VcpuXsave), (0x0C, VcpuMsrs)]
)
def test_vcpu_records_begin_with_id_and_reserved(kind: int, expected: type[Body]) -> None:
    body = body_of(kind, struct.pack("<II", 3, 0xDEADBEEF) + b"content")
    assert type(body) is expected
    assert (body.vcpu_id, body.reserved, body.content) == (3, 0xDEADBEEF, b"content")


def test_tsc_info_has_its_nanoseconds_in_the_middle() -> None:
    body = body_of(0x08, struct.pack("<IIQII", 1, 0x249F00, 0x3B9ACA00, 1, 9))
    assert isinstance(body, TscInfo)
    assert (body.mode, body.khz, body.nsec, body.incarnation, body.reserved) == (1, 2_400_000, 1_000_000_000, 1, 9)


def test_hvm_params_keep_their_count_beside_their_pairs() -> None:
    body = body_of(0x0A, struct.pack("<IIQQQQ", 7, 1, 1, 0xFEFFC, 38, 1 << 63))
    assert isinstance(body, HvmParams)
    assert (body.count, body.reserved, body.pairs) == (7, 1, ((1, 0xFEFFC), (38, 1 << 63)))


def test_policies_are_arrays_of_named_entries() -> None:
    (leaf,) = body_of(0x11, struct.pack("<6I", 7, 0xFFFFFFFF, 1, 2, 3, 4)).leaves
    (entry,) = body_of(0x12, struct.pack("<IIQ", 0xCE, 0, 1 << 31)).entries
    assert (leaf.leaf, leaf.subleaf, leaf.a, leaf.d) == (7, 0xFFFFFFFF, 1, 4)
    assert (entry.index, entry.flags, entry.value) == (0xCE, 0, 1 << 31)


def test_dirty_pfns_are_u64s() -> None:
    body = body_of(0x0F, struct.pack("<QQ", 5, 4))
    assert isinstance(body, CheckpointDirtyPfnList)
    assert body.pfns == (5, 4)


FITTING: list[tuple[int, type[Body], list[int], list[int]]] = [
    (0x00, End, [0], [1, 8]),
    (0x02, PvInfo, [8], [0, 7, 9, 16]),
    (0x03, P2mFrames, [8, 16, 24], [0, 4, 7, 9, 15]),
    (0x04, VcpuBasic, [8, 9, 2808, 5176], [0, 7]),
    (0x05, VcpuExtended, [8, 72, 136], [0, 7]),
    (0x06, VcpuXsave, [8, 24, 856], [0, 7]),
    (0x07, SharedInfo, [4096], [0, 4095, 4097]),
    (0x08, TscInfo, [24], [0, 23, 25]),
    (0x09, HvmContext, [0, 1, 10368], []),
    (0x0A, HvmParams, [8, 24, 40], [0, 7, 16, 25]),
    (0x0B, Toolstack, [0, 5], []),
    (0x0C, VcpuMsrs, [8, 24, 25], [0, 7]),
    (0x0D, Verify, [0], [1]),
    (0x0E, Checkpoint, [0], [8]),
    (0x0F, CheckpointDirtyPfnList, [0, 8, 16], [1, 12]),
    (0x10, StaticDataEnd, [0], [4]),
    (0x11, CpuidPolicy, [0, 24, 48], [8, 23, 25]),
    (0x12, MsrPolicy, [0, 16, 32], [8, 15, 17]),
]
lengths = pytest.mark.parametrize(("kind", "cls", "fits", "misfits"), FITTING, ids=[c[1].__name__ for c in FITTING])


@lengths
def test_a_body_is_typed_where_its_length_fits_and_opaque_where_not(
    kind: int, cls: type[Body], fits: list[int], misfits: list[int]
) -> None:
    assert [type(body_of(kind, bytes(length))) for length in fits] == [cls] * len(fits)
    assert [type(body_of(kind, bytes(length))) for length in misfits] == [Opaque] * len(misfits)


@pytest.mark.parametrize("kind", [0x01, FREE_RECORD_TYPE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_type_without_a_body_of_its_own_is_opaque_and_keeps_its_number(kind: int) -> None:
    body = body_of(kind, b"whatever")
    assert isinstance(body, Opaque)
    assert (body.type, body.content) == (kind, b"whatever")


known = st.tuples(st.sampled_from(FITTING), st.data())


@given(known)
@settings(max_examples=150, deadline=None)
def test_any_body_of_any_known_type_builds_back_as_it_was(drawn: tuple[Any, st.DataObject]) -> None:
    (kind, _, fits, misfits), data = drawn
    length = data.draw(st.sampled_from(fits + misfits) | st.integers(0, 64))
    raw = data.draw(st.binary(min_size=length, max_size=length))
    padding = data.draw(st.binary(max_size=7))
    body = decode_body(record(kind, raw, padding))
    assert encode_body(body) == raw
    assert (body.place, body.padding) == (Place(0x28, 0, kind, length), padding)


def test_a_body_that_was_not_kept_cannot_be_decoded() -> None:
    with pytest.raises(ValueError, match="record 4 HVM_CONTEXT was not kept"):
        decode_body(Record(Place(0, 4, 0x09, 3), None))


def test_a_changed_field_changes_its_bytes_alone() -> None:
    body = body_of(0x02, bytes.fromhex("0403000000000000"))
    assert encode_body(replace(body, guest_width=8)) == bytes.fromhex("0803000000000000")


def test_bodies_cannot_be_changed_in_place() -> None:
    body = body_of(0x08, bytes(24))
    with pytest.raises(AttributeError):
        body.khz = 1


# -- contents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "size"), [(4, 2800), (8, 5168)])
def test_any_context_parses_and_builds_back(width: int, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    body = body_of(0x04, bytes(8) + content[:size])
    assert construct_of(CONTEXT[width]).build(body.parse(width)) == content[:size]


def test_a_context_that_is_too_short_for_the_width_is_refused_with_both_sizes() -> None:
    with pytest.raises(ValueError, match="2800 bytes of content; the structure has 5168"):
        body_of(0x04, bytes(8 + 2800)).parse(8)


def test_extended_context_of_40_bytes_reads_zero_for_what_it_lacks() -> None:
    parsed = body_of(0x05, bytes(8) + struct.pack("<II", 1, 40) + b"\xff" * 32).parse()
    assert (parsed.vcpu, parsed.size, parsed.mcg_cap, parsed.mci_ctl2_bank0) == (1, 40, (1 << 64) - 1, 0)


def test_extended_context_of_128_bytes_parses_by_its_first_64() -> None:
    assert (
        body_of(0x05, bytes(8) + struct.pack("<II", 2, 128) + b"\xaa" * 120).parse().mcg_ext_ctl == 0xAAAAAAAAAAAAAAAA
    )


def test_xsave_of_16_bytes_is_two_words_and_a_whole_one_has_its_header() -> None:
    words = struct.pack("<QQ", 7, 3)
    small = body_of(0x06, bytes(8) + words).parse()
    whole = body_of(0x06, bytes(8) + words + bytes(512) + struct.pack("<QQ", 5, 0) + bytes(304)).parse()
    assert (small.xcr0, small.xcr0_accum, "xstate_bv" in small) == (7, 3, False)
    assert (whole.xcr0, whole.xstate_bv, whole.xcomp_bv) == (7, 5, 0)


def test_xsave_without_its_two_words_is_refused() -> None:
    with pytest.raises(ValueError, match="15 bytes"):
        body_of(0x06, bytes(8 + 15)).parse()


def test_msrs_parse_entry_by_entry() -> None:
    entries = body_of(0x0C, bytes(8) + struct.pack("<IIQIIQ", 0x48, 0, 1, 0xC0000103, 0, 2)).parse()
    assert [(entry.index, entry.value) for entry in entries] == [(0x48, 1), (0xC0000103, 2)]


def test_msrs_that_are_no_whole_number_of_entries_are_refused() -> None:
    with pytest.raises(ValueError, match="17 bytes of content; an entry has 16"):
        body_of(0x0C, bytes(8 + 17)).parse()


@pytest.mark.parametrize(("width", "offset", "size"), [(4, 2316, 4), (8, 3088, 8)])
def test_shared_info_parses_by_width(width: int, offset: int, size: int) -> None:
    page = bytearray(4096)
    page[offset : offset + size] = (0x10000).to_bytes(size, "little")
    assert body_of(0x07, bytes(page)).parse(width).arch.max_pfn == 0x10000


# -- what real streams say --------------------------------------------------------------------------


@cache
def sample(name: str) -> tuple[dict[str, Any], Stream]:
    path = SAMPLES / f"{name}.zst"
    if not path.exists():
        pytest.skip(f"no sample {name}")
    data = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
    return tomllib.loads((SAMPLES / f"{name}.expect.toml").read_text()), decode(data)


samples = pytest.mark.parametrize("name", ["x417-pv32.plain.libxc", "x417-pv64.plain.libxc", "x417-pv32.xl"])


@samples
def test_a_real_streams_records_are_all_typed(name: str) -> None:
    _, stream = sample(name)
    assert not [r for r in stream.records if isinstance(r, Opaque)]


@samples
def test_a_real_streams_records_are_those_it_was_measured_to_have(name: str) -> None:
    facts, stream = sample(name)
    expected = []
    for entry in facts["facts"]["records"]:
        kind, _, times = entry.partition(" x")
        expected += [kind] * int(times or 1)
    assert [record_name(r.type) for r in stream.records] == expected


@samples
def test_a_real_streams_p2m_frames_are_those_it_was_measured_to_have(name: str) -> None:
    facts, stream = sample(name)
    (frames,) = (r for r in stream.records if isinstance(r, P2mFrames))
    assert [frames.start_pfn, frames.end_pfn] == facts["facts"]["p2m_frames_range"]
    assert list(frames.pfns) == facts["facts"]["p2m_frames"]


@samples
def test_a_real_streams_vcpus_have_the_roots_they_were_measured_to_have(name: str) -> None:
    facts, stream = sample(name)
    (info,) = (r for r in stream.records if isinstance(r, PvInfo))
    assert info.guest_width == facts["guest"]["width"]
    found = {}
    for body in stream.records:
        if isinstance(body, VcpuBasic):
            found[body.vcpu_id] = cr3_to_pfn(body.parse(info.guest_width).ctrlreg[3], info.guest_width)
    assert found == {cr3["vcpu"]: cr3["pfn"] for cr3 in facts["guest"]["cr3"]}


@samples
def test_a_real_streams_start_info_is_the_page_vcpu_0_names(name: str) -> None:
    _, stream = sample(name)
    (info,) = (r for r in stream.records if isinstance(r, PvInfo))
    vcpu0 = next(r for r in stream.records if isinstance(r, VcpuBasic) and r.vcpu_id == 0)
    pfn = vcpu0.parse(info.guest_width).user_regs[START_INFO_REGISTER[info.guest_width]]
    pages = {}
    for batch in stream.records:
        if isinstance(batch, PageData):
            contents = b"".join(data for _, data in batch.runs)
            sent = [int(p) for p, has in zip(batch.words.pfns, batch.words.has_data, strict=True) if has]
            if pfn in sent:
                pages[pfn] = contents[sent.index(pfn) * 4096 :][:4096]
    assert pages[pfn].startswith(b"xen-3.0-x86_")
