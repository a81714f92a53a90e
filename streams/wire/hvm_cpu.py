"""Entries of an HVM_CONTEXT about a processor: registers, FPU, MSRs, machine checks, MTRRs.

Source: Xen's public `arch-x86/hvm/save.h`; for what is in the registers, the processor manuals.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from streams.values import NamedTuple
from streams.wire.layouts import U32, U64, Layout
from streams.wire.xstate import Fxsave

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated


class Cpu(NamedTuple):
    """CPU (hvm_hw_cpu). Before Xen 4.7 it ended at `flags`, and the FPU always counted as used."""

    fpu_regs: Fxsave
    rax: U64
    rbx: U64
    rcx: U64
    rdx: U64
    rbp: U64
    rsi: U64
    rdi: U64
    rsp: U64
    r8: U64
    r9: U64
    r10: U64
    r11: U64
    r12: U64
    r13: U64
    r14: U64
    r15: U64
    rip: U64
    rflags: U64
    cr0: U64
    cr2: U64
    cr3: U64
    cr4: U64
    dr0: U64
    dr1: U64
    dr2: U64
    dr3: U64
    dr6: U64
    dr7: U64
    cs_sel: U32
    ds_sel: U32
    es_sel: U32
    fs_sel: U32
    gs_sel: U32
    ss_sel: U32
    tr_sel: U32
    ldtr_sel: U32
    cs_limit: U32
    ds_limit: U32
    es_limit: U32
    fs_limit: U32
    gs_limit: U32
    ss_limit: U32
    tr_limit: U32
    ldtr_limit: U32
    idtr_limit: U32
    gdtr_limit: U32
    cs_base: U64
    ds_base: U64
    es_base: U64
    fs_base: U64
    gs_base: U64
    ss_base: U64
    tr_base: U64
    ldtr_base: U64
    idtr_base: U64
    gdtr_base: U64
    cs_arbytes: U32
    ds_arbytes: U32
    es_arbytes: U32
    fs_arbytes: U32
    gs_arbytes: U32
    ss_arbytes: U32
    tr_arbytes: U32
    ldtr_arbytes: U32
    sysenter_cs: U64
    sysenter_esp: U64
    sysenter_eip: U64
    shadow_gs: U64
    msr_flags: U64
    msr_lstar: U64
    msr_star: U64
    msr_cstar: U64
    msr_syscall_mask: U64
    msr_efer: U64
    msr_tsc_aux: U64
    tsc: U64
    pending_event: U32
    error_code: U32
    flags: U32
    pad0: U32


CPU = Layout(Cpu)

SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr")
"""Segment registers of a CPU entry: each has a selector, a limit, a base and attributes (`_sel`, `_arbytes` ...)."""
TABLES = ("idtr", "gdtr")
"""Table registers of a CPU entry: each has a limit and a base."""

OLDEST_CPU_SIZE = 1016
"""Bytes of a CPU entry from before Xen 3.4."""
NOT_IN_OLDEST_CPU = ("msr_tsc_aux", "flags", "pad0")
"""What such an entry lacks; `tsc` and all behind it lie 8 bytes earlier. Xen reads it so up to 4.6 only."""


class CpuFlag(IntFlag):
    """`flags` of a CPU entry."""

    FPU_USED = 1 << 0


class PendingEvent(IntFlag):
    """Bits of `pending_event` of a CPU entry; bits 0 to 7 are the vector, bits 8 to 10 the type."""

    HAS_ERROR_CODE = 1 << 11
    VALID = 1 << 31


class EventType(IntEnum):
    """Types of a pending event, in its bits 8 to 10."""

    EXTERNAL = 0
    RESERVED = 1
    NMI = 2
    HARDWARE_EXCEPTION = 3
    SOFTWARE_INTERRUPT = 4
    PRIVILEGED_SOFTWARE_EXCEPTION = 5
    SOFTWARE_EXCEPTION = 6


EVENT_VECTOR, EVENT_TYPE_SHIFT, EVENT_TYPE_MASK = 0xFF, 8, 7


class Xsave(NamedTuple):
    """CPU_XSAVE (hvm_hw_cpu_xsave) up to the header of its area; components follow where CPUID leaf 0xd puts them."""

    xfeature_mask: U64
    xcr0: U64
    xcr0_accum: U64
    fxsave: Fxsave
    xstate_bv: U64
    xcomp_bv: U64
    reserved: Annotated[bytes, "48s"]


XSAVE = Layout(Xsave)


class CpuMsrs(NamedTuple):
    """CPU_MSR (hvm_msr) before its MSRs, of which there are `count`: as many as were not zero."""

    count: U32  # type: ignore[assignment]
    pad: Annotated[bytes, "4s"]


class CpuMsr(NamedTuple):
    """One MSR of a CPU_MSR entry."""

    index: U32  # type: ignore[assignment]
    reserved: U32
    value: U64


CPU_MSRS = Layout(CpuMsrs)
CPU_MSR = Layout(CpuMsr)


class VmceVcpu(NamedTuple):
    """VMCE_VCPU (hvm_vmce_vcpu): machine checks. Older forms end at 8 or 24 bytes."""

    caps: U64
    mci_ctl2_bank0: U64
    mci_ctl2_bank1: U64
    mcg_ext_ctl: U64


VMCE_VCPU = Layout(VmceVcpu)


class TscAdjust(NamedTuple):
    """TSC_ADJUST (hvm_tsc_adjust)."""

    tsc_adjust: U64


TSC_ADJUST = Layout(TscAdjust)


class MtrrPair(NamedTuple):
    """A variable range: both as the MSRs are."""

    base: U64
    mask: U64


MTRR_RANGES = 8
"""Variable ranges of an MTRR entry."""


class Mtrr(NamedTuple):
    """MTRR (hvm_hw_mtrr)."""

    msr_pat_cr: U64
    msr_mtrr_var: Annotated[tuple[MtrrPair, ...], MTRR_RANGES]
    msr_mtrr_fixed: Annotated[tuple[int, ...], 11, "Q"]
    msr_mtrr_cap: U64
    msr_mtrr_def_type: U64


MTRR = Layout(Mtrr)

MTRR_TYPES: dict[int, str] = {0: "uc", 1: "wc", 4: "wt", 5: "wp", 6: "wb"}
"""Memory types of MTRRs."""
PAT_TYPES: dict[int, str] = MTRR_TYPES | {7: "uc-"}
"""Memory types of the PAT's eight bytes."""
MTRR_PAIR_VALID = 1 << 11
"""Bit of a variable range's mask."""
MTRR_FIXED: tuple[tuple[int, int], ...] = (
    (0x00000, 0x10000),
    *((0x80000 + 0x20000 * number, 0x4000) for number in range(2)),
    *((0xC0000 + 0x8000 * number, 0x1000) for number in range(8)),
)
"""First address of each fixed-range MTRR, and how much each of its eight bytes covers."""


class MtrrCap(IntFlag):
    """Bits of MTRRcap; bits 0 to 7 are the number of variable ranges."""

    FIXED = 1 << 8
    WC = 1 << 10
    SMRR = 1 << 11


class MtrrDefType(IntFlag):
    """Bits of MTRRdefType; bits 0 to 7 are the default memory type."""

    FIXED_ENABLED = 1 << 10
    ENABLED = 1 << 11
