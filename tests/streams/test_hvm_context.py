"""The HVM context: layouts of all its entries, decoding, and encoding back byte for byte."""

import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT

from streams.decoder import drive
from streams.encoder import Recorder
from streams.hvm_context import HvmEntry, HvmState, decode_context, encode_context, entries
from streams.transports import open_transport
from streams.wire import hvm, hvm_names
from streams.wire.framing import HVM_SAVE_HEADER, RecordType
from streams.wire.hvm_names import CPU_CONTROL, ENTRIES, CpuControl, SaveType

PVH = sorted(path.name for path in (ROOT / "sample_streams").glob("x417-pvh.*.zst"))

# Sizes of the structures of arch-x86/hvm/save.h.
SIZES = {
    SaveType.END: 0,
    SaveType.HEADER: 24,
    SaveType.CPU: 1032,
    SaveType.PIC: 8,
    SaveType.IOAPIC: 400,
    SaveType.LAPIC: 24,
    SaveType.LAPIC_REGS: 1024,
    SaveType.PCI_IRQ: 16,
    SaveType.ISA_IRQ: 8,
    SaveType.PCI_LINK: 8,
    SaveType.PIT: 56,
    SaveType.RTC: 16,
    SaveType.HPET: 1048,
    SaveType.PMTIMER: 8,
    SaveType.MTRR: 240,
    SaveType.VIRIDIAN_DOMAIN: 32,
    SaveType.VIRIDIAN_VCPU: 216,
    SaveType.VMCE_VCPU: 32,
    SaveType.TSC_ADJUST: 8,
}
VARIABLE = {SaveType.CPU_XSAVE, SaveType.CPU_MSR}

# What Xen 4.17 saved of a PVH guest of one vcpu that uses no extended state.
PVH_ENTRIES = [
    ("HEADER", 24),
    ("CPU", 1032),
    ("LAPIC", 24),
    ("LAPIC_REGS", 1024),
    ("PCI_IRQ", 16),
    ("ISA_IRQ", 8),
    ("PCI_LINK", 8),
    ("MTRR", 240),
    ("VMCE_VCPU", 32),
    ("TSC_ADJUST", 8),
    ("END", 0),
]


@cache
def genuine(name: str) -> bytes:
    recorder = Recorder()
    with open_transport(ROOT / "sample_streams" / name) as transport:
        drive(recorder.run(), transport)
    contexts = [item for item in recorder.items if getattr(item, "type", None) == RecordType.HVM_CONTEXT]
    return contexts[-1].content


def packed(typecode: int, body: bytes = b"", instance: int = 0, length: int | None = None) -> bytes:
    return HVM_SAVE_HEADER.pack(typecode, instance, len(body) if length is None else length) + body


def entry(typecode: int, body: bytes) -> HvmEntry:
    return HvmEntry(typecode, 0, len(body), 0, body)


def noise(size: int) -> bytes:
    return bytes(7 * i + 3 & 0xFF for i in range(size))


# -- layouts ----------------------------------------------------------------------------------------


def test_every_type_has_a_layout_and_a_length():
    assert set(hvm.LAYOUTS) == set(ENTRIES) == set(SaveType) == SIZES.keys() | VARIABLE


@pytest.mark.parametrize("kind", SIZES, ids=lambda kind: kind.name)
def test_layout_has_the_size_of_its_structure(kind):
    assert hvm.LAYOUTS[kind].sizeof() == SIZES[kind]
    assert ENTRIES[kind].length == SIZES[kind]


def test_least_lengths_are_those_of_the_smallest_area_and_of_one_msr():
    assert ENTRIES[SaveType.CPU_XSAVE].length == 24 + 576
    assert ENTRIES[SaveType.CPU_MSR].length == 8 + 16


@pytest.mark.parametrize("length", hvm.OLD_CPU)
def test_older_cpu_entries_have_the_size_they_go_by(length):
    assert hvm.OLD_CPU[length].sizeof() == length


def test_older_cpu_entries_are_the_ones_known_by_length():
    assert tuple(hvm.OLD_CPU) == hvm_names.CPU_OLD_LENGTHS


@pytest.mark.parametrize(
    ("kind", "field", "offset"),
    [
        (SaveType.CPU, "rax", 512),
        (SaveType.CPU, "rip", 640),
        (SaveType.CPU, "cr0", 656),
        (SaveType.CPU, "cs_sel", 736),
        (SaveType.CPU, "msr_efer", 992),
        (SaveType.CPU, "flags", 1024),
        (SaveType.IOAPIC, "id", 12),
        (SaveType.LAPIC, "tdt_msr", 16),
        (SaveType.MTRR, "msr_mtrr_cap", 224),
        (SaveType.HPET, "mc64", 240),
        (SaveType.CPU_XSAVE, "xstate_bv", 24 + 512),
        (SaveType.VIRIDIAN_VCPU, "simp_msr", 16),
    ],
)
def test_field_lies_at_its_offset(kind, field, offset):
    body = bytearray(max(ENTRIES[kind].length, 24))
    body[offset] = 1
    assert entry(kind, bytes(body)).parse()[field] == 1


@pytest.mark.parametrize("field", CpuControl._fields)
def test_the_few_fields_read_without_construct_are_those_of_the_layout(field):
    name = {"efer": "msr_efer", "tsc_aux": "msr_tsc_aux", "pad": "pad0"}.get(field, field)
    body = noise(1032)
    assert getattr(CpuControl(*CPU_CONTROL.unpack(body)), field) == hvm.CPU.parse(body)[name]


def test_xsave_and_mtrr_read_without_construct_as_with_it():
    body = noise(600)
    parsed = hvm.XSAVE.parse(body)
    names = ("xfeature_mask", "xcr0", "xcr0_accum", "xstate_bv", "xcomp_bv", "reserved")
    assert hvm_names.XSAVE_CONTROL.unpack(body) == tuple(parsed[name] for name in names)
    body = noise(240)
    assert hvm_names.MTRR_CONTROL.unpack_from(body) == (hvm.MTRR.parse(body).msr_mtrr_cap,)


@pytest.mark.parametrize("kind", SIZES, ids=lambda kind: kind.name)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_any_body_builds_back_as_it_was(kind, data):
    layout, body = hvm.LAYOUTS[kind], data.draw(st.binary(min_size=SIZES[kind], max_size=SIZES[kind]))
    assert layout.build(layout.parse(body)) == body


@given(st.binary(max_size=64))
@settings(max_examples=20, deadline=None)
def test_any_xsave_area_builds_back_as_it_was(tail):
    body = noise(600) + tail
    assert hvm.XSAVE.build(hvm.XSAVE.parse(body)) == body


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=5), st.binary(max_size=15))
@settings(max_examples=20, deadline=None)
def test_any_list_of_msrs_builds_back_as_it_was(msrs, excess):
    body = len(msrs).to_bytes(4, "little") + b"\xff\0\0\x01" + b"".join(msrs) + excess
    parsed = hvm.CPU_MSR.parse(body)
    assert len(parsed.msrs) == len(msrs)
    assert hvm.CPU_MSR.build(parsed) == body


# -- genuine contexts -------------------------------------------------------------------------------


def test_there_are_four_genuine_contexts():
    assert len(PVH) == 4


@pytest.mark.parametrize("name", PVH)
def test_genuine_context_has_the_entries_that_xen_saves(name):
    state = decode_context(genuine(name))
    assert [(one.name, one.length) for one in state.entries] == PVH_ENTRIES
    assert {one.instance for one in state.entries} == {0}
    assert state.rest == b""


@pytest.mark.parametrize("name", PVH)
def test_genuine_context_encodes_back(name):
    body = genuine(name)
    assert encode_context(decode_context(body)) == body


@pytest.mark.parametrize("name", PVH)
def test_every_genuine_entry_parses_and_builds_back(name):
    for one in decode_context(genuine(name)).entries:
        assert one.build(one.parse()) == one


@pytest.mark.parametrize("name", PVH)
def test_genuine_vcpu_is_in_flat_protected_mode(name):
    cpu = decode_context(genuine(name)).of(SaveType.CPU)[0].parse()
    # A PVH guest starts so (protected mode, no paging, flat segments), and this one has stayed there.
    assert (cpu.cr0, cpu.cr3, cpu.cr4, cpu.msr_efer) == (0x11, 0, 0, 0)
    assert (cpu.cs_base, cpu.cs_limit, cpu.ds_base, cpu.ds_limit) == (0, 0xFFFF_FFFF, 0, 0xFFFF_FFFF)


@pytest.mark.parametrize("name", PVH)
def test_genuine_header_names_the_processor_of_its_host(name):
    header = decode_context(genuine(name)).entries[0].parse()
    assert (header.magic, header.version) == (0x5438_1286, 1)
    assert header.changeset == 2**64 - 1
    assert header.cpuid == 0x60FB1  # AMD, family 0xf, model 0x6b, stepping 1


@pytest.mark.parametrize("name", PVH)
def test_genuine_apic_is_enabled_at_its_usual_address(name):
    lapic = decode_context(genuine(name)).of(SaveType.LAPIC)[0].parse()
    assert lapic.apic_base_msr & 0xFFFF_F000 == 0xFEE0_0000
    assert lapic.apic_base_msr & 1 << 8  # the boot processor


# -- decoding ---------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_encode_back(body):
    assert encode_context(decode_context(body)) == body


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.binary(max_size=20)), max_size=6), st.binary())
@settings(max_examples=100, deadline=None)
def test_any_chain_encodes_back(chain, rest):
    body = b"".join(packed(kind, content, instance) for kind, instance, content in chain) + rest
    assert encode_context(decode_context(body)) == body


def test_unknown_type_is_kept():
    body = packed(1, noise(24)) + packed(77, b"abc", instance=5) + packed(0)
    unknown = decode_context(body).entries[1]
    assert (unknown.typecode, unknown.instance, unknown.body, unknown.name) == (77, 5, b"abc", "77")
    assert unknown.offset == 32


def test_unknown_type_has_no_fields():
    with pytest.raises(ValueError, match="entry type 77"):
        entry(77, b"abc").parse()
    with pytest.raises(ValueError, match="entry type 77"):
        entry(77, b"abc").build({})


def test_nothing_is_read_behind_end():
    state = decode_context(packed(1, noise(24)) + packed(0) + packed(2, noise(1032)))
    assert [one.name for one in state.entries] == ["HEADER", "END"]
    assert len(state.rest) == 8 + 1032


def test_entry_that_is_cut_short_is_the_last():
    body = packed(9, b"\x05\x0a\x0b\x05", length=8)
    state = decode_context(body)
    assert [one.cut for one in state.entries] == [True]
    assert state.rest == b""
    assert list(state.entries[0].parse().route) == [5, 10, 11, 5]


def test_claimed_length_takes_no_memory():
    found = next(entries(packed(2, b"x", length=0xFFFF_FFFF)))
    assert (found.length, found.body) == (0xFFFF_FFFF, b"x")


def test_bytes_that_are_no_entry_are_the_rest():
    assert decode_context(b"\1\0\0") == HvmState((), b"\1\0\0")


@pytest.mark.parametrize(("length", "aux"), [(1016, False), (1024, True), (1032, True)])
def test_length_tells_the_form_of_a_cpu_entry(length, aux):
    cpu = entry(SaveType.CPU, noise(length))
    assert ("msr_tsc_aux" in cpu.parse()) == aux
    assert cpu.build(cpu.parse()) == cpu


def test_short_entry_reads_as_if_zeros_followed():
    vmce = entry(SaveType.VMCE_VCPU, (0x109).to_bytes(8, "little"))
    fields = vmce.parse()
    assert (fields.caps, fields.mci_ctl2_bank0, fields.mcg_ext_ctl) == (0x109, 0, 0)
    fields.caps = 0x103
    assert vmce.build(fields).body == (0x103).to_bytes(8, "little")


def test_bytes_beyond_the_layout_survive_an_edit():
    lapic = entry(SaveType.LAPIC, noise(32))
    fields = lapic.parse()
    fields.timer_divisor = 4
    edited = lapic.build(fields)
    assert edited.body[24:] == noise(32)[24:]
    assert (edited.length, edited.parse().timer_divisor) == (32, 4)


def test_a_list_of_msrs_that_grows_makes_the_entry_longer():
    msrs = entry(SaveType.CPU_MSR, (1).to_bytes(8, "little") + noise(16))
    fields = msrs.parse()
    fields.msrs.append(fields.msrs[0])
    fields.count = 2
    assert msrs.build(fields).length == 8 + 2 * 16


def test_a_list_of_msrs_shorter_than_its_count_has_no_fields():
    with pytest.raises(ValueError, match="CPU_MSR 0: the body does not fit"):
        entry(SaveType.CPU_MSR, (1 << 31).to_bytes(8, "little") + noise(16)).parse()


def test_fields_that_do_not_fit_are_an_error():
    isa = entry(SaveType.ISA_IRQ, bytes(8))
    with pytest.raises(ValueError, match="ISA_IRQ 0"):
        isa.build({"lines": 1 << 64})


def test_damaged_header_is_kept_when_encoding():
    state = decode_context(packed(1, noise(24)) + packed(0))
    header = replace(state.entries[0], length=99)
    assert encode_context(replace(state, entries=(header,)))[4:8] == (99).to_bytes(4, "little")


def test_decoding_imports_neither_construct_nor_numpy():
    heavy = "{'construct', 'numpy'} & set(sys.modules)"
    code = f"import sys; from streams.hvm_context import decode_context as d; d(bytes(99)); print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_an_xsave_area_that_is_too_short_keeps_its_length():
    short = entry(SaveType.CPU_XSAVE, bytes(8))
    assert short.build(short.parse()) == short
