"""The table of entry types: what each release expects, and how it answers another length."""

import pytest
from hvm_domains import END, context, found

from migrate.building.hvm_contexts import Hardware, hvm_context, pack_entry, resize
from migrate.destination.releases import RELEASES, resolve
from migrate.xen.hvm_guest import EMULATED
from migrate.xen.hvm_records import RECORDS, saved_lengths
from streams.wire.hvm_entries import LAYOUTS
from streams.wire.hvm_names import SaveType

EXACT = {
    SaveType.PIC: 8,
    SaveType.IOAPIC: 400,
    SaveType.LAPIC_REGS: 1024,
    SaveType.PCI_IRQ: 16,
    SaveType.ISA_IRQ: 8,
    SaveType.PCI_LINK: 8,
    SaveType.PIT: 56,
    SaveType.HPET: 1048,
    SaveType.PMTIMER: 8,
    SaveType.MTRR: 240,
    SaveType.TSC_ADJUST: 8,
}
SHORTER = {SaveType.LAPIC: 24, SaveType.RTC: 24, SaveType.VIRIDIAN_DOMAIN: 32, SaveType.VMCE_VCPU: 32}


def only(kind, length, release="4.20"):
    """What is said of a context as the release saves it, in which one entry has another length."""
    body = bytearray(hvm_context(1, Hardware(viridian=True, lengths=saved_lengths(resolve(release)))))
    resize(body, kind, length)
    return [one for one in found(body, release, viridian=True) if one[0] != "HVM-24"]


def test_every_type_but_end_is_in_the_table():
    assert set(RECORDS) == set(SaveType) - {SaveType.END} == set(LAYOUTS) - {SaveType.END}


def test_a_pc_has_six_devices_that_a_pvh_guest_lacks():
    assert {SaveType(kind).name for kind in EMULATED} == {"PIC", "IOAPIC", "PIT", "RTC", "HPET", "PMTIMER"}


@pytest.mark.parametrize("off", [-1, 1])
@pytest.mark.parametrize(("kind", "length"), EXACT.items(), ids=lambda value: getattr(value, "name", value))
def test_entry_of_fixed_length_is_refused_at_any_other(kind, length, off):
    [(rule, errno)] = only(kind, length + off)
    late = {SaveType.IOAPIC, SaveType.PIT, SaveType.PIC, SaveType.PCI_LINK, SaveType.LAPIC_REGS}
    assert (rule, errno) == ("HVM-01", "ENODATA" if kind in late else "EINVAL")


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.name)
def test_entry_of_its_own_length_is_taken(kind):
    assert only(kind, EXACT[kind]) == []


@pytest.mark.parametrize(("kind", "length"), SHORTER.items(), ids=lambda value: getattr(value, "name", value))
def test_entry_may_be_shorter_and_not_longer(kind, length):
    errno = {SaveType.LAPIC: "ENODATA", SaveType.VMCE_VCPU: "EPERM"}.get(kind, "EINVAL")
    assert [only(kind, shorter) for shorter in (0, 8, length - 1, length)] == [[], [], [], []]
    assert only(kind, length + 1) == [("HVM-01", errno)]


@pytest.mark.parametrize(
    ("kind", "length", "older", "newer"),
    [
        (SaveType.LAPIC, 32, "4.20.0", "4.20.1"),
        (SaveType.LAPIC, 32, "4.19.1", "4.19.2"),
        (SaveType.LAPIC, 32, "4.18.4", "4.18.5"),
        (SaveType.LAPIC, 32, "4.17.7", "4.21"),
        (SaveType.RTC, 24, "4.13.5", "4.14"),
        (SaveType.RTC, 15, "4.13.5", "4.14"),
        (SaveType.VMCE_VCPU, 32, "4.9.4", "4.10"),
        (SaveType.VIRIDIAN_VCPU, 216, "4.12.4", "4.13"),
        (SaveType.VIRIDIAN_VCPU, 16, "4.6.6", "4.7"),
        (SaveType.VIRIDIAN_VCPU, 7, "4.6.6", "4.7"),
        (SaveType.CPU, 1032, "4.6.6", "4.7"),
        (SaveType.CPU, 1025, "4.6.6", "4.7"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_form_is_refused_by_releases_that_do_not_have_it(kind, length, older, newer):
    assert [bool(only(kind, length, release)) for release in (older, newer)] == [True, False]


@pytest.mark.parametrize("length", [1016, 1024])
def test_the_first_release_takes_both_old_forms_of_a_cpu(length):
    assert only(SaveType.CPU, length, "4.6") == []


@pytest.mark.parametrize("kind", [SaveType.CPU_XSAVE, SaveType.CPU_MSR], ids=lambda kind: kind.name)
@pytest.mark.parametrize("release", ["4.17", "4.20"])
def test_entry_of_variable_length_has_a_least_one(kind, release):
    least = {SaveType.CPU_XSAVE: 600, SaveType.CPU_MSR: 24}[kind]
    assert found(context(pack_entry(kind, bytes(least - 1))), release) == [("HVM-01", "EINVAL")]


@pytest.mark.parametrize("release", ["4.12", "4.13.3", "4.14.2", "4.15"])
def test_old_releases_answer_eperm_to_everything(release):
    # A sound context of such a release, and an entry of a wrong length.
    body = bytearray(context(hardware=Hardware(lengths=saved_lengths(resolve(release)))))
    resize(body, SaveType.PCI_IRQ, 1)
    assert found(body, release) == [("HVM-01", "EPERM")]
    assert found(END, release)[0] == ("REC-111", "EPERM")


@pytest.mark.parametrize("release", RELEASES, ids=str)
def test_every_release_takes_what_it_saves_itself(release):
    body = hvm_context(2, Hardware(viridian=True, lengths=saved_lengths(release)))
    assert found(body, release.name, vcpus=2, emulated=True, viridian=True) == []


@pytest.mark.parametrize(("release", "lapic", "rtc"), [("4.13", 24, 16), ("4.14", 24, 24), ("4.22", 32, 24)])
def test_a_release_saves_its_newest_forms(release, lapic, rtc):
    lengths = saved_lengths(resolve(release))
    assert (lengths[SaveType.LAPIC], lengths[SaveType.RTC]) == (lapic, rtc)
    assert {SaveType.CPU_XSAVE, SaveType.CPU_MSR} & set(lengths) == set()


def test_an_odd_length_is_worth_a_word_where_xen_takes_it():
    body = bytearray(hvm_context())
    resize(body, SaveType.RTC, 3)
    assert found(body) == [("HVM-24", None)]
    resize(body, SaveType.RTC, 16)
    assert found(body) == []
