"""Entries of the two CPU policy records; each record is an array of them.

Source: Xen's public `arch-x86/xen.h` (xen_cpuid_leaf_t, xen_msr_entry_t).
"""

from __future__ import annotations

from construct import Int32ul, Int64ul, Struct

from streams.wire.framing import NO_SUBLEAF as NO_SUBLEAF

CPUID_LEAF = Struct(
    "leaf" / Int32ul,
    "subleaf" / Int32ul,
    "a" / Int32ul,
    "b" / Int32ul,
    "c" / Int32ul,
    "d" / Int32ul,
)

MSR_ENTRY = Struct("index" / Int32ul, "flags" / Int32ul, "value" / Int64ul)
