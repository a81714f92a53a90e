"""Bits of control registers, flags and the like. Standard library alone.

Source: the processor manuals. Members are in the order of their bits.
"""

from __future__ import annotations

from enum import IntFlag


class Cr0(IntFlag):
    """cr0."""

    PE = 1 << 0
    MP = 1 << 1
    EM = 1 << 2
    TS = 1 << 3
    ET = 1 << 4
    NE = 1 << 5
    WP = 1 << 16
    AM = 1 << 18
    NW = 1 << 29
    CD = 1 << 30
    PG = 1 << 31


class Cr4(IntFlag):
    """cr4."""

    VME = 1 << 0
    PVI = 1 << 1
    TSD = 1 << 2
    DE = 1 << 3
    PSE = 1 << 4
    PAE = 1 << 5
    MCE = 1 << 6
    PGE = 1 << 7
    PCE = 1 << 8
    OSFXSR = 1 << 9
    OSXMMEXCPT = 1 << 10
    UMIP = 1 << 11
    LA57 = 1 << 12
    VMXE = 1 << 13
    SMXE = 1 << 14
    FSGSBASE = 1 << 16
    PCIDE = 1 << 17
    OSXSAVE = 1 << 18
    KL = 1 << 19
    SMEP = 1 << 20
    SMAP = 1 << 21
    PKE = 1 << 22
    CET = 1 << 23
    PKS = 1 << 24
    UINTR = 1 << 25
    LASS = 1 << 27


class Efer(IntFlag):
    """EFER."""

    SCE = 1 << 0
    LME = 1 << 8
    LMA = 1 << 10
    NX = 1 << 11
    SVME = 1 << 12
    LMSLE = 1 << 13
    FFXSE = 1 << 14
    TCE = 1 << 15
    MCOMMIT = 1 << 17
    INTWB = 1 << 18
    UAIE = 1 << 20
    AIBRSE = 1 << 21


class Rflags(IntFlag):
    """eflags and rflags, but for the I/O privilege level in bits 12 and 13, and bit 1, which is always set."""

    CF = 1 << 0
    PF = 1 << 2
    AF = 1 << 4
    ZF = 1 << 6
    SF = 1 << 7
    TF = 1 << 8
    IF = 1 << 9
    DF = 1 << 10
    OF = 1 << 11
    NT = 1 << 14
    RF = 1 << 16
    VM = 1 << 17
    AC = 1 << 18
    VIF = 1 << 19
    VIP = 1 << 20
    ID = 1 << 21


class McgCap(IntFlag):
    """Machine check capabilities (MCG_CAP); bits 0 to 7 are the number of banks."""

    CTL_P = 1 << 8
    EXT_P = 1 << 9
    CMCI_P = 1 << 10
    TES_P = 1 << 11
    SER_P = 1 << 24
    EMC_P = 1 << 25
    ELOG_P = 1 << 26
    LMCE_P = 1 << 27


MCG_BANKS = 0xFF
"""Bits of MCG_CAP that are the number of banks."""


class SegmentAttribute(IntFlag):
    """Attributes of a segment register without the limit between them; bits 5 and 6 are the level."""

    ACCESSED = 1 << 0
    WRITABLE_OR_READABLE = 1 << 1
    CODE = 1 << 3
    CODE_OR_DATA = 1 << 4
    PRESENT = 1 << 7
    LONG = 1 << 9
    BIG = 1 << 10
    PAGES = 1 << 11
