"""Values of MSRs by the guest's processor: allowed, refused, or the host's to say."""

import pytest

from migrate.destination.releases import resolve
from migrate.guest.cpu_policy import Policy
from migrate.xen.cpu_policy import Processor, processor
from migrate.xen.guest_msrs import (
    address_mask_allowed,
    either,
    misc_features_allowed,
    spec_ctrl_allowed,
    tsc_aux_allowed,
)
from streams.wire.cpu_features import HOME, REGISTERS

LEAVES = ((0x1, None), (0x7, 0), (0x7, 1), (0x7, 2), (0x8000_0001, None), (0x8000_0008, None))
MAXIMA = {(0, None): 0xD, (0x7, 0): 2, (0x8000_0000, None): 0x8000_0021}


def having(*features, platform_info=None, kind="hvm", target="newest"):
    """A guest that is promised these features and no others."""
    leaves = {key: [MAXIMA.get(key, 0), 0, 0, 0] for key in (*LEAVES, *MAXIMA)}
    for feature in features:
        word, bit = HOME[feature]
        leaves[word.leaf, word.subleaf][REGISTERS.index(word.register)] |= 1 << bit
    msrs = None if platform_info is None else {0xCE: platform_info}
    return processor(Policy({key: tuple(r) for key, r in leaves.items()}, msrs), kind, resolve(target))


def unknown(target="newest", kind="hvm"):
    """A guest of which the stream promises nothing."""
    return processor(None, kind, resolve(target))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [((False, False), False), ((False, None), None), ((None, True), True), ((), False)],
)
def test_one_of_several_is_enough(answers, expected):
    assert either(*answers) is expected


IBRS, SSBD, PSFD, IPRED, RRSBA, BHI = 1, 1 << 2, 1 << 7, 1 << 3, 1 << 5, 1 << 10


@pytest.mark.parametrize(
    ("features", "value", "target", "expected"),
    [
        ((), 0, "newest", False),
        (("ibrs_ibpb",), 0b11, "4.14.0", True),
        (("ibrs_ibpb",), SSBD, "4.14.0", False),
        (("ibrs_ibpb", "ssbd"), SSBD, "4.14.0", True),
        # AMD's features count since these releases.
        (("ibrs",), IBRS, "4.14.4", False),
        (("ibrs",), IBRS, "4.14.5", True),
        (("ibrs",), IBRS, "4.15.2", False),
        (("ibrs",), IBRS, "4.15.3", True),
        (("ibrs",), IBRS, "4.16.0", False),
        (("ibrs",), IBRS, "4.16.1", True),
        (("ibrs", "amd_ssbd"), SSBD, "4.17.0", True),
        (("ibrs", "amd_psfd"), PSFD, "4.17.0", True),
        (("ibrs_ibpb", "psfd"), PSFD, "4.16.0", False),
        (("ibrs_ibpb", "psfd"), PSFD, "4.16.1", True),
        (("ibrs_ibpb",), PSFD, "4.17.0", False),
        # And these bits since those.
        (("ibrs_ibpb", "ipred_ctrl"), IPRED, "4.17.3", False),
        (("ibrs_ibpb", "ipred_ctrl"), IPRED, "4.17.4", True),
        (("ibrs_ibpb", "rrsba_ctrl"), RRSBA, "4.18.1", False),
        (("ibrs_ibpb", "rrsba_ctrl"), RRSBA, "4.18.2", True),
        (("ibrs_ibpb", "bhi_ctrl"), BHI, "4.15.5", False),
        (("ibrs_ibpb", "bhi_ctrl"), BHI, "4.15.6", True),
        (("ibrs_ibpb", "bhi_ctrl"), BHI, "4.16.6", True),
        (("ibrs_ibpb", "bhi_ctrl"), BHI, "4.14.6", False),
        (("ibrs_ibpb", "bhi_ctrl"), IPRED, "4.19.0", False),
        (("ibrs_ibpb", "ssbd", "psfd", "ipred_ctrl", "rrsba_ctrl", "bhi_ctrl"), 1 << 8, "newest", False),
        (("ibrs_ibpb",), 1 << 32, "newest", False),
    ],
)
def test_spec_ctrl_has_the_bits_of_release_and_policy(features, value, target, expected):
    assert spec_ctrl_allowed(value, having(*features, target=target), resolve(target)) is expected


@pytest.mark.parametrize(
    ("target", "expected"), [("4.10.1", False), ("4.10.2", None), ("4.11.0", False), ("4.11.1", None)]
)
def test_ssbd_came_after_spec_ctrl(target, expected):
    assert spec_ctrl_allowed(SSBD, unknown(target), resolve(target)) is expected


@pytest.mark.parametrize("bit", [SSBD, PSFD])
def test_a_pv_guest_has_no_use_of_amds_bits(bit):
    pv = having("ibrs", "amd_ssbd", "amd_psfd", kind="pv")
    assert spec_ctrl_allowed(bit, pv, resolve()) is False


def test_spec_ctrl_of_a_guest_without_a_policy_is_the_hosts_to_say():
    assert spec_ctrl_allowed(0, unknown(), resolve()) is None
    assert spec_ctrl_allowed(1 << 20, unknown(), resolve()) is False


@pytest.mark.parametrize(
    ("value", "platform_info", "target", "expected"),
    [
        (0, 0, "4.17", True),
        (1, 0, "4.17", False),
        (1, 1 << 31, "4.17", True),
        (1, None, "4.17", None),
        (2, 1 << 31, "4.17", False),
        (2, None, "4.10.0", False),
        (2, None, "4.9.4", None),
    ],
)
def test_misc_features_can_make_cpuid_fault_and_nothing_else(value, platform_info, target, expected):
    cpu = having(platform_info=platform_info, target=target)
    assert misc_features_allowed(value, cpu, resolve(target)) is expected


@pytest.mark.parametrize(
    ("features", "value", "expected"),
    [(("rdtscp",), 7, False), (("rdtscp", "tsc"), 7, True), (("rdpid",), 7, True), (("rdpid",), 1 << 32, False)],
)
def test_tsc_aux_takes_an_instruction_that_reads_it_and_32_bits(features, value, expected):
    assert tsc_aux_allowed(value, having(*features)) is expected


@pytest.mark.parametrize(
    ("features", "value", "expected"), [(("dbext",), 5, True), ((), 5, False), (("dbext",), 1 << 32, False)]
)
def test_an_address_mask_takes_dbext_and_32_bits(features, value, expected):
    assert address_mask_allowed(value, having(*features), resolve()) is expected


@pytest.mark.parametrize(("dbext", "expected"), [(None, None), (True, True), (False, False)])
def test_before_4_12_an_address_mask_takes_a_host_that_has_them(dbext, expected):
    cpu = Processor(
        Policy({}), unknown("4.11").most, offered=None if dbext is None else having(*["dbext"] * dbext).promised
    )
    assert address_mask_allowed(5, cpu, resolve("4.11")) is expected
