"""Xen's walk over an HVM guest's context: the chain of entries, its two phases, and which of two faults answers."""

import pytest
from hvm_domains import END, HEADER_SIZE, context, found, told

from migrate.building.hvm_contexts import (
    EVERYTHING,
    PC,
    PVH,
    Hardware,
    add,
    drop,
    edit,
    hvm_context,
    pack_entry,
    resize,
)
from migrate.destination.releases import distinct
from migrate.rules.declaring import Effect, Severity
from migrate.xen.hvm_guest import has_emulated_devices, saved_vcpus
from streams.hvm_context import decode_context
from streams.wire.hvm_names import SaveType

CPU_SIZE = 8 + 1032
ONE_PASS, TWO_PHASES = "4.18.6", "4.19"
both = pytest.mark.parametrize("release", [ONE_PASS, TWO_PHASES, "4.20"])


@pytest.mark.parametrize("vcpus", [1, 2, 5])
@pytest.mark.parametrize("emulated", [True, False])
def test_sound_context_has_nothing_to_say(vcpus, emulated):
    body = hvm_context(vcpus, hardware=PC if emulated else PVH)
    for release in ("4.14", "4.17", "4.20", "4.22"):
        assert found(body, release, vcpus=vcpus, emulated=emulated) == []


def test_a_guest_has_as_many_vcpus_as_cpu_entries():
    assert [saved_vcpus(hvm_context(vcpus)) for vcpus in (0, 1, 3)] == [0, 1, 3]


def test_a_vcpu_that_is_sent_twice_counts_once():
    assert saved_vcpus(context(pack_entry(SaveType.CPU, bytes(1032)))) == 1


# -- the chain --------------------------------------------------------------------------------------

SOUND = hvm_context(1)
HEADER = SOUND[:HEADER_SIZE]


@both
@pytest.mark.parametrize(
    ("body", "errno", "offset"),
    [
        (b"\0" * 7, "ENODATA", 0),
        (END, "ENODATA", 0),
        (SOUND[HEADER_SIZE:], "ENODATA", 0),
        (pack_entry(1, bytes(24)) + END, "EINVAL", 8),
        (pack_entry(1, HEADER[8:12] + bytes(20)) + END, "EINVAL", 12),
        (pack_entry(1, HEADER[8:16]) + END, "ENODATA", 0),
        (pack_entry(1, HEADER[8:] + bytes(8)) + END, "ENODATA", 0),
        (SOUND[: -len(END)], "ENODATA", len(SOUND) - len(END)),
        (SOUND[:-1], "ENODATA", len(SOUND) - 1),
        (context(pack_entry(21, b"")), "EINVAL", len(SOUND) - len(END)),
        (context(pack_entry(0xFFFF, b"")), "EINVAL", len(SOUND) - len(END)),
        (context(HEADER), "EINVAL", len(SOUND) - len(END)),
    ],
    ids=[
        *("seven bytes", "end", "no header", "bad magic", "version 0", "short header", "long header", "no end"),
        *("half an end", "type 21", "type 65535", "second header"),
    ],
)
def test_broken_chain_is_refused_where_it_breaks(body, errno, offset, release):
    first = told(body, release)[0]
    assert (first.rule, first.errno, first.offset) == ("REC-111", errno, offset)


@pytest.mark.parametrize(
    ("kind", "errno"),
    [
        (SaveType.CPU, "EINVAL"),
        (SaveType.IOAPIC, "ENODATA"),
        (SaveType.PIT, "ENODATA"),
        (SaveType.VMCE_VCPU, "EPERM"),
        (SaveType.CPU_XSAVE, "ENODATA"),
        (SaveType.CPU_MSR, "ENODATA"),
        (SaveType.TSC_ADJUST, "EINVAL"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_an_entry_beyond_the_end_is_answered_by_its_handler_before_there_were_two_phases(kind, errno):
    body = bytearray(hvm_context(hardware=Hardware(xsave=True, msrs=True)))
    entry = next(e for e in decode_context(bytes(body)).entries if e.typecode == kind)
    body[entry.offset + 4 : entry.offset + 8] = (0xFFFF_FF00).to_bytes(4, "little")
    assert [told(bytes(body), release)[0].errno for release in (ONE_PASS, TWO_PHASES)] == [errno, "ENODATA"]


def test_what_comes_before_the_break_is_told_first_where_entries_are_loaded_as_they_come():
    body = context(pack_entry(SaveType.PCI_IRQ, b""), pack_entry(21, b""))
    assert [rule for rule, _ in found(body, ONE_PASS) if rule != "HVM-12"] == ["HVM-01", "REC-111"]
    assert [rule for rule, _ in found(body, TWO_PHASES) if rule != "HVM-12"] == ["REC-111", "HVM-01"]


def test_a_fault_of_a_later_entry_comes_first_where_that_has_a_check_of_its_own():
    body = bytearray(hvm_context())
    edit(body, SaveType.CPU, cr0=0)
    edit(body, SaveType.PIT, speaker_data_on=2)
    edit(body, SaveType.LAPIC, apic_base_msr=1 << 10)
    decided = [[rule for rule, _ in found(body, release)] for release in (ONE_PASS, TWO_PHASES, "4.20")]
    assert decided == [["HVM-04", "HVM-08"], ["HVM-17", "HVM-04", "HVM-08"], ["HVM-08", "HVM-17", "HVM-04"]]


@both
def test_the_header_comes_before_all_entries(release):
    body = bytearray(hvm_context())
    edit(body, SaveType.PIT, speaker_data_on=2)
    body[8] ^= 1
    assert told(body, release)[0].rule == "REC-111"


@both
def test_every_fault_is_told_once(release):
    body = bytearray(hvm_context(2))
    edit(body, SaveType.LAPIC, apic_base_msr=1 << 10)
    edit(body, SaveType.LAPIC, 1, apic_base_msr=1 << 10)
    edit(body, SaveType.MTRR, msr_mtrr_cap=9)
    assert sorted(found(body, release)) == [("HVM-08", "EINVAL")] * 2 + [("HVM-09", "EINVAL")]


def test_bytes_behind_end_are_never_read():
    assert found(SOUND + pack_entry(99, b"")) == [("HVM-13", None)]


def test_the_length_of_end_is_never_read():
    assert found(SOUND[: -len(END)] + (0xFFFF_FFFF_0007_0000).to_bytes(8, "little")) == []


@both
def test_an_entry_that_comes_twice_is_loaded_twice(release):
    link = pack_entry(SaveType.PCI_LINK, bytes(8))
    assert found(context(link), release) == [("HVM-12", None)]
    assert found(context(link, link), release) == [("HVM-12", None)]


def test_the_instance_of_a_device_makes_no_difference():
    body = bytearray(hvm_context())
    drop(body, SaveType.PCI_LINK)
    add(body, SaveType.PCI_LINK, bytes(8), 7)
    [objection] = told(body, vcpus=1)
    assert (objection.rule, objection.severity) == ("HVM-24", Severity.INFO)


# -- vcpus, PICs and devices ------------------------------------------------------------------------


@both
def test_vcpu_beyond_the_domains_is_refused_once(release):
    assert found(hvm_context(3), release, vcpus=1) == [("HVM-02", "EINVAL")] * 2


@both
def test_vcpu_is_looked_up_before_the_length(release):
    body = bytearray(hvm_context(2))
    resize(body, SaveType.CPU, 1, 1)
    assert ("HVM-01", "EINVAL") not in found(body, release, vcpus=1)


def test_nothing_is_said_of_vcpus_where_nobody_knows_their_number():
    assert found(hvm_context(9)) == []


@pytest.mark.parametrize(("release", "errno"), [("4.17", "ENOENT"), ("4.20", "ENOENT"), ("4.15", "EPERM")])
def test_there_are_two_pics(release, errno):
    assert found(context(pack_entry(SaveType.PIC, bytes(8), 2)), release) == [("HVM-02", errno)]


@both
@pytest.mark.parametrize("kind", ["PIC", "IOAPIC", "PIT", "RTC", "HPET", "PMTIMER"])
def test_a_pvh_guest_has_no_such_device_whatever_the_entry_is_like(kind, release):
    for body, instance in ((b"", 0), (bytes(8), 9)):
        stray = context(pack_entry(SaveType[kind], body, instance), hardware=PVH)
        assert found(stray, release, emulated=False) == [("HVM-15", "ENODEV")]


def test_the_first_release_had_every_device():
    body = bytearray(hvm_context(1, PVH))
    add(body, SaveType.PMTIMER, bytes(8))
    assert "HVM-15" not in [rule for rule, _ in found(body, "4.6", emulated=False)]


def test_an_hvm_domain_takes_a_pvh_guests_context():
    assert found(hvm_context(1, PVH), emulated=True) == []


def test_a_majority_of_devices_makes_an_hvm_guest():
    body = bytearray(hvm_context())
    assert has_emulated_devices(bytes(body)) is True
    drop(body, SaveType.PIC)
    drop(body, SaveType.RTC)
    assert has_emulated_devices(bytes(body)) is True
    drop(body, SaveType.HPET)
    assert has_emulated_devices(bytes(body)) is False


def test_too_little_of_a_context_says_nothing_of_devices():
    assert has_emulated_devices(b"") is None
    assert has_emulated_devices(SOUND[: HEADER_SIZE + CPU_SIZE]) is None


# -- guests that come back wrong --------------------------------------------------------------------


def test_guest_without_any_cpu_comes_back_dead():
    [objection] = told(hvm_context(0))
    assert (objection.rule, objection.errno, objection.severity) == ("HVM-03", None, None)


def test_guest_without_vcpu_0_may_mean_it():
    body = hvm_context(2)
    [objection] = told(body[:HEADER_SIZE] + body[HEADER_SIZE + CPU_SIZE :], vcpus=2)
    assert (objection.rule, objection.severity) == ("HVM-03", Severity.WARNING)


def test_guest_with_other_vcpus_down_is_fine():
    assert found(hvm_context(1), vcpus=4) == []


# -- anything ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", range(23))
def test_an_entry_of_any_length_gets_an_answer_in_its_place(kind):
    for length in (*range(40), 599, 600, 1031, 1032, 1048, 4096):
        for fill in (b"\0", b"\xff"):
            body = context(pack_entry(kind, fill * length, 65535))
            for release in ("4.6", "4.17", "4.22"):
                for objection in told(body, release, vcpus=70000, viridian=True, has_frame=lambda pfn: False):
                    assert 0 <= objection.offset <= len(body)
                    assert objection.message.isprintable()


@pytest.mark.parametrize("release", distinct(), ids=str)
def test_every_release_has_an_answer_to_everything_at_once(release):
    body = hvm_context(2, EVERYTHING)
    flipped = bytes(byte ^ (0xFF if at % 97 == 5 and at > HEADER_SIZE else 0) for at, byte in enumerate(body))
    for objection in told(flipped, release.name):
        assert objection.fatal == (
            (objection.outcome or Effect.HYPERCALL) is Effect.HYPERCALL and objection.errno is not None
        )
