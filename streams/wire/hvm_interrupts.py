"""Entries of an HVM_CONTEXT about interrupt controllers and lines.

Source: Xen's public `arch-x86/hvm/save.h`; for what is in the registers, the manuals of processors and chipsets.
"""

from __future__ import annotations

from enum import IntFlag

from streams.values import NamedTuple
from streams.wire.layouts import U8, U32, U64, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated


class Lapic(NamedTuple):
    """LAPIC (hvm_hw_lapic). Older forms end at 16 or 24 bytes."""

    apic_base_msr: U64
    disabled: U32
    timer_divisor: U32
    tdt_msr: U64
    pending_esr: U32
    pad: Annotated[bytes, "4s"]


LAPIC = Layout(Lapic)


class ApicBase(IntFlag):
    """Bits of `apic_base_msr`; the rest is the address of the registers."""

    BSP = 1 << 8
    X2APIC = 1 << 10
    ENABLED = 1 << 11


class LapicDisabled(IntFlag):
    """Why an APIC is off: `disabled` of a LAPIC entry."""

    HARDWARE = 1 << 0
    SOFTWARE = 1 << 1


class LapicRegs(NamedTuple):
    """LAPIC_REGS (hvm_hw_lapic_regs): the register page, up to its last register; `lapic` says where each lies."""

    data: Annotated[bytes, "1024s"]


LAPIC_REGS = Layout(LapicRegs)


class Pic(NamedTuple):
    """PIC (hvm_hw_vpic); instance 0 is the master. Of `init_state_and_priority` the state is the lower half."""

    irr: U8
    imr: U8
    isr: U8
    irq_base: U8
    init_state_and_priority: U8
    modes: U8
    elcr: U8
    int_output: U8


PIC = Layout(Pic)


class PicMode(IntFlag):
    """`modes` of a PIC entry."""

    READ_ISR = 1 << 0
    POLL = 1 << 1
    AUTO_EOI = 1 << 2
    ROTATE_ON_AUTO_EOI = 1 << 3
    SPECIAL_FULLY_NESTED = 1 << 4
    SPECIAL_MASK = 1 << 5
    IS_MASTER = 1 << 6


IOAPIC_PINS = 48
"""Redirection entries of an IOAPIC entry."""


class Ioapic(NamedTuple):
    """IOAPIC (hvm_hw_vioapic)."""

    base_address: U64
    ioregsel: U32
    id: U32
    redirtbl: Annotated[tuple[int, ...], IOAPIC_PINS, "Q"]


IOAPIC = Layout(Ioapic)


class Redirection(IntFlag):
    """Bits of a redirection entry; those of a local vector table's registers lie alike."""

    LOGICAL = 1 << 11
    DELIVERY_PENDING = 1 << 12
    ACTIVE_LOW = 1 << 13
    REMOTE_IRR = 1 << 14
    LEVEL = 1 << 15
    MASKED = 1 << 16


VECTOR_MASK = 0xFF
DELIVERY_SHIFT, DELIVERY_MASK = 8, 7
DELIVERY_MODES: dict[int, str] = {
    **{0: "fixed", 1: "lowest priority", 2: "smi", 4: "nmi", 5: "init", 6: "startup", 7: "extint"},
}
"""Delivery modes, bits 8 to 10 of redirection entries, local vectors and interrupt commands."""
DESTINATION_SHIFT = 56
"""Where a redirection entry's destination begins."""


class PciIrq(NamedTuple):
    """PCI_IRQ (hvm_hw_pci_irqs): bit device * 4 + INTx of 128."""

    lines: Annotated[tuple[int, ...], 2, "Q"]


PCI_IRQ = Layout(PciIrq)


class IsaIrq(NamedTuple):
    """ISA_IRQ (hvm_hw_isa_irqs): a bit for each of 16 lines."""

    lines: U64


ISA_IRQ = Layout(IsaIrq)


class PciLink(NamedTuple):
    """PCI_LINK (hvm_hw_pci_link): the line that each of four links goes to."""

    route: Annotated[tuple[int, ...], 4, "B"]
    pad: Annotated[bytes, "4s"]


PCI_LINK = Layout(PciLink)
