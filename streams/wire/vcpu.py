"""What the four vcpu records of a PV guest carry, after their common header.

Sources: Xen's public `arch-x86/xen*.h` (vcpu_guest_context) and `domctl.h` (extended context, MSRs),
`x86/xstate.h` for the XSAVE area. Tables by guest width are keyed 4 and 8, the word size in bytes.
Every byte belongs to a named field, reserved ones too, so that any content packs as it was read.
"""

from __future__ import annotations

from enum import IntFlag

from streams.values import NamedTuple
from streams.wire.layouts import U8, U16, U32, U64, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated, Any

# -- BASIC: vcpu_guest_context ----------------------------------------------------------------------

TRAPS = 256
GDT_FRAMES = 16
GDT_ENTRIES_PER_FRAME = 512
MAX_GDT_ENTRIES = 14 * GDT_ENTRIES_PER_FRAME  # the last two of the 16 frames are Xen's own
MAX_LDT_ENTRIES = 8192


class UserRegs32(NamedTuple):
    """cpu_user_regs at width 4."""

    ebx: U32
    ecx: U32
    edx: U32
    esi: U32
    edi: U32
    ebp: U32
    eax: U32
    error_code: U16
    entry_vector: U16
    eip: U32
    cs: U16
    saved_upcall_mask: U8
    saved_upcall_mask_pad: Annotated[bytes, "1s"]
    eflags: U32
    esp: U32
    ss: U16
    ss_pad: Annotated[bytes, "2s"]
    es: U16
    es_pad: Annotated[bytes, "2s"]
    ds: U16
    ds_pad: Annotated[bytes, "2s"]
    fs: U16
    fs_pad: Annotated[bytes, "2s"]
    gs: U16
    gs_pad: Annotated[bytes, "2s"]


class UserRegs64(NamedTuple):
    """cpu_user_regs at width 8."""

    r15: U64
    r14: U64
    r13: U64
    r12: U64
    rbp: U64
    rbx: U64
    r11: U64
    r10: U64
    r9: U64
    r8: U64
    rax: U64
    rcx: U64
    rdx: U64
    rsi: U64
    rdi: U64
    error_code: U32
    entry_vector: U32
    rip: U64
    cs: U16
    cs_pad: Annotated[bytes, "2s"]
    saved_upcall_mask: U8
    saved_upcall_mask_pad: Annotated[bytes, "3s"]
    rflags: U64
    rsp: U64
    ss: U16
    ss_pad: Annotated[bytes, "6s"]
    es: U16
    es_pad: Annotated[bytes, "6s"]
    ds: U16
    ds_pad: Annotated[bytes, "6s"]
    fs: U16
    fs_pad: Annotated[bytes, "6s"]
    gs: U16
    gs_pad: Annotated[bytes, "6s"]


START_INFO_REGISTER = {4: "edx", 8: "rdx"}
"""The register of vcpu 0 in which a suspending guest leaves the frame of its start_info."""


class Trap32(NamedTuple):
    """trap_info at width 4."""

    vector: U8
    flags: U8
    cs: U16
    address: U32


class Trap64(NamedTuple):
    """trap_info at width 8."""

    vector: U8
    flags: U8
    cs: U16
    pad: Annotated[bytes, "4s"]
    address: U64


class Context32(NamedTuple):
    """vcpu_guest_context at width 4."""

    fpu_ctxt: Annotated[bytes, "512s"]
    flags: U32
    user_regs: UserRegs32
    trap_ctxt: Annotated[tuple[Trap32, ...], TRAPS]
    ldt_base: U32
    ldt_ents: U32
    gdt_frames: Annotated[tuple[int, ...], GDT_FRAMES, "I"]
    gdt_ents: U32
    kernel_ss: U32
    kernel_sp: U32
    ctrlreg: Annotated[tuple[int, ...], 8, "I"]
    debugreg: Annotated[tuple[int, ...], 8, "I"]
    event_callback_cs: U32
    event_callback_eip: U32
    failsafe_callback_cs: U32
    failsafe_callback_eip: U32
    vm_assist: U32


class Context64(NamedTuple):
    """vcpu_guest_context at width 8."""

    fpu_ctxt: Annotated[bytes, "512s"]
    flags: U64
    user_regs: UserRegs64
    trap_ctxt: Annotated[tuple[Trap64, ...], TRAPS]
    ldt_base: U64
    ldt_ents: U64
    gdt_frames: Annotated[tuple[int, ...], GDT_FRAMES, "Q"]
    gdt_ents: U64
    kernel_ss: U64
    kernel_sp: U64
    ctrlreg: Annotated[tuple[int, ...], 8, "Q"]
    debugreg: Annotated[tuple[int, ...], 8, "Q"]
    event_callback_eip: U64
    failsafe_callback_eip: U64
    syscall_callback_eip: U64
    vm_assist: U64
    fs_base: U64
    gs_base_kernel: U64
    gs_base_user: U64


CONTEXT: dict[int, Layout[Any]] = {4: Layout(Context32), 8: Layout(Context64)}
"""vcpu_guest_context: 2800 bytes at width 4, 5168 at width 8. Names agree where the meaning does."""


class ContextFlag(IntFlag):
    """VGCF bits of a context's `flags`."""

    I387_VALID = 1 << 0
    IN_KERNEL = 1 << 2
    FAILSAFE_DISABLES_EVENTS = 1 << 3
    SYSCALL_DISABLES_EVENTS = 1 << 4
    ONLINE = 1 << 5
    IN_SYSCALL = 1 << 8  # width 8 only


VM_ASSIST_NAMES: dict[int, str] = {
    0: "4gb_segments",
    1: "4gb_segments_notify",
    2: "writable_pagetables",
    3: "pae_extended_cr3",
    4: "architectural_iopl",
    5: "runstate_update_flag",
    32: "m2p_strict",
}
"""Bits of `vm_assist`, by number: a property of the domain, copied into every vcpu's context."""

PAE_EXTENDED_CR3 = 1 << 3
"""The guest takes L3s at or above 4 GiB."""

# Bit 3 is valid at width 8 too: Linux enables it there, though it means nothing.
VM_ASSIST_VALID: dict[int, int] = {4: 0x3F, 8: 0x1_0000_003F}

# -- cr3 --------------------------------------------------------------------------------------------

USER_ROOT_VALID = 0x1
"""Set by a saver in ctrlreg[1] of width 8 where a user root is sent, so that pfn 0 differs from none."""

_PFN_LIMIT = {4: 1 << 32, 8: 1 << 52}


def gdt_frames_used(entries: int) -> int:
    """How many of a context's `gdt_frames` its `gdt_ents` take, whatever is allowed."""
    return min(-(-entries // GDT_ENTRIES_PER_FRAME), GDT_FRAMES)


def cr3_to_pfn(cr3: int, width: int) -> int:
    """Frame number in a ctrlreg[3] (or, at width 8, ctrlreg[1]) value.

    Width 4 packs 32 bits of frame number by rotating (`xen_cr3_to_pfn`), whether or not the guest enabled
    pae_extended_cr3; width 8 ignores the low 12 bits. Bits beyond the width are dropped.
    """
    cr3 = int(cr3)  # numpy scalars would overflow in the shifts
    if width == 4:
        cr3 &= 0xFFFF_FFFF
        return (cr3 >> 12 | cr3 << 20) & 0xFFFF_FFFF
    return (cr3 & 0xFFFF_FFFF_FFFF_FFFF) >> 12


def pfn_to_cr3(pfn: int, width: int) -> int:
    """The ctrlreg[3] value that names a frame: the inverse of `cr3_to_pfn` (`xen_pfn_to_cr3`).

    Raises ValueError for a frame number of more than 32 bits at width 4, or 52 at width 8: none names it.
    """
    pfn = int(pfn)
    if not 0 <= pfn < _PFN_LIMIT[width]:
        raise ValueError(f"no cr3 of width {width} names pfn {pfn:#x}")
    if width == 4:
        return (pfn << 12 | pfn >> 20) & 0xFFFF_FFFF
    return pfn << 12


# -- EXTENDED: xen_domctl_ext_vcpucontext -----------------------------------------------------------


class Extended(NamedTuple):
    """The form of 64 bytes. Older ones end at 40 or 56; Xen reads zeros for what a record lacks."""

    vcpu: U32
    size: U32
    syscall32_callback_eip: U64
    sysenter_callback_eip: U64
    syscall32_callback_cs: U16
    sysenter_callback_cs: U16
    syscall32_disables_events: U8
    sysenter_disables_events: U8
    pad: Annotated[bytes, "2s"]
    mcg_cap: U64
    mci_ctl2_bank0: U64
    mci_ctl2_bank1: U64
    mcg_ext_ctl: U64


EXTENDED = Layout(Extended)

MIN_EXTENDED_SIZE = 32
"""Least value of EXTENDED's own `size` that Xen takes: up to and with `pad`."""
MAX_EXTENDED_SIZE = 128
"""Most bytes libxc takes: the fixed size of its own buffer, which the legacy converter sends in full."""

# -- XSAVE ------------------------------------------------------------------------------------------


class XsaveWords(NamedTuple):
    """Start of every XSAVE content, and all of it (zeros) for a vcpu that never touched its FPU."""

    xcr0: U64
    xcr0_accum: U64


class XsaveHeader(NamedTuple):
    """The 592 bytes before the extended components, which lie where CPUID leaf 0xd puts them."""

    xcr0: U64
    xcr0_accum: U64
    fxsave: Annotated[bytes, "512s"]
    xstate_bv: U64
    xcomp_bv: U64
    reserved: Annotated[bytes, "48s"]


XSAVE_WORDS = Layout(XsaveWords)
XSAVE_HEADER = Layout(XsaveHeader)
XSAVE_MIN_SIZE = XSAVE_WORDS.size

# -- MSRS: xen_domctl_vcpu_msr ----------------------------------------------------------------------


class VcpuMsr(NamedTuple):
    """One MSR of a vcpu."""

    index: U32  # type: ignore[assignment]
    reserved: U32
    value: U64


MSR_ENTRY = Layout(VcpuMsr)
