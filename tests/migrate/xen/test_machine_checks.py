"""Machine check capabilities: what every host takes, what Intel's take, and what none does."""

import pytest

from migrate.destination.releases import resolve
from migrate.xen.machine_checks import errno, taken

NEVER = [9, *range(12, 24), 25, 26, *range(28, 64)]
INTELS = [10, 11, 24]


@pytest.mark.parametrize("caps", [0, 2, 0xFF, 1 << 8])
@pytest.mark.parametrize("intel", [None, True, False])
def test_banks_and_their_control_are_taken_everywhere(caps, intel):
    assert taken(caps, resolve(), intel) is True


@pytest.mark.parametrize("bit", INTELS)
def test_what_intel_hosts_alone_take_hangs_on_the_host(bit):
    assert [taken(1 << bit, resolve("4.6"), intel) for intel in (None, True, False)] == [None, True, False]


@pytest.mark.parametrize("bit", NEVER)
@pytest.mark.parametrize("intel", [None, True])
def test_what_no_host_takes_is_refused_for_certain(bit, intel):
    assert taken(1 << bit | 2, resolve(), intel) is False


@pytest.mark.parametrize(("target", "expected"), [("4.9.4", False), ("4.10.0", None)])
def test_local_machine_checks_came_with_4_10(target, expected):
    assert taken(1 << 27, resolve(target), None) is expected


def test_capabilities_of_an_intel_guest_are_usual():
    assert taken(0x100_0C02, resolve(), None) is None


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        *((name, "EPERM") for name in ("4.6.0", "4.12.4", "4.13.3", "4.14.2", "4.15.0")),
        *((name, "EINVAL") for name in ("4.13.4", "4.14.3", "4.15.1", "4.16.0", "4.22.0")),
    ],
)
def test_the_answer_changed_with_the_release(target, expected):
    assert errno(resolve(target)) == expected
