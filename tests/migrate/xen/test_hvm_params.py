"""Which HVM parameters and values each release lets the toolstack set."""

import struct

import pytest

from migrate.destination.releases import resolve
from migrate.rules.declaring import Effect, Severity
from migrate.xen.hvm_params import Params, last_param, length_objection, pairs
from streams.wire.hvm_names import HvmParam


def said(*settings, release="4.20", **known):
    """All that is to be said of parameters set one after the other."""
    params = Params(resolve(release), **known)
    return [
        one
        for index, value in settings
        for one in params.set(HvmParam[index] if isinstance(index, str) else index, value)
    ]


def errno(*settings, release="4.20", **known):
    """(rule, errno) of what fails; None where nothing does."""
    return next(((one.rule, one.errno) for one in said(*settings, release=release, **known) if one.fatal), None)


VALUE, REFUSED = "HVM-14", "REC-109"


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("TIMER_MODE", [0, 3], [4, 1 << 32]),
        ("ACPI_S_STATE", [0, 3], [1, 2, 4]),
        ("X87_FIP_WIDTH", [0, 4, 8], [1, 2, 9, 1 << 40]),
        ("VIRIDIAN", [1, 0x47, 0x1FFF], [0, 2, 0x2001, 1 << 63 | 1]),
        ("NR_IOREQ_SERVER_PAGES", [1, 8, 64], [0, 65, 0xFFFF_FFFF_0000_0008]),
        ("TRIPLE_FAULT_REASON", [0, 5], [6, 8]),
        ("VM86_TSS", [0, 0xFFFF_FFFF], [1 << 32]),
        ("VM86_TSS_SIZED", [104 << 32, 0x180_FC10_0280], [0, 1, 103 << 32 | 0x1000]),
        ("ACPI_IOPORTS_LOCATION", [0, 1], [2, 1 << 32]),
    ],
)
def test_values_of_a_parameter(name, good, bad):
    assert [errno((name, value)) for value in good] == [None] * len(good)
    assert [errno((name, value)) for value in bad] == [(VALUE, "EINVAL")] * len(bad)


ANY = "CALLBACK_IRQ STORE_PFN CONSOLE_PFN UNUSED_3 UNUSED_7 UNUSED_8 HPET_ENABLED IDENT_PT VPT_ALIGN PAGING_RING_PFN"


@pytest.mark.parametrize("name", f"{ANY} MONITOR_RING_PFN SHARING_RING_PFN VM_GENERATION_ID_ADDR".split())
def test_most_take_anything_and_again(name):
    assert said((name, 2**64 - 1), (name, 0), (name, 5)) == []


@pytest.mark.parametrize(
    ("name", "value", "answers"),
    [
        ("DM_DOMAIN", 0, {"4.10": None, "4.11": "EINVAL", "4.12": "EPERM", "4.13": "EPERM", "4.14": "EINVAL"}),
        ("DM_DOMAIN", 0x7FF0, {"4.10": None, "4.11": None, "4.13": "EPERM", "4.22": "EINVAL"}),
        ("BUFIOREQ_EVTCHN", 0, {"4.11": "EINVAL", "4.12": "EPERM", "4.13": "EPERM", "4.14": "EINVAL"}),
        ("MEMORY_EVENT_CR0", 0, {"4.6": "EOPNOTSUPP", "4.13": "EOPNOTSUPP", "4.14": "EINVAL"}),
        ("MEMORY_EVENT_MSR", 1, {"4.13": "EOPNOTSUPP", "4.20": "EINVAL"}),
        ("NESTEDHVM", 0, {"4.14": None, "4.15": "EINVAL"}),
        ("ALTP2M", 0, {"4.6": None, "4.18": None, "4.19": "EEXIST"}),
        ("ALTP2M", 3, {"4.18": None, "4.19": "EEXIST"}),
    ],
)
def test_parameters_that_nobody_may_set(name, value, answers):
    got = {release: errno((name, value), release=release) for release in answers}
    assert got == {release: None if answer is None else (REFUSED, answer) for release, answer in answers.items()}


@pytest.mark.parametrize(
    ("name", "value", "older", "newer"),
    [
        ("VIRIDIAN", 0x10 | 1, "4.6", "4.7"),
        ("VIRIDIAN", 0x40 | 1, "4.8", "4.9"),
        ("VIRIDIAN", 0x80 | 1, "4.12", "4.13"),
        ("VIRIDIAN", 0x400 | 1, "4.14", "4.15"),
        ("TRIPLE_FAULT_REASON", 5, "4.6", "4.7"),
        ("ALTP2M", 2, "4.8", "4.9"),
        ("NESTEDHVM", 2, None, None),
    ],
)
def test_newer_releases_take_more(name, value, older, newer):
    if older is None:
        assert errno((name, value), release="4.14") == (VALUE, "EINVAL")
    else:
        assert errno((name, value), release=older) == (VALUE, "EINVAL")
        assert errno((name, value), release=newer) is None


def test_before_4_9_vm86_tss_could_lie_anywhere():
    assert [errno(("VM86_TSS", 1 << 32), release=release) for release in ("4.8", "4.9")] == [None, (VALUE, "EINVAL")]


@pytest.mark.parametrize(
    ("release", "last"),
    [("4.6.0", 35), ("4.6.1", 35), ("4.6.3", 36), ("4.8.5", 36), ("4.9", 37), ("4.10", 38), ("4.22", 38)],
)
def test_each_release_knows_so_many(release, last):
    assert last_param(resolve(release)) == last
    assert errno((last + 1, 0), release=release) == (REFUSED, "EINVAL")


def test_half_of_an_index_is_lost_on_the_way():
    [note] = said((1 << 63 | 9, 1))
    assert (note.rule, note.severity, note.errno) == ("HVM-24", Severity.INFO, None)
    assert errno((1 << 32 | 39, 0)) == errno((0xFFFF_FFFF, 0)) == (REFUSED, "EINVAL")


def test_libxc_itself_drops_pae_enabled_since_4_14():
    assert said(("PAE_ENABLED", 1), ("PAE_ENABLED", 77)) == []
    # A whole index alone is dropped.
    assert errno((1 << 32 | 4, 1)) is None


# -- once -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["VIRIDIAN", "IOREQ_PFN", "BUFIOREQ_PFN", "IOREQ_SERVER_PFN", "NR_IOREQ_SERVER_PAGES"])
def test_some_keep_their_first_value(name):
    assert errno((name, 5), (name, 5)) is None
    assert errno((name, 5), (name, 9)) == (REFUSED, "EEXIST")


def test_the_first_value_comes_before_the_values_that_there_are():
    assert errno(("VIRIDIAN", 1), ("VIRIDIAN", 0)) == (REFUSED, "EEXIST")


def test_a_value_of_zero_is_none():
    assert errno(("IOREQ_PFN", 0), ("IOREQ_PFN", 5)) is None


def test_ioreq_pages_could_be_set_again_before_4_12():
    assert [errno(("IOREQ_PFN", 5), ("IOREQ_PFN", 6), release=release) for release in ("4.11", "4.12")] == [
        None,
        (REFUSED, "EEXIST"),
    ]


def test_a_refused_value_is_not_the_first():
    assert errno(("NR_IOREQ_SERVER_PAGES", 65)) == (VALUE, "EINVAL")
    params = Params(resolve("4.20"))
    assert [len(list(params.set(33, value))) for value in (65, 8, 9)] == [1, 0, 1]


def test_what_the_toolstack_has_set_before_counts():
    assert errno(("VIRIDIAN", 0x47), values={9: 0x1865}) == (REFUSED, "EEXIST")
    assert errno(("VIRIDIAN", 0x1865), values={9: 0x1865}) is None


# -- devices, hosts, and what is held otherwise -----------------------------------------------------


@pytest.mark.parametrize(("emulated", "answer"), [(False, ("HVM-15", "ENODEV")), (True, None), (None, None)])
def test_a_pvh_guest_has_no_power_management_device(emulated, answer):
    assert errno(("ACPI_IOPORTS_LOCATION", 0), emulated=emulated) == answer


def test_before_4_7_every_guest_had_one():
    assert errno(("ACPI_IOPORTS_LOCATION", 1), release="4.6", emulated=False) is None


def test_its_location_can_go_back_and_forth():
    assert errno(*[("ACPI_IOPORTS_LOCATION", value) for value in (1, 1, 0, 1)]) is None


def test_half_of_its_location_was_not_looked_at_before_4_14():
    assert [errno(("ACPI_IOPORTS_LOCATION", 1 << 32 | 1), release=release) for release in ("4.13", "4.14")] == [
        None,
        (VALUE, "EINVAL"),
    ]


@pytest.mark.parametrize(
    ("value", "intel", "answer"),
    [(0, False, None), (1, True, None), (1, False, (VALUE, "EINVAL")), (2, True, (VALUE, "EINVAL"))],
)
def test_local_machine_checks_take_a_host_of_intel(value, intel, answer):
    assert errno(("MCA_CAP", value), intel=intel) == answer


def test_nobody_knows_whether_a_host_has_them():
    [one] = said(("MCA_CAP", 1))
    assert (one.rule, one.outcome, one.fatal) == (VALUE, Effect.HOST, False)


def test_a_task_that_is_too_long_is_cut():
    [one] = said(("VM86_TSS_SIZED", 0xFFFF_FFFF_0000_1000))
    assert (one.rule, one.errno, one.severity) == ("HVM-24", None, None)
    assert f"{35772782612480:#x}" in one.message  # which a real one held


def test_event_channels_are_set_anew():
    assert [(one.rule, one.severity) for one in said(("CONSOLE_EVTCHN", 6), ("STORE_EVTCHN", 0))] == [
        ("HVM-24", Severity.INFO)
    ]


# -- the record -------------------------------------------------------------------------------------


def body(count, listed, extra=b""):
    return struct.pack("<II", count, 0) + b"".join(struct.pack("<QQ", *pair) for pair in listed) + extra


@pytest.mark.parametrize(
    ("content", "exact", "lax"),
    [
        (body(0, []), True, True),
        (body(1, [(1, 2)]), True, True),
        (body(2, [(1, 2)]), False, False),
        (body(1, [(1, 2)] * 2), False, True),
        (body(0, [(1, 2)]), False, True),
        (body(0x1000_0001, [(1, 2)]), False, False),
        (b"\0" * 7, False, False),
        (b"", False, False),
    ],
)
def test_the_record_is_as_long_as_its_count_says(content, exact, lax):
    objection = length_objection(len(content), content)
    refused = [objection is not None and objection[1].holds(resolve(release)) for release in ("4.9", "4.8.1")]
    assert refused == [not exact, not lax]


def test_pairs_are_read_as_far_as_they_are_counted_and_there():
    assert list(pairs(body(2, [(1, 2), (3, 4), (5, 6)]))) == [(1, 2, 8), (3, 4, 24)]
    assert list(pairs(body(0xFFFF_FFFF, [(1, 2)], b"\0" * 8))) == [(1, 2, 8)]
