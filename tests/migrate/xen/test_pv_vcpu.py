"""Xen's checks of a vcpu's fields, by release and width, before any page type is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.building.builder import StreamBuilder
from migrate.building.parts import Vcpu, built
from migrate.destination.releases import resolve
from migrate.guest.cpu_policy import Policy
from migrate.rules.declaring import Severity
from migrate.xen.cpu_policy import Processor, processor
from migrate.xen.pv_vcpu import (
    canonical,
    context_objections,
    extended_objections,
    msrs_objections,
    xsave_objections,
)
from streams.wire.cpu_features import HOME, REGISTERS
from streams.wire.msrs import PV_MSRS, Msr
from streams.wire.vcpu import CONTEXT, EXTENDED, MSR_ENTRY, XSAVE_HEADER, ContextFlag, VcpuMsr, XsaveHeader

NEWEST = resolve()


def vcpu(width: int) -> Vcpu:
    return StreamBuilder.pv(width).vcpus[0]


def objections(basic, width: int, *, index: int = 0, target: str = "newest") -> list[str]:
    """Rules that a context breaks, in order."""
    return [o.rule for o in context_objections(built(CONTEXT[width], basic), width, index, resolve(target))]


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


@pytest.mark.parametrize(
    ("target", "refused"), [("4.20.4", False), ("4.21.0", False), ("4.21.1", True), ("4.21.2", True), ("4.22.0", True)]
)
def test_a_32_bit_context_in_virtual_8086_mode_is_refused_from_4_21_1_on(target, refused):
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


@pytest.mark.parametrize(
    ("target", "lost"),
    [("4.20.4", False), ("4.21.0", True), ("4.21.1", True), ("4.21.2", False), ("4.22.0", False)],
)
def test_two_releases_lose_r8_to_r15(target, lost):
    basic = vcpu(8).basic
    basic.user_regs.r8 = basic.user_regs.r15 = 1
    basic.user_regs.r9 = basic.user_regs.r10 = basic.user_regs.r11 = 0
    found = list(context_objections(built(CONTEXT[8], basic), 8, 0, resolve(target)))
    assert [(o.rule, o.errno) for o in found] == ([("HYP-28", None)] if lost else [])
    assert all("r8" in o.message and "r15" in o.message and "r9" not in o.message for o in found)


def test_nothing_is_lost_of_registers_that_are_empty():
    basic = vcpu(8).basic
    for number in range(8, 16):
        setattr(basic.user_regs, f"r{number}", 0)
    assert objections(basic, 8, target="4.21.0") == []


def test_every_refused_field_is_einval():
    basic = vcpu(8).basic
    basic.user_regs.rip = 1 << 48
    basic.vm_assist, basic.ldt_base, basic.debugreg[7] = 0x40, 1, 1 << 40
    content = built(CONTEXT[8], basic)
    found = list(context_objections(content, 8, 0, NEWEST))
    assert {o.rule for o in found} == {"REC-64", "REC-60", "REC-62", "REC-63"}
    assert {o.errno for o in found} == {"EINVAL"}


# -- extended state ----------------------------------------------------------------------------------


def extended(
    vcpus: int = 2, cut: int | None = None, target: str = "newest", intel: bool | None = None, **fields: int
) -> list[tuple[str, str | None]]:
    """Rules and errnos for vcpu 0's extended state with some fields changed."""
    state = vcpu(4).extended
    for name, value in fields.items():
        setattr(state, name, value)
    content = built(EXTENDED, state)[:cut]
    return [(o.rule, o.errno) for o in extended_objections(content, 0, vcpus, resolve(target), intel) if o.certain]


def test_extended_state_as_a_saver_writes_it_is_taken():
    assert extended() == []


@pytest.mark.parametrize("inner", [2, 99, 0xFFFF_FFFF])
def test_extended_state_of_a_vcpu_that_is_not_there_is_esrch(inner):
    assert extended(vcpu=inner) == [("REC-70", "ESRCH")]


def test_extended_state_of_another_vcpu_goes_to_that_one():
    assert extended(vcpu=1) == [("REC-71", None)]


@pytest.mark.parametrize(("size", "expected"), [(31, [("REC-72", "EINVAL")]), (32, []), (64, [])])
def test_extended_state_is_at_least_32_bytes(size, expected):
    assert extended(size=size) == expected


@pytest.mark.parametrize("field", ["syscall32_callback_eip", "sysenter_callback_eip"])
def test_entry_points_are_canonical_for_32_bit_guests_too(field):
    assert extended(**{field: 1 << 47}) == [("REC-73", "EINVAL")]


@pytest.mark.parametrize(
    ("target", "errno"), [("4.13.3", "EPERM"), ("4.13.4", "EINVAL"), ("4.15.0", "EPERM"), ("4.15.1", "EINVAL")]
)
def test_machine_check_capabilities_that_no_host_has_are_refused(target, errno):
    assert extended(mcg_cap=1 << 40 | 2, target=target) == [("REC-74", errno)]


def test_machine_check_capabilities_of_intel_are_told_as_info_unless_the_host_is_known():
    state = vcpu(4).extended
    state.mcg_cap = 0x100_0C02
    [objection] = extended_objections(built(EXTENDED, state), 0, 1, NEWEST)
    assert (objection.rule, objection.certain, objection.severity) == ("REC-74", False, Severity.INFO)
    assert extended(mcg_cap=0x100_0C02, intel=True) == []
    assert extended(mcg_cap=0x100_0C02, intel=False) == [("REC-74", "EINVAL")]


def test_machine_check_capabilities_beyond_the_size_are_not_read():
    assert extended(size=39, mcg_cap=(1 << 64) - 1) == []


def test_extended_state_shorter_than_it_says_reads_as_zeros():
    assert extended(cut=32) == [("REC-75", None)]


def test_extended_state_may_be_as_short_as_it_says():
    assert extended(cut=32, size=32) == []


# -- XSAVE -------------------------------------------------------------------------------------------


def cpu(*features: str, width: int = 8, target: str = "newest", **leaves: tuple[int, int, int, int]) -> Processor:
    """The processor of a PV guest that is promised these features, and of leaf 1 and 7 no others; nothing for none."""
    if not features:
        return processor(None, "pv", resolve(target), width=width)
    promised: dict[tuple[int, int | None], list[int]] = {
        (0x1, None): [0, 0, 0, 1 << 24 | 1 << 25 | 1 << 4],  # FXSR, SSE, TSC
        (0x7, 0): [2, 0, 0, 0],
        (0x8000_0001, None): [0, 0, 0, 0],
    }
    for feature in features:
        word, bit = HOME[feature]
        promised.setdefault((word.leaf, word.subleaf), [0, 0, 0, 0])[REGISTERS.index(word.register)] |= 1 << bit
    more = {(0xD, int(name[1:])): value for name, value in leaves.items()}
    policy = Policy({key: (a, b, c, d) for key, (a, b, c, d) in promised.items()} | more, {})
    return processor(policy, "pv", resolve(target), width=width)


def xsave(
    xcr0: int, accum: int, size: int, *, of: Processor | None = None, target: str = "newest", **header: object
) -> list[tuple[str, str | None, bool]]:
    fields = {"fxsave": bytes(512), "xstate_bv": 0, "xcomp_bv": 0, "reserved": bytes(48), **header}
    content = XSAVE_HEADER.pack(XsaveHeader(xcr0, accum, **fields))
    found = xsave_objections(content[:size].ljust(size, b"\0"), 0, resolve(target), of or cpu(target=target))
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


AVX512 = 7 | 7 << 5
AVX512_SIZE = 16 + 2432
AVX512_LEAVES = {"d2": (256, 576, 0, 0), "d5": (64, 832, 0, 0), "d6": (512, 896, 0, 0), "d7": (1024, 1408, 0, 0)}


def test_components_beyond_avx_are_for_the_host_to_judge():
    assert xsave(7, AVX512, AVX512_SIZE) == [("REC-80", "EINVAL", False)]


def test_components_that_the_policy_has_are_taken_in_silence():
    of = cpu("xsave", "avx", "avx2", "avx512f", **AVX512_LEAVES)
    assert xsave(7, AVX512, AVX512_SIZE, of=of) == []
    assert xsave(7, AVX512, AVX512_SIZE + 16, of=of) == [("REC-80", "EINVAL", False)]


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        *(("4.8.5", False), ("4.9.2", False), ("4.9.3", True), ("4.10.1", False), ("4.10.2", True)),
        *(("4.11.0", False), ("4.11.1", True), ("4.12.0", True), ("4.20.0", True)),
    ],
)
def test_components_that_the_policy_lacks_are_refused_since(target, refused):
    expected = [("REC-83", "EINVAL", True)] if refused else []
    assert xsave(3, 7, 848, of=cpu("xsave", target=target), target=target) == expected


@pytest.mark.parametrize("accum", [3 | 3 << 3, 7 | 1 << 9, 7 | 3 << 17, 7 | 1 << 62])
def test_components_that_no_pv_guest_can_have_are_refused_on_every_host(accum):
    assert xsave(3, accum, 16 + 2696) == [("REC-83", "EINVAL", True)]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("4.8.4", ("REC-80", "EINVAL", False)),
        ("4.8.5", ("REC-83", "EINVAL", True)),
        ("4.9.0", ("REC-80", "EINVAL", False)),
    ],
)
def test_4_8_5_knows_what_no_pv_guest_can_have(target, expected):
    assert xsave(3, 7 | 1 << 9, 16 + 2696, target=target) == [expected]


@pytest.mark.parametrize(
    ("target", "expected"),
    [("4.6.6", []), ("4.7.0", []), ("4.7.1", [("REC-82", "EINVAL", True)]), ("4.8.0", [("REC-82", "EINVAL", True)])],
)
def test_early_releases_take_a_state_that_is_too_short_and_none_that_is_too_long(target, expected):
    assert xsave(3, 7, 592, target=target) == expected
    assert xsave(3, 3, 848, target=target) == [("REC-82", "EINVAL", True)]


@pytest.mark.parametrize(("target", "rule"), [("4.9.2", "REC-80"), ("4.18.6", "REC-83"), ("4.19.0", "REC-83")])
def test_half_of_amx_is_no_state_since_4_19_and_no_guests_before(target, rule):
    assert [found[0] for found in xsave(3, 3 | 1 << 17, 16 + 2752, target=target)] == [rule]


# -- MSRs --------------------------------------------------------------------------------------------


def msrs(
    *entries: tuple[int, int, int], target: str = "newest", of: Processor | None = None, more: bytes = b""
) -> list[tuple[str, str | None, bool]]:
    """Rules, errnos and certainty for (index, reserved, value) entries and what follows them."""
    content = b"".join(MSR_ENTRY.pack(VcpuMsr(*entry)) for entry in entries) + more
    of = of or cpu(target=target)
    return [(o.rule, o.errno, o.certain) for o in msrs_objections(content, 0, resolve(target), of)]


EVERY_MSR = cpu("ibrs_ibpb", "tsc", "rdtscp", "dbext")


def test_all_listed_msrs_that_the_policy_allows_are_taken():
    assert msrs(*((index, 0, 0) for index in PV_MSRS), of=EVERY_MSR) == []


FREE = (Msr.INTEL_MISC_FEATURES_ENABLES, 0, 0)


@pytest.mark.parametrize(
    ("target", "surely", "at_most"),
    [
        *(("4.7.5", 0, 4), ("4.9.2", 0, 4), ("4.10.0", 1, 5), ("4.10.1", 2, 6), ("4.11.4", 2, 6)),
        *(("4.12.0", 7, 11), ("4.18.3", 7, 11), ("4.18.4", 7, 7), ("4.19.0", 7, 11), ("4.19.1", 7, 7)),
        *(("4.20.0", 7, 7), ("newest", 7, 7)),
    ],
)
def test_a_release_takes_only_so_many_msrs_and_four_more_on_some_hosts(target, surely, at_most):
    def counts(number):
        return [found for found in msrs(*[FREE] * number, target=target) if found[0] == "REC-90"]

    assert counts(surely) == []
    assert [counts(number) for number in range(surely + 1, at_most + 1)] == (
        [[("REC-90", "EINVAL", False)]] * (at_most - surely)
    )
    assert counts(at_most + 1) == [("REC-90", "EINVAL", True)]


@pytest.mark.parametrize(("dbext", "most"), [(True, 6), (False, 2)])
def test_a_known_host_takes_what_it_takes(dbext, most):
    of = Processor(Policy({}), cpu(target="4.11").most, offered=cpu(*["dbext"] * dbext).promised)
    assert msrs(*[FREE] * most, target="4.11", of=of) == []
    assert msrs(*[FREE] * (most + 1), target="4.11", of=of) == [("REC-90", "EINVAL", True)]


@pytest.mark.parametrize(
    ("target", "arrives"),
    [
        *(("4.6.6", False), ("4.7.4", False), ("4.7.5", True), ("4.8.3", False), ("4.8.4", True)),
        *(("4.9.1", False), ("4.9.2", True), ("4.10.0", True)),
    ],
)
def test_early_releases_set_nothing_and_succeed(target, arrives):
    found = [found for found in msrs((0x10, 0, 0), target=target) if found[0] != "REC-90"]
    assert found == [("REC-92", "EINVAL", True) if arrives else ("REC-93", None, True)]


@pytest.mark.parametrize(("more", "certain"), [(3, False), (4, False), (5, True), (15, True)])
def test_early_releases_take_the_remainder_of_the_length_for_the_number(more, certain):
    found = msrs((0x10, 0, 0), target="4.9.0", more=bytes(more))
    assert found[0] == ("REC-90", "EINVAL", certain)


def test_what_follows_whole_entries_is_dropped_where_nobody_checks():
    assert msrs(FREE, target="4.11", more=bytes(8)) == []


def test_a_reserved_word_of_an_msr_is_einval():
    assert msrs((Msr.TSC_AUX, 1, 0)) == [("REC-91", "EINVAL", True)]


@pytest.mark.parametrize(("target", "errno"), [("4.17", "EINVAL"), ("4.19.6", "EINVAL"), ("4.20.0", "ENXIO")])
def test_an_unlisted_msr_is_refused(target, errno):
    assert msrs((0x10, 0, 0), target=target) == [("REC-92", errno, True)]


@pytest.mark.parametrize(
    ("index", "before", "since"),
    [
        (Msr.TSC_AUX, "4.11.4", "4.12.0"),
        (Msr.SPEC_CTRL, "4.10.0", "4.10.1"),
        (Msr.SPEC_CTRL, "4.10.0", "4.11.0"),
        (Msr.SPEC_CTRL, "4.6.6", "4.7.5"),
    ],
)
def test_an_msr_is_unlisted_before_its_release(index, before, since):
    unlisted = ("REC-92", "EINVAL", True)
    assert (unlisted in msrs((index, 0, 0), target=before)) is (resolve(before).minor > 9)
    assert unlisted not in msrs((index, 0, 0), target=since)


def test_a_value_is_the_policys_to_allow_and_the_hosts_where_there_is_none():
    assert msrs((Msr.TSC_AUX, 0, 5)) == [("REC-92", "ENXIO", False)]
    assert msrs((Msr.TSC_AUX, 0, 5), of=EVERY_MSR) == []
    assert msrs((Msr.TSC_AUX, 0, 5), of=cpu("tsc")) == [("REC-92", "ENXIO", True)]
    assert msrs((Msr.TSC_AUX, 0, 1 << 32), of=EVERY_MSR) == [("REC-92", "ENXIO", True)]


def test_nothing_after_the_first_refused_msr_is_looked_at():
    assert msrs((0x10, 0, 0), (0x11, 1, 0)) == [("REC-92", "ENXIO", True)]
