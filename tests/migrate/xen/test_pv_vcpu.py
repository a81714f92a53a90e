"""Xen's checks of a vcpu's fields, by release and width, before any page type is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.building.builder import StreamBuilder
from migrate.building.parts import Vcpu
from migrate.destination.releases import resolve
from migrate.xen.pv_vcpu import (
    Objection,
    canonical,
    context_objections,
    extended_objections,
    msrs_objections,
    xsave_objections,
)
from streams.wire.msrs import PV_MSRS, Msr
from streams.wire.vcpu import CONTEXT, EXTENDED, MSR_ENTRY, XSAVE_HEADER, ContextFlag

NEWEST = resolve()


def vcpu(width: int) -> Vcpu:
    return StreamBuilder.pv(width).vcpus[0]


def objections(basic, width: int, *, index: int = 0, target: str = "newest") -> list[str]:
    """Rules that a context breaks, in order."""
    return [o.rule for o in context_objections(CONTEXT[width].build(basic), width, index, resolve(target))]


# -- addresses ---------------------------------------------------------------------------------------


@given(st.integers(0, (1 << 64) - 1))
def test_an_address_is_canonical_if_its_top_17_bits_are_equal(address):
    assert canonical(address) is (f"{address:064b}"[:17] in ("0" * 17, "1" * 17))


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("target", ["4.6", "4.17", "newest"])
def test_a_running_vcpu_is_taken(width, target):
    assert objections(vcpu(width).basic, width, target=target) == []


@pytest.mark.parametrize("field", ["rip", "rsp"])
def test_a_64_bit_register_that_is_not_canonical_is_refused(field):
    basic = vcpu(8).basic
    setattr(basic.user_regs, field, 1 << 47)
    assert objections(basic, 8) == ["REC-64"]


@pytest.mark.parametrize(
    "field",
    [
        "kernel_sp",
        "fs_base",
        "gs_base_kernel",
        "gs_base_user",
        "event_callback_eip",
        "failsafe_callback_eip",
        "syscall_callback_eip",
    ],
)
def test_a_64_bit_base_or_callback_that_is_not_canonical_is_refused(field):
    basic = vcpu(8).basic
    setattr(basic, field, 0xFFFF_7FFF_FFFF_FFFF)
    assert objections(basic, 8) == ["REC-64"]


@pytest.mark.parametrize("trap", [0, 14, 255])
def test_a_64_bit_trap_handler_that_is_not_canonical_is_refused(trap):
    basic = vcpu(8).basic
    basic.trap_ctxt[trap].address = 1 << 63
    assert objections(basic, 8) == ["REC-64"]


# -- LDT ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize(
    ("base", "entries", "refused"),
    [(0, 0, False), (0x1000, 8192, False), (0x1000, 8193, True), (0x800, 0, True), (0xFFF, 1, True)],
)
def test_an_ldt_is_page_aligned_and_has_at_most_8192_entries(width, base, entries, refused):
    basic = vcpu(width).basic
    basic.ldt_base, basic.ldt_ents = base, entries
    assert objections(basic, width) == (["REC-62"] if refused else [])


def test_a_64_bit_ldt_in_xens_range_is_refused():
    basic = vcpu(8).basic
    basic.ldt_base, basic.ldt_ents = 0xFFFF_8000_0000_0000, 1
    assert objections(basic, 8) == ["REC-62"]


def test_a_64_bit_ldt_in_the_kernels_half_is_taken():
    basic = vcpu(8).basic
    basic.ldt_base, basic.ldt_ents = 0xFFFF_8800_0000_0000, 1
    assert objections(basic, 8) == []


# -- assists, debug registers, flags -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "assist", "refused"),
    [(4, 0x3F, False), (4, 0x40, True), (4, 1 << 31, True), (8, 0x1_0000_003F, False), (8, 0x2_0000_0000, True)],
)
def test_the_assists_of_vcpu_0_are_among_those_of_its_width(width, assist, refused):
    basic = vcpu(width).basic
    basic.vm_assist = assist
    assert objections(basic, width) == (["REC-60"] if refused else [])


def test_the_assists_of_other_vcpus_are_not_looked_at():
    basic = vcpu(4).basic
    basic.vm_assist = 0xFF
    assert objections(basic, 4, index=1) == []


@pytest.mark.parametrize(
    ("target", "refused"),
    [("4.12.2", False), ("4.12.3", True), ("4.13", False), ("4.13.1", True), ("4.14", True)],
)
def test_unknown_assists_are_refused_from_releases_of_three_branches_on(target, refused):
    basic = vcpu(4).basic
    basic.vm_assist = 0x40
    assert objections(basic, 4, target=target) == (["REC-60"] if refused else [])


@pytest.mark.parametrize(("register", "value"), [(6, 1 << 32), (7, 1 << 32), (0, 0xFFFF_8000_0000_0000)])
@pytest.mark.parametrize(("target", "refused"), [("4.17", False), ("4.18", True), ("4.20", True)])
def test_64_bit_debug_registers_are_judged_from_4_18_on(register, value, target, refused):
    basic = vcpu(8).basic
    basic.debugreg[register] = value
    assert objections(basic, 8, target=target) == (["REC-63"] if refused else [])


@pytest.mark.parametrize("value", [0xFFFF_8800_0000_0000, 0x0000_7FFF_FFFF_F000])
def test_a_breakpoint_outside_xens_range_is_taken(value):
    basic = vcpu(8).basic
    basic.debugreg[3] = value
    assert objections(basic, 8) == []


@pytest.mark.parametrize(("target", "refused"), [("4.21", False), ("4.22", True)])
def test_a_32_bit_context_in_virtual_8086_mode_is_refused_from_4_22_on(target, refused):
    basic = vcpu(4).basic
    basic.user_regs.eflags |= 1 << 17
    assert objections(basic, 4, target=target) == (["REC-66"] if refused else [])


def test_virtual_8086_mode_of_a_64_bit_context_is_cleared_in_silence():
    basic = vcpu(8).basic
    basic.user_regs.rflags |= 1 << 17
    assert objections(basic, 8) == []


@pytest.mark.parametrize(("cr1", "refused"), [(0, True), (0x4001, False)])
def test_a_64_bit_vcpu_in_user_mode_needs_a_user_root(cr1, refused):
    basic = vcpu(8).basic
    basic.flags &= ~ContextFlag.IN_KERNEL
    basic.ctrlreg[1] = cr1
    assert objections(basic, 8) == (["REC-65"] if refused else [])


def test_a_32_bit_vcpu_needs_no_user_root():
    basic = vcpu(4).basic
    basic.flags &= ~ContextFlag.IN_KERNEL
    assert objections(basic, 4) == []


def test_every_refused_field_is_einval():
    basic = vcpu(8).basic
    basic.user_regs.rip = 1 << 48
    basic.vm_assist, basic.ldt_base, basic.debugreg[7] = 0x40, 1, 1 << 40
    content = CONTEXT[8].build(basic)
    found = list(context_objections(content, 8, 0, NEWEST))
    assert {o.rule for o in found} == {"REC-64", "REC-60", "REC-62", "REC-63"}
    assert {o.errno for o in found} == {"EINVAL"}


# -- extended state ----------------------------------------------------------------------------------


def extended(vcpus: int = 2, cut: int | None = None, **fields: int) -> list[tuple[str, str]]:
    """Rules and errnos for vcpu 0's extended state with some fields changed."""
    state = vcpu(4).extended
    for name, value in fields.items():
        setattr(state, name, value)
    return [(o.rule, o.errno) for o in extended_objections(EXTENDED.build(state)[:cut], 0, vcpus)]


def test_extended_state_as_a_saver_writes_it_is_taken():
    assert extended() == []


@pytest.mark.parametrize("inner", [2, 99, 0xFFFF_FFFF])
def test_extended_state_of_a_vcpu_that_is_not_there_is_esrch(inner):
    assert extended(vcpu=inner) == [("REC-70", "ESRCH")]


def test_extended_state_of_another_vcpu_goes_to_that_one():
    assert extended(vcpu=1) == [("REC-71", "")]


@pytest.mark.parametrize(("size", "expected"), [(31, [("REC-72", "EINVAL")]), (32, []), (64, [])])
def test_extended_state_is_at_least_32_bytes(size, expected):
    assert extended(size=size) == expected


@pytest.mark.parametrize("field", ["syscall32_callback_eip", "sysenter_callback_eip"])
def test_entry_points_are_canonical_for_32_bit_guests_too(field):
    assert extended(**{field: 1 << 47}) == [("REC-73", "EINVAL")]


def test_machine_check_capabilities_are_for_the_host_to_judge():
    state = vcpu(4).extended
    state.mcg_cap = (1 << 64) - 1
    [objection] = extended_objections(EXTENDED.build(state), 0, 1)
    assert (objection.rule, objection.certain) == ("REC-74", False)


def test_machine_check_capabilities_beyond_the_size_are_not_read():
    assert extended(size=39, mcg_cap=(1 << 64) - 1) == []


def test_extended_state_shorter_than_it_says_reads_as_zeros():
    assert extended(cut=32) == [("REC-75", "")]


def test_extended_state_may_be_as_short_as_it_says():
    assert extended(cut=32, size=32) == []


# -- XSAVE -------------------------------------------------------------------------------------------


def xsave(xcr0: int, accum: int, size: int, **header: object) -> list[tuple[str, str, bool]]:
    fields = {"fxsave": bytes(512), "xstate_bv": 0, "xcomp_bv": 0, "reserved": bytes(48), **header}
    content = XSAVE_HEADER.build({"xcr0": xcr0, "xcr0_accum": accum, **fields})
    found: list[Objection] = list(xsave_objections(content[:size].ljust(size, b"\0"), 0))
    return [(o.rule, o.errno, o.certain) for o in found]


@pytest.mark.parametrize(("xcr0", "accum", "size"), [(0, 0, 16), (1, 1, 592), (3, 3, 592), (7, 7, 848), (1, 7, 848)])
def test_a_state_of_its_components_size_is_taken(xcr0, accum, size):
    assert xsave(xcr0, accum, size) == []


@pytest.mark.parametrize(("xcr0", "size"), [(1, 16), (0, 17), (0, 592)])
def test_a_state_that_was_never_used_is_two_zero_words(xcr0, size):
    assert xsave(xcr0, 0, size) == [("REC-81", "EINVAL", True)]


@pytest.mark.parametrize(("accum", "size"), [(3, 16), (3, 591), (3, 848), (7, 592), (7, 849)])
def test_a_state_of_another_size_is_refused(accum, size):
    assert xsave(1, accum, size) == [("REC-82", "EINVAL", True)]


@pytest.mark.parametrize(
    ("xcr0", "accum", "bv"),
    [
        (6, 7, 0),  # no x87
        (5, 7, 0),  # AVX without SSE
        (7, 3, 0),  # more than was ever on
        (1, 3, 4),  # a component present that never was on
        (3, 3 | 1 << 3, 0),  # half of MPX
        (3, 7 | 1 << 5, 0),  # a part of AVX-512
        (3, 3 | 1 << 17, 0),  # half of AMX
    ],
)
def test_masks_that_no_cpu_can_have_are_refused(xcr0, accum, bv):
    assert xsave(xcr0, accum, 848, xstate_bv=bv) == [("REC-83", "EINVAL", True)]


def test_a_compressed_state_is_eopnotsupp():
    assert xsave(3, 3, 592, xcomp_bv=1 << 63) == [("REC-84", "EOPNOTSUPP", True)]


def test_a_reserved_byte_in_the_header_is_eio():
    assert xsave(3, 3, 592, reserved=bytes(47) + b"\1") == [("REC-85", "EIO", True)]


def test_components_beyond_avx_are_for_the_host_to_judge():
    assert xsave(7, 7 | 7 << 5, 16 + 2432) == [("REC-80", "EINVAL", False)]


# -- MSRs --------------------------------------------------------------------------------------------


def msrs(*entries: tuple[int, int, int], target: str = "newest") -> list[tuple[str, str, bool]]:
    """Rules, errnos and certainty for (index, reserved, value) entries."""
    content = b"".join(MSR_ENTRY.build({"index": i, "reserved": r, "value": v}) for i, r, v in entries)
    return [(o.rule, o.errno, o.certain) for o in msrs_objections(content, 0, resolve(target))]


def test_all_listed_msrs_of_value_zero_are_taken():
    assert msrs(*((index, 0, 0) for index in PV_MSRS)) == []


@pytest.mark.parametrize(("target", "most"), [("4.10", 1), ("4.11", 2), ("4.12", 7), ("newest", 7)])
def test_a_release_takes_only_so_many_msrs(target, most):
    entries = [(Msr.INTEL_MISC_FEATURES_ENABLES, 0, 0)] * (most + 1)
    assert msrs(*entries[:most], target=target) == []
    assert msrs(*entries, target=target) == [("REC-90", "EINVAL", True)]


def test_a_reserved_word_of_an_msr_is_einval():
    assert msrs((Msr.TSC_AUX, 1, 0)) == [("REC-91", "EINVAL", True)]


@pytest.mark.parametrize(("target", "errno"), [("4.17", "EINVAL"), ("4.20", "ENXIO")])
def test_an_unlisted_msr_is_refused(target, errno):
    assert msrs((0x10, 0, 0), target=target) == [("REC-92", errno, True)]


def test_an_msr_is_unlisted_before_its_release():
    assert msrs((Msr.TSC_AUX, 0, 0), target="4.11") == [("REC-92", "EINVAL", True)]


def test_a_value_is_for_the_host_to_judge():
    assert msrs((Msr.TSC_AUX, 0, 5)) == [("REC-92", "ENXIO", False)]


def test_nothing_after_the_first_refused_msr_is_looked_at():
    assert msrs((0x10, 0, 0), (0x11, 1, 0)) == [("REC-92", "ENXIO", True)]
