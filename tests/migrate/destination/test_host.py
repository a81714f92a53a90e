"""What follows from a host's facts, and which fact is named for it."""

import pytest
from host_texts import REAL, parsed, real, some_hosts, version
from hypothesis import given, settings
from hypothesis import strategies as st
from trying import examples

from migrate.destination.host import Host, PolicyName, XenVersion
from migrate.destination.host_memory import Node
from migrate.destination.host_switches import SWITCHES, known_switches, memory_limit
from migrate.destination.policy_ranges import Ranges
from migrate.guest.cpu_policy import Policy
from migrate.reports.inspection.host import QUESTIONS

GIB = 1 << 30
INTEL_LEAF = {(0x0, None): (0xD, 0x756E_6547, 0x6C65_746E, 0x4965_6E69)}
AMD_LEAF = {(0x0, None): (0xD, 0x6874_7541, 0x444D_4163, 0x6974_6E65)}


def release(text):
    """A host of which the version alone is known."""
    major, rest = text.split(".", 1)
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return XenVersion(int(major), int(rest[:digits]), rest[digits:])


def with_caps(xen, virt_caps, xen_caps="xen-3.0-x86_64 xen-3.0-x86_32p hvm-3.0-x86_32 hvm-3.0-x86_64"):
    return Host(xen=release(xen), virt_caps=tuple(virt_caps.split()), xen_caps=tuple(xen_caps.split()))


def with_policy(name, leaves, msrs=None, **facts):
    return Host(policies={name: Policy(leaves, msrs or {})}, **facts)


# -- the real hosts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "question", "value", "because"),
    [
        ("amd 4.17", "release", (4, 17, 7), "xen_version 4.17.7"),
        ("amd 4.17", "pv", True, "virt_caps has pv"),
        ("amd 4.17", "pv32", True, "xen_caps has xen-3.0-x86_32p"),
        ("amd 4.17", "hvm", True, "virt_caps has hvm"),
        ("amd 4.17", "hap", True, "virt_caps has hap"),
        ("small amd 4.17", "hap", False, "virt_caps has no hap"),
        ("small amd 4.17", "shadow", True, "virt_caps has shadow"),
        ("intel 4.17", "hvm", False, "virt_caps has no hvm"),
        ("intel 4.17", "hap", False, "virt_caps has no hvm"),
        ("intel 4.17", "vendor", "GenuineIntel", "leaf 0 of the Raw policy says GenuineIntel"),
        ("amd 4.20", "release", (4, 20, 0), "xen_version 4.20.0"),
        ("amd 4.20", "memory above 4 GiB", True, "total_memory 6143 MiB is more than fits below 4 GiB"),
        ("amd 4.17", "policy entries", Ranges(2, 0x8000_0021, 120, 2), "maximum 120 leaves and 2 MSRs"),
        ("amd 4.17", "pv xcr0", 0x7, "leaf 0xd of the PV Max policy"),
        ("amd 4.17", "hvm xcr0", 0x21F, "leaf 0xd of the HVM Max policy"),
        ("amd 4.17", "hvm address bits", 40, "leaf 0x80000008 of the HVM Max policy"),
        ("amd 4.17", "l1tf guard", False, "xen_commandline has spec-ctrl=no"),
    ],
)
def test_a_real_host_is_known_by_its_facts(name, question, value, because):
    answer = QUESTIONS[question].ask(real(name))
    assert (answer.value, answer.because, answer.open) == (value, because, False)


@pytest.mark.parametrize("name", REAL)
def test_a_complete_host_leaves_nothing_open(name):
    assert [question for question, asked in QUESTIONS.items() if asked.ask(real(name)).open] == []


@pytest.mark.parametrize("name", REAL)
def test_the_outputs_of_one_host_raise_no_doubt(name):
    assert real(name).doubts == ()


def test_outputs_of_two_hosts_raise_a_doubt():
    both = Host(hw_caps=real("amd 4.17").hw_caps, policies=real("intel 4.17").policies)
    assert both.doubts[0].startswith("hw_caps says 0x1.edx 0x0fcbf3fd, the Host policy 0x078bfbfd")


# -- the release --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "suffix"),
    [
        ("4.17.7", (4, 17, 7), ""),
        ("4.17", (4, 17, 0), ""),
        ("4.21-rc2", (4, 21, 0), "-rc2"),
        ("4.23-unstable", (4, 23, 0), "-unstable"),
        ("4.14.4-pre", (4, 14, 4), "-pre"),
        ("4.17.5-10.1", (4, 17, 5), "-10.1"),
        ("4.13.1_04-lp152", (4, 13, 1), "_04-lp152"),
        ("4.11.amazon", (4, 11, 0), ".amazon"),
    ],
)
def test_a_version_is_a_release_and_what_a_vendor_adds(text, expected, suffix):
    host = parsed(version(text))
    assert (str(host.xen), host.release.value, host.xen.suffix) == (text, expected, suffix)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("4.17.7", "xen_version 4.17.7"),
        ("4.21-rc2", "xen_version 4.21-rc2: a development version, taken for the release it leads to"),
        ("4.17.5-10", "xen_version 4.17.5-10: a vendor's version, taken for the release it is based on"),
    ],
)
def test_a_version_that_is_no_release_is_said_to_be_taken_for_one(text, told):
    assert Host(xen=release(text)).release.because == told


@pytest.mark.parametrize(
    ("leaves", "leaf7", "extended"), [(114, 1, 0x8000_001C), (119, 1, 0x8000_0021), (120, 2, 0x8000_0021)]
)
def test_the_number_of_leaves_tells_which_ones_xen_stores(leaves, leaf7, extended):
    assert Host(most_leaves=leaves, most_msrs=2).ranges.value == Ranges(leaf7, extended, leaves, 2)


def test_another_number_of_leaves_leaves_that_open():
    answer = Host(most_leaves=121, most_msrs=2).ranges
    assert (answer.open, answer.because) == (True, "maximum 121 leaves and 2 MSRs: no known release says so")


# -- which guests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("xen", "virt_caps", "pv", "hap", "shadow"),
    [
        ("4.11.4", "hvm hvm_directio", True, None, None),
        ("4.12.4", "pv hvm hvm_directio pv_directio", True, None, None),
        ("4.12.4", "hvm hvm_directio", False, None, None),
        ("4.13.5", "pv hvm hap shadow", True, True, True),
        ("4.14.0", "pv hvm hvm_directio pv_directio hap shadow iommu_hap_pt_share", True, True, True),
        ("4.15.0", "pv hvm hvm_directio pv_directio hap shadow iommu_hap_pt_share vmtrace", True, True, True),
        ("4.16.0", "pv hvm hap shadow vpmu gnttab-v1 gnttab-v2", True, True, True),
        ("4.17.7", "pv hvm shadow gnttab-v1 gnttab-v2", True, False, True),
        ("4.22.0", "pv hvm hap gnttab-v1 gnttab-v2", True, True, False),
        ("4.22.0", "hvm hap gnttab-v1 gnttab-v2", False, True, False),
    ],
)
def test_words_of_virt_caps_count_from_the_release_that_prints_them(xen, virt_caps, pv, hap, shadow):
    host = with_caps(xen, virt_caps)
    assert (host.pv.value, host.hap.value, host.shadow.value) == (pv, hap, shadow)


def test_before_they_are_printed_hap_and_shadow_are_open():
    answer = with_caps("4.11.4", "hvm hvm_directio").hap
    assert (answer.open, answer.because) == (True, "virt_caps says nothing of hap before Xen 4.13")


@pytest.mark.parametrize(
    ("xen_caps", "pv32", "because"),
    [
        ("xen-3.0-x86_64 xen-3.0-x86_32p", True, "xen_caps has xen-3.0-x86_32p"),
        ("xen-3.0-x86_64 hvm-3.0-x86_32p", False, "xen_caps has no xen-3.0-x86_32p"),
    ],
)
def test_xen_caps_decides_on_32_bit_pv(xen_caps, pv32, because):
    answer = with_caps("4.17.7", "pv hvm", xen_caps).pv32
    assert (answer.value, answer.because) == (pv32, because)


def test_without_pv_there_is_no_32_bit_pv_whatever_xen_caps_says():
    assert with_caps("4.17.7", "hvm hap").pv32.because == "virt_caps has no pv"


@pytest.mark.parametrize(("caps", "hvm"), [("xen-3.0-x86_64", False), ("hvm-3.0-x86_64", True)])
def test_without_virt_caps_xen_caps_decides_on_hvm(caps, hvm):
    host = Host(xen_caps=(caps,))
    assert (host.hvm.value, host.pv.value) == (hvm, not hvm)


@pytest.mark.parametrize(
    ("host", "because"),
    [
        (Host(), "no `xl info`"),
        (Host(total_memory=1), "no xen_caps"),
        (Host(policies={PolicyName.RAW: None}), "no `xl info`"),
    ],
)
def test_an_open_question_says_what_is_missing(host, because):
    assert (host.pv32.value, host.pv32.open, host.pv32.because) == (None, True, because)


# -- the processor ------------------------------------------------------------------------------------


def test_the_max_policy_is_that_of_the_guests_kind():
    host = real("amd 4.17")
    assert host.max_policy("pv").value is host.policies[PolicyName.PV_MAX]
    assert host.max_policy("hvm").value is host.policies[PolicyName.HVM_MAX]


def test_a_host_without_hvm_has_no_hvm_policy_and_no_open_question():
    answer = real("intel 4.17").max_policy("hvm")
    assert (answer.value, answer.open, answer.because) == (None, False, "virt_caps has no hvm")


def test_a_policy_without_leaf_0_is_none():
    # What Xen prints for HVM on a host without it, read without `xl info`.
    answer = Host(policies=real("intel 4.17").policies).max_policy("hvm")
    assert (answer.value, answer.open) == (None, False)
    assert answer.because == "the HVM Max policy has no leaf 0: the host has no such guests"


def test_a_policy_that_xen_does_not_support_is_none():
    answer = Host(policies={PolicyName.PV_MAX: None}).max_policy("pv")
    assert (answer.value, answer.open, answer.because) == (None, False, "Xen does not support the PV Max policy")


@pytest.mark.parametrize(
    ("host", "because"),
    [(Host(), "no `xen-cpuid -p`"), (with_policy(PolicyName.RAW, AMD_LEAF), "no PV Max policy")],
)
def test_a_policy_that_was_not_printed_is_open(host, because):
    answer = host.max_policy("pv")
    assert (answer.value, answer.open, answer.because) == (None, True, because)


@pytest.mark.parametrize(("name", "intel"), [("amd 4.17", False), ("intel 4.17", True)])
def test_the_vendor_tells_whether_machine_checks_are_intels(name, intel):
    assert real(name).intel.value is intel


def test_hw_caps_alone_tell_a_processor_of_amd():
    answer = Host(hw_caps=real("amd 4.17").hw_caps).intel
    assert (answer.value, answer.because) == (False, "hw_caps has svm: no processor of Intel")


def test_without_policies_a_processor_of_intel_is_not_told():
    assert Host(hw_caps=real("intel 4.17").hw_caps).intel.open


def test_shadow_page_tables_narrow_physical_addresses():
    wide = {PolicyName.HVM_MAX: Policy({**AMD_LEAF, (0x8000_0008, None): (48, 0, 0, 0)})}
    host = Host(release("4.17.7"), policies=wide)
    shadow = Host(xen=release("4.17.7"), virt_caps=("hvm", "shadow"), policies=wide)
    nested = Host(xen=release("4.17.7"), virt_caps=("hvm", "hap"), policies=wide)
    assert (shadow.physical_bits("hvm").value, nested.physical_bits("hvm").value) == (44, 48)
    assert shadow.physical_bits("hvm").because == (
        "leaf 0x80000008 of the HVM Max policy has 48, and virt_caps has no hap: 44"
    )
    assert host.physical_bits("hvm").open


def test_components_have_their_places():
    assert real("amd 4.17").max_policy("hvm").value.places == {
        2: (0x100, 0x240),
        3: (0x40, 0x3C0),
        4: (0x40, 0x400),
        9: (0x8, 0xA80),
    }


# -- L1TF and linear page tables ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command_line", "guarded"),
    [
        ("pv-l1tf=0", False),
        ("pv-l1tf", True),
        ("no-pv-l1tf", False),
        ("pv-l1tf=dom0", None),
        ("pv-l1tf=domu", True),
        ("pv-l1tf=dom0,no-domu", False),
        ("pv-l1tf=true,domu=0", False),
        ("spec-ctrl=no", False),
        ("spec-ctrl=no-xen", None),
        ("spec-ctrl=no pv-l1tf=1", True),
        ("pv-l1tf=1 spec-ctrl=no", True),
        ("console=com1", None),
    ],
)
def test_the_command_line_decides_on_the_l1tf_guard(command_line, guarded):
    host = with_policy(PolicyName.HOST, INTEL_LEAF, command_line=command_line)
    assert host.l1tf.value is guarded


@pytest.mark.parametrize(
    ("leaves", "msrs", "guarded"), [(AMD_LEAF, {}, False), (INTEL_LEAF, {0x10A: 1}, False), (INTEL_LEAF, {}, None)]
)
def test_without_a_switch_the_processor_decides_on_the_l1tf_guard(leaves, msrs, guarded):
    host = with_policy(PolicyName.HOST, leaves, msrs, command_line="")
    assert (host.l1tf.value, host.l1tf.open) == (guarded, guarded is None)


@pytest.mark.parametrize(
    ("command_line", "allowed"),
    [
        ("", True),
        ("pv-linear-pt=0", False),
        ("no-pv-linear-pt", False),
        ("pv-linear-pt=0 pv-linear-pt", True),
        (None, None),
    ],
)
def test_linear_page_tables_can_be_switched_off(command_line, allowed):
    assert Host(command_line=command_line).linear_page_tables.value is allowed


def test_switches_that_change_an_answer_are_listed_with_what_they_change():
    found = known_switches("console=com1 pv=no-32 noreboot no-hap cpuid_mask_ecx=0x1 mem=3G")
    assert [(switch.text, switch.meaning) for switch in found] == [
        ("pv=no-32", SWITCHES["pv"]),
        ("no-hap", SWITCHES["hap"]),
        ("cpuid_mask_ecx=0x1", SWITCHES["cpuid_mask"]),
        ("mem=3G", SWITCHES["mem"]),
    ]


@pytest.mark.parametrize(
    ("command_line", "limit"),
    [
        ("mem=3G", 3 * GIB),
        ("mem=2048M", 2 * GIB),
        ("mem=4194304", 4 * GIB),
        ("mem=0x100000k", GIB),
        ("mem=1G mem=2G", 2 * GIB),
        ("mem=0", None),
        ("mem=much", None),
        ("availmem=3G dom0_mem=1G", None),
    ],
)
def test_mem_ends_the_memory(command_line, limit):
    assert memory_limit(command_line) == limit


# -- memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "above"),
    [
        # Measured: 2999 MiB, all of it below 4 GiB; 6143 MiB, half of it above.
        ({"total_memory": 2999}, False),
        ({"total_memory": 6143}, True),
        # What lies between is decided by the room kept for devices.
        ({"total_memory": 3500}, None),
        ({"total_memory": 4095}, True),
        ({"total_memory": 3500, "nodes": (Node(0, 4608, 0),)}, True),
        ({"total_memory": 3500, "nodes": (Node(0, 3500, 0),)}, False),
        ({"total_memory": 2999, "nodes": (Node(0, 4608, 0),)}, True),
        ({"total_memory": 3500, "nodes": (Node(0, 2048, 0), Node(1, 1500, 0))}, None),
        ({"total_memory": 3500, "command_line": "mem=4G"}, False),
        ({"total_memory": 3500, "command_line": "mem=5G"}, None),
        ({}, None),
    ],
)
def test_whether_memory_lies_above_4_gib(facts, above):
    answer = Host(**facts).memory_above_4g
    assert (answer.value, answer.open) == (above, above is None)


def test_the_node_of_a_real_host_spans_its_holes():
    host = real("amd 4.20")
    assert (host.total_memory, host.nodes) == (6143, (Node(0, 7168, 5555),))


@pytest.mark.parametrize(
    ("total", "free", "pages", "high"),
    [
        (6143, 5555, 0, True),
        (6143, 5555, 2048, True),
        (6143, 5555, (5555 - 4076) * 256, True),
        (6143, 5555, (5555 - 4076) * 256 + 1, None),
        # dom0 had the memory above 4 GiB, as far as is known.
        (6143, 3000, 0, None),
        (6143, None, 0, None),
        (2999, 2446, 2048, False),
    ],
)
def test_new_guests_get_memory_above_4_gib_while_some_is_certain_to_be_free(total, free, pages, high):
    answer = Host(total_memory=total, free_memory=free).places_high(pages)
    assert (answer.value, answer.open) == (high, high is None)


@pytest.mark.parametrize(
    ("pages", "fits"), [(0, True), (25600, True), (25601, None), (25855, None), (25856, False), (1 << 30, False)]
)
def test_a_guest_fits_into_free_memory(pages, fits):
    assert Host(free_memory=100).fits(pages).value is fits


@settings(max_examples=examples(40))
@given(some_hosts(), st.integers(0, 1 << 40))
def test_every_answer_has_a_reason_and_an_open_one_no_value(host, pages):
    answers = [question.ask(host) for question in QUESTIONS.values()]
    answers += [host.places_high(pages), host.fits(pages), host.default_policy("pv"), host.physical_bits("pv")]
    assert all(answer.because for answer in answers)
    assert all(answer.value is None for answer in answers if answer.open)


@given(some_hosts(), st.sampled_from(["pv", "hvm", "hap", "shadow"]))
def test_another_capability_never_takes_an_answer_away(host, word):
    caps = host.virt_caps or ()
    more = Host(xen=host.xen, xen_caps=host.xen_caps, virt_caps=(*caps, word))
    less = Host(xen=host.xen, xen_caps=host.xen_caps, virt_caps=caps)
    for question in ("pv", "pv32", "hvm"):
        if QUESTIONS[question].ask(less).value:
            assert QUESTIONS[question].ask(more).value


@given(some_hosts())
def test_a_host_is_a_value_that_can_be_hashed(host):
    assert hash(host) == hash(Host(*(getattr(host, name) for name in Host.__slots__)))
