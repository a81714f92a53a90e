"""The stream builder and the synthetic streams, read back with struct alone."""

import json
import struct

import numpy as np
import pytest
from click.testing import CliRunner

from migrate.building import big_streams
from migrate.building.builder import StreamBuilder
from migrate.building.parts import PAE_ROOT, PTE_RO, PTE_RW, TABLE, entry, page_data
from migrate.cli.main import main
from streams.wire import paging
from streams.wire.paging import NX

PAGE = 4096
HEADER = bytes.fromhex("ffffffffffffffff58454e46000000030000000000000000010000000c0000000400000012000000")
END, PAGES, PV_INFO, P2M, BASIC, EXTENDED, XSAVE, SHARED, TSC = range(9)
HVM_CONTEXT, HVM_PARAMS, MSRS, VERIFY, CHECKPOINT, STATIC_END, CPUID, MSR = 9, 10, 12, 13, 14, 16, 17, 18
XTAB = 15
DATALESS = (13, 14, 15)


def walk(data, start=40):
    """(offset, type, body) of every record up to the end of the data, which must be where one ends."""
    out, at = [], start
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        out.append((at, kind, data[at + 8 : at + 8 + length]))
        at += 8 + (length + 7) // 8 * 8
    assert at == len(data)
    return out


def kinds(data, start=40):
    return [kind for _, kind, _ in walk(data, start)]


def body(data, kind, nth=0):
    return [b for _, k, b in walk(data) if k == kind][nth]


def words_and_pages(raw):
    """The (pfn, type, contents or None) of a PAGE_DATA body, whose length must be exactly theirs."""
    count, reserved = struct.unpack_from("<II", raw)
    assert reserved == 0
    at, out = 8 + 8 * count, []
    for word in struct.unpack_from(f"<{count}Q", raw, 8):
        kind = word >> 60
        out.append((word & (1 << 52) - 1, kind, None if kind in DATALESS else raw[at : at + PAGE]))
        at += 0 if kind in DATALESS else PAGE
    assert at == len(raw)
    return out


def final_memory(data):
    """pfn -> (type, contents) after the last record that names each."""
    return {pfn: (kind, page) for _, k, raw in walk(data) if k == PAGES for pfn, kind, page in words_and_pages(raw)}


def entries(page):
    return np.frombuffer(page, "<u8")


def targets(page, first=0, last=512):
    present = entries(page)[first:last]
    present = present[present & np.uint64(1) != 0]
    return present >> np.uint64(12) & np.uint64(0xFFFF_FFFFFF), present & np.uint64(0xFFF)


def one_type_per_frame(memory, width):
    """Every table names tables of the level below it, and nothing maps a table or the GDT writable."""
    level = np.zeros(max(memory) + 1, np.uint8)
    absent = np.ones(max(memory) + 1, bool)
    for pfn, (kind, page) in memory.items():
        level[pfn] = kind & 7 if page is not None else 0
        absent[pfn] = page is None
    for pfn, (_, page) in memory.items():
        if not level[pfn]:
            continue
        named, flags = targets(page)
        assert not absent[named].any(), hex(pfn)
        if level[pfn] > 1:
            assert (level[named] == level[pfn] - 1).all(), hex(pfn)
            assert set(flags.tolist()) <= {0x67, 0x27}
        else:
            assert not level[named[flags & np.uint64(2) != 0]].any(), hex(pfn)
    if width == 4:
        roots = [page for kind, page in memory.values() if page is not None and kind & 7 == 3]
        slot3 = [int(entries(page)[3]) for page in roots]
        others = {int(e) for page in roots for e in entries(page)[:3] if e}
        assert all(e & 1 for e in slot3)
        assert len(set(slot3)) == len(slot3)
        assert not others & set(slot3)
    return level


# -- the guest of the format's worked example -----------------------------------------------------


def test_headers_are_those_of_the_worked_example():
    assert StreamBuilder.pv(4).build()[:40] == HEADER


def test_pv_records_come_in_a_savers_order():
    assert kinds(StreamBuilder.pv(4, vcpus=2).build()) == [
        *(PV_INFO, CPUID, MSR, STATIC_END, P2M, PAGES, TSC, SHARED),
        *(BASIC, EXTENDED, XSAVE, BASIC, EXTENDED, XSAVE, END),
    ]


def test_version_2_has_neither_policies_nor_static_data_end():
    b = StreamBuilder.pv(4)
    b.image["version"] = 2
    assert kinds(b.build()) == [PV_INFO, P2M, PAGES, TSC, SHARED, BASIC, EXTENDED, XSAVE, END]


def test_fixed_bodies_are_those_of_the_worked_example():
    data = StreamBuilder.pv(4).build()
    assert body(data, PV_INFO) == bytes.fromhex("0403000000000000")
    assert body(data, P2M) == struct.pack("<IIQ", 0, 8, 1)
    assert body(data, TSC) == struct.pack("<IIQII", 0, 0x249F00, 0x3B9ACA00, 1, 0)
    assert body(data, XSAVE) == bytes(8 + 16)


def test_page_types_are_those_of_the_worked_example_and_a_gdt():
    pages = words_and_pages(body(StreamBuilder.pv(4).build(), PAGES))
    assert [(pfn, kind) for pfn, kind, _ in pages] == list(enumerate([0, 0, 0, 0, 0xB, 2, 1, XTAB, 0]))


def test_start_info_names_the_rings():
    start_info = final_memory(StreamBuilder.pv(4).build())[0][1]
    assert start_info[:16] == b"xen-3.0-x86_32p\0"
    assert struct.unpack_from("<I", start_info, 32) == (9,)
    assert struct.unpack_from("<IIII", start_info, 44) == (2, 1, 3, 2)


def test_start_info_names_the_rings_at_width_8():
    start_info = final_memory(StreamBuilder.pv(8).build())[0][1]
    assert start_info[:15] == b"xen-3.0-x86_64\0"
    assert struct.unpack_from("<QI4xQI", start_info, 56) == (2, 1, 3, 2)


def test_p2m_holds_one_mfn_per_page_and_all_ones_for_the_absent():
    p2m = struct.unpack("<1024I", final_memory(StreamBuilder.pv(4).build())[1][1])
    assert p2m[:7] == tuple(range(0x2A10, 0x2A17))
    assert p2m[7] == 0xFFFF_FFFF
    assert p2m[8] == 0x2A18
    assert set(p2m[9:]) == {0xFFFF_FFFF}


def test_tables_are_those_of_the_worked_example():
    memory = final_memory(StreamBuilder.pv(4).build())
    l3, l2, l1 = (entries(memory[pfn][1]) for pfn in (4, 5, 6))
    assert (np.flatnonzero(l3).tolist(), l3[3]) == ([3], 0x5027)
    assert (np.flatnonzero(l2).tolist(), l2[0]) == ([0], 0x6067)
    assert l1[:9].tolist() == [0x0067, 0x1067, 0x2067, 0x3067, 0x4065, 0x5065, 0x6065, 0, 0x8065]


def test_shared_info_counts_the_pages_and_masks_events():
    shared = body(StreamBuilder.pv(4).build(), SHARED)
    assert len(shared) == PAGE
    assert struct.unpack_from("<I", shared, 2316) == (9,)
    assert shared[1:2048:64] == b"\1" * 32


def test_context_is_that_of_the_worked_example():
    raw = body(StreamBuilder.pv(4).build(), BASIC)
    assert raw[:8] == bytes(8)
    context = raw[8:]
    assert len(context) == 2800
    assert context[:2] == b"\x7f\x03"
    assert context[24:26] == b"\x80\x1f"
    assert context[512:516] == b"\x25\0\0\0"
    assert struct.unpack_from("<I", context, 524) == (0,)
    assert struct.unpack_from("<IH", context, 548) == (0xC0100000, 0xE019)
    assert struct.unpack_from("<I", context, 2640) == (8,)
    assert struct.unpack_from("<I", context, 2728) == (0x4000,)
    assert struct.unpack_from("<I", context, 2796) == (0,)


def test_extended_sets_the_assist_of_every_vcpu():
    data = StreamBuilder.pv(4, vcpus=2, extended=True).build()
    assert [struct.unpack_from("<I", body(data, BASIC, n), 8 + 2796) for n in (0, 1)] == [(8,), (8,)]


def test_extended_content_names_its_vcpu_and_size():
    data = StreamBuilder.pv(8, vcpus=2).build()
    assert [struct.unpack_from("<II", body(data, EXTENDED, n), 8) for n in (0, 1)] == [(0, 64), (1, 64)]


def test_a_root_of_width_8_leads_through_four_levels():
    memory = final_memory(StreamBuilder.pv(8).build())
    assert [memory[pfn][0] for pfn in (4, 5, 6, 7)] == [0xC, 3, 2, 1]
    l4, l3, l2, l1 = (entries(memory[pfn][1]) for pfn in (4, 5, 6, 7))
    assert (l4[272], l3[0], l2[0], l1[4]) == (0x5067, 0x6067, 0x7067, 0x4065)


def test_vcpus_beyond_the_roots_share_the_last_one():
    b = StreamBuilder.pv(8, vcpus=3, roots=2)
    assert [vcpu.root for vcpu in b.vcpus] == [b.roots[0], b.roots[1], b.roots[1]]
    assert struct.unpack_from("<Q", body(b.build(), BASIC, 2), 8 + 5008) == (b.roots[1] << 12,)


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("roots", [1, 5])
def test_pv_guests_are_consistent(width, roots):
    b = StreamBuilder.pv(width, vcpus=2, roots=roots)
    one_type_per_frame(final_memory(b.build()), width)
    for leaf in (b.chain(root)[-1] for root in b.roots):
        assert b.table(leaf)[b.gdt_pfn] == entry(b.gdt_pfn, PTE_RO)


# -- editing the guest -------------------------------------------------------------------------------


def test_flags_are_the_architectures():
    assert (PTE_RW, PTE_RO, TABLE, PAE_ROOT) == (0x67, 0x65, 0x67, 0x27)
    assert entry(0x123, PTE_RO) == 0x123065
    assert entry(1, TABLE | NX) == 0x8000_0000_0000_1067
    assert (paging.P, paging.RW, paging.US, paging.PWT, paging.PCD) == (1, 2, 4, 8, 16)
    assert (paging.A, paging.D, paging.PSE, paging.PAT, paging.G) == (32, 64, 128, 128, 256)


def test_new_pages_are_counted_everywhere():
    b = StreamBuilder.pv(4)
    pfn = b.new_page(content=b"hello")
    data = b.build()
    memory = final_memory(data)
    assert (pfn, b.max_pfn) == (9, 9)
    assert memory[9] == (0, b"hello".ljust(PAGE, b"\0"))
    assert struct.unpack_from("<II", body(data, P2M)) == (0, 9)
    assert struct.unpack_from("<I", body(data, SHARED), 2316) == (10,)
    assert struct.unpack_from("<I", memory[0][1], 32) == (10,)
    assert struct.unpack_from("<I", memory[1][1], 9 * 4) == (0x2A19,)


@pytest.mark.parametrize(("width", "frames"), [(4, [1, 1024]), (8, [1, 512, 1024])])
def test_the_p2m_grows_with_the_guest(width, frames):
    b = StreamBuilder.pv(width)
    while b.max_pfn < 1030:
        b.new_page()
    data = b.build()
    assert b.p2m_frames == frames
    assert body(data, P2M) == struct.pack(f"<II{len(frames)}Q", 0, b.max_pfn, *frames)
    memory = final_memory(data)
    p2m = np.concatenate([np.frombuffer(memory[pfn][1], f"<u{width}") for pfn in frames])
    present = [pfn for pfn, (kind, _) in memory.items() if kind != XTAB]
    assert (p2m[present] == np.array(present) + 0x2A10).all()


def test_an_oversized_page_is_refused():
    with pytest.raises(ValueError, match="4096"):
        StreamBuilder.pv(4).new_page(content=bytes(PAGE + 1))


def test_placing_a_page_changes_its_mfn_alone():
    plain, placed = StreamBuilder.pv(4), StreamBuilder.pv(4)
    placed.place(4, 0x123456)
    before, after = (np.frombuffer(final_memory(b.build())[1][1], "<u4") for b in (plain, placed))
    assert np.flatnonzero(before != after).tolist() == [4]
    assert after[4] == 0x123456


def test_writes_to_a_table_reach_the_stream():
    b = StreamBuilder.pv(4)
    b.table(4)[0] = entry(b.new_table(2), PAE_ROOT)
    assert entries(final_memory(b.build())[4][1])[0] == 0x9027


def test_a_page_turned_absent_is_sent_without_contents():
    b = StreamBuilder.pv(4)
    b.memory[2].type = XTAB
    assert final_memory(b.build())[2] == (XTAB, None)


def test_a_page_taken_out_is_not_sent():
    b = StreamBuilder.pv(4)
    del b.memory[3]
    assert 3 not in final_memory(b.build())


def test_an_unpinned_root_is_typed_without_the_pin():
    b = StreamBuilder.pv(4)
    assert b.memory[b.new_root(pinned=False)].type == 3


def test_vcpu_fields_are_editable():
    b = StreamBuilder.pv(8)
    b.vcpus[0].user_root = b.roots[0]
    b.vcpus[0].basic.user_regs.rdx = 7
    b.vcpus[0].msrs = bytearray(struct.pack("<IIQ", 0x48, 0, 1))
    b.vcpus[0].extended = None
    data = b.build()
    assert struct.unpack_from("<Q", body(data, BASIC), 8 + 4992) == (0x4001,)
    assert struct.unpack_from("<Q", body(data, BASIC), 8 + 520 + 96) == (7,)
    assert body(data, MSRS) == struct.pack("<IIIIQ", 0, 0, 0x48, 0, 1)
    assert EXTENDED not in kinds(data)


def test_cr3_is_packed_above_4_gib():
    b = StreamBuilder.pv(4)
    b.vcpus[0].root = 0x123456
    assert b.vcpus[0].basic.ctrlreg[3] == 0x23456001
    assert b.vcpus[0].root == 0x123456


# -- rounds ------------------------------------------------------------------------------------------


def test_batches_hold_so_many_pfns():
    b = StreamBuilder.pv(4)
    b.batch = 4
    sent = [[pfn for pfn, _, _ in words_and_pages(raw)] for _, k, raw in walk(b.build()) if k == PAGES]
    assert sent == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_rounds_resend_their_pages():
    b = StreamBuilder.pv(4)
    b.rounds = [[1, 4], [6]]
    sent = [[pfn for pfn, _, _ in words_and_pages(raw)] for _, k, raw in walk(b.build()) if k == PAGES]
    assert sent == [list(range(9)), [1, 4], [6]]


def test_verify_resends_everything_after_its_marker():
    b = StreamBuilder.pv(4)
    b.verify = True
    data = b.build()
    assert kinds(data)[5:9] == [PAGES, VERIFY, PAGES, TSC]
    assert body(data, PAGES, 0) == body(data, PAGES, 1)


def test_a_checkpointed_stream_stops_at_its_last_checkpoint():
    b = StreamBuilder.pv(4)
    b.checkpoints = 2
    state = [TSC, SHARED, BASIC, EXTENDED, XSAVE, CHECKPOINT]
    assert kinds(b.build())[4:] == [P2M, PAGES, *state, PAGES, *state]


def test_checkpoints_in_libxl_hand_over_until_checkpoint_end():
    b = StreamBuilder.hvm()
    b.container, b.checkpoints = "libxl", 2
    state = b.libxl_after[0].body
    body = bytes(state).ljust(-(-len(state) // 8) * 8, b"\0")
    emulator = struct.pack("<II", 3, len(state)) + body
    data = b.build()
    assert state.startswith(struct.pack("<II", 2, 0) + b"QEVM")
    assert data.count(struct.pack("<II", CHECKPOINT, 0) + emulator + struct.pack("<II", 4, 0)) == 2
    assert data.endswith(struct.pack("<II", 4, 0))


# -- editing records ---------------------------------------------------------------------------------


def test_records_are_made_once():
    b = StreamBuilder.pv(4)
    first = b.record("SHARED_INFO")
    b.new_page()
    assert b.record("SHARED_INFO") is first


def test_a_record_is_found_by_name_number_and_ordinal():
    b = StreamBuilder.pv(4, vcpus=2)
    assert b.record("X86_PV_VCPU_BASIC", 1) is b.record(BASIC, -1)
    assert b.record("X86_PV_VCPU_BASIC").body[0] == 0
    assert b.record("X86_PV_VCPU_BASIC", 1).body[0] == 1


def test_a_missing_record_is_a_lookup_error():
    with pytest.raises(LookupError, match="HVM_PARAMS"):
        StreamBuilder.pv(4).record("HVM_PARAMS")


def test_drop_takes_the_nth_out():
    b = StreamBuilder.pv(4, vcpus=2)
    b.drop("X86_PV_VCPU_BASIC", 1)
    assert kinds(b.build())[8:] == [BASIC, EXTENDED, XSAVE, EXTENDED, XSAVE, END]


def test_insert_goes_before_or_after_or_last_before_end():
    b = StreamBuilder.pv(4)
    b.insert("VERIFY", before="PAGE_DATA")
    b.insert(0x80000001, b"abc", after="PAGE_DATA")
    b.insert("TOOLSTACK")
    data = b.build()
    assert kinds(data)[4:9] == [P2M, VERIFY, PAGES, 0x80000001, TSC]
    assert kinds(data)[-2:] == [11, END]
    assert body(data, 0x80000001) == b"abc"


def test_move_changes_the_place_alone():
    b = StreamBuilder.pv(4)
    b.move("X86_PV_P2M_FRAMES", after="PAGE_DATA")
    b.move("SHARED_INFO", before="END")
    assert kinds(b.build())[3:] == [STATIC_END, PAGES, P2M, TSC, BASIC, EXTENDED, XSAVE, SHARED, END]


def test_duplicate_is_a_copy_of_its_own():
    b = StreamBuilder.pv(4)
    b.duplicate("X86_TSC_INFO").body[0] = 9
    assert [b.record("X86_TSC_INFO", n).body[0] for n in (0, 1)] == [0, 9]


def test_padding_and_length_can_be_falsified():
    b = StreamBuilder.pv(4)
    rec = b.insert(0x80000001, b"abc")
    assert rec.build() == b"\1\0\0\x80\3\0\0\0abc\0\0\0\0\0"
    rec.padding, rec.length = b"\1", 0xFFFFFFFF
    assert rec.build() == b"\1\0\0\x80\xff\xff\xff\xffabc\1"


def test_page_data_writes_what_it_is_given():
    raw = page_data([(3, 0, b"x" * PAGE), (4, XTAB, None)])
    assert raw == struct.pack("<IIQQ", 2, 0, 3, 15 << 60 | 4) + b"x" * PAGE


def test_cut_keeps_the_first_bytes():
    whole = StreamBuilder.pv(4).build()
    b = StreamBuilder.pv(4)
    for cut in (30, -1, 0):
        b.cut = cut
        assert b.build() == whole[:cut]


def test_trailing_bytes_follow_the_stream():
    b = StreamBuilder.pv(4)
    b.trailing = b"junk"
    assert b.build() == StreamBuilder.pv(4).build() + b"junk"


# -- HVM, containers ---------------------------------------------------------------------------------


def test_hvm_records_come_in_a_savers_order():
    data = StreamBuilder.hvm().build()
    assert data[24:28] == b"\2\0\0\0"
    assert kinds(data) == [CPUID, MSR, STATIC_END, PAGES, TSC, HVM_CONTEXT, HVM_PARAMS, END]


def test_hvm_context_goes_from_header_to_end():
    raw, at, found = body(StreamBuilder.hvm(vcpus=3).build(), HVM_CONTEXT), 0, []
    while at < len(raw):
        typecode, instance, length = struct.unpack_from("<HHI", raw, at)
        found.append((typecode, instance, length))
        at += 8 + length
    assert at == len(raw)
    assert found[:4] == [(1, 0, 24), (2, 0, 1032), (2, 1, 1032), (2, 2, 1032)]
    assert found[-1] == (0, 0, 0)
    assert struct.unpack_from("<I", raw, 8) == (0x54381286,)


def test_hvm_params_name_the_rings():
    b = StreamBuilder.hvm()
    assert body(b.build(), HVM_PARAMS) == struct.pack("<IIQQQQ", 2, 0, 1, b.store_pfn, 17, b.console_pfn)


def test_policies_are_whole_numbers_of_entries():
    data = StreamBuilder.hvm().build()
    leaves = struct.unpack(f"<{len(body(data, CPUID)) // 4}I", body(data, CPUID))
    assert leaves[::6] == (0, 1, 0x80000000)
    assert set(leaves[1::6]) == {0xFFFFFFFF}
    assert body(data, MSR) == struct.pack("<IIQ", 0xCE, 0, 0)


def in_container(name, b):
    b.container = name
    return b.build()


@pytest.mark.parametrize(("make", "after"), [(StreamBuilder.pv, [0]), (StreamBuilder.hvm, [3, 0])])
def test_libxl_wraps_the_image(make, after):
    image = make().build()
    data = in_container("libxl", make())
    assert data[:24] == b"LibxlFmt" + struct.pack(">II", 2, 0) + struct.pack("<II", 1, 0)
    assert data[24 : 24 + len(image)] == image
    assert kinds(data, 24 + len(image)) == after


def test_xl_holds_its_config_and_an_image_at_an_odd_offset():
    data = in_container("xl", StreamBuilder.pv(4, vcpus=3))
    order, mandatory, optional, length = struct.unpack_from("<IIII", data, 32)
    assert data[:32] == b"Xen saved domain, xl format\n \x00 \r"
    assert (order, mandatory, optional) == (0x01020304, 3, 0)
    (config,) = struct.unpack_from("<I", data, 48)
    assert config == length - 4
    text = data[52 : 48 + length]
    assert text.endswith(b"\0")
    assert json.loads(text[:-1])["b_info"]["max_vcpus"] == 3
    assert data[48 + length :] == in_container("libxl", StreamBuilder.pv(4, vcpus=3))
    assert data.index(b"\xff" * 8 + b"XENF") % 2 == 1


def test_xl_parts_can_be_replaced():
    b = StreamBuilder.pv(4)
    b.xl_config = b"{}"
    b.xl["mandatory_flags"] = 7
    assert in_container("xl", b)[36:56] == struct.pack("<IIII", 7, 0, 7, 3) + b"{}\0L"
    b.optional_data = b""
    assert in_container("xl", b)[44:56] == bytes(4) + b"LibxlFmt"


def test_xapi_blocks_enclose_the_image():
    image = StreamBuilder.pv(4).build()
    data = in_container("xapi", StreamBuilder.pv(4))
    assert data[:15] == b"XenSavedDomv2-\n"
    kind, length = struct.unpack_from("<QQ", data, 15)
    assert kind == 0xF
    at = 31 + length
    assert struct.unpack_from("<QQ", data, at) == (0xF0, 0)
    assert data[at + 16 :] == image + struct.pack("<QQ", 0xFFFF, 0)


def test_an_unknown_container_is_refused():
    with pytest.raises(ValueError, match="tar"):
        in_container("tar", StreamBuilder.pv(4))


# -- synthetic streams -------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stream"


def synthetic(path, **options):
    written = big_streams.write_synthetic(path, **options)
    data = path.read_bytes()
    assert written == len(data)
    return data


@pytest.mark.parametrize("width", [4, 8])
def test_a_synthetic_pv_guest_is_consistent(path, width):
    data = synthetic(path, kind="pv", width=width, size_bytes=64 << 20, vcpus=3, rounds=2)
    memory = final_memory(data)
    assert sorted(memory) == list(range(64 << 20 >> 12))
    level = one_type_per_frame(memory, width)
    top = 3 if width == 4 else 4
    contexts = [raw for _, k, raw in walk(data) if k == BASIC]
    field = ("<I", 8 + 2728) if width == 4 else ("<Q", 8 + 5008)
    roots = [struct.unpack_from(*field[:1], raw, field[1])[0] >> 12 for raw in contexts]
    assert [int(level[pfn]) for pfn in roots] == [top] * 3
    assert len(set(roots)) == 3
    assert 0.015 < np.count_nonzero(level) / len(level) < 0.025
    pinned = [kind & 7 for kind, _ in memory.values() if 8 < kind < 13]
    assert {1, top} == set(pinned)


@pytest.mark.parametrize("width", [4, 8])
def test_every_synthetic_table_hangs_under_a_pinned_root(path, width):
    memory = final_memory(synthetic(path, kind="pv", width=width, size_bytes=32 << 20))
    top = 11 if width == 4 else 12
    reached = frontier = {pfn for pfn, (kind, _) in memory.items() if kind == top}
    while frontier:
        named = {int(pfn) for table in frontier if memory[table][0] & 7 > 1 for pfn in targets(memory[table][1])[0]}
        frontier = named - reached
        reached = reached | frontier
    assert reached == {pfn for pfn, (kind, _) in memory.items() if 1 <= kind & 7 <= 4}


@pytest.mark.parametrize("width", [4, 8])
def test_a_synthetic_p2m_names_every_page_once(path, width):
    data = synthetic(path, kind="pv", width=width, size_bytes=32 << 20)
    memory = final_memory(data)
    raw = body(data, P2M)
    _, last = struct.unpack_from("<II", raw)
    frames = struct.unpack_from(f"<{(len(raw) - 8) // 8}Q", raw, 8)
    assert last == max(memory)
    assert len(frames) == last * width // PAGE + 1
    mfns = np.concatenate([np.frombuffer(memory[pfn][1], f"<u{width}") for pfn in frames])
    absent = np.array([memory[pfn][0] == XTAB for pfn in sorted(memory)])
    none = (1 << 8 * width) - 1
    assert (mfns[: last + 1][absent] == none).all()
    assert (mfns[last + 1 :] == none).all()
    present = mfns[: last + 1][~absent]
    assert len(np.unique(present)) == len(present)
    assert present.max() < 0x100000
    assert absent.any()


def test_a_synthetic_start_info_and_gdt_are_in_place(path):
    data = synthetic(path, kind="pv", width=4, size_bytes=16 << 20, extended=True)
    memory = final_memory(data)
    context = body(data, BASIC)[8:]
    (start_info,) = struct.unpack_from("<I", context, 524)
    page = memory[start_info][1]
    assert page[:16] == b"xen-3.0-x86_32p\0"
    assert struct.unpack_from("<I", page, 32) == (4096,)
    assert struct.unpack_from("<I", context, 2640) == (1,)
    assert memory[1][1][8:16] == struct.pack("<Q", 0x00CFFB000000FFFF)
    writable = [
        targets(page)[0][targets(page)[1] & np.uint64(2) != 0] for kind, page in memory.values() if kind & 7 == 1
    ]
    assert 1 not in np.concatenate(writable)
    assert struct.unpack_from("<I", context, 2796) == (8,)


def test_a_synthetic_hvm_guest_has_a_hole_below_4_gib(path):
    written = big_streams.write_synthetic(path, kind="hvm", size_bytes=(4 << 30) + (64 << 20), sparse=True)
    assert written == path.stat().st_size
    types = {}
    with path.open("rb") as file:
        at = 40
        while at < written:
            file.seek(at)
            kind, length, count, _ = struct.unpack("<IIII", file.read(16).ljust(16, b"\0"))
            if kind == PAGES:
                words = np.frombuffer(file.read(8 * count), "<u8")
                types |= dict(
                    zip((words & np.uint64(2**52 - 1)).tolist(), (words >> np.uint64(60)).tolist(), strict=True)
                )
            at += 8 + (length + 7) // 8 * 8
    assert at == written
    assert {pfn for pfn, kind in types.items() if kind == XTAB} == set(range(0xF0000, 0x100000))
    assert sum(kind == 0 for kind in types.values()) == ((4 << 30) + (64 << 20)) >> 12


@pytest.mark.parametrize("kind", ["hvm", "pv"])
def test_holes_hold_the_same_bytes(tmp_path, kind):
    options = {"kind": kind, "size_bytes": 24 << 20, "rounds": 3}
    dense = synthetic(tmp_path / "dense", **options)
    sparse = synthetic(tmp_path / "sparse", sparse=True, **options)
    assert dense == sparse


def test_a_sparse_stream_overwrites_what_was_there(path):
    path.write_bytes(b"\xff" * (40 << 20))
    with path.open("r+b") as file:
        big_streams.write_synthetic(file, kind="hvm", size_bytes=24 << 20, sparse=True)
    walk(path.read_bytes())


def test_the_same_seed_gives_the_same_stream(tmp_path):
    first, second, other = (
        synthetic(tmp_path / str(n), kind="pv", size_bytes=8 << 20, seed=seed) for n, seed in enumerate([1, 1, 2])
    )
    assert first == second
    assert first != other


def test_a_guest_without_room_for_its_tables_is_refused(path):
    with pytest.raises(ValueError, match="no room"):
        big_streams.write_synthetic(path, kind="pv", size_bytes=64 << 10)


def test_the_command_takes_sizes_by_suffix(path):
    done = CliRunner().invoke(big_streams.main, [str(path), "--kind", "pv", "--size", "8M", "--width", "4"])
    assert done.exit_code == 0
    assert len(final_memory(path.read_bytes())) == 2048


# -- the judge ---------------------------------------------------------------------------------------


def accepted(path):
    return CliRunner().invoke(main, ["check", "--format", "json", "--placement", "source", str(path)])


@pytest.mark.parametrize("container", ["libxc", "libxl", "xl"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: StreamBuilder.pv(4),
        lambda: StreamBuilder.pv(4, vcpus=3, roots=2, extended=True),
        lambda: StreamBuilder.pv(8, vcpus=3, roots=2),
        lambda: StreamBuilder.hvm(vcpus=2),
    ],
    ids=["pv32", "pv32-extended", "pv64", "hvm"],
)
def test_built_guests_come_back(path, make, container):
    path.write_bytes(in_container(container, make()))
    done = accepted(path)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("options", [{"kind": "hvm"}, {"kind": "pv"}, {"kind": "pv", "width": 4}])
def test_synthetic_guests_come_back(path, options):
    big_streams.write_synthetic(path, size_bytes=32 << 20, rounds=2, **options)
    done = accepted(path)
    assert done.exit_code == 0, done.output
