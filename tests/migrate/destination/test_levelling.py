"""One policy for several hosts: each of them keeps it, and the configuration gives it to a guest wherever it starts."""

from itertools import permutations

import pytest
from host_texts import XEN_CPUID, real
from hypothesis import given, settings
from hypothesis import strategies as st
from trying import examples

from migrate.destination.host import DEFAULT, MAX, Host, PolicyName, XenVersion
from migrate.destination.levelling import FEATURESET, LevellingError, level
from migrate.destination.levelling_forms import (
    featureset,
    libvirt_cpu,
    libxl_name,
    unnamed,
    xl_cpuid,
    xl_key_values,
    xl_strings,
)
from migrate.destination.releases import NEWEST, resolve
from migrate.guest.cpu_policy import Policy
from migrate.reports.inspection.levelling import levelling_object
from migrate.rules.declaring import GuestKind
from migrate.xen.policy_checks import incompatible
from streams.wire.cpu_features import HOME, REGISTERS, Word

# What no configuration decides: Xen lets every guest have these, or copies them from the host.
LEFT_ALONE = ("htt", "x2apic", "cmp_legacy", "fdp_excptn_only", "zero_fcs_fds")
AMD = (0x6874_7541, 0x444D_4163, 0x6974_6E65)
INTEL = (0x756E_6547, 0x6C65_746E, 0x4965_6E69)
XEN_4_17 = XenVersion(4, 17, ".7")


def host(default, most=None, *, kind="pv", xen=XEN_4_17):
    """A host of two policies."""
    return Host(xen=xen, policies={DEFAULT[kind]: default, MAX[kind]: most or default})


def policy(leaves=None, msrs=None, *, basic=0xD, leaf7=0, extended=0x8000_0008, vendor=AMD):
    """A policy whose leaves end there, with registers by leaf and subleaf."""
    ends = {(0x0, None): (basic, *vendor), (0x8000_0000, None): (extended, *vendor)}
    first, *rest = (leaves or {}).pop((0x7, 0), (0, 0, 0, 0))
    return Policy({**ends, (0x7, 0): (leaf7 or first, *rest), **(leaves or {})}, msrs or {})


def created(default, strings):
    """The policy of a new guest as libxl and Xen make it of a Default policy and a configuration."""
    leaves = dict(default.leaves)
    for string in strings:
        place, _, settings_ = string.partition(":")
        leaf, _, subleaf = place.partition(",")
        key = int(leaf, 0), int(subleaf) if subleaf else None
        registers = list(leaves.get(key, (0, 0, 0, 0)))
        for setting in settings_.split(","):
            name, _, bits = setting.partition("=")
            assert len(bits) == 32
            for bit, digit in zip(reversed(range(32)), bits, strict=True):
                if digit != "x":
                    index = REGISTERS.index(name)
                    registers[index] = registers[index] & ~(1 << bit) | int(digit) << bit
        leaves[key] = tuple(registers)
    made = Policy(leaves)
    return Policy({place: registers for place, registers in leaves.items() if there(place, made)})


def objections(guest, most, kind):
    """What a host has against a guest's policy: one that compares leaves, and one that compares vendors."""
    asked = (incompatible(guest, GuestKind(kind), release, most) for release in (resolve("4.17"), NEWEST))
    return [objection.message for found in asked for objection in found]


def there(place, policy):
    """Whether a leaf is within a policy's maxima."""
    leaf, subleaf = place
    last = policy.max_leaves
    if leaf == 0x7 and (subleaf or 0) > last["leaf 7"]:
        return False
    return leaf <= (last["basic"] if leaf < 0x8000_0000 else last["extended"])


def features(policy):
    """What a configuration decides of a policy, by register."""
    alone = {}
    for name in LEFT_ALONE:
        word, bit = HOME[name]
        alone[word] = alone.get(word, 0) | 1 << bit
    return {word: policy.word(word) & ~alone.get(word, 0) for word in FEATURESET}


# -- real hosts ---------------------------------------------------------------------------------------


def pool(*names):
    return {name: real(name) for name in names}


@pytest.mark.parametrize("kind", ["pv", "hvm"])
def test_levelling_cuts_leaves_and_features_to_the_smaller_host(kind):
    levelled = level(pool("amd 4.17", "small amd 4.17", "amd 4.20"), kind)
    assert levelled.policy.max_leaves == {"basic": 0x5, "leaf 7": 0, "extended": 0x8000_000A}
    assert levelled.lasts == {(0x0, None): 0x5, (0x8000_0000, None): 0x8000_000A}
    assert {"avx", "xsave", "sse4_2", "ssse3"} <= set(levelled.disabled)
    assert levelled.policy.features.isdisjoint(levelled.disabled)


def test_the_strings_for_xl_name_no_leaf_that_a_host_lacks():
    strings = xl_strings(level(pool("amd 4.17", "small amd 4.17"), "pv"))
    assert [string.partition(":")[0] for string in strings] == ["0x0", "0x1", "0x80000000", "0x80000001"]
    assert strings[0] == "0x0:eax=00000000000000000000000000000101"


def test_equal_hosts_need_no_configuration():
    levelled = level({"a": real("amd 4.17"), "b": real("amd 4.17")}, "hvm")
    assert (xl_cpuid(levelled), unnamed(levelled), levelled.notes) == ("cpuid = []", [], ())
    assert xl_key_values(levelled) == 'cpuid = "host"'


@pytest.mark.parametrize("kind", ["pv", "hvm"])
def test_real_hosts_keep_the_levelled_policy_whichever_it_starts_on(kind):
    hosts = pool("amd 4.17", "small amd 4.17", "amd 4.20")
    levelled = level(hosts, kind)
    for each in hosts.values():
        most = each.max_policy(kind).value
        guest = created(each.default_policy(kind).value, xl_strings(levelled))
        assert features(guest) == features(levelled.policy)
        assert objections(guest, most, kind) == []


def test_masking_alone_would_not_do_on_4_17():
    hosts = pool("amd 4.17", "small amd 4.17")
    masks = [string for string in xl_strings(level(hosts, "pv")) if not string.startswith(("0x0:", "0x80000000:"))]
    guest = created(hosts["amd 4.17"].default_policy("pv").value, masks)
    refused = objections(guest, hosts["small amd 4.17"].max_policy("pv").value, "pv")
    assert "the last basic leaf is 0xd; at most 0x5, as in the PV Max policy" in refused


def test_a_featureset_is_what_xen_cpuid_prints_of_the_same_host():
    policies = real("amd 4.17").policies
    rows = XEN_CPUID.read_text().partition("Dynamic sets:")[2].splitlines()
    printed = {line[:31].strip(): line.split()[-1].split(":")[: len(FEATURESET)] for line in rows if line}
    assert {name: featureset(policies[name]).split("-") for name in PolicyName} == printed


# -- every form ---------------------------------------------------------------------------------------


def small_pool():
    """Two hosts of which one has more of everything."""
    more = policy(
        {
            (0x1, None): (0, 0, 1 << 28 | 1 << 1, 1 << 26),  # avx, pclmulqdq; sse2
            (0x7, 0): (0, 1 << 2 | 1 << 5, 0, 0),  # sgx, avx2
            (0x8000_0008, None): (0x302E, 0, 0, 0),
        },
        leaf7=2,
    )
    less = policy(
        {(0x1, None): (0, 0, 1 << 28, 1 << 26), (0x7, 0): (0, 1 << 5, 0, 0), (0x8000_0008, None): (0x3028, 0, 0, 0)}
    )
    return {"more": host(more), "less": host(less)}


def test_xl_gets_a_digit_per_bit():
    assert xl_cpuid(level(small_pool(), "pv")) == "\n".join(
        [
            "cpuid = [",
            '    "0x1:ecx=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx0x",',
            '    "0x7,0:eax=00000000000000000000000000000000,ebx=xxxxxxxxxxxxxxxxxxxxxxxxxxxxx0xx",',
            '    "0x80000008:eax=xxxxxxxxxxxxxxxxxxxxxxxx00101000"',
            "]",
        ]
    )


def test_names_say_what_they_can_and_the_rest_is_listed():
    levelled = level(small_pool(), "pv")
    assert xl_key_values(levelled) == 'cpuid = "host,pclmulqdq=0"'
    assert libvirt_cpu(levelled) == (
        "<cpu mode='host-passthrough'>\n  <feature policy='disable' name='pclmuldq'/>\n</cpu>"
    )
    assert unnamed(levelled) == ["0x7.0.ebx[2]", "the last of leaf 0x7 (0x0)"]


def test_the_last_basic_leaf_has_a_name():
    levelled = level({"a": host(policy(basic=0xD)), "b": host(policy(basic=0x5))}, "pv")
    assert xl_key_values(levelled) == 'cpuid = "host,maxleaf=0x5"'


def test_a_featureset_has_a_word_per_register():
    words = featureset(level(small_pool(), "pv").policy).split("-")
    assert (len(words), words[:2], words[5]) == (16, ["04000000", "10000000"], "00000020")


def test_the_json_object_is_a_policy_that_can_be_compared_with():
    made = levelling_object(level(small_pool(), "pv"), ["more", "less"])
    assert made["policy"]["leaves"]["0x1"] == {"-": ["0x0", "0x0", "0x10000000", "0x4000000"]}
    assert made["masked"] == ["pclmulqdq", "sgx"]


@pytest.mark.parametrize(
    ("name", "libxl"),
    [
        ("avx", "avx"),
        ("cx16", "cmpxchg16"),
        ("clflush", "clfsh"),
        ("tsc_deadline", "tsc-deadline"),
        ("tsc_adjust", "tsc_adjust"),
        ("sse4_2", "sse4_2"),
        ("avx512_vbmi", "avx512-vbmi"),
        ("ibrs_ibpb", "ibrsb"),
        ("psfd", "intel-psfd"),
        ("amd_psfd", "psfd"),
        ("perfctr_core", "perfctr_core"),
        ("rstr_fp_err_ptrs", "rstr-fp-err-ptrs"),
        ("lfence+", "lfence+"),
        ("itsc", "invtsc"),
        ("sgx", None),
        ("dbext", None),
        ("xsaves", None),
        ("auto_ibrs", None),
    ],
)
def test_libxl_has_its_own_names(name, libxl):
    assert libxl_name(*HOME[name]) == libxl


def test_a_bit_without_a_name_has_none_in_libxl():
    assert libxl_name(Word(0x7, 1, "ecx"), 3) is None
    assert libxl_name(Word(0x1, None, "edx"), 10) is None


# -- what cannot be levelled --------------------------------------------------------------------------


def test_processors_of_two_vendors_are_levelled_with_a_warning():
    levelled = level({"a": host(policy(vendor=AMD)), "b": host(policy(vendor=INTEL))}, "pv")
    assert levelled.policy.vendor == ""
    assert levelled.notes[0].startswith("the processors are of different vendors")


def test_xen_4_22_takes_no_guest_of_another_vendor():
    hosts = {"a": host(policy(vendor=AMD)), "b": host(policy(vendor=INTEL), xen=XenVersion(4, 22, ".0"))}
    with pytest.raises(LevellingError, match="a AuthenticAMD, b GenuineIntel: b takes no guest of another vendor"):
        level(hosts, "pv")


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        ({}, "no host to level"),
        ({"a": Host()}, "a: no `xen-cpuid -p`"),
        ({"a": Host(virt_caps=("hvm",), xen=XEN_4_17)}, "a: virt_caps has no pv"),
        ({"a": Host(policies={PolicyName.PV_DEFAULT: policy()})}, "a: no PV Max policy"),
    ],
)
def test_a_host_without_policies_cannot_be_levelled(hosts, told):
    with pytest.raises(LevellingError) as raised:
        level(hosts, "pv")
    assert str(raised.value) == told


def avx512(offset):
    """A policy with AVX-512, whose components lie from `offset` on."""
    return policy(
        {
            (0x7, 0): (0, 1 << 16 | 1 << 5, 0, 0),  # avx512f, avx2
            (0xD, 0): (0xE7, 0, 0xA88, 0),
            (0xD, 2): (0x100, 0x240, 0, 0),
            (0xD, 5): (0x40, offset, 0, 0),
            (0xD, 6): (0x200, offset + 0x40, 0, 0),
            (0xD, 7): (0x400, offset + 0x240, 0, 0),
        }
    )


def test_components_at_different_places_are_left_out_with_their_features():
    levelled = level({"a": host(avx512(0x440)), "b": host(avx512(0x340))}, "pv")
    assert (levelled.policy.xcr0, levelled.policy.has("avx2"), levelled.policy.has("avx512f")) == (0x7, True, False)
    assert levelled.policy.leaf(0xD, 0) == (0x7, 0, 832, 0)
    assert levelled.notes == ("opmask, zmm, hi_zmm: not at the same place of the XSAVE area everywhere, left out",)


def test_warnings_of_one_host_are_for_all():
    arch_caps = {(0x7, 0): (0, 0, 0, 1 << 29)}
    hosts = {
        "a": host(policy(dict(arch_caps), {0x10A: 1 << 0 | 1 << 2})),  # rdcl_no, rsba
        "b": host(policy(dict(arch_caps), {0x10A: 1 << 0 | 1 << 8})),  # rdcl_no, taa_no
    }
    levelled = level(hosts, "pv")
    assert levelled.policy.msr_features(0x10A) == ("rdcl_no", "rsba")
    assert levelled.notes == ("MSR 0x10a is not the same everywhere (rsba, taa_no), and cpuid = [...] cannot set it",)


def test_without_arch_caps_the_msr_is_empty():
    hosts = {"a": host(policy({}, {0x10A: 1})), "b": host(policy({}, {0x10A: 1}))}
    assert level(hosts, "pv").policy.msrs == {0x10A: 0}


def test_features_that_follow_the_host_are_noted():
    hosts = {"a": host(policy({(0x7, 0): (0, 1 << 6, 0, 0)})), "b": host(policy())}
    levelled = level(hosts, "pv")
    assert (list(levelled.disabled), levelled.lasts) == ([], {})
    assert levelled.notes == ("fdp_excptn_only follows the host that the guest runs on, whatever it was promised",)


# -- laws ---------------------------------------------------------------------------------------------

_WORD = st.integers(0, 2**32 - 1)
_LEAF = st.tuples(_WORD, _WORD, _WORD, _WORD)
_PLACES = [
    *((0x1, None), (0x7, 0), (0x7, 1), (0x7, 2), (0xD, 1)),
    *((0x8000_0001, None), (0x8000_0007, None), (0x8000_0008, None), (0x8000_0021, None)),
]


@st.composite
def some_policies(draw):
    """A Default policy and the Max policy above it."""
    made = policy(
        draw(st.fixed_dictionaries({place: _LEAF for place in _PLACES if place != (0x7, 0)})) | {(0x7, 0): draw(_LEAF)},
        {0xCE: draw(st.sampled_from([0, 1 << 31])), 0x10A: draw(_WORD)},
        basic=draw(st.sampled_from([0x5, 0x7, 0xD])),
        leaf7=0,
        extended=draw(st.sampled_from([0x8000_0001, 0x8000_0008, 0x8000_0021])),
    )
    leaves = dict(made.leaves)
    leaves[0x7, 0] = (draw(st.integers(0, 2)), *leaves[0x7, 0][1:])
    sizes, *rest = leaves[0x8000_0008, None]
    leaves[0x8000_0008, None] = (sizes & ~0xFF | draw(st.integers(32, 52)), *rest)  # every processor has some
    components = draw(st.sampled_from([0x3, 0x7, 0x207]))
    leaves[0xD, 0] = (components, 0, 0xA88, 0)
    leaves[0xD, 2], leaves[0xD, 9] = (0x100, 0x240, 0, 0), (0x8, draw(st.sampled_from([0xA80, 0x340])), 0, 0)
    made = Policy(leaves, made.msrs)
    default = Policy({place: registers for place, registers in leaves.items() if there(place, made)}, made.msrs)
    extra = draw(_WORD)
    raised = {
        place: (registers[0], *(register | extra for register in registers[1:]))
        for place, registers in default.leaves.items()
        if place in ((0x1, None), (0x7, 0), (0x8000_0001, None))
    }
    return default, Policy({**default.leaves, **raised}, default.msrs)


pools = st.lists(some_policies(), min_size=1, max_size=3)


def hosts_of(pairs, kind="pv"):
    return {f"host{number}": host(*pair, kind=kind) for number, pair in enumerate(pairs)}


@given(pools, st.sampled_from(["pv", "hvm"]))
@settings(max_examples=examples(50))
def test_every_host_takes_the_levelled_policy_and_keeps_all_of_it(pairs, kind):
    levelled = level(hosts_of(pairs, kind), kind)
    for _, most in pairs:
        assert objections(levelled.policy, most, kind) == []
        assert all(levelled.policy.word(word) & ~most.word(word) == 0 for word in FEATURESET)
        assert levelled.policy.xcr0 & ~most.xcr0 == 0


@given(pools)
@settings(max_examples=examples(50))
def test_the_configuration_gives_a_guest_the_levelled_policy_on_every_host(pairs):
    levelled = level(hosts_of(pairs), "pv")
    strings = xl_strings(levelled)
    for default, most in pairs:
        guest = created(default, strings)
        assert features(guest) == features(levelled.policy)
        assert guest.max_leaves == levelled.policy.max_leaves
        if there((0x8000_0008, None), levelled.policy):
            assert guest.physical_bits == levelled.policy.physical_bits
        assert objections(guest, most, "pv") == []


@given(pools)
@settings(max_examples=30)
def test_xl_is_told_of_leaves_that_every_host_has(pairs):
    for string in xl_strings(level(hosts_of(pairs), "pv")):
        leaf, _, subleaf = string.partition(":")[0].partition(",")
        assert all(there((int(leaf, 0), int(subleaf) if subleaf else None), default) for default, _ in pairs)


@given(pools)
@settings(max_examples=30)
def test_the_order_of_hosts_does_not_matter(pairs):
    hosts = hosts_of(pairs)
    first, *others = (level({name: hosts[name] for name in names}, "pv") for names in permutations(hosts))
    assert all(other == first for other in others)


@given(pools)
@settings(max_examples=30)
def test_a_host_of_the_levelled_policy_changes_nothing(pairs):
    levelled = level(hosts_of(pairs), "pv")
    assert level({**hosts_of(pairs), "levelled": host(levelled.policy)}, "pv").policy == levelled.policy
    assert level({"levelled": host(levelled.policy)}, "pv").policy == levelled.policy
