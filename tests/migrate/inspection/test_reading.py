"""A stream taken apart: where everything lies, what it says, and what a vcpu's registers hold."""

import os
import struct
import threading
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspecting import check_fields, look
from project import SAMPLES
from trying import examples

from migrate.building.builder import StreamBuilder
from migrate.building.parts import page_data
from migrate.building.shapes import pv_guest
from migrate.corpus.expectations import Shelf
from migrate.inspection import reading
from migrate.inspection.logbook import Header, Layer
from migrate.inspection.memory.resent import live
from migrate.inspection.names import number_ranges, rflags_names
from migrate.inspection.reading import NotInStream
from migrate.inspection.records.contents import LONGEST_RUN, contents
from migrate.inspection.records.cursor import ELEMENTS_SHOWN
from migrate.inspection.records.shown import fields_of, needed, summary
from migrate.inspection.vcpus.states import vcpu_ids, vcpu_states
from migrate.judging.report_json import dumps
from migrate.reports.inspection.records import contents_objects, record_object
from migrate.reports.inspection.rounds import rounds_object
from migrate.reports.inspection.vcpus import vcpu_objects
from migrate.testing import strategies
from streams.hvm_context import HvmState, decode_context, encode_context
from streams.pages import PageType
from streams.transports import TransportError
from streams.wire.framing import HVM_SAVE_HEADER, PAGE_SIZE, VCPU_HEADER, padded
from streams.wire.hvm_names import SaveType
from streams.wire.msrs import Msr
from streams.wire.vcpu import MSR_ENTRY, VcpuMsr

REAL = sorted(path.name for path in SAMPLES.glob("x417-*.zst"))
PV = [name for name in REAL if not name.startswith("x417-pvh")]
KINDS = {"pv32": StreamBuilder.pv, "pv64": lambda: StreamBuilder.pv(8), "hvm": StreamBuilder.hvm}


def entry(name):
    return Shelf().entry(SAMPLES / name)


def vcpu_state(inspection, vcpu):
    return next(vcpu_states(inspection, [vcpu]))


def log_of(source):
    return look(source, lambda inspection: list(inspection.log))


def runs(names):
    """Names as the manifest of the samples has them: alike ones together."""
    told = ((name, sum(1 for _ in group)) for name, group in groupby(names))
    return [name if number == 1 else f"{name} x{number}" for name, number in told]


def with_type(b, name, body):
    b.record(name).body = body
    return b.build()


def the(source, name, nth=0, **options):
    """What one record means."""

    def question(inspection):
        found = [entry for entry in inspection.log if entry.name == name][nth]
        return summary(found, inspection.body(found, needed(found)), inspection.judgement.facts.width)

    return look(source, question, **options)


# -- where everything lies ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_the_records_are_those_that_the_manifest_lists(name):
    libxc = [e.name for e in log_of(SAMPLES / name) if e.layer is Layer.LIBXC and e.type is not None]
    assert runs(libxc) == entry(name).facts["records"]


@pytest.mark.parametrize("name", REAL)
def test_what_lies_in_a_stream_fills_it_from_end_to_end(name):
    def question(inspection):
        return list(inspection.log), inspection.judgement.facts.bytes

    entries, size = look(SAMPLES / name, question)
    ends = [e.body + (e.length if e.type is None else padded(e.length)) for e in entries]
    assert [e.offset for e in entries] == [0, *ends[:-1]]
    assert ends[-1] == size


@pytest.mark.parametrize("container", ["xl", "libxl", "xapi"])
def test_each_layer_counts_its_own_records(container):
    b = StreamBuilder.pv(4)
    b.wrap(container)
    found = log_of(b.build())
    for layer in Layer:
        indices = [e.index for e in found if e.layer is layer and e.index is not None]
        assert indices == list(range(len(indices)))


def test_a_record_is_found_by_its_layer_and_index():
    b = StreamBuilder.pv(4)
    b.wrap("libxl")

    def question(inspection):
        log = inspection.log
        return log.find(Layer.LIBXL, 1).name, log.find(Layer.LIBXC, 1).name, log.find(Layer.XAPI, 0)

    assert look(b.build(), question) == ("END", b.records[1].name, None)


def test_a_record_that_the_input_ends_in_is_in_the_book_and_says_so():
    data = StreamBuilder.pv(4).build()
    last = log_of(data[:-20])[-1]
    assert (last.name, last.cut) == ("X86_PV_VCPU_XSAVE", True)


def test_what_stands_before_a_cut_libxl_record_is_whole():
    b = StreamBuilder.hvm()
    b.wrap("libxl")
    *before, last = log_of(b.build()[:-20])
    assert not any(entry.cut for entry in before)
    assert (last.name, last.cut) == ("EMULATOR_CONTEXT", True)


def test_a_pipe_shows_what_the_file_does():
    data = StreamBuilder.pv(4).build()
    out, into = os.pipe()
    writer = threading.Thread(
        target=lambda: [os.write(into, data[:70000]), os.write(into, data[70000:]), os.close(into)]
    )
    writer.start()
    try:
        assert log_of(out) == log_of(data)
    finally:
        os.close(out)
        writer.join()


@pytest.mark.parametrize("kept", [16 << 20, 1 << 20], ids=["decoded once", "too long to keep"])
def test_compressed_bytes_are_those_of_the_plain_stream(monkeypatch, kept):
    monkeypatch.setattr(reading, "_DECODED", kept)

    def question(inspection):
        return inspection.read([(40, 16), (0, 8), (8383640, 100)])

    head, marker, end = look(SAMPLES / "x417-pv32.plain.libxc.zst", question)
    assert head == struct.pack("<IIBB6x", 2, 8, 4, 3)
    assert marker == b"\xff" * 8
    assert end == bytes(8)


def test_compressed_bytes_that_break_off_are_told_with_their_offset(tmp_path):
    data = (SAMPLES / "x417-pv32.plain.libxc.zst").read_bytes()
    (tmp_path / "cut.zst").write_bytes(data[: len(data) // 2])
    with pytest.raises(TransportError) as told:
        look(tmp_path / "cut.zst", lambda inspection: None)
    assert 0 < told.value.offset <= len(data) // 2


def test_pages_come_from_the_record_that_sent_them_last():
    b = StreamBuilder.pv(4)
    pfn = b.new_page(content=b"first")
    b.insert("PAGE_DATA", page_data([(pfn, PageType.NOTAB, b"second".ljust(PAGE_SIZE, b"\0"))]), after="PAGE_DATA")
    assert look(b.build(), lambda i: i.pages([pfn])[pfn][:6]) == b"second"


# -- the passes of a live migration -------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_the_words_of_all_passes_are_as_many_as_were_sent(name):
    found = look(SAMPLES / name, live)
    assert sum(done.round.pages for done in found.passes) == entry(name).facts["page_entries_sent"]
    assert all(sum(done.types.values()) == done.round.pages for done in found.passes)


@pytest.mark.parametrize("name", PV)
def test_pages_with_contents_are_counted_once_each(name):
    found = look(SAMPLES / name, live)
    facts = entry(name).facts
    never = sum(int(last, 16) - int(first, 16) + 1 for first, last in absent(facts["special_types"]))
    assert sum(found.times_sent.values()) == facts["distinct_pfns"] - never


def absent(told):
    """Ranges of pfns that the manifest says came as XTAB: "0x7f0-0x7f7 XTAB"."""
    for one in told:
        pfns, kind = one.split()
        if kind == "XTAB":
            first, _, last = pfns.partition("-")
            yield first, last or first


def test_a_table_that_is_announced_and_comes_later_was_put_off():
    b = StreamBuilder.pv(4)
    late = b.new_page()
    table = page_data([(late, PageType.L1TAB, bytes(PAGE_SIZE))])
    b.insert("PAGE_DATA", page_data([(late, PageType.XTAB, None)]), after="PAGE_DATA")
    b.insert("PAGE_DATA", table, after="PAGE_DATA", nth=1)
    found = look(b.build(), live)
    assert (found.put_off.tolist(), found.never_came.tolist()) == ([late], [])


def test_a_page_that_is_announced_last_keeps_what_came_first():
    b = StreamBuilder.pv(4)
    page = b.new_page(content=b"x")
    b.insert("PAGE_DATA", page_data([(page, PageType.XTAB, None)]), after="PAGE_DATA")
    found = look(b.build(), live)
    assert (found.put_off.tolist(), found.never_came.tolist()) == ([], [page])


def test_pages_that_are_sent_again_are_counted():
    b = pv_guest(4, pages=64, rounds=3)
    found = look(b.build(), live)
    times = np.ones(b.max_pfn + 1, np.int64)
    for dirty in b.rounds:
        times[dirty] += 1
    with_contents = [times[pfn] for pfn, page in b.memory.items() if page.has_data]
    assert found.times_sent == {n: with_contents.count(n) for n in sorted(set(with_contents))}


# -- what a record says, in a line ----------------------------------------------------------------------


def test_the_meaning_of_small_records():
    b = StreamBuilder.pv(8)
    assert the(b.build(), "X86_PV_INFO") == "64-bit, 4 levels of page tables"
    assert the(b.build(), Header.DOMAIN).startswith("PV guest, pages of 4096 bytes, saved by Xen ")
    assert the(with_type(b, "X86_TSC_INFO", struct.pack("<IIQII", 2, 1_000_000, 5 * 10**9, 7, 0)), "X86_TSC_INFO") == (
        "mode 2 (never emulate), 1000000 kHz, ran for 5.0 s, incarnation 7"
    )


def test_the_p2m_record_tells_its_range_and_pages():
    body = struct.pack("<II3Q", 0, 0x7FF, 1, 2, 3)
    assert the(with_type(StreamBuilder.pv(4), "X86_PV_P2M_FRAMES", body), "X86_PV_P2M_FRAMES") == (
        "p2m of pfns 0x0..0x7ff in 3 pages"
    )


def test_a_vcpu_record_tells_where_it_runs_and_its_root():
    b = StreamBuilder.pv(4, vcpus=2, roots=2)
    b.vcpus[1].basic.user_regs.eip = 0xC0DE
    b.vcpus[1].root = b.roots[1]
    assert the(b.build(), "X86_PV_VCPU_BASIC", nth=1) == f"vcpu 1: eip 0xc0de, cr3 pfn {b.roots[1]:#x}"


def test_xsave_and_msrs_tell_what_they_hold():
    b = StreamBuilder.pv(4)
    area = struct.pack("<QQ", 7, 7) + bytes(832)
    assert the(with_type(b, "X86_PV_VCPU_XSAVE", VCPU_HEADER.pack(0, 0) + area), "X86_PV_VCPU_XSAVE") == (
        "vcpu 0: 848 bytes of x87 sse avx"
    )
    msr = MSR_ENTRY.pack(VcpuMsr(Msr.TSC_AUX, 0, 3))
    b.insert("X86_PV_VCPU_MSRS", VCPU_HEADER.pack(0, 0) + msr, after="X86_PV_VCPU_XSAVE")
    assert the(b.build(), "X86_PV_VCPU_MSRS") == "vcpu 0: 1 MSR: TSC_AUX"


def test_an_hvm_context_tells_its_entries():
    end = HVM_SAVE_HEADER.pack(SaveType.END, 0, 0)
    b = StreamBuilder.hvm(vcpus=3)
    header, *others = decode_context(b.record("HVM_CONTEXT").body).entries
    entries = (header, *(entry for entry in others if entry.typecode == SaveType.CPU))
    data = with_type(b, "HVM_CONTEXT", encode_context(HvmState(entries, end)))
    assert the(data, "HVM_CONTEXT") == "5 entries: HEADER, CPU x3, END"


def test_an_xl_header_tells_the_guest():
    b = StreamBuilder.pv(4, vcpus=2)
    b.wrap("xl")
    b.xl_config = config = b'{"c_info": {"name": "web", "type": "pv"}, "b_info": {"max_vcpus": 2, "type.pv": {}}}'
    assert the(b.build(), Header.XL) == f"web, pv, 2 vcpus, config of {len(config) + 1} bytes"  # with its NUL


def test_an_unknown_record_is_told_apart_by_its_optional_bit():
    b = StreamBuilder.pv(4)
    b.insert(0x8000_0042)
    b.insert(0x42)
    assert the(b.build(), "0x80000042") == "of no known type, optional"
    assert the(b.build(), "0x00000042") == "of no known type, mandatory"


@pytest.mark.parametrize("kind", KINDS)
def test_no_length_of_any_record_is_beyond_words(kind):
    b = KINDS[kind]()
    for record in b.records:
        for length in (0, 1, 7, 8, 15, 24, len(record.body) - 1):
            damaged = KINDS[kind]()
            damaged.record(record.name).body = record.body[: max(length, 0)]
            assert look(damaged.build(), lambda i: all(line.summary or line.count > 1 for line in contents(i)))


# -- the table of contents ------------------------------------------------------------------------------


def test_a_long_run_of_records_is_folded_and_all_of_it_is_accounted_for():
    b = StreamBuilder.pv(4)
    for _ in range(1000):
        b.insert(0x8000_0042, b"12345678")

    def question(inspection):
        return len(inspection.log), list(contents(inspection)), len(list(contents(inspection, everything=True)))

    number, lines, unfolded = look(b.build(), question)
    assert sum(line.count for line in lines) == unfolded == number
    assert len(lines) < number - 1000 + LONGEST_RUN
    assert max(lines, key=lambda line: line.count).first.name == "0x80000042"


@pytest.mark.parametrize("name", PV)
def test_the_page_data_of_a_pass_is_one_line_with_its_types(name):
    def question(inspection):
        lines = [line for line in contents(inspection) if line.pages is not None]
        return lines, live(inspection)

    lines, found = look(SAMPLES / name, question)
    for number, done in enumerate(found.passes):
        mine = [line.pages for line in lines if line.first.round == number]
        assert sum(pages.words for pages in mine) == done.round.pages
        assert {kind: sum(p.types.get(kind, 0) for p in mine) for kind in done.types} == done.types


def test_the_record_that_a_refusal_is_about_bears_it():
    def question(inspection):
        return {
            line.first.index: {finding.rule.id for finding in line.findings}
            for line in contents(inspection)
            if line.first.name == "X86_PV_VCPU_BASIC"
        }

    blamed = look(SAMPLES / "x417-pv32.plain.libxc.zst", question, target="4.20", placement="high")
    assert blamed == {9: set(), 12: {"HYP-22"}}


def test_a_damaged_page_data_record_stands_alone():
    b = pv_guest(4, pages=64)
    b.batch = 8
    sent = [number for number, record in enumerate(b.records) if record.name == "PAGE_DATA"]
    body = bytearray(b.records[sent[3]].body)
    body[15] |= 0x50  # a page type that does not exist
    b.records[sent[3]].body = bytes(body)

    def question(inspection):
        return [(line.first.index, line.count, bool(line.findings)) for line in contents(inspection) if line.pages]

    lines = look(b.build(), question)
    assert (sent[3], 1, True) in lines
    assert sum(number for _, number, _ in lines) == len(sent)


def test_layers_nest():
    b = StreamBuilder.pv(4)
    b.wrap("xl")
    depths = look(b.build(), lambda i: {line.first.layer: line.depth for line in contents(i)})
    assert depths == {Layer.XL: 0, Layer.LIBXL: 1, Layer.LIBXC: 2}


# -- all fields -------------------------------------------------------------------------------------------


PASSED_OVER = {"PAGE_DATA", Header.XL, "XENOPS", "EMULATOR_XENSTORE_DATA"}  # with text, or ranges


@pytest.mark.parametrize("name", ["x417-pv32.xl.zst", "x417-pv64.plain.libxc.zst", "x417-pvh.xl.zst"])
def test_every_number_stands_where_its_field_says(name):
    def question(inspection):
        for found in inspection.log:
            if found.name in PASSED_OVER or not found.length:
                continue
            fields = check_fields(inspection, found)
            assert fields[0].offset == found.body
            assert all(one.offset < other.offset for one, other in pairwise(fields))

    look(SAMPLES / name, question)


def test_the_fields_of_records_that_no_sample_has():
    b = StreamBuilder.pv(4)
    msrs = [VcpuMsr(Msr.TSC_AUX, 0, 3), VcpuMsr(0x123, 0, 4)]
    b.insert(
        "X86_PV_VCPU_MSRS", VCPU_HEADER.pack(0, 0) + b"".join(map(MSR_ENTRY.pack, msrs)), after="X86_PV_VCPU_XSAVE"
    )
    b.insert("CHECKPOINT_DIRTY_PFN_LIST", struct.pack("<3Q", 4, 5, 6))
    b.insert(0x8000_0042, b"opaque")

    def question(inspection):
        named = {found.name: found for found in inspection.log}
        for name in ("X86_PV_VCPU_MSRS", "CHECKPOINT_DIRTY_PFN_LIST", "0x80000042"):
            check_fields(inspection, named[name])
        _, _, *told = fields_of(inspection, named["X86_PV_VCPU_MSRS"])
        return [field.meaning for field in told]

    assert look(b.build(), question) == ["TSC_AUX = 0x3", "0x123 = 0x4"]


def test_page_data_is_told_in_ranges_whose_contents_are_the_pages():
    b = pv_guest(8, pages=200)
    data = b.build()

    def question(inspection):
        (found,) = [entry for entry in inspection.log if entry.is_pages]
        ranges = next(field for field in fields_of(inspection, found, everything=True) if field.name == "words")
        return [{part.name: part.value for part in one.fields} for one in ranges.fields]

    ranges = look(data, question)
    told = {}
    for one in ranges:
        for number, pfn in enumerate(range(one["first_pfn"], one["last_pfn"] + 1)):
            where = None if one["contents"] is None else one["contents"] + number * PAGE_SIZE
            told[pfn] = one["type"], None if where is None else data[where : where + PAGE_SIZE]
    assert told == {pfn: (PageType(page.type).name, page.data()) for pfn, page in b.memory.items()}


def test_of_a_cut_record_the_fields_are_shown_that_came():
    data = StreamBuilder.pv(4).build()
    entries = log_of(data)
    basic = next(e for e in entries if e.name == "X86_PV_VCPU_BASIC")
    fields = look(data[: basic.body + 20], lambda i: fields_of(i, i.log[len(i.log) - 1]))
    assert [field.name for field in fields] == ["vcpu_id", "reserved", "fpu_ctxt", "more"]
    assert fields[-1].meaning == f"the input ends {basic.length - 20} bytes before the end of the record"


def test_a_list_that_is_long_is_cut_unless_all_of_it_is_wanted():
    number = ELEMENTS_SHOWN + 100
    b = StreamBuilder.hvm()
    b.record("HVM_PARAMS").body = struct.pack("<II", number, 0) + struct.pack("<QQ", 1, 2) * number

    def question(inspection):
        found = next(entry for entry in inspection.log if entry.name == "HVM_PARAMS")
        some, all_of_it = (fields_of(inspection, found, everything=wanted) for wanted in (False, True))
        return len(some), some[-1].left_out, len(all_of_it)

    assert look(b.build(), question) == (2 + ELEMENTS_SHOWN + 1, 100, 2 + number)


def test_padding_that_is_not_zero_is_a_field():
    b = StreamBuilder.pv(4)
    b.insert(0x8000_0042, b"abc")
    data = bytearray(b.build())
    at = data.rindex(b"abc")
    data[at + 7] = 9
    last = look(bytes(data), lambda i: fields_of(i, i.log[len(i.log) - 2])[-1])
    assert (last.name, last.offset, last.value) == ("padding", at + 3, b"\0\0\0\0\x09")


# -- registers --------------------------------------------------------------------------------------------


def register(state, name):
    (found,) = [one for section in state.sections for one in section.registers if one.name == name]
    return found


@pytest.mark.parametrize("name", PV)
def test_cr3_names_the_root_that_the_guest_printed(name):
    said = entry(name).guest

    def question(inspection):
        return {vcpu: register(vcpu_state(inspection, vcpu), "cr3") for vcpu in vcpu_ids(inspection)}

    found = look(SAMPLES / name, question)
    assert {vcpu: cr3.parts["pfn"] for vcpu, cr3 in found.items()} == {one["vcpu"]: one["pfn"] for one in said["cr3"]}
    for one in said["cr3"]:
        if "mfn" in one:
            assert found[one["vcpu"]].parts["source_mfn"] == one["mfn"]


def test_cr3_of_vcpu_1_is_pfn_0x19_whose_source_mfn_was_785398():
    cr3 = look(SAMPLES / "x417-pv32.plain.libxc.zst", lambda i: register(vcpu_state(i, 1), "cr3"), placement="high")
    assert (cr3.value, cr3.parts) == (0x19000, {"pfn": 0x19, "source_mfn": 785398, "placed_mfn": 0x100019})


@pytest.mark.parametrize("name", [name for name in PV if not name.startswith("x417-pv64")])
def test_vm_assist_has_the_extended_cr3_where_the_guest_enabled_it(name):
    flags = look(SAMPLES / name, lambda i: register(vcpu_state(i, 0), "vm_assist").flags)
    assert ("pae_extended_cr3" in flags) is entry(name).guest["extended_cr3"]


def test_registers_of_a_pv_vcpu_are_those_of_its_context():
    b = StreamBuilder.pv(8)
    context = b.vcpus[0].basic
    context.user_regs.update({"rax": 0x1122334455667788, "r15": 5, "rip": 0x401000, "rflags": 0x3202})
    context.ctrlreg[0], context.ctrlreg[4] = 0x8005_003B, 0x660
    context.gs_base_kernel = 0xFFFF888000000000
    context.trap_ctxt[14].update({"address": 0xFFFFFFFF81000000, "cs": 0xE033})
    state = look(b.build(), lambda i: vcpu_state(i, 0))
    assert (state.kind, state.width, state.notes) == ("pv", 8, ())
    assert register(state, "rax").value == 0x1122334455667788
    assert register(state, "r15").value == 5
    assert register(state, "rip").value == 0x401000
    assert register(state, "rflags").flags == ("if", "iopl 3")
    assert register(state, "cr0").flags == ("pe", "mp", "ts", "et", "ne", "wp", "am", "pg")
    assert register(state, "cr4").flags == ("pae", "mce", "osfxsr", "osxmmexcpt")
    assert register(state, "gs_base_kernel").value == 0xFFFF888000000000
    assert register(state, "traps").meaning.startswith("14; cs 0xe033")


def test_a_32_bit_guest_has_registers_of_32_bits():
    general = look(StreamBuilder.pv(4).build(), lambda i: vcpu_state(i, 0).sections[0].registers)
    assert [one.name for one in general] == ["eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp"]
    assert {one.bits for one in general} == {32}


def test_the_registers_of_an_hvm_vcpu_are_those_of_its_entry():
    b = StreamBuilder.hvm(vcpus=2)
    state = decode_context(b.record("HVM_CONTEXT").body)
    cpus = state.of(SaveType.CPU)
    fields = cpus[1].parse()
    fields.update({"rax": 7, "cr3": 0x5000, "msr_efer": 0xD01, "cs_sel": 0x10, "cs_base": 0x1000})
    edited = cpus[1].build(fields)
    entries = tuple(edited if one is cpus[1] else one for one in state.entries)
    b.record("HVM_CONTEXT").body = encode_context(type(state)(entries))
    found = look(b.build(), lambda i: vcpu_state(i, 1))
    assert register(found, "rax").value == 7
    assert register(found, "cr3").parts == {"pfn": 5}
    assert register(found, "efer").flags == ("sce", "lme", "lma", "nx")
    assert (register(found, "cs").value, register(found, "cs").parts["base"]) == (0x10, 0x1000)
    assert look(b.build(), vcpu_ids) == [0, 1]


def test_a_pvh_sample_has_its_local_apic():
    found = look(SAMPLES / "x417-pvh.xl.zst", lambda i: vcpu_state(i, 0))
    assert register(found, "apic_base").flags == ("bsp", "enabled")
    assert register(found, "version").value & 0xFF == 0x14


def test_of_a_checkpointed_stream_the_last_state_counts():
    def question(inspection):
        basics = [entry.index for entry in inspection.log if entry.name == "X86_PV_VCPU_BASIC"]
        return vcpu_state(inspection, 1).records[0].index, basics

    used, basics = look(SAMPLES / "x417-pv64.remus.libxc.zst", question)
    assert used == max(basics)
    assert len(basics) > 2


def test_a_vcpu_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(NotInStream, match="nothing of vcpu 5; it has vcpus 0-1"):
        look(StreamBuilder.pv(4, vcpus=2).build(), lambda i: vcpu_state(i, 5))


def test_a_context_that_is_too_short_is_noted():
    b = StreamBuilder.pv(4)
    b.record("X86_PV_VCPU_BASIC").body = VCPU_HEADER.pack(0, 0) + bytes(100)
    state = look(b.build(), lambda i: vcpu_state(i, 0))
    assert state.notes == (f"record {state.records[0].index} X86_PV_VCPU_BASIC: 100 bytes of content are too few",)


def test_names_of_flags_and_ranges():
    assert rflags_names(0x246) == ("pf", "zf", "if")
    assert rflags_names(0x1046) == ("pf", "zf", "iopl 1")
    assert number_ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"


# -- whatever the bytes -------------------------------------------------------------------------------------


@st.composite
def mutated(draw):
    """A small stream with some of its bytes changed, most of them in headers, and sometimes an early end."""
    data = bytearray(draw(strategies.streams()))
    entries = log_of(bytes(data))
    for _ in range(draw(st.integers(1, 6))):
        near = draw(st.sampled_from(entries)).offset + draw(st.integers(0, 40))
        data[min(near, len(data) - 1)] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.none() | st.integers(0, len(data)))])


def all_objects(inspection):
    told = list(contents_objects(inspection)), list(contents_objects(inspection, everything=True))
    told += ([record_object(inspection, entry, dump=True) for entry in inspection.log],)
    told += (vcpu_objects(inspection, vcpu_ids(inspection)), rounds_object(inspection))
    return dumps(told)


@settings(max_examples=examples(20), deadline=None)
@given(mutated())
def test_no_change_of_bytes_is_beyond_showing(data):
    assert look(data, all_objects)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(mutated())
def test_no_change_of_bytes_is_beyond_showing_at_length(data):
    assert look(data, all_objects)
