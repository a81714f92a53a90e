"""What Xen says to the CPU entries of an HVM context: refused, left to the host, or held otherwise."""

import pytest
from hvm_domains import ALL, found, policy, told

from migrate.building.hvm_contexts import Hardware, edit, hvm_context, resize
from migrate.destination.releases import resolve
from migrate.rules.declaring import RULES, Effect, Severity
from migrate.xen.hvm_records import saved_lengths
from streams.wire.hvm_cpu import CPU
from streams.wire.hvm_names import SaveType
from streams.wire.registers import Cr4, Efer

PE, ET, PG, NW, CD = 0x1, 0x10, 0x8000_0000, 1 << 29, 1 << 30
VALID, HAS_ERROR = 0x8000_0000, 1 << 11


def with_cpu(release="4.20", **fields):
    """A context, as a release saves it, whose vcpu 0 differs in some fields."""
    body = bytearray(hvm_context(1, Hardware(lengths=saved_lengths(resolve(release)))))
    edit(body, SaveType.CPU, **fields)
    return bytes(body)


def refused(release="4.20", promised=ALL, intel=None, **fields):
    """(rule, errno) of what fails the call."""
    said = told(with_cpu(release, **fields), release, promised, intel=intel)
    return [(one.rule, one.errno) for one in said if one.fatal]


IMPOSSIBLE = [
    {"cr0": 0},
    {"cr0": PE},
    {"cr0": ET | PG},
    {"cr0": ET | 1 << 6},
    {"cr0": ET | 1 << 28},
    {"cr0": ET | 1 << 32},
    {"cr4": 1 << 12},
    {"cr4": 1 << 15},
    {"cr4": 1 << 63},
    {"msr_efer": 1 << 10},
    {"msr_efer": 1 << 10 | 1 << 8},
    {"msr_efer": 1 << 1},
    {"msr_efer": 1 << 13},
    {"msr_efer": 1 << 40},
    {"flags": 2},
    {"flags": 3},
    {"flags": 1 << 31},
    {"pad0": 1},
    {"dr6": 1 << 32},
    {"dr7": 1 << 32 | 0x400},
    {"cr3": 1 << 52},
    {"msr_tsc_aux": 1 << 32},
    {"pending_event": VALID | 1 << 8},
    {"pending_event": VALID | 7 << 8},
    {"pending_event": VALID | 1 << 12},
    {"pending_event": VALID | HAS_ERROR | 3 << 8, "error_code": 0x10000},
]


@pytest.mark.parametrize("fields", IMPOSSIBLE, ids=str)
def test_impossible_registers_are_refused(fields):
    assert refused(**fields) == [("HVM-04", "EINVAL")]


@pytest.mark.parametrize(
    "fields",
    [
        {"cr0": ET},
        {"cr0": ET | PE | PG},
        {"cr0": 0xE005_003F},
        {"cr4": 0x37_07FF},
        {"cr0": ET | PE | PG, "cr4": 1 << 5, "msr_efer": 0xD01},
        {"msr_efer": 1 << 21},
        {"flags": 0},
        {"dr6": 0xFFFF_FFFF, "dr7": 0xFFFF_FFFF},
        {"pending_event": 7 << 8},
        {"pending_event": VALID | HAS_ERROR | 3 << 8 | 14, "error_code": 0xFFFF},
        {"pending_event": VALID | 4 << 8 | 0x80, "error_code": 0x10000},
        {"cr3": (1 << 40) - 1},
        {"msr_tsc_aux": 0xFFFF_FFFF},
        {"rflags": (1 << 64) - 1},
        {"rip": 1 << 60},
        {"cs_base": 1 << 60, "cs_arbytes": 0},
    ],
    ids=str,
)
def test_other_registers_are_taken(fields):
    assert refused(**fields) == []


@pytest.mark.parametrize(
    ("fields", "older", "newer"),
    [
        ({"dr6": 1 << 32}, "4.17.7", "4.18"),
        ({"dr7": 1 << 32}, "4.17.7", "4.18"),
        ({"cr3": 1 << 52}, "4.13.5", "4.14"),
        ({"msr_tsc_aux": 1 << 32}, "4.11.4", "4.12"),
        ({"pending_event": VALID | HAS_ERROR | 3 << 8, "error_code": 0x10000}, "4.8.5", "4.9"),
        ({"msr_efer": 1 << 1}, "4.11.0", "4.11.1"),
        ({"msr_efer": 1 << 1}, "4.8.4", "4.8.5"),
        ({"msr_efer": 1 << 13}, "4.11.4", "4.12"),
    ],
    ids=str,
)
def test_older_releases_took_what_newer_ones_refuse(fields, older, newer):
    assert [len(refused(release, **fields)) for release in (older, newer)] == [0, 1]


@pytest.mark.parametrize(
    ("fields", "older", "newer"),
    [
        ({"cr4": int(Cr4.UMIP)}, "4.9.4", "4.10"),
        ({"cr4": int(Cr4.PKE)}, "4.6.6", "4.7"),
        ({"cr4": int(Cr4.PKS)}, "4.17.7", "4.18"),
        ({"cr4": int(Cr4.LASS)}, "4.21.2", "4.22"),
        ({"msr_efer": int(Efer.AIBRSE)}, "4.17.7", "4.18"),
    ],
    ids=str,
)
def test_newer_releases_take_what_older_ones_refuse(fields, older, newer):
    assert [len(refused(release, **fields)) for release in (older, newer)] == [1, 0]


def test_no_release_gives_cet_to_any_guest():
    assert refused("4.22", cr4=int(Cr4.CET)) == [("HVM-05", "EINVAL")]


def test_an_entry_that_ends_before_cr0_has_none():
    body = bytearray(hvm_context())
    for length in (0, 640, CPU.offset("cr0")):
        resize(body, SaveType.CPU, length)
        assert ("HVM-04", "EINVAL") in found(body)


def test_the_oldest_form_has_no_tsc_aux():
    # All behind it lies 8 bytes earlier: where newer forms have the TSC, it has the pending event.
    body = bytearray(with_cpu(msr_tsc_aux=1 << 40, tsc=VALID | 1 << 8))
    resize(body, SaveType.CPU, 1016)
    assert [(one.rule, one.message.rpartition(": ")[2]) for one in told(body)] == [
        ("HVM-04", "there is no event of type 1")
    ]


def test_in_a_shorter_entry_the_flags_do_not_count():
    for length, rules in ((CPU.size, ["HVM-04"]), (CPU.size - 2, [])):
        body = bytearray(with_cpu(flags=1 << 1))
        resize(body, SaveType.CPU, length)
        assert [one.rule for one in told(body) if one.errno] == rules


# -- what the guest was promised --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bit", "feature"),
    [
        (Cr4.VME, "vme"),
        (Cr4.TSD, "tsc"),
        (Cr4.PSE, "pse"),
        (Cr4.PAE, "pae"),
        (Cr4.PGE, "pge"),
        (Cr4.UMIP, "umip"),
        (Cr4.FSGSBASE, "fsgsbase"),
        (Cr4.PCIDE, "pcid"),
        (Cr4.OSXSAVE, "xsave"),
        (Cr4.SMEP, "smep"),
        (Cr4.SMAP, "smap"),
        (Cr4.VMXE, "vmx"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_cr4_takes_what_the_policy_promises(bit, feature):
    everything = policy("lm", "xsave", "fxsr", "sse", "sse2", "pae", "tsc", feature)
    without = policy("fxsr", "sse")
    assert refused(promised=everything, cr4=int(bit)) == []
    assert refused(promised=without, cr4=int(bit)) == [("HVM-05", "EINVAL")]


def test_one_of_two_features_is_enough_for_machine_checks():
    assert [refused(promised=policy(*one), cr4=int(Cr4.MCE)) for one in (["mce"], ["mca"])] == [[], []]
    assert refused(promised=policy(), cr4=int(Cr4.MCE)) == [("HVM-05", "EINVAL")]


def test_performance_counters_take_nothing():
    assert refused(promised=policy(), cr4=int(Cr4.PCE)) == []


@pytest.mark.parametrize(
    ("bit", "feature"),
    [(Efer.SCE, "syscall"), (Efer.LME, "lm"), (Efer.NX, "nx"), (Efer.SVME, "svm"), (Efer.FFXSE, "ffxsr")],
)
def test_efer_takes_what_the_policy_promises(bit, feature):
    assert refused(promised=policy("pae", "fxsr", "sse", "sse2", feature), msr_efer=int(bit)) == []
    assert refused(promised=policy("pae", "fxsr", "sse"), msr_efer=int(bit)) == [("HVM-05", "EINVAL")]


def test_every_bit_beyond_the_policy_is_told():
    assert refused(promised=policy(), cr4=int(Cr4.SMEP | Cr4.SMAP), msr_efer=int(Efer.NX)) == [("HVM-05", "EINVAL")] * 3


@pytest.mark.parametrize(
    ("bits", "cr3", "refusals"), [(40, 1 << 39, 0), (40, 1 << 40, 1), (46, 1 << 40, 0), (20, 1 << 35, 0)]
)
def test_cr3_is_as_wide_as_the_policys_addresses(bits, cr3, refusals):
    # Page tables of PAE reach 36 bits, whatever the policy says.
    assert refused(promised=policy("pae", "fxsr", "sse", bits=bits), cr3=cr3) == [("HVM-05", "EINVAL")] * refusals


def test_without_a_policy_the_host_decides_what_not_every_processor_has():
    assert told(with_cpu(cr4=int(Cr4.PAE | Cr4.PSE | Cr4.MCE)), promised=None) == []
    [one] = told(with_cpu(cr4=int(Cr4.SMEP | Cr4.PAE | Cr4.PCIDE)), promised=None)
    assert (one.rule, one.outcome, one.severity, one.fatal) == ("HVM-05", Effect.HOST, Severity.INFO, False)
    assert "PCIDE, SMEP" in one.message


@pytest.mark.parametrize(
    ("release", "effect"), [("4.11.1", Effect.HOST), ("4.11.2", Effect.HYPERCALL), ("4.9.3", Effect.HOST)]
)
def test_before_the_policy_the_hosts_features_decided(release, effect):
    assert [one.outcome for one in told(with_cpu(release, cr4=int(Cr4.SMEP)), release, policy())] == [effect]


# -- events that only processors of Intel inject ----------------------------------------------------


@pytest.mark.parametrize("kind", [5, 6])
def test_software_exceptions_are_a_matter_of_the_hosts_make(kind):
    event = {"pending_event": VALID | kind << 8 | 3}
    assert refused(intel=True, **event) == []
    assert refused(intel=False, **event) == [("HVM-04", "EINVAL")]
    assert refused("4.8.5", intel=False, **event) == []
    for vendor, severity in (("GenuineIntel", Severity.INFO), ("AuthenticAMD", Severity.WARNING)):
        [one] = told(with_cpu(**event), promised=policy("sse", "fxsr", vendor=vendor))
        assert (one.outcome, one.severity) == (Effect.HOST, severity)


# -- held otherwise ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "release", "held"),
    [
        ({"dr6": 0x1_FFFF_0FF0}, "4.17", "dr6 0x1ffff0ff0: Xen holds 0xffff0ff0"),
        ({"dr6": 1}, "4.20", "dr6 0x1: Xen holds 0xffff0ff1"),
        ({"dr6": 0xFFFF_0FB0}, "4.20", "dr6 0xffff0fb0: Xen holds 0xffff0ff0"),
        ({"dr7": 0xF400}, "4.20", "dr7 0xf400: Xen holds 0x2400"),
        ({"gs_arbytes": 0xB00E_11FF}, "4.20", "gs_arbytes 0xb00e11ff: Xen holds 0x11ff"),
        ({"ds_sel": 0xFFFF_FFFF}, "4.20", "ds_sel 0xffffffff: Xen holds 0xffff"),
        ({"error_code": 0x800_0000}, "4.20", "error_code 0x8000000: Xen holds 0x0, for no event is pending"),
        ({"rflags": 0x200}, "4.20", "rflags 0x200: Xen holds 0x202"),
        ({"flags": 0}, "4.20", "the FPU's state is not zero, but the flags say that it is not used: Xen resets it"),
    ],
    ids=str,
)
def test_what_xen_changes_is_told_with_both_values(fields, release, held):
    # The first three and the fifth, seventh and ninth are what real ones held.
    said = [one for one in told(with_cpu(**fields), release, policy("fxsr", "sse")) if one.rule != "HVM-22"]
    assert [one.message.partition("vcpu 0: ")[2] for one in said] == [held]
    assert [(one.rule, one.severity, RULES[one.rule].severity) for one in said] == [("HVM-24", None, Severity.WARNING)]


def test_dr6_and_dr7_have_a_bit_for_transactions_where_the_processor_has_them():
    quiet = with_cpu(dr6=0xFFFE_0FF0, dr7=0xC00)
    assert found(quiet, promised=policy("fxsr", "sse", "rtm")) == []
    assert found(quiet, promised=policy("fxsr", "sse")) == [("HVM-24", None)] * 2


def test_an_old_form_of_attributes_is_no_change():
    assert found(with_cpu(cs_arbytes=0xA09B, tr_arbytes=0x8B)) == []


def test_an_fpu_that_was_never_used_is_no_change():
    body = bytearray(with_cpu(flags=0))
    edit(body, SaveType.CPU, fpu_regs=CPU.read(b"").fpu_regs)
    assert found(body) == []


@pytest.mark.parametrize(
    ("intel", "effect", "severity"),
    [(True, None, None), (False, Effect.CORRUPT, Severity.ERROR), (None, Effect.HOST, Severity.WARNING)],
)
def test_a_cache_that_no_processor_of_amd_runs_with(intel, effect, severity):
    said = told(with_cpu(cr0=PE | ET | NW), intel=intel)
    assert [(one.rule, one.outcome, one.severity) for one in said] == ([("HVM-28", effect, severity)] if effect else [])
    assert told(with_cpu(cr0=PE | ET | NW | CD)) == []


# -- what a debug build dies of ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"cs_arbytes": 0},
        {"cs_arbytes": 0x9A},
        {"cs_arbytes": 0x8B},
        {"cs_base": 1 << 32},
        {"ss_arbytes": 0x91},
        {"ss_arbytes": 0x9B},
        {"ds_base": 1 << 40},
        {"es_arbytes": 0x99},
        {"fs_arbytes": 0x93, "fs_base": 1 << 50},
        {"gs_arbytes": 0x92},
        {"tr_arbytes": 0},
        {"tr_arbytes": 0x89},
        {"tr_sel": 4},
        {"tr_base": 1 << 60},
        {"tr_arbytes": 0x83, "tr_base": 1 << 40},
        {"ldtr_arbytes": 0x92},
        {"ldtr_arbytes": 0x82, "ldtr_sel": 4},
        {"ldtr_arbytes": 0x8B},
        {"ldtr_arbytes": 0x82, "ldtr_base": 1 << 60},
        {"gdtr_limit": 0x10000},
        {"idtr_limit": 0x400_0000},
        {"gdtr_base": 1 << 60},
    ],
    ids=str,
)
def test_segments_that_bring_a_debug_build_down_change_no_verdict(fields):
    [one] = told(with_cpu(**fields))
    assert (one.rule, one.errno, one.fatal) == ("HVM-22", None, False)
    assert RULES["HVM-22"].effect.harms_host
    assert found(with_cpu("4.8", **fields), "4.8.5") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"ds_arbytes": 0, "ds_base": 1 << 60},
        {"ldtr_arbytes": 0, "ldtr_base": 1 << 60, "ldtr_sel": 4},
        {"fs_arbytes": 0x93, "fs_base": 0xFFFF_8000_0000_0000},
        {"tr_arbytes": 0x8B, "tr_base": 0xFFFF_FF00_0000_0000},
        {"cs_arbytes": 0xA9F},
        {"ldtr_arbytes": 0x82, "ldtr_base": 0xFFFF_8000_0000_0000},
    ],
    ids=str,
)
def test_segments_as_processors_have_them_are_fine(fields):
    assert told(with_cpu(**fields)) == []


def test_a_refused_entry_never_gets_so_far():
    assert found(with_cpu(cr0=0, cs_arbytes=0)) == [("HVM-04", "EINVAL")]
