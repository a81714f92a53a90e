"""Contexts to order: every entry that Xen knows, in a saver's order, and open to edits."""

import pytest

from migrate.building.builder import StreamBuilder
from migrate.building.hvm_contexts import EVERYTHING, PC, PVH, Hardware, add, drop, edit, hvm_context, resize
from streams.hvm_context import decode_context
from streams.wire.hvm_entries import LAYOUTS
from streams.wire.hvm_names import SaveType

DEVICES = {"PIC", "IOAPIC", "PIT", "RTC", "HPET", "PMTIMER"}
RARE = {"VIRIDIAN_DOMAIN", "VIRIDIAN_VCPU", "CPU_XSAVE", "CPU_MSR"}
PER_VCPU = {"CPU", "LAPIC", "LAPIC_REGS", "MTRR", "CPU_XSAVE", "VIRIDIAN_VCPU", "VMCE_VCPU", "TSC_ADJUST", "CPU_MSR"}


def entries(context):
    return decode_context(bytes(context)).entries


def names(context):
    return [SaveType(entry.typecode).name for entry in entries(context)]


def test_with_everything_it_has_every_type_there_is():
    assert set(names(hvm_context(hardware=EVERYTHING))) == {kind.name for kind in SaveType}


def test_a_pvh_guest_lacks_the_devices_of_a_pc():
    assert set(names(hvm_context())) - set(names(hvm_context(1, PVH))) == DEVICES
    assert set(names(hvm_context())) == {kind.name for kind in SaveType} - RARE


@pytest.mark.parametrize("vcpus", [0, 1, 3])
def test_each_vcpu_has_its_own_and_types_ascend_to_end(vcpus):
    found = [(entry.typecode, entry.instance) for entry in entries(hvm_context(vcpus, hardware=EVERYTHING))]
    assert found[:-1] == sorted(found[:-1])
    assert found[-1] == (SaveType.END, 0)
    for name in PER_VCPU:
        assert [instance for kind, instance in found if kind == SaveType[name]] == list(range(vcpus))


def test_lengths_are_those_of_4_14_unless_said_otherwise():
    plain = {entry.typecode: entry.length for entry in entries(hvm_context(hardware=EVERYTHING))}
    assert (plain[SaveType.LAPIC], plain[SaveType.RTC], plain[SaveType.VMCE_VCPU]) == (24, 24, 32)
    other = hvm_context(1, Hardware(lengths={SaveType.LAPIC: 32, SaveType.RTC: 16}))
    assert [entry.length for entry in entries(other) if entry.typecode in (SaveType.LAPIC, SaveType.RTC)] == [32, 16]


def test_edits_change_what_is_named_and_nothing_else():
    context = bytearray(hvm_context(2))
    before = bytes(context)
    edit(context, SaveType.CPU, 1, cr0=0x11)
    assert [entry.read().cr0 for entry in entries(context) if entry.typecode == SaveType.CPU] == [0x31, 0x11]
    edit(context, SaveType.CPU, 1, cr0=0x31)
    assert context == before


def test_an_entry_is_added_before_end_and_dropped_again():
    context = bytearray(hvm_context())
    add(context, SaveType.TSC_ADJUST, bytes(8), 5)
    assert names(context)[-2:] == ["TSC_ADJUST", "END"]
    drop(context, SaveType.TSC_ADJUST)
    assert "TSC_ADJUST" not in names(context)


def test_an_entry_gets_another_length():
    context = bytearray(hvm_context())
    resize(context, SaveType.MTRR, 7)
    assert [entry.length for entry in entries(context) if entry.typecode == SaveType.MTRR] == [7]
    resize(context, SaveType.MTRR, LAYOUTS[SaveType.MTRR].size)
    assert len(context) == len(hvm_context())


def test_what_is_not_there_cannot_be_edited():
    with pytest.raises(LookupError, match="no entry CPU 3"):
        edit(bytearray(hvm_context()), SaveType.CPU, 3, cr0=0)


def test_params_and_policy_have_what_the_hardware_needs():
    plain, rich = StreamBuilder.hvm(hardware=PC), StreamBuilder.hvm(hardware=EVERYTHING)
    assert rich.hvm_params.keys() - plain.hvm_params.keys() == {9}
    assert len(rich.cpuid_policy) == len(plain.cpuid_policy) + 2
    assert rich.msr_policy[0]["value"] == 1 << 31


def test_a_pvh_guest_has_no_device_model():
    b = StreamBuilder.pvh()
    b.wrap("xl")
    assert b'"type": "pvh"' in b.xl_config
    assert [rec.type for rec in b.libxl_after] == [0]
