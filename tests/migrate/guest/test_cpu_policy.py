"""CPU policies: what a stream promises its guest, leaf by leaf, and what another host would lack."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from project import SAMPLES

from migrate.building.builder import StreamBuilder
from migrate.cli.main import main
from migrate.destination.releases import resolve
from migrate.guest.cpu_policy import Policy, component_name, read_policy
from migrate.guest.cpu_policy_files import NoPolicyError, any_policy, dumped_policy, stream_policy
from migrate.reports.inspection.policy import policy_object
from streams.wire.cpu_features import FEATURES, HOME, MSR_BITS, NO_NAME, Word, set_bits
from streams.wire.framing import CPUID_LEAF, NO_SUBLEAF, POLICY_MSR

PVH = sorted(SAMPLES.glob("x417-pvh.*.zst"))
GENUINE = sorted(SAMPLES.glob("x417-*.zst"))
GENUINE_INTEL = (0xD, 0x756E_6547, 0x6C65_746E, 0x4965_6E69)


def run(*args):
    return CliRunner().invoke(main, ["policy", *map(str, args)])


def document(*args):
    result = run(*args, "--format", "json")
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.output)


def intel(**leaves):
    """A policy of a processor with leaf 0 and others given as l1=(a, b, c, d), l7_0=…"""
    named = {tuple(int(part, 16) for part in name[1:].split("_")): value for name, value in leaves.items()}
    return Policy({(0, None): GENUINE_INTEL} | {(k[0], k[1] if k[1:] else None): v for k, v in named.items()}, {})


def saved(policy_edit, tmp_path, name="edited"):
    """A stream whose guest was promised something else."""
    b = StreamBuilder.hvm()
    policy_edit(b)
    path = tmp_path / name
    path.write_bytes(b.build())
    return path


# -- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", FEATURES, ids=str)
def test_a_register_has_at_most_32_names(word):
    assert 1 <= len(FEATURES[word]) <= 32


def test_names_are_unique():
    names = [name for listed in FEATURES.values() for name in listed if name != NO_NAME]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("name", "leaf", "subleaf", "register", "bit"),
    [
        ("fpu", 0x1, None, "edx", 0),
        ("apic", 0x1, None, "edx", 9),
        ("sysenter", 0x1, None, "edx", 11),
        ("clflush", 0x1, None, "edx", 19),
        ("htt", 0x1, None, "edx", 28),
        ("pbe", 0x1, None, "edx", 31),
        ("vmx", 0x1, None, "ecx", 5),
        ("pcid", 0x1, None, "ecx", 17),
        ("x2apic", 0x1, None, "ecx", 21),
        ("avx", 0x1, None, "ecx", 28),
        ("hypervisor", 0x1, None, "ecx", 31),
        ("fsgsbase", 0x7, 0, "ebx", 0),
        ("avx2", 0x7, 0, "ebx", 5),
        ("smep", 0x7, 0, "ebx", 7),
        ("avx512f", 0x7, 0, "ebx", 16),
        ("smap", 0x7, 0, "ebx", 20),
        ("sha", 0x7, 0, "ebx", 29),
        ("avx512vl", 0x7, 0, "ebx", 31),
        ("umip", 0x7, 0, "ecx", 2),
        ("pku", 0x7, 0, "ecx", 3),
        ("la57", 0x7, 0, "ecx", 16),
        ("rdpid", 0x7, 0, "ecx", 22),
        ("pks", 0x7, 0, "ecx", 31),
        ("md_clear", 0x7, 0, "edx", 10),
        ("cet_ibt", 0x7, 0, "edx", 20),
        ("amx_tile", 0x7, 0, "edx", 24),
        ("ibrs_ibpb", 0x7, 0, "edx", 26),
        ("arch_caps", 0x7, 0, "edx", 29),
        ("ssbd", 0x7, 0, "edx", 31),
        ("avx_vnni", 0x7, 1, "eax", 4),
        ("fred", 0x7, 1, "eax", 17),
        ("lam", 0x7, 1, "eax", 26),
        ("cet_sss", 0x7, 1, "edx", 18),
        ("bhi_ctrl", 0x7, 2, "edx", 4),
        ("xsaves", 0xD, 1, "eax", 3),
        ("syscall", 0x8000_0001, None, "edx", 11),
        ("nx", 0x8000_0001, None, "edx", 20),
        ("page1gb", 0x8000_0001, None, "edx", 26),
        ("lm", 0x8000_0001, None, "edx", 29),
        ("svm", 0x8000_0001, None, "ecx", 2),
        ("xop", 0x8000_0001, None, "ecx", 11),
        ("topoext", 0x8000_0001, None, "ecx", 22),
        ("monitorx", 0x8000_0001, None, "ecx", 29),
        ("itsc", 0x8000_0007, None, "edx", 8),
        ("clzero", 0x8000_0008, None, "ebx", 0),
        ("ibpb", 0x8000_0008, None, "ebx", 12),
        ("virt_ssbd", 0x8000_0008, None, "ebx", 25),
        ("auto_ibrs", 0x8000_0021, None, "eax", 8),
        ("srso_no", 0x8000_0021, None, "eax", 29),
    ],
)
def test_feature_has_its_bit(name, leaf, subleaf, register, bit):
    assert HOME[name] == (Word(leaf, subleaf, register), bit)


def test_components_have_their_names():
    assert [component_name(bit) for bit in (0, 1, 2, 5, 6, 7, 9, 18, 62)] == [
        *("x87", "sse", "avx", "opmask", "zmm", "hi_zmm", "pkru", "tiledata", "lwp"),
    ]
    assert component_name(61) == "xcr0[61]"


@given(st.integers(0, 2**64 - 1))
def test_set_bits_add_up(value):
    assert sum(1 << bit for bit in set_bits(value)) == value


# -- reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eax", "signature"),
    [
        (0x00060FB1, (0xF, 0x6B, 1)),  # AMD K8
        (0x000906EA, (0x6, 0x9E, 0xA)),  # Coffee Lake
        (0x00A20F10, (0x19, 0x21, 0)),  # Zen 3
        (0x00000543, (0x5, 0x4, 3)),  # Pentium MMX: no extended model
    ],
)
def test_signature_is_family_model_and_stepping(eax, signature):
    assert intel(l1=(eax, 0, 0, 0)).signature == signature


def test_vendor_and_brand_are_text():
    name = b"Some  Processor\0".ljust(48, b"\0")
    brand = {
        (0x8000_0002 + i, None): tuple(int.from_bytes(name[16 * i + 4 * j :][:4], "little") for j in range(4))
        for i in range(3)
    }
    policy = Policy({(0, None): GENUINE_INTEL} | brand)
    assert (policy.vendor, policy.brand) == ("GenuineIntel", "Some Processor")


def test_a_leaf_that_is_not_there_promises_nothing():
    policy = Policy({})
    assert policy.leaf(7, 0) == (0, 0, 0, 0)
    assert (policy.vendor, policy.brand, policy.xcr0, policy.features) == ("", "", 0, frozenset())


def test_a_leaf_without_subleaf_is_found_under_the_first_and_the_other_way():
    assert Policy({(1, 0): (1, 2, 3, 4)}).leaf(1) == (1, 2, 3, 4)
    assert Policy({(7, None): (1, 2, 3, 4)}).leaf(7, 0) == (1, 2, 3, 4)
    assert Policy({(7, None): (1, 2, 3, 4)}).leaf(7, 1) == (0, 0, 0, 0)


def test_a_bit_without_a_name_goes_by_its_number():
    policy = intel(l7_0=(0, 0, 1 << 15, 0))
    assert policy.features == {"0x7.0.ecx[15]"}


def test_amd_repeats_bits_that_are_no_features_of_their_own():
    policy = intel(l80000001=(0, 0, 0, 0x0183_F3FF | 1 << 20))
    assert policy.features == {"nx"}


def test_xcr0_has_two_halves():
    assert intel(ld_0=(7, 0, 0, 1)).xcr0 == 1 << 32 | 7


def test_size_of_an_xsave_area_is_that_of_its_last_component():
    policy = intel(ld_2=(256, 576, 0, 0), ld_9=(8, 2688, 0, 0))
    assert [policy.xsave_size(value) for value in (1, 3, 7, 0x203, 0x207)] == [576, 576, 832, 2696, 2696]
    assert policy.xsave_size(0x100) is None


def test_components_beyond_sse_have_a_place():
    policy = intel(ld_0=(0x207, 0, 0, 0), ld_2=(256, 576, 0, 0), ld_9=(8, 2688, 0, 0), ld_5=(64, 1088, 0, 0))
    assert policy.places == {2: (256, 576), 9: (8, 2688)}


def test_physical_addresses_have_a_width():
    assert (intel(l80000008=(0x3028, 0, 0, 0)).physical_bits, intel().physical_bits) == (40, 0)


def test_records_are_read_entry_by_entry():
    cpuid = CPUID_LEAF.pack(1, NO_SUBLEAF, 1, 2, 3, 4) + CPUID_LEAF.pack(7, 0, 5, 6, 7, 8)
    policy = read_policy(cpuid + b"odd", POLICY_MSR.pack(0xCE, 0, 1 << 31))
    assert policy.leaves == {(1, None): (1, 2, 3, 4), (7, 0): (5, 6, 7, 8)}
    assert policy.msr_features(0xCE) == ("cpuid_faulting",)


def test_arch_capabilities_are_named():
    assert {MSR_BITS[0x10A][bit] for bit in (0, 5, 8, 17, 20)} == {"rdcl_no", "mds_no", "taa_no", "fb_clear", "bhi_no"}
    assert Policy({}, {0x10A: 1 << 63 | 1}).msr_features(0x10A) == ("rdcl_no", "arch_capabilities[63]")


# -- genuine streams --------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", PVH, ids=lambda path: path.stem)
def test_genuine_policy_is_that_of_the_emulated_processor(sample):
    found = stream_policy(sample)
    policy = found.policy
    assert found.xen == "4.17"
    assert (policy.vendor, policy.signature) == ("AuthenticAMD", (0xF, 0x6B, 1))
    assert policy.brand == "QEMU TCG CPU version 2.5+"
    assert policy.max_leaves["basic"] == 0xD
    assert all(policy.has(feature) for feature in ("fpu", "sse2", "lm", "nx", "syscall", "xsave", "hypervisor"))
    assert not any(policy.has(feature) for feature in ("vmx", "svm", "avx512f", "monitorx"))
    assert policy.components == ("x87", "sse", "avx", "pkru")
    assert policy.xsave_size(0x203) == 2696


@pytest.mark.parametrize("sample", GENUINE, ids=lambda path: path.stem)
def test_every_genuine_policy_is_made_of_known_bits(sample):
    policy = stream_policy(sample).policy
    assert not [name for name in policy.features if "[" in name]
    assert policy.msrs.keys() == {0xCE, 0x10A}


# -- dumps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [PVH[0], SAMPLES / "x417-pv32.plain.libxc.zst"], ids=lambda path: path.stem)
def test_a_dump_reads_back_as_the_policy(sample):
    policy = stream_policy(sample).policy
    assert dumped_policy(json.dumps(policy_object(policy, "x", None))) == policy


@pytest.mark.parametrize(
    "text",
    [
        '{"0x1": {"-": [1, 2, 3, 4]}}',
        '{"1": {"": ["1", "0x2", "0b11", 4]}}',
        '{"1": {"0xffffffff": [1, 2, 3, 4]}}',
        '{"leaves": {"1": {"none": [1, 2, 3, 4]}}}',
    ],
)
def test_a_dump_may_be_no_more_than_leaves(text):
    assert dumped_policy(text) == Policy({(1, None): (1, 2, 3, 4)})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "{}",
        '{"leaves": {}}',
        '{"leaves": 3}',
        '{"1": [1, 2, 3, 4]}',
        '{"1": {"-": [1, 2, 3]}}',
        '{"1": {"-": [1, 2, 3, -4]}}',
        '{"1": {"-": [1, 2, 3, 4294967296]}}',
        '{"1": {"-": [1, 2, 3, true]}}',
        '{"1": {"-": [1, 2, 3, 1.5]}}',
        '{"one": {"-": [1, 2, 3, 4]}}',
        '{"leaves": {"1": {"-": [1, 2, 3, 4]}}, "msrs": [1]}',
        '{"a":' * 100_000,
    ],
    ids=range(15),
)
def test_anything_else_is_no_dump(text):
    with pytest.raises(NoPolicyError):
        dumped_policy(text)


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_a_dump_or_an_orderly_error(raw):
    try:
        dumped_policy(raw)
    except NoPolicyError:
        return


def test_a_file_is_a_dump_if_it_begins_as_one(tmp_path):
    path = tmp_path / "dump"
    path.write_text('\n  {"1": {"-": [1, 2, 3, 4]}}')
    assert any_policy(path).policy.leaf(1) == (1, 2, 3, 4)
    assert any_policy(PVH[0]).policy.vendor == "AuthenticAMD"


# -- the command ------------------------------------------------------------------------------------


def test_text_names_processor_and_features():
    result = run(PVH[0])
    assert result.exit_code == 0
    assert "AuthenticAMD, family 0xf, model 0x6b, stepping 0x1" in result.output
    assert "    brand             QEMU TCG CPU version 2.5+" in result.output.splitlines()
    assert "    xcr0              x87 sse avx pkru" in result.output.splitlines()
    assert "    platform_info     cpuid_faulting (0x80000000)" in result.output.splitlines()


def test_json_has_the_leaves_as_they_are():
    told = document(PVH[0])
    assert told["leaves"]["0x0"]["-"] == ["0xd", "0x68747541", "0x444d4163", "0x69746e65"]
    assert (told["vendor"], told["family"], told["model"], told["stepping"]) == ("AuthenticAMD", 15, 107, 1)
    assert "lm" in told["features"]["0x80000001.edx"]
    assert told["msr_features"] == {"platform_info": ["cpuid_faulting"], "arch_capabilities": []}


def test_another_guest_of_the_same_host_lacks_nothing():
    result = run(PVH[0], "--against", PVH[1])
    assert result.exit_code == 0
    assert "has all that the guest was promised" in result.output


def lacks_avx(b):
    b.cpuid_policy[1]["c"] &= ~(1 << 28)


def has_avx(b):
    b.cpuid_policy[1]["c"] |= 1 << 28


def test_a_feature_less_exits_1_and_names_it(tmp_path):
    more, less = saved(has_avx, tmp_path, "more"), saved(lacks_avx, tmp_path, "less")
    result = run(more, "--against", less)
    assert result.exit_code == 1
    assert f"promised by {more}, and lacking in {less}: 1" in result.output
    assert "avx" in result.output
    told = document(more, "--against", less)["against"]
    assert told["lacking"] == [{"kind": "feature", "name": "avx", "where": "0x1.ecx", "refused": False}]
    assert told["extra"] == []


@pytest.mark.parametrize(("target", "refused"), [("4.17.7", True), ("4.20", False)])
def test_what_is_refused_is_the_targets_to_say(target, refused, tmp_path):
    def shorter(b):
        b.cpuid_policy[0]["a"] = 0xC

    more, less = saved(lambda b: None, tmp_path, "more"), saved(shorter, tmp_path, "less")
    told = document(more, "--against", less, "--target", target)["against"]
    assert told["target"] == resolve(target).name
    assert [(lack["name"], lack["refused"]) for lack in told["lacking"]] == [("basic to 0xd", refused)]
    shown = run(more, "--against", less, "--target", target).output
    assert (f"1 of it Xen {resolve(target).short} refuses" in shown) is refused


def test_a_feature_more_is_told_and_fine(tmp_path):
    more, less = saved(has_avx, tmp_path, "more"), saved(lacks_avx, tmp_path, "less")
    told = document(less, "--against", more)["against"]
    assert (told["lacking"], [lack["name"] for lack in told["extra"]]) == ([], ["avx"])
    assert run(less, "--against", more).exit_code == 0


def test_a_dump_serves_as_the_other(tmp_path):
    path = tmp_path / "dump.json"
    path.write_text(run(PVH[0], "--format", "json").output)
    assert run(PVH[1], "--against", path).exit_code == 0


def test_a_stream_comes_from_stdin():
    body = StreamBuilder.hvm().build()
    out = subprocess.run([sys.executable, "-m", "migrate", "policy", "-"], input=body, capture_output=True, check=True)
    assert b"GenuineIntel" in out.stdout


def old(b):
    b.image["version"], b.domain["xen_minor"] = 2, 13


def test_a_stream_without_policy_exits_3(tmp_path):
    result = run(saved(old, tmp_path))
    assert result.exit_code == 3
    assert "carries no CPUID policy" in result.output


def test_a_file_that_is_no_stream_exits_3(tmp_path):
    path = tmp_path / "junk"
    path.write_bytes(b"no stream at all, just some text")
    assert run(path).exit_code == 3


@pytest.mark.parametrize("args", [["/nonexistent"], [PVH[0], "--against", "/nonexistent"], [PVH[0].parent]])
def test_a_file_that_cannot_be_read_exits_2(args):
    result = run(*args)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_a_dump_that_is_none_exits_3(tmp_path):
    path = tmp_path / "dump"
    path.write_text('{"1": 2}')
    result = run(PVH[0], "--against", path)
    assert result.exit_code == 3
    assert str(path) in result.output


def test_nothing_is_read_beyond_the_static_data(tmp_path):
    path = tmp_path / "cut"
    path.write_bytes(StreamBuilder.hvm().build()[:400])  # in the middle of the first page
    assert run(path).exit_code == 0


def test_what_a_brand_says_cannot_reach_the_terminal(tmp_path):
    def rude(b):
        b.cpuid_policy.append({"leaf": 0x8000_0002, "subleaf": NO_SUBLEAF, "a": 0x6D31_5B1B, "b": 0, "c": 0, "d": 0})

    result = run(saved(rude, tmp_path))
    assert "\x1b" not in result.output
    assert "\\x1b[1m" in result.output


def test_the_command_imports_neither_numpy_nor_construct():
    code = (
        "import sys, migrate.cli.main\n"
        f"try: migrate.cli.main.main(['policy', {str(PVH[0])!r}], prog_name='migrate')\n"
        "except SystemExit as end: assert not end.code\n"
        "print({'numpy', 'construct'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "set()"
