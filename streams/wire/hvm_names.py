"""What an HVM guest's stream carries beside its pages: numbers, names, and the few fields that decide a restore.

With the standard library alone, so that a filter in front of an HVM guest stays small; the full layouts are in
`hvm`.

Sources: Xen's public `hvm/params.h` and `arch-x86/hvm/save.h`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple


class HvmParam(IntEnum):
    """Indices of HVM_PARAMS, all that exist: 0 to 38."""

    CALLBACK_IRQ = 0
    STORE_PFN = 1
    STORE_EVTCHN = 2
    UNUSED_3 = 3
    PAE_ENABLED = 4
    IOREQ_PFN = 5
    BUFIOREQ_PFN = 6
    UNUSED_7 = 7
    UNUSED_8 = 8
    VIRIDIAN = 9
    TIMER_MODE = 10
    HPET_ENABLED = 11
    IDENT_PT = 12
    DM_DOMAIN = 13
    ACPI_S_STATE = 14
    VM86_TSS = 15
    VPT_ALIGN = 16
    CONSOLE_PFN = 17
    CONSOLE_EVTCHN = 18
    ACPI_IOPORTS_LOCATION = 19
    MEMORY_EVENT_CR0 = 20
    MEMORY_EVENT_CR3 = 21
    MEMORY_EVENT_CR4 = 22
    MEMORY_EVENT_INT3 = 23
    NESTEDHVM = 24
    MEMORY_EVENT_SINGLE_STEP = 25
    BUFIOREQ_EVTCHN = 26
    PAGING_RING_PFN = 27
    MONITOR_RING_PFN = 28
    SHARING_RING_PFN = 29
    MEMORY_EVENT_MSR = 30
    TRIPLE_FAULT_REASON = 31
    IOREQ_SERVER_PFN = 32
    NR_IOREQ_SERVER_PAGES = 33
    VM_GENERATION_ID_ADDR = 34
    ALTP2M = 35
    X87_FIP_WIDTH = 36
    VM86_TSS_SIZED = 37
    MCA_CAP = 38


class SaveType(IntEnum):
    """Typecodes of the entries of an HVM_CONTEXT body."""

    END = 0
    HEADER = 1
    CPU = 2
    PIC = 3
    IOAPIC = 4
    LAPIC = 5
    LAPIC_REGS = 6
    PCI_IRQ = 7
    ISA_IRQ = 8
    PCI_LINK = 9
    PIT = 10
    RTC = 11
    HPET = 12
    PMTIMER = 13
    MTRR = 14
    VIRIDIAN_DOMAIN = 15
    CPU_XSAVE = 16
    VIRIDIAN_VCPU = 17
    VMCE_VCPU = 18
    TSC_ADJUST = 19
    CPU_MSR = 20


def param_name(index: int) -> str:
    """Name of an HVM parameter, or its number where none is defined."""
    return HvmParam(index).name if index in HvmParam.__members__.values() else str(index)


LAST_SAVE_TYPE = int(max(SaveType))


def save_name(typecode: int) -> str:
    """Name of a type of entry, or its number where none is defined."""
    return SaveType(typecode).name if typecode <= LAST_SAVE_TYPE else str(typecode)


SAVE_MAGIC = 0x5438_1286
"""`magic` of the HEADER entry."""
SAVE_VERSION = 1
"""`version` of the HEADER entry; there has only been one."""


class SaveStart(NamedTuple):
    """What of the HEADER entry Xen looks at first."""

    magic: int
    version: int


SAVE_START = struct.Struct("<II")


class Entry(NamedTuple):
    """How Xen takes one type of entry: its length, and what its instance counts."""

    length: int
    shorter: bool = False
    """Xen reads zeros for what a shorter entry lacks (hvm_load_entry_zeroextend)."""
    longer: bool = False
    """The length is the least one; the entry itself says how long it is."""
    per_vcpu: bool = False
    """The instance is a vcpu id."""


ENTRIES: dict[int, Entry] = {
    SaveType.END: Entry(0),
    SaveType.HEADER: Entry(24),
    SaveType.CPU: Entry(1032, shorter=True, per_vcpu=True),
    SaveType.PIC: Entry(8),
    SaveType.IOAPIC: Entry(400),
    SaveType.LAPIC: Entry(24, shorter=True, per_vcpu=True),
    SaveType.LAPIC_REGS: Entry(1024, shorter=True, per_vcpu=True),
    SaveType.PCI_IRQ: Entry(16),
    SaveType.ISA_IRQ: Entry(8),
    SaveType.PCI_LINK: Entry(8),
    SaveType.PIT: Entry(56),
    SaveType.RTC: Entry(16),
    SaveType.HPET: Entry(1048),
    SaveType.PMTIMER: Entry(8),
    SaveType.MTRR: Entry(240, per_vcpu=True),
    SaveType.VIRIDIAN_DOMAIN: Entry(32, shorter=True),
    SaveType.CPU_XSAVE: Entry(600, longer=True, per_vcpu=True),
    SaveType.VIRIDIAN_VCPU: Entry(216, shorter=True, per_vcpu=True),
    SaveType.VMCE_VCPU: Entry(32, shorter=True, per_vcpu=True),
    SaveType.TSC_ADJUST: Entry(8, per_vcpu=True),
    SaveType.CPU_MSR: Entry(24, longer=True, per_vcpu=True),
}
"""What every type of entry is like, in the newest form known.

CPU_XSAVE is as long as its area: three words and at least the image and header of x87 and SSE. CPU_MSR has a
count and that many MSRs, at least one.
"""

PICS = 2
"""Instances of PIC: the two controllers of a PC."""

CPU_OLD_LENGTHS = (1016, 1024)
"""CPU entries of Xen before 3.4 (no TSC_AUX, so all behind it lies 8 bytes earlier) and before 4.7 (no flags)."""


class CpuControl(NamedTuple):
    """What of a CPU entry decides whether Xen takes it."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    tsc_aux: int
    pending_event: int
    error_code: int
    flags: int
    pad: int


CPU_CONTROL = struct.Struct("<656xQ8xQQ304xQQ8xIIII")
"""The fields of CpuControl where they lie in a CPU entry of the newest form."""


class XsaveControl(NamedTuple):
    """What of a CPU_XSAVE entry decides whether Xen takes it; the area begins 24 bytes into the entry."""

    mask: int
    xcr0: int
    xcr0_accum: int
    xstate_bv: int
    xcomp_bv: int
    reserved: bytes


XSAVE_CONTROL = struct.Struct("<QQQ512xQQ48s")
XSAVE_WORDS_SIZE = 24
"""Bytes of a CPU_XSAVE entry before its XSAVE area."""


class LapicControl(NamedTuple):
    """What of a LAPIC entry decides whether Xen takes it."""

    apic_base: int


LAPIC_CONTROL = struct.Struct("<Q")


class MtrrControl(NamedTuple):
    """What of an MTRR entry decides whether Xen takes it."""

    cap: int


MTRR_CONTROL = struct.Struct("<224xQ")


class HvmMsr(NamedTuple):
    """One MSR of a CPU_MSR entry."""

    index: int  # type: ignore[assignment]
    reserved: int
    value: int


HVM_MSR_HEADER = struct.Struct("<I4x")
"""The count before a CPU_MSR entry's MSRs, and four bytes nobody reads."""
HVM_MSR = struct.Struct("<IIQ")
