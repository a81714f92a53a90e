"""What Xen says to an HVM context's interrupt controllers, clocks, memory types, machine checks and Viridian."""

import pytest
from hvm_domains import ALL, found, policy, told

from migrate.building.hvm_contexts import PC, Hardware, edit, hvm_context, resize
from migrate.rules.declaring import RULES, Effect, Severity
from streams.wire.hvm_cpu import MTRR, MtrrPair
from streams.wire.hvm_names import SaveType
from streams.wire.hvm_timers import HPET, PIT


def with_entry(kind, instance=0, *, hardware=PC, **fields):
    """A context in which one entry has other fields."""
    body = bytearray(hvm_context(1, hardware))
    edit(body, kind, instance, **fields)
    return body


def said(kind, instance=0, *, release="4.20", promised=ALL, **fields):
    return found(with_entry(kind, instance, **fields), release, promised)


# -- interrupts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instance", "fields", "errno"),
    [
        (0, {"int_output": 2}, "EDOM"),
        (1, {"int_output": 255}, "EDOM"),
        (0, {"modes": 0}, "EINVAL"),
        (1, {"modes": 0x40}, "EINVAL"),
        (0, {"elcr": 1}, "EINVAL"),
        (0, {"elcr": 2}, "EINVAL"),
        (1, {"elcr": 0x20}, "EINVAL"),
        (1, {"elcr": 1}, "EINVAL"),
        (0, {"int_output": 1, "init_state_and_priority": 1}, "EINVAL"),
    ],
    ids=str,
)
def test_pic_that_no_pc_has_is_refused_from_4_19_on(instance, fields, errno):
    assert said(SaveType.PIC, instance, release="4.19", **fields) == [("HVM-16", errno)]
    assert said(SaveType.PIC, instance, release="4.18.6", **fields) == []


@pytest.mark.parametrize(
    ("instance", "fields"),
    [
        (0, {"elcr": 0xFC}),
        (1, {"elcr": 0xDE}),
        (0, {"int_output": 1}),
        (1, {"init_state_and_priority": 0xF}),
        (0, {"init_state_and_priority": 0xF0, "int_output": 1}),
        (0, {"irr": 255, "isr": 255, "imr": 0}),
        (1, {"modes": 0x3F}),
    ],
    ids=str,
)
def test_other_pics_are_taken(instance, fields):
    assert said(SaveType.PIC, instance, **fields) == []


def test_the_range_of_a_pics_output_comes_first():
    assert said(SaveType.PIC, int_output=2, modes=0, elcr=1)[0] == ("HVM-16", "EDOM")


@pytest.mark.parametrize(
    ("base", "refused"), [(0xFEE0_0400, 1), (0xFEE0_0C00, 0), (0xFEE0_0900, 0), (0, 0), (1 << 52, 0)]
)
@pytest.mark.parametrize("release", ["4.6", "4.17", "4.20"])
def test_x2apic_mode_needs_an_enabled_apic(base, refused, release):
    rules = [rule for rule, _ in said(SaveType.LAPIC, release=release, apic_base_msr=base)]
    assert rules.count("HVM-08") == refused


@pytest.mark.parametrize(
    ("route", "refused"), [((15, 0, 0, 15), 0), ((16, 0, 0, 0), 1), ((0, 0, 0, 255), 1), ((16, 0, 99, 0), 2)]
)
@pytest.mark.parametrize("release", ["4.17", "4.20"])
def test_a_link_goes_to_one_of_16_lines(route, refused, release):
    assert said(SaveType.PCI_LINK, release=release, route=route) == [("HVM-18", "EINVAL")] * refused


def test_padding_of_links_is_looked_at_from_4_19_on():
    assert [len(said(SaveType.PCI_LINK, release=release, pad=b"\0\0\0\1")) for release in ("4.18.6", "4.19")] == [0, 1]


# -- clocks -----------------------------------------------------------------------------------------


def with_channel(number, **fields):
    channels = list(PIT.read(b"").channels)
    channels = [channel._replace(gate=1) for channel in channels]
    channels[number] = channels[number]._replace(**fields)
    return {"channels": tuple(channels)}


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(
    ("field", "most"),
    [
        ("count", 0x10000),
        ("count_latched", 4),
        ("read_state", 4),
        ("write_state", 4),
        ("rw_mode", 3),
        ("gate", 1),
        ("bcd", 1),
    ],
)
def test_fields_of_a_pit_have_a_largest_value_from_4_19_on(number, field, most):
    assert said(SaveType.PIT, **with_channel(number, **{field: most})) == []
    more = with_channel(number, **{field: most + 1})
    assert said(SaveType.PIT, release="4.19", **more) == [("HVM-17", "EDOM")]
    assert said(SaveType.PIT, release="4.18.6", **more) == []


@pytest.mark.parametrize("field", ["mode", "status", "write_latch", "status_latched"])
def test_other_fields_of_a_pit_may_be_anything(field):
    assert said(SaveType.PIT, **with_channel(1, **{field: 255})) == []


@pytest.mark.parametrize(("number", "expected"), [(0, [("HVM-17", "EINVAL")]), (1, [("HVM-17", "EINVAL")]), (2, [])])
def test_the_gates_of_two_channels_are_open(number, expected):
    assert said(SaveType.PIT, **with_channel(number, gate=0)) == expected


@pytest.mark.parametrize("fields", [{"speaker_data_on": 2}, {"pad": b"\1\0\0\0"}], ids=str)
def test_the_rest_of_a_pit(fields):
    assert said(SaveType.PIT, **fields) == [("HVM-17", "EDOM")]
    assert said(SaveType.PIT, speaker_data_on=1) == []


ENABLED, LEVEL, ROUTE = 1 << 2, 1 << 1, 1 << 52


@pytest.mark.parametrize(
    ("on", "timer", "pending", "dies"),
    [
        (1, ENABLED, 0, True),
        (1, ENABLED | LEVEL, 0, True),
        (1, ENABLED | LEVEL, 1 << 2, False),
        (1, ENABLED, 1 << 2, True),
        (1, ENABLED | ROUTE, 0, False),
        (1, LEVEL, 0, False),
        (0, ENABLED, 0, False),
        (2**64 - 1, 0xFFFF_FFFF, 0, True),
    ],
)
def test_a_timer_that_runs_without_a_route_brings_a_debug_build_down(on, timer, pending, dies):
    idle = HPET.read(b"").timers[0]
    fields = {"config": on, "isr": pending, "timers": (idle, idle, idle._replace(config=timer))}
    assert said(SaveType.HPET, **fields) == [("HVM-23", None)] * dies
    assert said(SaveType.HPET, release="4.11.4", **fields)[1:] == said(SaveType.HPET, release="4.11.4")[1:]
    assert RULES["HVM-23"].effect.harms_host
    assert not RULES["HVM-23"].effect.fatal


# -- memory types -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("cap", "refused"), [(0x508, 0), (8, 0), (9, 1), (0x100, 0), (255, 1), (1 << 63 | 8, 0)])
def test_there_are_eight_variable_mtrrs(cap, refused):
    assert [errno for rule, errno in said(SaveType.MTRR, msr_mtrr_cap=cap) if rule == "HVM-09"] == ["EINVAL"] * refused


def test_older_releases_did_not_count_mtrrs():
    older, newer = (said(SaveType.MTRR, release=release, msr_mtrr_cap=9) for release in ("4.11.4", "4.12"))
    assert (("HVM-09", "EPERM") in older, ("HVM-09", "EPERM") in newer) == (False, True)


FIXED = MTRR.read(b"").msr_mtrr_fixed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"msr_pat_cr": 0x40}, "msr_pat_cr 0x40: Xen holds 0x7040600070406"),
        ({"msr_pat_cr": 0x7_0426_0007_0406}, "msr_pat_cr 0x7042600070406: Xen holds 0x7040600070406"),
        ({"msr_mtrr_def_type": 0x803}, "msr_mtrr_def_type 0x803: Xen holds 0x0"),
        ({"msr_mtrr_def_type": 1 << 12}, "msr_mtrr_def_type 0x1000: Xen holds 0x0"),
        ({"msr_mtrr_fixed": (*FIXED[:5], 0x20, *FIXED[6:])}, "msr_mtrr_fixed[5] 0x20: Xen holds 0x0"),
    ],
    ids=str,
)
def test_memory_types_that_there_are_not_are_dropped(fields, message):
    # As real ones held them.
    [one] = told(with_entry(SaveType.MTRR, **fields))
    assert (one.rule, one.message.partition("vcpu 0: ")[2]) == ("HVM-24", message)


@pytest.mark.parametrize("value", [0x7_0406_0007_0406, 0, 0x0001_0404_0506_0107])
def test_other_memory_types_are_fine(value):
    assert said(SaveType.MTRR, msr_pat_cr=value) == []


def test_the_first_variable_range_in_all_eight_is_how_xen_saves_it():
    strange = MtrrPair(0xF000_0003, 0x800)
    assert said(SaveType.MTRR, msr_mtrr_var=(strange,) * 8) == [("HVM-24", None)]
    plain = MtrrPair(0xF000_0000, 0xF_F000_0800)
    assert said(SaveType.MTRR, msr_mtrr_var=(plain,) * 8, msr_mtrr_cap=1) == []


@pytest.mark.parametrize(
    ("pair", "count", "notes"),
    [
        (MtrrPair(0, 0), 8, 0),
        (MtrrPair(0x1000_0006, 0xF_F000_0800), 8, 0),
        (MtrrPair(0x1000_0002, 0), 8, 1),
        (MtrrPair(0x1000_0100, 0), 8, 1),
        (MtrrPair(0, 0x400), 8, 1),
        (MtrrPair(1 << 40, 1 << 40), 8, 2),
        (MtrrPair(0x1000_0006, 0x800), 3, 1),
    ],
)
def test_another_variable_range_is_looked_at(pair, count, notes):
    ranges = (MtrrPair(0, 0x800),) * 3 + (pair,) + (MtrrPair(0, 0x800),) * 4
    assert said(SaveType.MTRR, msr_mtrr_var=ranges, msr_mtrr_cap=count) == [("HVM-24", None)] * notes


# -- machine checks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("caps", [0, 2, 0xFF, 0x1FF])
def test_every_host_takes_banks_and_their_control(caps):
    assert said(SaveType.VMCE_VCPU, caps=caps) == []


@pytest.mark.parametrize("bit", [9, 12, 23, 25, 26, 28, 63])
def test_no_host_takes_other_capabilities(bit):
    assert said(SaveType.VMCE_VCPU, caps=1 << bit) == [("HVM-20", "EINVAL")]
    assert said(SaveType.VMCE_VCPU, release="4.15", caps=1 << bit)[-1] == ("HVM-20", "EPERM")


@pytest.mark.parametrize("bit", [10, 11, 24, 27])
def test_hosts_of_intel_take_more(bit):
    body = with_entry(SaveType.VMCE_VCPU, caps=1 << bit)
    assert found(body, intel=True) == []
    assert found(body, intel=False) == [("HVM-20", "EINVAL")]
    [one] = told(body)
    assert (one.outcome, one.severity) == (Effect.HOST, Severity.WARNING)


def test_the_usual_capabilities_of_an_intel_source_are_no_warning():
    body = with_entry(SaveType.VMCE_VCPU, caps=0x100_0C02)
    for promised in (policy("sse", "fxsr", vendor="GenuineIntel"), None):
        assert [(one.outcome, one.severity) for one in told(body, promised=promised)] == [(Effect.HOST, Severity.INFO)]


# -- Viridian ---------------------------------------------------------------------------------------

VIRIDIAN = Hardware(viridian=True)
PAGE = 0x118 << 12


def vir(release, kind, *, has=(), viridian=True, **fields):
    body = with_entry(kind, hardware=VIRIDIAN, **fields)
    return told(body, release, viridian=viridian, has_frame=has.__contains__)


@pytest.mark.parametrize("viridian", [True, False, None])
def test_padding_is_looked_at_whether_the_guest_has_viridian_or_not(viridian):
    rules = [one.rule for one in vir("4.20", SaveType.VIRIDIAN_VCPU, viridian=viridian, pad=b"\1" + bytes(6))]
    assert "HVM-19" in rules


@pytest.mark.parametrize(
    ("kind", "field"), [(SaveType.VIRIDIAN_DOMAIN, "reference_tsc"), (SaveType.VIRIDIAN_VCPU, "simp_msr")]
)
def test_a_page_that_is_not_there_brings_the_host_down(kind, field):
    [one] = vir("4.20.1", kind, **{field: PAGE | 1})
    assert (one.rule, one.fatal, one.errno) == ("HVM-21", True, None)
    assert RULES["HVM-21"].effect.harms_host
    assert vir("4.20.1", kind, has={0x118}, **{field: PAGE | 1}) == []
    assert vir("4.20.1", kind, **{field: PAGE}) == []  # not in use


@pytest.mark.parametrize(
    ("release", "dies"),
    [
        ("4.13", True),
        ("4.16.7", True),
        ("4.17.5", True),
        ("4.17.6", False),
        ("4.18.5", True),
        ("4.18.6", False),
        ("4.19.3", True),
        ("4.19.4", False),
        ("4.20.1", True),
        ("4.20.2", False),
        ("4.21", False),
    ],
)
def test_fixed_releases_survive_it(release, dies):
    rules = [one.rule for one in vir(release, SaveType.VIRIDIAN_DOMAIN, reference_tsc=PAGE | 1)]
    assert ("HVM-21" in rules) == dies


@pytest.mark.parametrize("field", ["hypercall_gpa", "vp_assist_msr"])
def test_other_pages_are_only_logged(field):
    kind = SaveType.VIRIDIAN_DOMAIN if field == "hypercall_gpa" else SaveType.VIRIDIAN_VCPU
    assert vir("4.20.0", kind, **{field: PAGE | 1}) == []


def test_without_the_parameter_nothing_of_it_is_loaded():
    said = vir("4.20.0", SaveType.VIRIDIAN_DOMAIN, viridian=False, reference_tsc=PAGE | 1)
    assert {one.rule for one in said} == {"HVM-26"}
    body = bytearray(hvm_context(hardware=VIRIDIAN))
    for kind in (SaveType.VIRIDIAN_DOMAIN, SaveType.VIRIDIAN_VCPU):
        resize(body, kind, 0)
    zeros = [one for one in told(body, viridian=False) if one.rule == "HVM-26"]
    assert {(one.outcome, one.severity) for one in zeros} == {(Effect.TOLERATED, Severity.WARNING)}


def test_nobody_knows_of_pages_where_nobody_looked():
    body = with_entry(SaveType.VIRIDIAN_DOMAIN, hardware=VIRIDIAN, reference_tsc=PAGE | 1)
    assert found(body, "4.20.0", viridian=True) == found(body, "4.20.0", viridian=None) == []


# -- taken as they are ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (SaveType.IOAPIC, {"base_address": 2**64 - 1, "redirtbl": (2**64 - 1,) * 48}),
        (SaveType.LAPIC_REGS, {"data": b"\xff" * 1024}),
        (SaveType.LAPIC, {"disabled": 2**32 - 1, "timer_divisor": 0}),
        (SaveType.PCI_IRQ, {"lines": (2**64 - 1,) * 2}),
        (SaveType.ISA_IRQ, {"lines": 2**64 - 1}),
        (SaveType.RTC, {"cmos_data": b"\xff" * 14, "rtc_offset": -1}),
        (SaveType.PMTIMER, {"tmr_val": 2**32 - 1, "pm1a_sts": 65535}),
        (SaveType.TSC_ADJUST, {"tsc_adjust": 2**64 - 1}),
        (SaveType.VMCE_VCPU, {"mci_ctl2_bank0": 2**64 - 1, "mcg_ext_ctl": 2**64 - 1}),
        (SaveType.HEADER, {"changeset": 0, "cpuid": 2**32 - 1, "gtsc_khz": 1}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_xen_does_not_look_at_may_be_anything(kind, fields):
    assert said(kind, **fields) == []
