"""What Xen says to the CPU_MSR entries of an HVM context."""

import pytest
from hvm_domains import ALL, context, found, policy, told, xsave

from migrate.building.hvm_contexts import pack_entry
from migrate.rules.declaring import Effect, Severity
from streams.wire.hvm_cpu import CPU_MSR, CPU_MSRS, CpuMsr, CpuMsrs
from streams.wire.hvm_names import SaveType
from streams.wire.msrs import Msr


def msrs(*listed, count=None, reserved=0):
    """A CPU_MSR entry from pairs of index and value."""
    body = CPU_MSRS.pack(CpuMsrs(len(listed) if count is None else count, bytes(4)))
    return pack_entry(
        SaveType.CPU_MSR, body + b"".join(CPU_MSR.pack(CpuMsr(index, reserved, value)) for index, value in listed)
    )


def said(*listed, release="4.20", promised=ALL, **known):
    return found(context(msrs(*listed)), release, promised, **known)


REFUSED = [("HVM-11", "ENXIO")]


@pytest.mark.parametrize(
    ("entry", "errno"),
    [
        (msrs((0x48, 1), count=2), "EOPNOTSUPP"),
        (msrs((0x48, 1), (0x140, 1), count=1), "EOPNOTSUPP"),
        (msrs((0x48, 1), count=0x1000_0001), "EOPNOTSUPP"),
        (msrs((0x48, 1), count=0xFFFF_FFFF), "EOPNOTSUPP"),
        (msrs((0x48, 1), reserved=1), "EOPNOTSUPP"),
        (msrs((0x10, 1), (0x48, 1), reserved=1), "EOPNOTSUPP"),
    ],
)
def test_list_of_msrs_is_checked_as_a_whole_first(entry, errno):
    assert found(context(entry)) == [("HVM-10", errno)]


def test_an_empty_list_is_too_short():
    assert found(context(msrs())) == [("HVM-01", "EINVAL")]


@pytest.mark.parametrize("index", [0x10, Msr.TSC_AUX, 0xC000_0080, 0xC001_0015, Msr.S_CET, Msr.PL0_SSP, 0x277], ids=hex)
@pytest.mark.parametrize("value", [0, 1])
def test_other_msrs_are_not_loaded_not_even_with_zero(index, value):
    assert said((index, value)) == REFUSED


def test_the_first_refusal_ends_it():
    assert said((0x10, 1), (0x11, 1), (0x48, 1)) == REFUSED


@pytest.mark.parametrize(
    ("index", "value", "feature"),
    [
        (Msr.SPEC_CTRL, 1, "ibrs_ibpb"),
        (Msr.PKRS, 0xFFFF_FFFF, "pks"),
        (Msr.BNDCFGS, 0x1000, "mpx"),
        (Msr.XSS, 0, "xsaves"),
        (Msr.VIRT_SPEC_CTRL, 0xFFFF, "virt_ssbd"),
        (Msr.AMD64_DR0_ADDRESS_MASK, 0xFFFF_FFFF, "dbext"),
        (Msr.AMD64_DR3_ADDRESS_MASK, 1, "dbext"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_msr_takes_what_the_policy_promises(index, value, feature):
    base = ("fxsr", "sse", "sse2", "pae", "lm", "xsave")
    assert said((index, value), promised=policy(*base, feature)) == []
    assert said((index, value), promised=policy(*base)) == REFUSED
    [one] = told(context(msrs((index, value))), promised=None)
    assert (one.rule, one.outcome, one.severity) == ("HVM-11", Effect.HOST, Severity.INFO)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (Msr.SPEC_CTRL, 1 << 63),
        (Msr.SPEC_CTRL, 1 << 9),
        (Msr.INTEL_MISC_FEATURES_ENABLES, 2),
        (Msr.PKRS, 1 << 32),
        (Msr.BNDCFGS, 1 << 60),
        (Msr.BNDCFGS, 1 << 4),
        (Msr.BNDCFGS, 1),
        (Msr.XSS, 1),
        (Msr.AMD64_DR1_ADDRESS_MASK, 1 << 32),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_value_that_no_guest_may_have_is_refused(index, value):
    assert said((index, value)) == REFUSED


def test_cpuid_faulting_takes_a_policy_that_has_it():
    one = (Msr.INTEL_MISC_FEATURES_ENABLES, 1)
    assert said(one, promised=policy("sse", "fxsr")) == []
    assert said(one, promised=policy("sse", "fxsr", faulting=False)) == REFUSED
    assert said((one[0], 0), promised=policy("sse", "fxsr", faulting=False)) == []


@pytest.mark.parametrize(
    ("index", "older", "newer"),
    [
        (Msr.PKRS, "4.17.7", "4.18"),
        (Msr.VIRT_SPEC_CTRL, "4.16.7", "4.17"),
        (Msr.SPEC_CTRL, "4.10.0", "4.10.1"),
        (Msr.SPEC_CTRL, "4.7.4", "4.7.5"),
        (Msr.INTEL_MISC_FEATURES_ENABLES, "4.8.3", "4.8.4"),
        (Msr.XSS, "4.6.6", "4.7"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_release_loads_what_it_knows(index, older, newer):
    rules = [[rule for rule, errno in said((index, 0), release=release) if errno] for release in (older, newer)]
    assert rules[0].count("HVM-11") == rules[1].count("HVM-11") + 1 or rules[0] != rules[1]


@pytest.mark.parametrize(("entries", "refused"), [("xsave first", False), ("xsave last", True)])
def test_bounds_are_enabled_only_where_the_state_has_them_by_then(entries, refused):
    mpx = policy("fxsr", "sse", "sse2", "pae", "lm", "xsave", "mpx", layout={3: (64, 960), 4: (64, 1024)})
    both = [xsave(3, 0b11011, area=1088), msrs((Msr.BNDCFGS, 1))]
    body = context(*(both if entries == "xsave first" else reversed(both)))
    assert found(body, promised=mpx) == (REFUSED if refused else [])


def test_a_mask_of_amd_that_is_too_wide_had_an_errno_of_its_own():
    assert said((Msr.AMD64_DR0_ADDRESS_MASK, 1 << 32), release="4.16") == REFUSED
    late = told(context(msrs((Msr.AMD64_DR0_ADDRESS_MASK, 1 << 32))), "4.11")
    assert "HVM-11" in [one.rule for one in late if one.fatal]


def test_a_long_list_is_told_of_by_its_first_refusal():
    assert said(*[(Msr.SPEC_CTRL, 0)] * 5000, (0x10, 0)) == REFUSED
