"""The entries of an HVM guest's context, field by field: what lies where, and what it means."""

import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspecting import check_fields, look
from project import SAMPLES

from migrate.building.builder import StreamBuilder
from migrate.inspection.records.shown import fields_of
from migrate.inspection.vcpus.states import vcpu_states
from streams.hvm_context import decode_context
from streams.wire.framing import HVM_SAVE_HEADER
from streams.wire.hvm_cpu import CPU, CPU_MSR, CPU_MSRS, MTRR, TSC_ADJUST, VMCE_VCPU, XSAVE, MtrrPair
from streams.wire.hvm_entries import LAYOUTS
from streams.wire.hvm_interrupts import IOAPIC, ISA_IRQ, LAPIC, PCI_IRQ, PCI_LINK, PIC
from streams.wire.hvm_names import LAST_SAVE_TYPE, SaveType
from streams.wire.hvm_timers import HPET, PIT, PMTIMER, RTC, HpetTimer, PitChannel
from streams.wire.hvm_viridian import VIRIDIAN_DOMAIN, VIRIDIAN_VCPU
from streams.wire.lapic import LAPIC_REGISTERS, LAPIC_VECTORS
from streams.wire.xstate import FXSAVE

# A full HVM guest of four vcpus with all devices and Viridian, saved by Xen 4.20.0.
GENUINE = Path(__file__).parent / "x4200-hvm.virall.libxc.zst"
GENUINE_ENTRIES = {
    **{"HEADER": [24], "CPU": [1032] * 4, "PIC": [8] * 2, "IOAPIC": [400], "LAPIC": [24] * 4},
    **{"LAPIC_REGS": [1024] * 4, "PCI_IRQ": [16], "ISA_IRQ": [8], "PCI_LINK": [8], "PIT": [56], "RTC": [24]},
    **{"HPET": [1048], "PMTIMER": [8], "MTRR": [240] * 4, "VIRIDIAN_DOMAIN": [32], "CPU_XSAVE": [2720] * 4},
    **{"VIRIDIAN_VCPU": [216] * 4, "VMCE_VCPU": [32] * 4, "TSC_ADJUST": [8] * 4, "END": [0]},
}
HEADER_FIELDS = ["typecode", "instance", "length"]


def packed(kind, body, instance=0, length=None):
    return HVM_SAVE_HEADER.pack(kind, instance, len(body) if length is None else length) + body


def stream(*entries, policy=()):
    """An HVM guest whose context has these entries behind HEADER and CPU."""
    b = StreamBuilder.hvm()
    b.cpuid_policy[:] = policy
    context = b.record("HVM_CONTEXT")
    header, cpu = (decode_context(bytes(context.body)).of(kind)[0] for kind in (SaveType.HEADER, SaveType.CPU))
    own = packed(SaveType.HEADER, header.body) + packed(SaveType.CPU, cpu.body)
    context.body = own + b"".join(entries) + packed(SaveType.END, b"")
    return b.build()


def context_of(inspection):
    return next(entry for entry in inspection.log if entry.name == "HVM_CONTEXT")


def fields(source, name, **options):
    """The fields of the first entry of a type, by name, without those of its header."""

    def question(inspection):
        check_fields(inspection, context_of(inspection))
        found = fields_of(inspection, context_of(inspection), **options)
        entry = next(field for field in found if field.name == f"{name} 0")
        assert [field.name for field in entry.fields[:3]] == HEADER_FIELDS
        return {field.name: field for field in entry.fields[3:]} | {"": entry}

    return look(source, question)


def meanings(kind, body, policy=()):
    """What each field of an entry means, those with parts of their own as lists."""
    found = fields(stream(packed(kind, body), policy=policy), kind.name)
    return {
        name: [part.meaning for part in field.fields] if field.fields and not field.meaning else field.meaning
        for name, field in found.items()
        if name
    }


def vcpu(source, number=0):
    return look(source, lambda i: next(vcpu_states(i, [number])))


def register(state, name):
    (found,) = [one for section in state.sections for one in section.registers if one.name == name]
    return found


# -- every type, every length -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", range(1, LAST_SAVE_TYPE + 2))
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_every_number_of_an_entry_of_any_length_stands_where_its_field_says(kind, data):
    newest = LAYOUTS[kind].size if kind in LAYOUTS else 8
    length = data.draw(st.integers(0, newest + 40) | st.just(newest))
    body = data.draw(st.binary(min_size=length, max_size=length) | st.just(bytes(length)))
    claimed = data.draw(st.sampled_from([length, length + 1, 0xFFFF_FFFF]))

    def question(inspection):
        found = check_fields(inspection, context_of(inspection))
        assert all(one.offset < other.offset for one, other in pairwise(found))

    look(stream(packed(kind, body, length=claimed)), question)


@pytest.mark.parametrize("kind", set(LAYOUTS) - {SaveType.HEADER, SaveType.END, SaveType.CPU_MSR, SaveType.CPU_XSAVE})
def test_the_fields_are_those_of_the_layout(kind):
    layout = LAYOUTS[kind]
    found = fields(stream(packed(kind, bytes(layout.size))), SaveType(kind).name)
    assert list(found)[:-1] == [field.name for field in layout.fields]


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        (SaveType.LAPIC, 24),
        (SaveType.LAPIC, 16),
        (SaveType.RTC, 16),
        (SaveType.VMCE_VCPU, 24),
        (SaveType.VMCE_VCPU, 8),
        (SaveType.VIRIDIAN_DOMAIN, 16),
        (SaveType.VIRIDIAN_VCPU, 16),
        (SaveType.VIRIDIAN_VCPU, 8),
    ],
)
def test_of_an_older_release_s_entry_the_fields_are_shown_that_it_has(kind, length):
    found = fields(stream(packed(kind, bytes(length))), kind.name)
    entry = found.pop("")
    assert list(found) == [field.name for field in LAYOUTS[kind].fields if field.offset < length]
    assert entry.meaning == f"{length} bytes, of {LAYOUTS[kind].size} in the newest form"


def test_what_an_entry_has_more_than_the_newest_form_is_shown_as_it_is():
    rest = fields(stream(packed(SaveType.LAPIC, bytes(32) + b"12345678")), "LAPIC")["rest"]
    assert (rest.value, rest.meaning) == (b"12345678", "8 bytes more than the newest form known")


def test_the_pending_error_of_a_newer_apic_is_a_field():
    newer = LAPIC.pack(LAPIC.read(b"")._replace(pending_esr=0x40))
    assert fields(stream(packed(SaveType.LAPIC, newer)), "LAPIC")["pending_esr"].value == 0x40


def test_an_entry_that_the_context_ends_in_says_so():
    b = StreamBuilder.hvm()
    record = b.record("HVM_CONTEXT")
    record.body = packed(SaveType.HEADER, bytes(24)) + packed(SaveType.MTRR, bytes(20), length=240)
    found = fields(b.build(), "MTRR")
    assert found[""].meaning == "240 bytes, of which 20 are there"
    assert list(found)[:-1] == ["msr_pat_cr", "msr_mtrr_var"]
    assert (found["msr_mtrr_var"].value, found["msr_mtrr_var"].meaning) == (bytes(12), "cut")


def test_an_entry_of_no_known_type_is_shown_as_it_is():
    assert fields(stream(packed(33, b"opaque")), "33")["content"].value == b"opaque"


def test_of_a_list_of_msrs_that_is_shorter_than_its_count_those_are_shown_that_are_there():
    body = CPU_MSRS.pack(CPU_MSRS.read(b"")._replace(count=1 << 31)) + CPU_MSR.pack(CPU_MSR.kind(0xDA0, 0, 5))
    found = fields(stream(packed(SaveType.CPU_MSR, body)), "CPU_MSR")["msrs"]
    assert [field.meaning for field in found.fields] == ["XSS = 0x5"]
    assert [part.name for part in found.fields[0].fields] == ["index", "reserved", "value"]


# -- what the fields mean -----------------------------------------------------------------------------------


def test_a_cpu_entry_says_its_control_registers_segments_and_event():
    cpu = CPU.read(b"")._replace(
        cr0=0x8001_0011, cr4=0x20, msr_efer=0xD01, rflags=0x202, cs_arbytes=0xA9B, ds_arbytes=0xC93, tr_arbytes=0x8B
    )
    cpu = cpu._replace(ss_arbytes=0xCF3, es_arbytes=0x10000, pending_event=0x8000_0B0E, error_code=2, flags=1)
    b = StreamBuilder.hvm()
    body = packed(SaveType.HEADER, bytes(24)) + packed(SaveType.CPU, CPU.pack(cpu)) + packed(SaveType.END, b"")
    b.record("HVM_CONTEXT").body = body
    found = {name: field.meaning for name, field in fields(b.build(), "CPU").items()}
    assert (found["cr0"], found["cr4"], found["msr_efer"]) == ("pe et wp pg", "pae", "sce lme lma nx")
    assert found["rflags"] == "if"
    assert (found["cs_arbytes"], found["ds_arbytes"]) == ("64-bit code, ring 0", "data, ring 0")
    assert (found["ss_arbytes"], found["tr_arbytes"]) == ("data, ring 3", "system, type 11")
    assert found["es_arbytes"] == "not present"
    assert found["pending_event"] == "hardware exception, vector 14, error code"
    assert found["flags"] == "fpu_used"


def test_the_header_says_which_processor_saved_it():
    found = fields(StreamBuilder.hvm().build(), "HEADER")
    assert found["cpuid"].meaning == "family 0xf, model 0x6b, stepping 0x1"
    assert (found["magic"].value, found["changeset"].meaning) == (0x5438_1286, "not known")


def test_a_pic_says_its_lines_and_modes():
    pic = PIC.read(b"")._replace(irr=0x04, imr=0xFA, init_state_and_priority=0x21, modes=0x45, elcr=0x0C)
    found = meanings(SaveType.PIC, PIC.pack(pic))
    assert (found["irr"], found["imr"], found["isr"]) == ("line 2", "lines 1, 3-7", "")
    assert found["init_state_and_priority"] == "init state 1, priority 2"
    assert (found["modes"], found["elcr"]) == ("read_isr auto_eoi is_master", "lines 2-3 by level")


def test_an_ioapic_says_where_each_pin_goes():
    pins = [0x10000] * 48
    pins[2] = 0x0300_0000_0000_A939  # vector 57, lowest priority, logical, active low, level, to 3
    found = fields(stream(packed(SaveType.IOAPIC, IOAPIC.pack(IOAPIC.kind(0xFEC0_0000, 0, 2, tuple(pins))))), "IOAPIC")
    entries = found["redirtbl"].fields
    assert entries[2].meaning == "vector 57, lowest priority, logical, active low, level, to 0x3"
    assert {entry.meaning for entry in entries[3:]} == {"vector 0, masked, to 0x0"}
    assert len(entries) == 48


def test_an_apic_says_its_base_and_why_it_is_off():
    found = meanings(SaveType.LAPIC, LAPIC.pack(LAPIC.read(b"")._replace(apic_base_msr=0xFEE0_0D00, disabled=3)))
    assert found["apic_base_msr"] == "bsp x2apic enabled, at 0xfee00000"
    assert found["disabled"] == "hardware software"


def lapic_page(**registers):
    page = bytearray(1024)
    for name, value in registers.items():
        offset = LAPIC_REGISTERS[name] if name in LAPIC_REGISTERS else int(name.removeprefix("at_"), 16)
        struct.pack_into("<I", page, offset, value)
    return page


def test_the_registers_of_an_apic_have_their_names_and_say_what_they_mean():
    page = lapic_page(
        id=0x0300_0000, version=0x5_0014, svr=0x1FF, lvt_timer=0x2_0030, lvt_lint0=0x1_0700, timer_divide=0xA
    )
    found = fields(stream(packed(SaveType.LAPIC_REGS, bytes(page))), "LAPIC_REGS")["data"].fields
    said = {field.name: field.meaning for field in found}
    assert said.keys() == LAPIC_REGISTERS.keys() | LAPIC_VECTORS.keys()
    assert (said["id"], said["version"]) == ("0x3", "version 0x14, 6 local vectors")
    assert said["svr"] == "vector 255, enabled"
    assert said["lvt_timer"] == "vector 48, periodic"
    assert said["lvt_lint0"] == "vector 0, extint, masked"
    assert said["timer_divide"] == "by 128"
    assert [field.offset for field in found] == sorted(field.offset for field in found)


def test_interrupts_that_wait_in_an_apic_go_by_their_vectors():
    page = lapic_page(at_0x210=1 << 16 | 1 << 17, at_0x270=1 << 31)  # vectors 48, 49 and 255 of the request register
    found = fields(stream(packed(SaveType.LAPIC_REGS, bytes(page))), "LAPIC_REGS")["data"].fields
    irr = next(field for field in found if field.name == "irr")
    assert (irr.meaning, irr.value) == ("vectors 48-49, 255", (0, 3 << 16, 0, 0, 0, 0, 0, 1 << 31))


def test_registers_of_an_apic_without_a_name_are_shown_where_they_hold_something():
    page = lapic_page(at_0x3f0=7)
    page[0x84] = 1  # between two registers
    found = fields(stream(packed(SaveType.LAPIC_REGS, bytes(page))), "LAPIC_REGS")["data"].fields
    named = {field.name: field for field in found}
    assert named["0x3f0"].value == 7
    assert (named["tpr"].value, named["tpr"].meaning) == (b"\0\0\0\0\1" + bytes(11), "more than registers")


def test_interrupt_lines_go_by_number_and_those_of_pci_by_device():
    lines = 1 << (3 * 4 + 2) | 1 << (17 * 4)
    pci = PCI_IRQ.pack(PCI_IRQ.kind((lines & (1 << 64) - 1, lines >> 64)))
    assert meanings(SaveType.PCI_IRQ, pci)["lines"] == "device 3 INTC, device 17 INTA"
    assert meanings(SaveType.ISA_IRQ, ISA_IRQ.pack(ISA_IRQ.kind(0x4003)))["lines"] == "lines 0-1, 14"
    links = PCI_LINK.pack(PCI_LINK.kind((5, 10, 0, 11), bytes(4)))
    assert meanings(SaveType.PCI_LINK, links)["route"] == [
        *("link A to line 5", "link B to line 10", "link C off", "link D to line 11")
    ]


def test_a_pit_says_how_each_counter_counts():
    channel = PitChannel(65536, 0, 0, 0, 0, 0, 0, 0, 3, 2, 0, 1)
    pit = PIT.pack(PIT.kind((channel, channel._replace(mode=0, rw_mode=1), channel._replace(mode=3)), 1, bytes(4)))
    channels = fields(stream(packed(SaveType.PIT, pit)), "PIT")["channels"].fields
    said = [{part.name: part.meaning for part in channel.fields} for channel in channels]
    assert [one["mode"] for one in said] == ["rate generator", "interrupt on terminal count", "square wave"]
    assert [one["rw_mode"] for one in said] == ["low byte, then high byte", "low byte", "low byte, then high byte"]


@pytest.mark.parametrize(
    ("cmos", "time"),
    [
        ("33 30 29 00 18 59 03 25 11 26 2f 02 10 80", "26-11-25 18:29:33"),
        ("33 30 29 00 86 59 03 25 11 26 2f 00 10 80", "26-11-25 18:29:33"),  # 12 hours, afternoon
        ("33 30 29 00 12 59 03 25 11 26 2f 00 10 80", "26-11-25 00:29:33"),  # 12 hours, midnight
        ("21 30 1d 00 12 59 03 19 0b 1a 2f 06 10 80", "26-11-25 18:29:33"),  # binary
        ("3f 30 29 00 18 59 03 25 11 26 2f 02 10 80", ""),  # no decimal digit
    ],
)
def test_an_rtc_says_the_time_and_what_each_byte_is(cmos, time):
    body = bytes.fromhex(cmos) + struct.pack("<BBq", 0x0B, 0, -3600)
    found = fields(stream(packed(SaveType.RTC, body)), "RTC")
    assert found["cmos_data"].meaning == time
    assert [part.name for part in found["cmos_data"].fields[-4:]] == ["reg_a", "reg_b", "reg_c", "reg_d"]
    assert (found["cmos_index"].value, found["rtc_offset"].value) == (0x0B, -3600)
    assert RTC.read(body).rtc_offset == -3600


def test_an_hpet_says_its_tick_and_where_each_timer_goes():
    timers = (
        HpetTimer(0xF0_0000_0000_2834, 1, 0, 0),
        HpetTimer(0xF0_0000_0000_2A3E, 2, 0, 0),
        HpetTimer(0x30, 3, 0, 0),
    )
    hpet = HPET.read(b"")._replace(capability=0xF42400_8086A201, config=3, isr=2, timers=timers)
    found = fields(stream(packed(SaveType.HPET, HPET.pack(hpet))), "HPET")
    assert found["capability"].meaning == "3 timers, a tick every 16000000 fs"
    assert (found["config"].meaning, found["isr"].meaning) == ("enabled legacy_routes", "timer 1")
    assert [timer.fields[0].meaning for timer in found["timers"].fields] == [
        "enabled can_be_periodic can_be_64_bit, line 20, may have lines 20-23",
        "level enabled periodic can_be_periodic can_be_64_bit, line 21, may have lines 20-23",
        "can_be_periodic can_be_64_bit, line 0, may have no line",
    ]


def test_a_pm_timer_says_its_events():
    found = meanings(SaveType.PMTIMER, PMTIMER.pack(PMTIMER.kind(5, 0x8001, 0x0120)))
    assert (found["pm1a_sts"], found["pm1a_en"]) == ("timer wake", "global power_button")


def mtrr():
    pairs = (
        MtrrPair(0xF000_0000, 0xFF_F000_0800),
        MtrrPair(0x1_0000_0006, 0xFF_0000_0800),
        MtrrPair(5, 0xFF_F000_0000),
    )
    pairs += (MtrrPair(0, 0xFF_5000_0800), *[MtrrPair(0, 0)] * 4)
    fixed = (0x0606060606060606, 0x0606060606060606, 0, 0x0505050505050501, *[0] * 7)
    return MTRR.pack(MTRR.kind(0x0007040600070406, pairs, fixed, 0x508, 0xC06))


def test_mtrrs_say_which_addresses_have_which_type():
    found = meanings(SaveType.MTRR, mtrr())
    assert found["msr_pat_cr"] == "wb wt uc- uc wb wt uc- uc"
    assert found["msr_mtrr_var"][:4] == [
        "base 0xf0000000, mask 0xfff0000800: 0xf0000000..0xffffffff uc",
        "base 0x100000006, mask 0xff00000800: 0x100000000..0x1ffffffff wb",
        "base 0x5, mask 0xfff0000000",  # off
        "base 0x0, mask 0xff50000800",  # a mask with gaps
    ]
    assert found["msr_mtrr_fixed"][:4] == [
        *("0x0..0x7ffff all wb", "0x80000..0x9ffff all wb", "0xa0000..0xbffff all uc"),
        "0xc0000..0xc7fff wc wp wp wp wp wp wp wp",
    ]
    assert found["msr_mtrr_fixed"][10] == "0xf8000..0xfffff all uc"
    assert (found["msr_mtrr_cap"], found["msr_mtrr_def_type"]) == ("8 ranges, fixed wc", "wb, fixed_enabled enabled")


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (0, "not said"),
        (0x8100_0001_0601_0000, "Linux, version 0x10601"),
        (0x0001_0406_0301_2580, "Windows NT 6.3, service pack 1, build 9600"),
        (0x0002_0500_0000_0000, "vendor 0x2, system 0x5 0.0, service pack 0, build 0"),
    ],
)
def test_viridian_says_which_system_the_guest_is(number, meaning):
    domain = VIRIDIAN_DOMAIN.pack(VIRIDIAN_DOMAIN.kind(0x11_0001, number, 5, 0x11_8000))
    found = meanings(SaveType.VIRIDIAN_DOMAIN, domain)
    assert (found["hypercall_gpa"], found["reference_tsc"]) == ("enabled, pfn 0x110", "off")
    assert found["guest_os_id"] == meaning


def viridian_vcpu():
    sints = (0x1_00F0, 0x2_0033, *[0x1_0000] * 14)
    state = VIRIDIAN_VCPU.read(b"")._replace(simp_msr=0x11_9001, sint_msr=sints)
    return VIRIDIAN_VCPU.pack(
        state._replace(stimer_config_msr=(0x1_0009, 0x1031, 0, 0), stimer_count_msr=(10_000_000, 7, 0, 0))
    )


def test_viridian_says_what_interrupts_a_vcpu():
    found = meanings(SaveType.VIRIDIAN_VCPU, viridian_vcpu())
    assert (found["vp_assist_msr"], found["simp_msr"]) == ("", "enabled, pfn 0x119")
    assert found["sint_msr"][:3] == ["vector 240, masked", "vector 51, auto_eoi", "vector 0, masked"]
    assert found["stimer_config_msr"] == ["enabled auto_enable, interrupt 1", "enabled direct, vector 3", "off", "off"]


def test_machine_checks_say_their_capabilities():
    caps = VMCE_VCPU.pack(VMCE_VCPU.kind(0x100_0C02, 0, 0, 0))
    assert meanings(SaveType.VMCE_VCPU, caps)["caps"] == "2 banks, cmci_p tes_p ser_p"


def test_the_msrs_of_a_vcpu_go_by_their_names():
    body = CPU_MSRS.pack(CPU_MSRS.read(b"")._replace(count=2))
    body += CPU_MSR.pack(CPU_MSR.kind(0x48, 0, 1)) + CPU_MSR.pack(CPU_MSR.kind(0x1234, 0, 2))
    assert meanings(SaveType.CPU_MSR, body)["msrs"] == ["SPEC_CTRL = 0x1", "0x1234 = 0x2"]


def xsave(accum, components):
    head = XSAVE.kind(accum, accum, accum, FXSAVE.read(b""), accum, 0, bytes(48))
    return XSAVE.pack(head) + components


def test_avx_state_lies_in_the_same_place_on_every_processor():
    high = b"".join(bytes([number] * 16) for number in range(16))
    found = fields(stream(packed(SaveType.CPU_XSAVE, xsave(7, high))), "CPU_XSAVE")
    assert found["xcr0_accum"].meaning == "x87 sse avx"
    assert [part.value for part in found["avx"].fields] == [bytes([number] * 16) for number in range(16)]


def test_other_components_lie_where_the_guest_s_policy_says():
    leaf = {"leaf": 0xD, "subleaf": 9, "a": 8, "b": 2688, "c": 0, "d": 0}
    body = xsave(0x203, bytes(2112) + b"\x54\x55\x55\x55\0\0\0\0")
    found = fields(stream(packed(SaveType.CPU_XSAVE, body), policy=[leaf]), "CPU_XSAVE")
    assert (found["gap"].value, found["pkru"].value) == (bytes(2112), b"\x54\x55\x55\x55\0\0\0\0")
    unplaced = fields(stream(packed(SaveType.CPU_XSAVE, body)), "CPU_XSAVE")
    assert "pkru" not in unplaced
    assert unplaced["components"].value == body[600:]


@given(
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 0xFFFF_FFFF), st.integers(0, 0xFFFF_FFFF)), max_size=6),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 400),
)
@settings(max_examples=30, deadline=None)
def test_a_policy_that_lies_about_components_moves_no_number(claims, accum, room):
    leaves = [
        dict(zip(("leaf", "subleaf", "a", "b", "c", "d"), (0xD, bit, size, offset, 0, 0), strict=True))
        for bit, size, offset in claims
    ]
    source = stream(packed(SaveType.CPU_XSAVE, xsave(accum, bytes(range(100)) * 4)[: 600 + room]), policy=leaves)
    assert fields(source, "CPU_XSAVE")["xcr0_accum"].value == accum


# -- a genuine guest -----------------------------------------------------------------------------------------


def test_every_number_of_a_genuine_context_stands_where_its_field_says():
    def question(inspection):
        found = check_fields(inspection, context_of(inspection))
        assert all(one.offset < other.offset for one, other in pairwise(found))
        return fields_of(inspection, context_of(inspection))

    entries = {}
    for entry in look(GENUINE, question):
        name = entry.name.split()[0]
        entries.setdefault(name, []).append(entry.fields[2].value)
    assert entries == GENUINE_ENTRIES


def test_a_genuine_context_leaves_nothing_without_a_name():
    def question(inspection):
        entries = fields_of(inspection, context_of(inspection), everything=True)
        return {part.name for entry in entries for part in entry.fields}

    assert not look(GENUINE, question) & {"rest", "content", "components"}


def test_a_genuine_vcpu_has_all_that_the_context_says_of_it():
    state = vcpu(GENUINE, 3)
    assert [section.name for section in state.sections][-8:] == [
        *("lapic", "lapic registers", "lapic vectors", "mtrr", "xsave", "viridian", "mce", "time"),
    ]
    assert register(state, "base0").meaning == "0xf0000000..0xffffffff uc"
    assert register(state, "xcr0_accum").flags == ("x87", "sse", "pkru")


def test_a_genuine_apic_is_off_in_the_way_that_its_own_registers_say():
    state = vcpu(SAMPLES / "x417-pvh.xl.zst")
    assert register(state, "svr").meaning == "vector 255"  # without "enabled", which software sets
    assert register(state, "apic_base").flags == ("bsp", "enabled")  # which is the hardware's
    assert register(state, "disabled").meaning == "software"


# -- vcpus ---------------------------------------------------------------------------------------------------


def test_a_vcpu_says_what_its_entries_beside_cpu_say():
    page = lapic_page(version=0x5_0014, lvt_error=0x35)
    struct.pack_into("<I", page, LAPIC_VECTORS["isr"] + 0x10, 1 << 1)
    state = vcpu(
        stream(
            packed(SaveType.LAPIC, LAPIC.pack(LAPIC.read(b"")._replace(apic_base_msr=0xFEE0_0900))),
            packed(SaveType.LAPIC_REGS, bytes(page)),
            packed(SaveType.MTRR, mtrr()),
            packed(SaveType.VIRIDIAN_VCPU, viridian_vcpu()),
            packed(SaveType.VMCE_VCPU, VMCE_VCPU.pack(VMCE_VCPU.kind(0x109, 1, 2, 3))),
            packed(SaveType.TSC_ADJUST, TSC_ADJUST.pack(TSC_ADJUST.kind(0x1234))),
        )
    )
    assert register(state, "apic_base").flags == ("bsp", "enabled")
    assert register(state, "lvt_error").meaning == "vector 53"
    assert (register(state, "isr").value, register(state, "isr").meaning) == (1, "vector 33")
    assert register(state, "base1").meaning == "0x100000000..0x1ffffffff wb"
    assert register(state, "sint1").meaning == "vector 51, auto_eoi"
    assert register(state, "stimer0").parts == {"count": 10_000_000}
    assert register(state, "caps").meaning == "9 banks, ctl_p"
    assert register(state, "tsc_adjust").value == 0x1234
    assert state.notes == ()
    # Off, or as a vcpu starts.
    names = {one.name for section in state.sections for one in section.registers}
    assert not names & {"base2", "sint2", "stimer3"}
