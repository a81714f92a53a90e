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
from streams.opening import open_transport
from streams.wire import hvm
from streams.wire.framing import HVM_SAVE_HEADER, RecordType
from streams.wire.hvm_cpu import CPU_MSR
from streams.wire.hvm_entries import LAYOUTS
from streams.wire.hvm_names import SaveType
from streams.wire.hvm_timers import PIT

PVH = sorted(path.name for path in (ROOT / "sample_streams").glob("x417-pvh.*.zst"))

# Sizes of the structures of arch-x86/hvm/save.h, newest forms; those of variable length up to where that begins.
SIZES = {
    SaveType.END: 0,
    SaveType.HEADER: 24,
    SaveType.CPU: 1032,
    SaveType.PIC: 8,
    SaveType.IOAPIC: 400,
    SaveType.LAPIC: 32,
    SaveType.LAPIC_REGS: 1024,
    SaveType.PCI_IRQ: 16,
    SaveType.ISA_IRQ: 8,
    SaveType.PCI_LINK: 8,
    SaveType.PIT: 56,
    SaveType.RTC: 24,
    SaveType.HPET: 1048,
    SaveType.PMTIMER: 8,
    SaveType.MTRR: 240,
    SaveType.VIRIDIAN_DOMAIN: 32,
    SaveType.CPU_XSAVE: 600,
    SaveType.VIRIDIAN_VCPU: 216,
    SaveType.VMCE_VCPU: 32,
    SaveType.TSC_ADJUST: 8,
    SaveType.CPU_MSR: 8,
}
# Offset and size of fields of the same, as the headers compile.
PLACES = [
    *[("HEADER", *place) for place in [("magic", 0, 4), ("version", 4, 4), ("changeset", 8, 8), ("cpuid", 16, 4)]],
    ("HEADER", "gtsc_khz", 20, 4),
    *[("CPU", *place) for place in [("fpu_regs", 0, 512), ("rax", 512, 8), ("rip", 640, 8), ("cr0", 656, 8)]],
    *[("CPU", *place) for place in [("cr3", 672, 8), ("cr4", 680, 8), ("dr7", 728, 8), ("cs_sel", 736, 4)]],
    *[("CPU", *place) for place in [("cs_limit", 768, 4), ("idtr_limit", 800, 4), ("gdtr_limit", 804, 4)]],
    *[("CPU", *place) for place in [("cs_base", 808, 8), ("idtr_base", 872, 8), ("gdtr_base", 880, 8)]],
    *[("CPU", *place) for place in [("cs_arbytes", 888, 4), ("sysenter_cs", 920, 8), ("shadow_gs", 944, 8)]],
    *[("CPU", *place) for place in [("msr_flags", 952, 8), ("msr_efer", 992, 8), ("msr_tsc_aux", 1000, 8)]],
    *[("CPU", *place) for place in [("tsc", 1008, 8), ("pending_event", 1016, 4), ("error_code", 1020, 4)]],
    *[("CPU", *place) for place in [("flags", 1024, 4), ("pad0", 1028, 4)]],
    *[("PIC", *place) for place in [("irr", 0, 1), ("irq_base", 3, 1), ("elcr", 6, 1), ("int_output", 7, 1)]],
    *[("IOAPIC", *place) for place in [("base_address", 0, 8), ("ioregsel", 8, 4), ("id", 12, 4)]],
    ("IOAPIC", "redirtbl", 16, 384),
    *[("LAPIC", *place) for place in [("apic_base_msr", 0, 8), ("disabled", 8, 4), ("timer_divisor", 12, 4)]],
    *[("LAPIC", *place) for place in [("tdt_msr", 16, 8), ("pending_esr", 24, 4)]],
    ("LAPIC_REGS", "data", 0, 1024),
    ("PCI_LINK", "route", 0, 4),
    *[("PIT", *place) for place in [("channels", 0, 48), ("speaker_data_on", 48, 4), ("pad", 52, 4)]],
    *[("RTC", *place) for place in [("cmos_data", 0, 14), ("cmos_index", 14, 1), ("rtc_offset", 16, 8)]],
    *[("HPET", *place) for place in [("capability", 0, 8), ("config", 16, 8), ("isr", 32, 8), ("mc64", 240, 8)]],
    *[("HPET", *place) for place in [("timers", 256, 96), ("period", 1024, 24)]],
    *[("PMTIMER", *place) for place in [("tmr_val", 0, 4), ("pm1a_sts", 4, 2), ("pm1a_en", 6, 2)]],
    *[("MTRR", *place) for place in [("msr_pat_cr", 0, 8), ("msr_mtrr_var", 8, 128), ("msr_mtrr_fixed", 136, 88)]],
    *[("MTRR", *place) for place in [("msr_mtrr_cap", 224, 8), ("msr_mtrr_def_type", 232, 8)]],
    *[("VIRIDIAN_DOMAIN", *place) for place in [("hypercall_gpa", 0, 8), ("guest_os_id", 8, 8)]],
    *[("VIRIDIAN_DOMAIN", *place) for place in [("time_ref_count", 16, 8), ("reference_tsc", 24, 8)]],
    *[("VIRIDIAN_VCPU", *place) for place in [("vp_assist_msr", 0, 8), ("apic_assist_pending", 8, 1)]],
    *[("VIRIDIAN_VCPU", *place) for place in [("simp_msr", 16, 8), ("sint_msr", 24, 128)]],
    *[("VIRIDIAN_VCPU", *place) for place in [("stimer_config_msr", 152, 32), ("stimer_count_msr", 184, 32)]],
    *[("VMCE_VCPU", *place) for place in [("caps", 0, 8), ("mci_ctl2_bank0", 8, 8), ("mci_ctl2_bank1", 16, 8)]],
    ("VMCE_VCPU", "mcg_ext_ctl", 24, 8),
    *[("CPU_XSAVE", *place) for place in [("xfeature_mask", 0, 8), ("xcr0", 8, 8), ("xcr0_accum", 16, 8)]],
    *[("CPU_XSAVE", *place) for place in [("fxsave", 24, 512), ("xstate_bv", 536, 8)]],
]
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
    assert set(hvm.LAYOUTS) == set(LAYOUTS) == set(SaveType) == SIZES.keys()


@pytest.mark.parametrize("kind", SIZES, ids=lambda kind: kind.name)
def test_layout_has_the_size_of_its_structure(kind):
    assert LAYOUTS[kind].size == SIZES[kind]
    assert kind in VARIABLE or hvm.LAYOUTS[kind].sizeof() == SIZES[kind]


def test_what_varies_begins_behind_the_smallest_area_and_the_count():
    assert LAYOUTS[SaveType.CPU_XSAVE].size == 24 + 576
    assert (LAYOUTS[SaveType.CPU_MSR].size, CPU_MSR.size) == (8, 16)


@pytest.mark.parametrize("length", hvm.OLD_CPU)
def test_older_cpu_entries_have_the_size_they_go_by(length):
    assert hvm.OLD_CPU[length].sizeof() == length


def test_older_cpu_entries_are_those_before_tsc_aux_and_before_the_flags():
    assert tuple(hvm.OLD_CPU) == (1016, 1024)


@pytest.mark.parametrize(("kind", "name", "offset", "size"), PLACES)
def test_field_lies_where_the_public_headers_put_it(kind, name, offset, size):
    layout = LAYOUTS[SaveType[kind]]
    assert (layout.offset(name), layout.field(name).size) == (offset, size)


@pytest.mark.parametrize(
    ("name", "offset", "size"),
    [
        *[("count", 0, 4), ("latched_count", 4, 2), ("count_latched", 6, 1), ("read_state", 9, 1)],
        *[("write_state", 10, 1), ("rw_mode", 12, 1), ("mode", 13, 1), ("bcd", 14, 1), ("gate", 15, 1)],
    ],
)
def test_field_of_a_pit_channel_lies_where_the_public_headers_put_it(name, offset, size):
    assert PIT.offset("channels", 2, name) == 32 + offset
    assert PIT.field("channels").element.field(name).size == size


@pytest.mark.parametrize("kind", SIZES, ids=lambda kind: kind.name)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_any_body_packs_back_as_it_was(kind, data):
    layout, body = LAYOUTS[kind], data.draw(st.binary(min_size=SIZES[kind], max_size=SIZES[kind]))
    assert layout.pack(layout.read(body)) == body


@pytest.mark.parametrize("kind", sorted(SIZES.keys() - VARIABLE), ids=lambda kind: SaveType(kind).name)
@given(data=st.data())
@settings(max_examples=3, deadline=None)
def test_construct_reads_and_builds_every_field_alike(kind, data):
    body = data.draw(st.binary(min_size=SIZES[kind], max_size=SIZES[kind]))
    parsed = hvm.LAYOUTS[kind].parse(body)
    assert plain(parsed) == plain(LAYOUTS[kind].read(body)._asdict())
    assert hvm.LAYOUTS[kind].build(parsed) == body


def plain(value):
    """Structures as dicts and lists, whatever made them."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if name != "_io"}
    return list(map(plain, value)) if isinstance(value, list | tuple) else value


@given(st.binary(max_size=64))
@settings(max_examples=20, deadline=None)
def test_any_xsave_area_builds_back_as_it_was(tail):
    xsave = entry(SaveType.CPU_XSAVE, noise(600) + tail)
    assert xsave.parse().components == tail
    assert xsave.build(xsave.parse()) == xsave


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=5), st.binary(max_size=15))
@settings(max_examples=20, deadline=None)
def test_any_list_of_msrs_builds_back_as_it_was(msrs, excess):
    listed = entry(SaveType.CPU_MSR, len(msrs).to_bytes(4, "little") + b"\xff\0\0\x01" + b"".join(msrs) + excess)
    assert len(listed.parse().msrs) == len(msrs)
    assert listed.build(listed.parse()) == listed


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
    for read in (entry(77, b"abc").parse, entry(77, b"abc").read):
        with pytest.raises(ValueError, match="entry type 77"):
            read()
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
    assert vmce.read() == (0x109, 0, 0, 0)
    fields.caps = 0x103
    assert vmce.build(fields).body == (0x103).to_bytes(8, "little")


def test_bytes_beyond_the_layout_survive_an_edit():
    lapic = entry(SaveType.LAPIC, noise(40))
    fields = lapic.parse()
    fields.timer_divisor = 4
    edited = lapic.build(fields)
    assert edited.body[32:] == noise(40)[32:]
    assert (edited.length, edited.parse().timer_divisor) == (40, 4)


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
    used = "d(bytes(99)); HvmEntry(2, 0, 4, 0, bytes(4)).read()"
    code = f"import sys; from streams.hvm_context import HvmEntry, decode_context as d; {used}; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_an_xsave_area_that_is_too_short_keeps_its_length():
    short = entry(SaveType.CPU_XSAVE, bytes(8))
    assert short.build(short.parse()) == short
