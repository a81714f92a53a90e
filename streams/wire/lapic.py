"""Where the registers of a local APIC lie in its page, as a LAPIC_REGS entry of an HVM_CONTEXT carries it.

Source: the APIC chapter of the processor manuals. The standard library alone.
"""

from __future__ import annotations

import struct

LAPIC_REGISTER = struct.Struct("<I")

LAPIC_REGISTERS: dict[str, int] = {
    "id": 0x020,
    "version": 0x030,
    "tpr": 0x080,
    "ppr": 0x0A0,
    "ldr": 0x0D0,
    "dfr": 0x0E0,
    "svr": 0x0F0,
    "esr": 0x280,
    "icr_low": 0x300,
    "icr_high": 0x310,
    "lvt_timer": 0x320,
    "lvt_thermal": 0x330,
    "lvt_pmc": 0x340,
    "lvt_lint0": 0x350,
    "lvt_lint1": 0x360,
    "lvt_error": 0x370,
    "timer_initial": 0x380,
    "timer_current": 0x390,
    "timer_divide": 0x3E0,
}
"""Byte offsets of registers of 32 bits, by name."""

LAPIC_VECTORS: dict[str, int] = {"isr": 0x100, "tmr": 0x180, "irr": 0x200}
"""Byte offsets of the registers with a bit per vector: 8 of 32 bits each."""

LAPIC_STRIDE = 0x10
"""Bytes from one register to the next."""

LAPIC_VECTOR_WORDS = 8
