"""Where the registers of a local APIC lie in its page, as a LAPIC_REGS entry of an HVM_CONTEXT carries it.

Source: the APIC chapter of the processor manuals. The standard library alone.
"""

from __future__ import annotations

import struct
from enum import IntFlag

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


class InterruptCommand(IntFlag):
    """Bits of `icr_low` behind the vector and the delivery mode."""

    LOGICAL = 1 << 11
    DELIVERY_PENDING = 1 << 12
    ASSERT = 1 << 14
    LEVEL = 1 << 15


ICR_SHORTHAND_SHIFT = 18
ICR_SHORTHANDS: dict[int, str] = {1: "to itself", 2: "to all", 3: "to all but itself"}
"""Destinations of `icr_low` that need no `icr_high`, in bits 18 and 19."""


class SpuriousVector(IntFlag):
    """Bits of `svr` behind the vector."""

    ENABLED = 1 << 8
    FOCUS_CHECK_OFF = 1 << 9
    EOI_BROADCAST_OFF = 1 << 12


class LapicError(IntFlag):
    """Bits of `esr`."""

    SEND_CHECKSUM = 1 << 0
    RECEIVE_CHECKSUM = 1 << 1
    SEND_ACCEPT = 1 << 2
    RECEIVE_ACCEPT = 1 << 3
    REDIRECTABLE = 1 << 4
    SEND_VECTOR = 1 << 5
    RECEIVE_VECTOR = 1 << 6
    REGISTER_ADDRESS = 1 << 7


LVT_TIMER_SHIFT = 17
LVT_TIMER_MODES: dict[int, str] = {0: "one-shot", 1: "periodic", 2: "tsc deadline"}
"""Modes of `lvt_timer`, in bits 17 and 18."""
