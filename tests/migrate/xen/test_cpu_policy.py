"""CPU policies by release: what Xen refuses of one, where, and what it leaves the guest."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import SAMPLES

from migrate.destination.policy_ranges import most_leaves, most_policy_msrs
from migrate.destination.releases import RELEASES, resolve
from migrate.guest.cpu_policy import Policy
from migrate.guest.cpu_policy_files import stream_policy
from migrate.xen.cpu_policy import effective, processor
from migrate.xen.policy_checks import policy_objections
from streams.wire.cpu_features import FEATURES, HOME
from streams.wire.framing import CPUID_LEAF, NO_SUBLEAF, POLICY_MSR
from streams.wire.xstate import XState

VENDOR = (0x756E_6547, 0x6C65_746E, 0x4965_6E69)
ALL_ONES = 0xFFFF_FFFF
WITH_POLICIES = [release for release in RELEASES if release.versions == (2, 3)]


def leaf(leaf, subleaf=NO_SUBLEAF, a=0, b=0, c=0, d=0):
    return CPUID_LEAF.pack(leaf, subleaf, a, b, c, d)


def maximum(number, last):
    """Leaf 0 or 0x80000000 with such a last leaf, and a vendor."""
    return leaf(number, NO_SUBLEAF, last, *VENDOR)


def msr(index, value=0, flags=0):
    return POLICY_MSR.pack(index, flags, value)


def answer(cpuid, target, *, msrs=b"", kind="pv", host_max=None):
    """The errno and position of the certain refusal; "ok" where there is none."""
    found = policy_objections(cpuid, msrs, kind, resolve(target), host_max)
    refused = next((objection for objection in found if objection.certain), None)
    return "ok" if refused is None else (refused.errno, refused.leaf, refused.subleaf, refused.msr)


def at_leaf(errno, leaf, subleaf=NO_SUBLEAF):
    return errno, leaf, subleaf, ALL_ONES


def at_msr(errno, index):
    return errno, ALL_ONES, ALL_ONES, index


NOWHERE = at_leaf("E2BIG", ALL_ONES)

# -- reading the leaves ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "most"),
    [
        *(("4.14.0", 114), ("4.14.4", 114), ("4.14.5", 120), ("4.15.2", 114), ("4.15.3", 120)),
        *(("4.16.0", 119), ("4.16.1", 120), ("4.17.0", 120), ("4.22.0", 120)),
    ],
)
def test_a_release_takes_so_many_leaves_and_not_one_more(target, most):
    assert most_leaves(resolve(target)) == most
    assert answer(leaf(1) * most, target) == "ok"
    assert answer(leaf(1) * (most + 1), target) == NOWHERE


@pytest.mark.parametrize("release", WITH_POLICIES, ids=str)
@pytest.mark.parametrize(
    ("last", "first_unknown"),
    [
        ((0xD, 62), (0xD, 63)),
        ((0x4, 5), (0x4, 6)),
        ((0xB, 1), (0xB, 2)),
        ((0xC, NO_SUBLEAF), (0xE, NO_SUBLEAF)),
        ((0x4000_0000, NO_SUBLEAF), (0x4000_0001, NO_SUBLEAF)),
        ((0x4000_0100, NO_SUBLEAF), (0x4000_0100, 0)),
        ((0x8000_001C, NO_SUBLEAF), (0x8000_0022, NO_SUBLEAF)),
        ((0x8000_0000, NO_SUBLEAF), (0x7FFF_FFFF, NO_SUBLEAF)),
        ((0x1, NO_SUBLEAF), (0x1, 0)),
        ((0x7, 1), (0x7, 3)),
        ((0x7, 0), (0x7, NO_SUBLEAF)),
        ((0xD, 0), (0xD, NO_SUBLEAF)),
    ],
    ids=str,
)
def test_every_release_stores_these_leaves_and_refuses_those(release, last, first_unknown):
    assert answer(leaf(*last), str(release)) == "ok"
    assert answer(leaf(*last) + leaf(*first_unknown), str(release)) == at_leaf("ERANGE", *first_unknown)


@pytest.mark.parametrize(
    ("key", "before", "since"),
    [
        ((0x7, 2), "4.14.4", "4.14.5"),
        ((0x7, 2), "4.15.2", "4.15.3"),
        ((0x7, 2), "4.16.0", "4.16.1"),
        ((0x7, 2), "4.16.0", "4.17.0"),
        ((0x8000_001D, NO_SUBLEAF), "4.14.4", "4.14.5"),
        ((0x8000_0021, NO_SUBLEAF), "4.15.2", "4.15.3"),
        ((0x8000_0021, NO_SUBLEAF), "4.15.2", "4.16.0"),
    ],
)
def test_a_leaf_is_stored_since_a_release(key, before, since):
    assert answer(leaf(*key), before) == at_leaf("ERANGE", *key)
    assert answer(leaf(*key), since) == "ok"


def test_the_first_leaf_that_is_not_stored_is_told_with_its_offset():
    found = next(policy_objections(leaf(0) + leaf(1) + leaf(0x10) + leaf(0x11), b"", "pv", resolve()))
    assert (found.leaf, found.offset, found.position) == (
        0x10,
        2 * CPUID_LEAF.size,
        "leaf 00000010, subleaf ffffffff, msr ffffffff",
    )


# -- reading the MSRs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "most"), [("4.14.0", 1), ("4.14.1", 2), ("4.15.0", 2), ("4.22.0", 2)])
def test_a_release_takes_so_many_msrs(target, most):
    assert most_policy_msrs(resolve(target)) == most
    assert answer(b"", target, msrs=msr(0xCE) * most) == "ok"
    assert answer(b"", target, msrs=msr(0xCE) * (most + 1)) == NOWHERE


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("4.14.0", at_msr("ERANGE", 0x10A)),
        *((name, at_msr("EOVERFLOW", 0x10A)) for name in ("4.14.1", "4.14.5", "4.15.4", "4.16.4", "4.17.1")),
        *((name, "ok") for name in ("4.14.6", "4.15.5", "4.16.5", "4.17.2", "4.18.0", "4.22.0")),
    ],
)
def test_arch_capabilities_grew_from_nothing_to_64_bits(target, expected):
    assert answer(b"", target, msrs=msr(0x10A, 1 << 32)) == expected


@pytest.mark.parametrize("release", WITH_POLICIES, ids=str)
def test_an_msr_is_refused_for_its_flags_its_width_or_its_number(release):
    target = str(release)
    assert answer(b"", target, msrs=msr(0xCE, flags=1)) == at_msr("EINVAL", 0xCE)
    assert answer(b"", target, msrs=msr(0x10, flags=1)) == at_msr("EINVAL", 0x10)
    assert answer(b"", target, msrs=msr(0xCE, 1 << 32)) == at_msr("EOVERFLOW", 0xCE)
    assert answer(b"", target, msrs=msr(0x10)) == at_msr("ERANGE", 0x10)


def test_leaves_are_read_before_msrs_and_msrs_before_anything_is_compared():
    assert answer(leaf(0xE), "4.20", msrs=msr(0x10)) == at_leaf("ERANGE", 0xE)
    assert answer(leaf(0, a=0xE), "4.20", msrs=msr(0x10)) == at_msr("ERANGE", 0x10)


# -- comparing with the host ----------------------------------------------------------------------------


@pytest.mark.parametrize("release", WITH_POLICIES, ids=str)
@pytest.mark.parametrize(("number", "good", "bad"), [(0, 0xD, 0xE), (0x8000_0000, 0x8000_001C, 0x8000_0022)])
def test_no_host_has_more_leaves_than_xen_stores(release, number, good, bad):
    assert answer(maximum(number, good), str(release)) == "ok"
    assert answer(maximum(number, bad), str(release)) == at_leaf("EINVAL", number)


@pytest.mark.parametrize("target", ["4.14.0", "4.14.6"])
def test_subleaves_of_leaf_7_are_not_compared_by_4_14(target):
    assert answer(leaf(7, 0, a=3), target) == "ok"


@pytest.mark.parametrize("target", ["4.15.0", "4.17.7", "4.20.0", "4.22.0"])
def test_subleaves_of_leaf_7_are_compared_since_4_15(target):
    assert answer(leaf(7, 0, a=3), target) == at_leaf("EINVAL", 7, 0)


@pytest.mark.parametrize("number", [0, 0x8000_0000])
@pytest.mark.parametrize(
    ("target", "relaxed"),
    [
        *(("4.17.7", False), ("4.18.3", False), ("4.18.4", True), ("4.19.0", False), ("4.19.1", True)),
        *(("4.20.0", True), ("4.22.0", True)),
    ],
)
def test_a_small_host_is_no_obstacle_once_the_maxima_are_relaxed(number, target, relaxed):
    """The relaxed maxima are those of the host's own policy, so what matters is whether it depends on a host."""
    last = {0: 0xD, 0x8000_0000: 0x8000_0021}[number]
    found = [o for o in policy_objections(leaf(number, a=last), b"", "pv", resolve(target)) if o.leaf == number]
    assert [(o.errno, o.certain) for o in found if "vendor" not in o.message] == (
        [] if relaxed else [("EINVAL", False)]
    )


@pytest.mark.parametrize(
    ("target", "relaxed"),
    [("4.17.4", False), ("4.17.5", True), ("4.18.2", False), ("4.18.3", True), ("4.19.0", True), ("4.20.0", True)],
)
def test_leaf_7_is_relaxed_before_the_others(target, relaxed):
    found = list(policy_objections(leaf(7, 0, a=2), b"", "pv", resolve(target)))
    assert [(o.leaf, o.certain) for o in found] == ([] if relaxed else [(7, False)])


def host(basic=0xD, feature=2, extended=0x8000_0021, vendor=VENDOR, faulting=False, **more):
    """What a host offers at most."""
    leaves = {(0, None): (basic, *vendor), (7, 0): (feature, 0, 0, 0), (0x8000_0000, None): (extended, 0, 0, 0)}
    return Policy(leaves | more.get("leaves", {}), {0xCE: (1 << 31) * faulting})


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (leaf(0, a=0xD), at_leaf("EINVAL", 0)),
        (leaf(0, a=0xC), "ok"),
        (leaf(7, 0, a=1), at_leaf("EINVAL", 7, 0)),
        (leaf(0x8000_0000, a=0x8000_0009), at_leaf("EINVAL", 0x8000_0000)),
        (leaf(0x8000_0000, a=0x8000_0008), "ok"),
        (leaf(7, 0, a=1) + leaf(0, a=0xD), at_leaf("EINVAL", 0)),
    ],
)
def test_a_known_host_is_what_is_compared_with(policy, expected):
    assert answer(policy, "4.17", host_max=host(0xC, 0, 0x8000_0008)) == expected


@pytest.mark.parametrize("release", WITH_POLICIES, ids=str)
def test_platform_info_has_one_bit_at_most(release):
    assert answer(b"", str(release), msrs=msr(0xCE, 1 << 31), kind="hvm") == "ok"
    assert answer(b"", str(release), msrs=msr(0xCE, 1 << 16), kind="hvm") == at_msr("EINVAL", 0xCE)


def test_faulting_cpuid_of_a_pv_guest_takes_a_processor_that_does_it():
    found = list(policy_objections(b"", msr(0xCE, 1 << 31), "pv", resolve("4.20")))
    assert [(o.errno, o.msr, o.certain) for o in found] == [("EINVAL", 0xCE, False)]
    assert answer(b"", "4.20", msrs=msr(0xCE, 1 << 31), host_max=host()) == at_msr("EINVAL", 0xCE)
    assert answer(b"", "4.20", msrs=msr(0xCE, 1 << 31), host_max=host(faulting=True)) == "ok"


AMD_LEAF = leaf(0, a=0xD, b=0x6874_7541, c=0x444D_4163, d=0x6974_6E65)


@pytest.mark.parametrize(("target", "compared"), [("4.14.0", False), ("4.21.2", False), ("4.22.0", True)])
def test_vendors_are_compared_since_4_22(target, compared):
    assert answer(AMD_LEAF, target, host_max=host()) == (at_leaf("EINVAL", 0) if compared else "ok")
    named = [o for o in policy_objections(AMD_LEAF, b"", "pv", resolve(target)) if "AuthenticAMD" in o.message]
    assert [o.certain for o in named] == ([False] if compared else [])


@pytest.mark.parametrize(("target", "expected"), [("4.21.2", "ok"), ("4.22.0", at_leaf("EINVAL", 0))])
def test_a_last_leaf_of_all_ones_wraps_and_wipes_the_vendor(target, expected):
    assert answer(leaf(0, a=ALL_ONES, b=VENDOR[0], c=VENDOR[1], d=VENDOR[2]), target, host_max=host()) == expected


@pytest.mark.parametrize("policy", [leaf(7, 0, a=ALL_ONES), leaf(0x8000_0000, a=0x1234), leaf(0x8000_0000)])
def test_a_maximum_that_wraps_or_is_none_leaves_no_leaf_and_passes(policy):
    assert answer(policy, "4.20", host_max=host(0, 0, 0)) == "ok"


def test_the_last_entry_of_a_leaf_counts():
    assert answer(leaf(0, a=0xE) + leaf(0, a=0xD), "4.20") == "ok"
    found = next(policy_objections(leaf(0, a=0xD) + leaf(0, a=0xE), b"", "pv", resolve("4.20")))
    assert found.offset == CPUID_LEAF.size


@given(st.binary(max_size=480), st.binary(max_size=48), st.sampled_from(WITH_POLICIES), st.sampled_from(["pv", "hvm"]))
def test_any_bytes_are_answered_and_nothing_follows_a_certain_refusal(cpuid, msrs, release, kind):
    cpuid, msrs = cpuid[: len(cpuid) // 24 * 24], msrs[: len(msrs) // 16 * 16]
    found = list(policy_objections(cpuid, msrs, kind, release))
    assert all(not objection.certain for objection in found[:-1])
    assert all(0 <= objection.offset <= len(cpuid if objection.cpuid else msrs) for objection in found)


# -- what the guest gets --------------------------------------------------------------------------------

EVERYTHING = Policy(
    {(word.leaf, word.subleaf): (ALL_ONES,) * 4 for word in FEATURES}
    | {
        (0, None): (0xD, *VENDOR),
        (7, 0): (2, ALL_ONES, ALL_ONES, ALL_ONES),
        (0x8000_0000, None): (0x8000_0021, 0, 0, 0),
    },
    {0xCE: 1 << 31},
)
NO_GUEST = {"cet_ss", "cet_ibt", "la57", "amx_tile", "fred", "kl", "uintr"}
NO_PV_GUEST = {"vme", "pse", "pge", "smep", "smap", "umip", "pcid", "pku", "mpx", "xsaves", "vmx", "svm"}


@pytest.mark.parametrize("release", RELEASES, ids=str)
def test_no_release_gives_a_guest_cet_or_amx(release):
    for kind in ("pv", "hvm"):
        most = effective(EVERYTHING, kind, release)
        assert not any(most.has(feature) for feature in NO_GUEST)
        assert not most.xcr0 & (XState.TILECFG | XState.TILEDATA)


@pytest.mark.parametrize("release", RELEASES, ids=str)
def test_a_pv_guest_never_has_what_only_hvm_guests_can(release):
    most = effective(EVERYTHING, "pv", release)
    assert not any(most.has(feature) for feature in NO_PV_GUEST)
    assert most.xcr0 == 0b1110_0111


@pytest.mark.parametrize(
    ("feature", "before", "since"),
    [
        ("umip", "4.9.4", "4.10.0"),
        ("pks", "4.17.7", "4.18.0"),
        ("auto_ibrs", "4.17.7", "4.18.0"),
        ("lass", "4.21.2", "4.22.0"),
        ("psfd", "4.14.4", "4.14.5"),
        ("amd_psfd", "4.16.0", "4.17.0"),
        ("bhi_ctrl", "4.17.3", "4.17.4"),
        ("bhi_ctrl", "4.18.1", "4.18.2"),
    ],
)
def test_a_feature_comes_with_its_release(feature, before, since):
    assert not effective(EVERYTHING, "hvm", resolve(before)).has(feature)
    assert effective(EVERYTHING, "hvm", resolve(since)).has(feature)


def test_lightweight_profiling_goes_with_4_13():
    assert effective(EVERYTHING, "hvm", resolve("4.12.4")).xcr0 & XState.LWP
    assert not effective(EVERYTHING, "hvm", resolve("4.13.0")).xcr0 & XState.LWP


def test_what_hangs_on_paging_and_nesting():
    shadow = effective(EVERYTHING, "hvm", resolve(), hap=False)
    assert not any(shadow.has(feature) for feature in ("pcid", "pku", "pks"))
    assert not shadow.xcr0 & XState.PKRU
    assert not effective(EVERYTHING, "hvm", resolve()).has("vmx")
    assert effective(EVERYTHING, "hvm", resolve(), nested=True).has("vmx")


def test_a_32_bit_pv_guest_has_no_long_mode_and_nothing_that_needs_it():
    most = effective(EVERYTHING, "pv", resolve(), width=4)
    assert not any(most.has(feature) for feature in ("lm", "cx16", "lahf_lm"))
    assert most.has("pae")


@pytest.mark.parametrize(
    ("missing", "gone", "xcr0"),
    [
        ("xsave", {"avx", "avx2", "avx512f", "pku", "mpx", "xsaves"}, 0),
        ("avx", {"avx2", "fma", "avx512f", "avx512vl"}, 0b10_0001_1011),
        ("avx2", {"avx512f"}, 0b10_0001_1111),
        ("lm", {"pcid", "pku"}, 0b1111_1111),
    ],
)
def test_what_needs_a_missing_feature_falls_with_it(missing, gone, xcr0):
    word, bit = HOME[missing]
    registers = list(EVERYTHING.leaf(word.leaf, word.subleaf))
    registers[("eax", "ebx", "ecx", "edx").index(word.register)] &= ~(1 << bit)
    less = Policy({**EVERYTHING.leaves, (word.leaf, word.subleaf): tuple(registers)}, EVERYTHING.msrs)
    most = effective(less, "hvm", resolve())
    assert not any(most.has(feature) for feature in gone | {missing})
    assert most.xcr0 == xcr0


def test_xsave_needs_its_leaf():
    short = Policy({**EVERYTHING.leaves, (0, None): (0xC, *VENDOR)}, {})
    assert effective(short, "hvm", resolve()).xcr0 == 0


def test_a_leaf_that_the_stream_leaves_out_may_be_anything():
    most = effective(Policy({(0, None): (0xD, *VENDOR)}), "hvm", resolve())
    assert all(most.has(feature) for feature in ("avx", "smep"))


def test_a_leaf_beyond_the_maxima_is_nothing():
    most = effective(Policy({(0, None): (6, *VENDOR), (0x8000_0000, None): (0x8000_0000, 0, 0, 0)}), "hvm", resolve())
    assert not any(most.has(feature) for feature in ("smep", "lm", "nx"))
    assert most.physical_bits == 36


@pytest.mark.parametrize(
    ("width_in_stream", "host_width", "pae", "expected"),
    [(40, None, True, 40), (40, 36, True, 36), (0, None, True, 36), (0, None, False, 32), (255, None, True, 52)],
)
def test_physical_addresses_are_as_wide_as_policy_and_host_allow(width_in_stream, host_width, pae, expected):
    leaves = {
        (1, None): (0, 0, 0, 1 << 6 if pae else 0),
        (0x8000_0000, None): (0x8000_0008, 0, 0, 0),
        (0x8000_0008, None): (width_in_stream, 0, 0, 0),
    }
    more = {(1, None): (0, 0, 0, 1 << 6), (0x8000_0008, None): (host_width, 0, 0, 0)} if host_width else None
    most = effective(Policy(leaves), "hvm", resolve(), host_max=host(leaves=more) if more else None)
    assert most.physical_bits == expected


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("x417-*.zst")), ids=lambda path: path.stem)
def test_a_genuine_guest_can_keep_all_that_it_was_promised(sample):
    policy = stream_policy(sample).policy
    kind = "hvm" if "pvh" in sample.name else "pv"
    most = effective(policy, kind, resolve("4.17.7"), host_max=policy)
    assert policy.features <= most.features | {"lm", "cx16", "lahf_lm"}
    assert most.xcr0 == policy.xcr0


@given(st.sampled_from(RELEASES), st.sampled_from(["pv", "hvm"]), st.integers(0, ALL_ONES), st.integers(0, ALL_ONES))
def test_a_host_only_takes_away(release, kind, promised, offered):
    def of(register):
        return Policy({(1, None): (0, 0, register, register), (7, 0): (0, register, register, register)})

    bound = effective(of(promised), kind, release)
    there = effective(of(promised), kind, release, host_max=of(offered))
    kept = {"htt", "x2apic", "cmp_legacy", "fdp_excptn_only", "zero_fcs_fds"}
    assert there.features - kept <= bound.features
    assert there.xcr0 & ~bound.xcr0 == 0


# -- what can be told -----------------------------------------------------------------------------------


def test_a_feature_is_there_missing_or_the_hosts_to_say():
    cpu = processor(Policy({(1, None): (0, 0, 1 << 26 | 1 << 28, 1 << 24 | 1 << 25)}), "pv", resolve())
    assert (cpu.has("avx"), cpu.has("sse4_2"), cpu.has("avx2"), cpu.has("pku")) == (True, False, None, False)
    assert (cpu.has_components(7), cpu.has_components(7 | 7 << 5), cpu.has_components(1 << 9)) == (True, None, False)
    assert (cpu.intel, cpu.faults_on_cpuid) == (None, None)


def test_a_known_host_tells_its_make():
    assert processor(None, "pv", resolve(), host_max=host()).intel is True
    assert processor(None, "pv", resolve(), host_max=host(vendor=(1, 2, 3))).intel is False


@pytest.mark.parametrize(("value", "expected"), [(0, False), (1 << 31, True)])
def test_faulting_cpuid_is_what_the_policy_says(value, expected):
    assert processor(Policy({}, {0xCE: value}), "hvm", resolve()).faults_on_cpuid is expected


def test_it_is_read_with_the_standard_library_alone():
    code = "import sys, migrate.xen.cpu_policy; sys.exit(bool({'numpy', 'construct'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
