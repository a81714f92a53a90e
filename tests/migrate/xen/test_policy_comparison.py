"""What one policy lacks of another, and which of it a release refuses."""

import pytest
from project import SAMPLES

from migrate.destination.releases import resolve
from migrate.guest.cpu_policy import Policy
from migrate.guest.cpu_policy_files import stream_policy
from migrate.rules.declaring import GuestKind
from migrate.xen.policy_comparison import beyond, lacking, unreadable
from streams.wire.framing import GuestType

INTEL = (0x756E_6547, 0x6C65_746E, 0x4965_6E69)
AMD = (0x6874_7541, 0x444D_4163, 0x6974_6E65)


def policy(last=0xD, vendor=INTEL, msrs=None, **leaves):
    """A policy with leaf 0 and others given as l1=(a, b, c, d), l7_0=…"""
    named = {tuple(int(part, 16) for part in name[1:].split("_")): value for name, value in leaves.items()}
    more = {(key[0], key[1] if key[1:] else None): value for key, value in named.items()}
    return Policy({(0, None): (last, *vendor)} | more, msrs if msrs is not None else {})


def told(promised, other, target="newest", kind="pv"):
    return [(lack.kind, lack.name, lack.refused) for lack in lacking(promised, other, kind, resolve(target))]


def test_a_missing_feature_is_silently_taken_away():
    assert told(policy(l1=(0, 0, 1 << 28, 0)), policy()) == [("feature", "avx", False)]
    assert told(policy(), policy(l1=(0, 0, 1 << 28, 0))) == []


def test_xsave_components_count():
    assert told(policy(ld_0=(7, 0, 0, 0)), policy(ld_0=(3, 0, 0, 0))) == [("xcr0", "avx", False)]


@pytest.mark.parametrize(
    ("target", "refused"), [("4.17.7", True), ("4.18.3", True), ("4.18.4", False), ("4.20", False)]
)
def test_fewer_leaves_are_refused_until_every_host_has_all(target, refused):
    assert told(policy(), policy(0xC), target) == [("leaves", "basic to 0xd", refused)]
    many, few = policy(l80000000=(0x8000_0021, 0, 0, 0)), policy(l80000000=(0x8000_001F, 0, 0, 0))
    assert told(many, few, target) == [("leaves", "extended to 0x80000021", refused)]


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        *(
            ("4.14.6", False),
            ("4.15.3", True),
            ("4.17.4", True),
            ("4.17.5", False),
            ("4.18.2", True),
            ("4.18.3", False),
        ),
        *(("4.19.0", False), ("4.20.0", False)),
    ],
)
def test_a_smaller_last_subleaf_of_leaf_7_is_refused_by_some(target, refused):
    assert told(policy(l7_0=(2, 0, 0, 0)), policy(l7_0=(0, 0, 0, 0)), target) == [("leaves", "leaf 7 to 0x2", refused)]


@pytest.mark.parametrize(("target", "refused"), [("4.21.2", False), ("4.22.0", True)])
def test_another_vendor_is_another_processor(target, refused):
    assert told(policy(), policy(vendor=AMD), target) == [("vendor", "GenuineIntel", refused)]


def test_of_msrs_cpuid_faulting_alone_is_refused_and_of_pv_guests_alone():
    promised = policy(msrs={0xCE: 1 << 31, 0x10A: 1})
    assert told(promised, policy(msrs={0xCE: 1 << 31})) == [("msr", "rdcl_no", False)]
    assert told(promised, policy(msrs={0x10A: 1})) == [("msr", "cpuid_faulting", True)]
    assert told(promised, policy(msrs={0x10A: 1}), kind="hvm") == [("msr", "cpuid_faulting", False)]
    assert told(promised, Policy(policy().leaves, None)) == []


@pytest.mark.parametrize(
    ("target", "refused"), [("4.14.4", True), ("4.14.5", False), ("4.16.0", True), ("4.17.0", False)]
)
def test_a_leaf_that_a_release_has_no_room_for_is_refused_whatever_the_host(target, refused):
    found = list(unreadable(policy(l7_2=(0, 0, 0, 1)), "pv", resolve(target)))
    assert [(lack.kind, lack.refused) for lack in found] == ([("form", True)] if refused else [])
    assert all("leaf 00000007, subleaf 00000002" in lack.name and "ERANGE" in lack.where for lack in found)


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("x417-pv*.zst")), ids=lambda path: path.stem)
def test_a_genuine_policy_lacks_nothing_of_itself(sample):
    found = stream_policy(sample)
    kind = GuestKind.HVM if "pvh" in sample.name else GuestKind.PV
    assert list(lacking(found.policy, found.policy, kind, resolve())) == []
    assert list(unreadable(found.policy, kind, resolve("4.17"))) == []


@pytest.mark.parametrize(
    ("name", "guest"), [("x417-pvh.plain.libxc.zst", GuestType.HVM), ("x417-pv64.plain.libxc.zst", GuestType.PV)]
)
def test_a_stream_says_which_kind_of_guest_it_is(name, guest):
    assert stream_policy(SAMPLES / name).guest == guest


@pytest.mark.parametrize("bit", [28, pytest.param(5, id="not one of them")])
def test_what_describes_the_topology_is_kept_by_every_host(bit):
    lacks = told(policy(l1=(0, 0, 0, 1 << bit)), policy())
    assert lacks == ([] if bit == 28 else [("feature", "msr", False)])


def test_a_guest_is_refused_by_one_host_of_several_that_ends_too_early():
    """Beyond the common policy is also what only the host refuses that is not levelled with."""
    hosts = [(resolve("4.17.7"), policy(0xD)), (resolve("4.17.7"), policy(0xC)), (resolve("4.20"), policy(0xB))]
    beyond_it = list(beyond(policy(0xD, l1=(0, 0, 1 << 28, 0)), policy(0xB), "pv", hosts))
    assert [(lack.name, lack.refused) for lack in beyond_it] == [("basic to 0xd", True), ("avx", False)]
    assert not any(lack.refused for lack in beyond(policy(0xD), policy(0xB), "pv", hosts[::2]))
