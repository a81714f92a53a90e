"""Xen's field checks of a vcpu's state, before any page type is taken.

Sources: `arch_set_info_guest` (`xen/arch/x86/domain.c`), `XEN_DOMCTL_set_ext_vcpucontext`,
`XEN_DOMCTL_setvcpuextstate`, `XEN_DOMCTL_set_vcpu_msrs` (`xen/arch/x86/domctl.c`), `validate_xstate`
(`xen/arch/x86/xstate.c`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from migrate.destination import releases
from migrate.rules.declaring import Severity
from migrate.xen import guest_msrs, machine_checks
from migrate.xen.objection import Objection
from streams.counting import count
from streams.wire.framing import PAGE_SIZE
from streams.wire.msrs import Msr
from streams.wire.vcpu import (
    CONTEXT,
    EXTENDED,
    MAX_LDT_ENTRIES,
    MIN_EXTENDED_SIZE,
    MSR_ENTRY,
    VM_ASSIST_VALID,
    XSAVE_HEADER,
    XSAVE_MIN_SIZE,
    XSAVE_WORDS,
    ContextFlag,
)
from streams.wire.views import dtype_of, view
from streams.wire.xstate import XSAVE_AVX_SIZE, XSAVE_LEGACY_SIZE, XState, valid_xcr0

if TYPE_CHECKING:
    from migrate.destination.releases import Release
    from migrate.xen.cpu_policy import Processor

EFLAGS_VM = 1 << 17
# Xen's own part of a 64-bit guest's address space; the guest may use what lies outside.
XEN_BASE = 0xFFFF_8000_0000_0000
XEN_END = 0xFFFF_8800_0000_0000
LOW_HALF_END = 1 << 47
HIGH_REGISTERS = tuple(f"r{number}" for number in range(8, 16))


def canonical(address: int) -> bool:
    """Whether bits 63..47 of an address are all equal."""
    return address >> 47 in (0, 0x1FFFF)


def context_objections(content: bytes, width: int, vcpu: int, target: Release) -> Iterator[Objection]:
    """REC-60 to REC-66 and HYP-28: the checks of setvcpucontext before the first page type.

    Parameters
    ----------
    content:
        a vcpu_guest_context of the guest's width.
    """
    context = view(CONTEXT[width], content)
    flags = int(context["flags"])
    if width == 8:
        yield from _addresses(context)
    elif int(context["user_regs"]["eflags"]) & EFLAGS_VM and target.has(releases.eflags_vm_refused):
        yield Objection("REC-66", "EINVAL", f"vcpu {vcpu}: eflags.VM is set in a 32-bit context")
    ldt, entries = int(context["ldt_base"]), int(context["ldt_ents"])
    reachable = width == 4 or ldt < LOW_HALF_END or ldt >= XEN_END
    if ldt % PAGE_SIZE or entries > MAX_LDT_ENTRIES or not reachable:
        yield Objection("REC-62", "EINVAL", f"vcpu {vcpu}: LDT at {ldt:#x} with {count(entries, 'entry', 'entries')}")
    if width == 8 and target.has(releases.debug_registers_checked):
        debug = [int(value) for value in context["debugreg"]]
        if debug[6] >> 32 or debug[7] >> 32 or any(XEN_BASE <= value < XEN_END for value in debug[:4]):
            yield Objection("REC-63", "EINVAL", f"vcpu {vcpu}: debug registers that Xen refuses")
    assist = int(context["vm_assist"])
    if vcpu == 0 and assist & ~VM_ASSIST_VALID[width] and target.has(releases.vm_assist_mask):
        yield Objection("REC-60", "EINVAL", f"vm_assist {assist:#x} has bits outside {VM_ASSIST_VALID[width]:#x}")
    if width == 8 and not flags & ContextFlag.IN_KERNEL and not int(context["ctrlreg"][1]):
        yield Objection("REC-65", "EINVAL", f"vcpu {vcpu} was in user mode, but has no user page table")
    if width == 8 and target.has(releases.r8_to_r15_lost):
        lost = [name for name in HIGH_REGISTERS if int(context["user_regs"][name])]
        if lost:
            yield Objection("HYP-28", None, f"vcpu {vcpu} loses what it has in {', '.join(lost)}: Xen leaves them 0")


def _addresses(context: Any) -> Iterator[Objection]:
    """REC-64: addresses that a 64-bit context must hold in canonical form."""
    named = {
        "rip": context["user_regs"]["rip"],
        "rsp": context["user_regs"]["rsp"],
        **{
            field: context[field]
            for field in (
                "kernel_sp",
                "fs_base",
                "gs_base_kernel",
                "gs_base_user",
                "event_callback_eip",
                "failsafe_callback_eip",
                "syscall_callback_eip",
            )
        },
    }
    if int(context["ldt_ents"]):
        named["ldt_base"] = context["ldt_base"]
    for name, value in named.items():
        if not canonical(int(value)):
            yield Objection("REC-64", "EINVAL", f"{name} {int(value):#x} is not canonical")
    top = context["trap_ctxt"]["address"] >> np.uint64(47)
    wrong = np.flatnonzero((top != 0) & (top != 0x1FFFF))
    if len(wrong):
        trap = int(wrong[0])
        address = int(context["trap_ctxt"]["address"][trap])
        yield Objection("REC-64", "EINVAL", f"the handler of trap {trap}, {address:#x}, is not canonical")


def extended_objections(
    content: bytes, vcpu: int, vcpus: int, release: Release, intel: bool | None = None
) -> Iterator[Objection]:
    """REC-70 to REC-75: set_ext_vcpucontext. Xen reads zeros for what a shorter content lacks.

    Parameters
    ----------
    vcpus:
        how many vcpus the domain has.
    intel:
        whether the host's processors are Intel's; None where that is not known.
    """
    size = EXTENDED.size
    fields = view(EXTENDED, content[:size].ljust(size, b"\0"))
    inner, length = int(fields["vcpu"]), int(fields["size"])
    if inner >= vcpus:
        yield Objection("REC-70", "ESRCH", f"vcpu {vcpu}: the extended state is for vcpu {inner}; there are {vcpus}")
        return
    if inner != vcpu:
        yield Objection("REC-71", None, f"vcpu {vcpu}: the extended state is for vcpu {inner}, which gets it")
    if len(content) < min(length, EXTENDED.size):
        yield Objection(
            "REC-75", None, f"vcpu {vcpu}: {count(len(content), 'byte')} of {length}; Xen reads zeros for the rest"
        )
    if length < MIN_EXTENDED_SIZE:
        yield Objection("REC-72", "EINVAL", f"vcpu {vcpu}: extended state of size {length}; at least 32")
        return
    for name in ("syscall32_callback_eip", "sysenter_callback_eip"):
        if not canonical(int(fields[name])):
            yield Objection("REC-73", "EINVAL", f"vcpu {vcpu}: {name} {int(fields[name]):#x} is not canonical")
    if length >= EXTENDED.offset("mcg_cap") + 8:
        yield from _machine_checks(int(fields["mcg_cap"]), vcpu, release, intel)


def _machine_checks(caps: int, vcpu: int, release: Release, intel: bool | None) -> Iterator[Objection]:
    """REC-74."""
    answer, errno = machine_checks.taken(caps, release, intel), machine_checks.errno(release)
    what = f"vcpu {vcpu}: machine check capabilities {caps:#x}"
    if answer is False:
        yield Objection("REC-74", errno, f"{what}, which {'no host has' if intel is None else 'this host lacks'}")
    elif answer is None:
        message = f"{what}, as hosts with processors of Intel have them, and no others"
        yield Objection("REC-74", errno, message, certain=False, severity=Severity.INFO)


def xsave_objections(content: bytes, vcpu: int, release: Release, cpu: Processor) -> Iterator[Objection]:
    """REC-80 to REC-85: setvcpuextstate and validate_xstate, in their order."""
    words = view(XSAVE_WORDS, content)
    xcr0, accum = int(words["xcr0"]), int(words["xcr0_accum"])
    what = f"vcpu {vcpu}: xcr0 {xcr0:#x}, xcr0_accum {accum:#x}"
    if not accum:
        if xcr0 or len(content) != XSAVE_MIN_SIZE:
            yield Objection("REC-81", "EINVAL", f"{what}, {count(len(content), 'byte')}; expected 0, 0 and 16")
        return
    if len(content) < XSAVE_HEADER.size:
        yield Objection("REC-82", "EINVAL", f"{what}: {count(len(content), 'byte')}; at least {XSAVE_HEADER.size}")
        return
    header = view(XSAVE_HEADER, content)
    bv = int(header["xstate_bv"])
    tiles = release.has(releases.amx_pair_checked)
    if bv & ~accum or xcr0 & ~accum or not all(valid_xcr0(mask, tiles=tiles) for mask in (xcr0, accum)):
        yield Objection("REC-83", "EINVAL", f"{what}, xstate_bv {bv:#x}: not a state a CPU can have")
        return
    if release.has(releases.xcr0_by_policy) and cpu.has_components(accum) is False:
        why = cpu.components_not_offered(accum)
        yield Objection("REC-83", "EINVAL", f"{what}; the guest can have {cpu.most.xcr0:#x} at most{why}")
        return
    if release.has(releases.xcr0_without_hvm_bits) and accum & _HVM_COMPONENTS:
        yield Objection("REC-83", "EINVAL", f"{what}; no PV guest can have {accum & _HVM_COMPONENTS:#x}")
        return
    if int(header["xcomp_bv"]):
        yield Objection("REC-84", "EOPNOTSUPP", f"vcpu {vcpu}: xcomp_bv {int(header['xcomp_bv']):#x}: compressed")
        return
    if any(bytes(header["reserved"])):
        yield Objection("REC-85", "EIO", f"vcpu {vcpu}: reserved bytes of the XSAVE header are not zero")
        return
    yield from _xsave_size(len(content), accum, what, release, cpu)


def _xsave_size(size: int, accum: int, what: str, release: Release, cpu: Processor) -> Iterator[Objection]:
    """REC-80 and REC-82: the size of the components, of which those up to AVX lie in the same place on every CPU."""
    plain = accum & ~(XState.X87 | XState.SSE)
    everywhere = plain in (0, XState.AVX)
    area = (XSAVE_AVX_SIZE if plain else XSAVE_LEGACY_SIZE) if everywhere else cpu.promised.xsave_size(accum)
    exact = release.has(releases.xsave_size_exact)
    if area is None:
        if exact and size < XSAVE_MIN_SIZE + XSAVE_AVX_SIZE:
            yield Objection("REC-82", "EINVAL", f"{what}: {count(size, 'byte is', 'bytes are')} too few")
        else:
            yield Objection("REC-80", "EINVAL", what, certain=False)
        return
    expected = XSAVE_MIN_SIZE + area
    if size > expected or (exact and size < expected):
        message = f"{what}: {count(size, 'byte')}; expected {expected}"
        # Where the later components lie a host may see otherwise.
        yield Objection("REC-82" if everywhere else "REC-80", "EINVAL", message, certain=everywhere)
    elif not everywhere and not cpu.has_components(accum):
        yield Objection("REC-80", "EINVAL", what, certain=False)


# What no PV guest can have, whatever the host (4.8.5, which does not look at policies).
_HVM_COMPONENTS = XState.BNDREGS | XState.BNDCSR | XState.PKRU | XState.LWP

# The MSRs that set_vcpu_msrs takes, and since when (policy and host decide on the value).
MSRS: dict[int, releases.Change] = {
    Msr.SPEC_CTRL: releases.spec_ctrl,
    Msr.INTEL_MISC_FEATURES_ENABLES: releases.misc_features,
    Msr.TSC_AUX: releases.tsc_aux,
    Msr.AMD64_DR0_ADDRESS_MASK: releases.every_release,
    Msr.AMD64_DR1_ADDRESS_MASK: releases.every_release,
    Msr.AMD64_DR2_ADDRESS_MASK: releases.every_release,
    Msr.AMD64_DR3_ADDRESS_MASK: releases.every_release,
}
ADDRESS_MASKS = 4


def max_msrs(release: Release) -> tuple[int, int]:
    """How many entries an MSRS record may have: on a host without AMD's debug address masks, and on one with them."""
    if release.has(releases.seven_msrs):
        most = 7
    elif release.has(releases.two_msrs):
        most = 2
    else:
        most = 1 if release.has(releases.one_msr) else 0
    return most, most if release.has(releases.seven_msrs_in_all) else most + ADDRESS_MASKS


def msrs_objections(content: bytes, vcpu: int, release: Release, cpu: Processor) -> Iterator[Objection]:
    """REC-90 to REC-93: set_vcpu_msrs, entry by entry up to the first refused.

    Parameters
    ----------
    content:
        whole entries, and what may follow them: before releases checked it, libxc passed on any length.
    """
    size = MSR_ENTRY.size
    arrives = release.has(releases.msrs_restored)
    asked = len(content) // size if arrives else len(content) % size
    least, most = max_msrs(release)
    if cpu.dbext is not None:
        least = most = most if cpu.dbext else least
    if asked > most:
        yield Objection("REC-90", "EINVAL", f"vcpu {vcpu}: {count(asked, 'MSR')}; at most {most}")
        return
    if asked > least:
        message = f"vcpu {vcpu}: {count(asked, 'MSR')}, which takes a host with AMD's debug address masks"
        yield Objection("REC-90", "EINVAL", message, certain=False)
    if not arrives:
        message = f"vcpu {vcpu}: {count(len(content) // size, 'MSR')}, none of which is set: libxc asks for {asked}"
        yield Objection("REC-93", None, message)
        return
    refusal = "ENXIO" if release.has(releases.msr_refusal_enxio) else "EINVAL"
    for entry in np.frombuffer(content, dtype_of(MSR_ENTRY), asked):
        index, value = int(entry["index"]), int(entry["value"])
        if int(entry["reserved"]):
            yield Objection("REC-91", "EINVAL", f"vcpu {vcpu}: the reserved word of MSR {index:#x} is not zero")
            return
        if index not in MSRS or not release.has(MSRS[index]):
            yield Objection("REC-92", refusal, f"vcpu {vcpu}: MSR {index:#x} is not migrated")
            return
        allowed = _msr_allowed(index, value, release, cpu)
        if not allowed:
            certain = allowed is False
            why = ", which the guest's processor cannot have" if certain else ""
            yield Objection("REC-92", refusal, f"vcpu {vcpu}: MSR {index:#x} = {value:#x}{why}", certain)
            if certain:
                return


def _msr_allowed(index: int, value: int, release: Release, cpu: Processor) -> bool | None:
    """Whether a guest may have this value in a listed MSR; None where that is the host's to say."""
    if index == Msr.SPEC_CTRL:
        return guest_msrs.spec_ctrl_allowed(value, cpu, release)
    if index == Msr.INTEL_MISC_FEATURES_ENABLES:
        return guest_msrs.misc_features_allowed(value, cpu, release)
    if index == Msr.TSC_AUX:
        return guest_msrs.tsc_aux_allowed(value, cpu)
    return guest_msrs.address_mask_allowed(value, cpu, release)
