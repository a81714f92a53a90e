"""What the four vcpu records of a PV guest carry, after their common header.

Sources: Xen's public `arch-x86/xen*.h` (vcpu_guest_context) and `domctl.h` (extended context, MSRs),
`x86/xstate.h` for the XSAVE area. Tables by guest width are keyed 4 and 8, the word size in bytes.
Every byte belongs to a named field, reserved ones too, so that any content builds back as it was read.
"""

from __future__ import annotations

from enum import IntFlag

from construct import Array, Bytes, Construct, Int8ul, Int16ul, Int32ul, Int64ul, Struct

from streams.wire import xstate
from streams.wire.constructs import construct_of

# -- BASIC: vcpu_guest_context ----------------------------------------------------------------------

WORD: dict[int, Construct] = {4: Int32ul, 8: Int64ul}

TRAPS = 256
GDT_FRAMES = 16
GDT_ENTRIES_PER_FRAME = 512
MAX_GDT_ENTRIES = 14 * GDT_ENTRIES_PER_FRAME  # the last two of the 16 frames are Xen's own
MAX_LDT_ENTRIES = 8192

FXSAVE = construct_of(xstate.FXSAVE)
"""The 512 bytes of `fpu_ctxt`, and of `fxsave` in an XSAVE area."""

USER_REGS: dict[int, Struct] = {
    4: Struct(
        "ebx" / Int32ul,
        "ecx" / Int32ul,
        "edx" / Int32ul,
        "esi" / Int32ul,
        "edi" / Int32ul,
        "ebp" / Int32ul,
        "eax" / Int32ul,
        "error_code" / Int16ul,
        "entry_vector" / Int16ul,
        "eip" / Int32ul,
        "cs" / Int16ul,
        "saved_upcall_mask" / Int8ul,
        "saved_upcall_mask_pad" / Bytes(1),
        "eflags" / Int32ul,
        "esp" / Int32ul,
        "ss" / Int16ul,
        "ss_pad" / Bytes(2),
        "es" / Int16ul,
        "es_pad" / Bytes(2),
        "ds" / Int16ul,
        "ds_pad" / Bytes(2),
        "fs" / Int16ul,
        "fs_pad" / Bytes(2),
        "gs" / Int16ul,
        "gs_pad" / Bytes(2),
    ),
    8: Struct(
        "r15" / Int64ul,
        "r14" / Int64ul,
        "r13" / Int64ul,
        "r12" / Int64ul,
        "rbp" / Int64ul,
        "rbx" / Int64ul,
        "r11" / Int64ul,
        "r10" / Int64ul,
        "r9" / Int64ul,
        "r8" / Int64ul,
        "rax" / Int64ul,
        "rcx" / Int64ul,
        "rdx" / Int64ul,
        "rsi" / Int64ul,
        "rdi" / Int64ul,
        "error_code" / Int32ul,
        "entry_vector" / Int32ul,
        "rip" / Int64ul,
        "cs" / Int16ul,
        "cs_pad" / Bytes(2),
        "saved_upcall_mask" / Int8ul,
        "saved_upcall_mask_pad" / Bytes(3),
        "rflags" / Int64ul,
        "rsp" / Int64ul,
        "ss" / Int16ul,
        "ss_pad" / Bytes(6),
        "es" / Int16ul,
        "es_pad" / Bytes(6),
        "ds" / Int16ul,
        "ds_pad" / Bytes(6),
        "fs" / Int16ul,
        "fs_pad" / Bytes(6),
        "gs" / Int16ul,
        "gs_pad" / Bytes(6),
    ),
}
"""cpu_user_regs, under the names of the guest's own registers."""

START_INFO_REGISTER = {4: "edx", 8: "rdx"}
"""The register of vcpu 0 in which a suspending guest leaves the frame of its start_info."""

TRAP: dict[int, Struct] = {
    4: Struct("vector" / Int8ul, "flags" / Int8ul, "cs" / Int16ul, "address" / Int32ul),
    8: Struct("vector" / Int8ul, "flags" / Int8ul, "cs" / Int16ul, "pad" / Bytes(4), "address" / Int64ul),
}
"""trap_info."""


def _context(width: int, *callbacks: Construct) -> Struct:
    word = WORD[width]
    return Struct(
        "fpu_ctxt" / Bytes(512),
        "flags" / word,
        "user_regs" / USER_REGS[width],
        "trap_ctxt" / Array(TRAPS, TRAP[width]),
        "ldt_base" / word,
        "ldt_ents" / word,
        "gdt_frames" / Array(GDT_FRAMES, word),
        "gdt_ents" / word,
        "kernel_ss" / word,
        "kernel_sp" / word,
        "ctrlreg" / Array(8, word),
        "debugreg" / Array(8, word),
        *callbacks,
    )


CONTEXT: dict[int, Struct] = {
    4: _context(
        4,
        "event_callback_cs" / Int32ul,
        "event_callback_eip" / Int32ul,
        "failsafe_callback_cs" / Int32ul,
        "failsafe_callback_eip" / Int32ul,
        "vm_assist" / Int32ul,
    ),
    8: _context(
        8,
        "event_callback_eip" / Int64ul,
        "failsafe_callback_eip" / Int64ul,
        "syscall_callback_eip" / Int64ul,
        "vm_assist" / Int64ul,
        "fs_base" / Int64ul,
        "gs_base_kernel" / Int64ul,
        "gs_base_user" / Int64ul,
    ),
}
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

EXTENDED = Struct(
    "vcpu" / Int32ul,
    "size" / Int32ul,
    "syscall32_callback_eip" / Int64ul,
    "sysenter_callback_eip" / Int64ul,
    "syscall32_callback_cs" / Int16ul,
    "sysenter_callback_cs" / Int16ul,
    "syscall32_disables_events" / Int8ul,
    "sysenter_disables_events" / Int8ul,
    "pad" / Bytes(2),
    "mcg_cap" / Int64ul,
    "mci_ctl2_bank0" / Int64ul,
    "mci_ctl2_bank1" / Int64ul,
    "mcg_ext_ctl" / Int64ul,
)
"""The form of 64 bytes. Older ones end at 40 or 56; Xen reads zeros for what a record lacks."""

MIN_EXTENDED_SIZE = 32
"""Least value of EXTENDED's own `size` that Xen takes: up to and with `pad`."""
MAX_EXTENDED_SIZE = 128
"""Most bytes libxc takes: the fixed size of its own buffer, which the legacy converter sends in full."""

# -- XSAVE ------------------------------------------------------------------------------------------

XSAVE_WORDS = Struct("xcr0" / Int64ul, "xcr0_accum" / Int64ul)
"""Start of every XSAVE content, and all of it (zeros) for a vcpu that never touched its FPU."""

XSAVE_HEADER = Struct(
    *XSAVE_WORDS.subcons,
    "fxsave" / Bytes(512),
    "xstate_bv" / Int64ul,
    "xcomp_bv" / Int64ul,
    "reserved" / Bytes(48),
)
"""The 592 bytes before the extended components, which lie where CPUID leaf 0xd puts them."""

XSAVE_MIN_SIZE = XSAVE_WORDS.sizeof()

# -- MSRS: xen_domctl_vcpu_msr ----------------------------------------------------------------------

MSR_ENTRY = Struct("index" / Int32ul, "reserved" / Int32ul, "value" / Int64ul)
