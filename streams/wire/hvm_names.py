"""What an HVM guest's stream carries beside its pages: numbers and names of parameters and of hardware state.

With the standard library alone, so that a filter in front of an HVM guest stays small; layouts are in `hvm_entries`.

Sources: Xen's public `hvm/params.h` and `arch-x86/hvm/save.h`.
"""

from __future__ import annotations

from enum import IntEnum


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

PICS = 2
"""Instances of PIC: the two controllers of a PC."""
