"""Layouts of all entries of an HVM_CONTEXT, by type: the state of a guest's virtual hardware.

With the standard library alone, so that a filter in front of an HVM guest stays small. Every byte belongs to a
named field, reserved ones too. The forms are the newest: older releases' end earlier, but for `OLDEST_CPU_SIZE`.
The frame around each entry is `framing.HVM_SAVE_HEADER`.

Source: Xen's public `arch-x86/hvm/save.h`.
"""

from __future__ import annotations

from streams.values import NamedTuple
from streams.wire.hvm_cpu import CPU, CPU_MSRS, MTRR, TSC_ADJUST, VMCE_VCPU, XSAVE
from streams.wire.hvm_interrupts import IOAPIC, ISA_IRQ, LAPIC, LAPIC_REGS, PCI_IRQ, PCI_LINK, PIC
from streams.wire.hvm_names import SaveType
from streams.wire.hvm_timers import HPET, PIT, PMTIMER, RTC
from streams.wire.hvm_viridian import VIRIDIAN_DOMAIN, VIRIDIAN_VCPU
from streams.wire.layouts import U32, U64, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class SaveHeader(NamedTuple):
    """HEADER (hvm_save_header), always the first, always instance 0.

    `cpuid` is eax of CPUID leaf 1 on the saving host; a `changeset` of all ones was not known.
    """

    magic: U32
    version: U32
    changeset: U64
    cpuid: U32
    gtsc_khz: U32


SAVE_HEADER = Layout(SaveHeader)


class End(NamedTuple):
    """END, which has no body."""


LAYOUTS: dict[int, Layout[Any]] = {
    SaveType.END: Layout(End),
    SaveType.HEADER: SAVE_HEADER,
    SaveType.CPU: CPU,
    SaveType.PIC: PIC,
    SaveType.IOAPIC: IOAPIC,
    SaveType.LAPIC: LAPIC,
    SaveType.LAPIC_REGS: LAPIC_REGS,
    SaveType.PCI_IRQ: PCI_IRQ,
    SaveType.ISA_IRQ: ISA_IRQ,
    SaveType.PCI_LINK: PCI_LINK,
    SaveType.PIT: PIT,
    SaveType.RTC: RTC,
    SaveType.HPET: HPET,
    SaveType.PMTIMER: PMTIMER,
    SaveType.MTRR: MTRR,
    SaveType.VIRIDIAN_DOMAIN: VIRIDIAN_DOMAIN,
    SaveType.CPU_XSAVE: XSAVE,
    SaveType.VIRIDIAN_VCPU: VIRIDIAN_VCPU,
    SaveType.VMCE_VCPU: VMCE_VCPU,
    SaveType.TSC_ADJUST: TSC_ADJUST,
    SaveType.CPU_MSR: CPU_MSRS,
}
"""Body of every type of entry; behind those of CPU_XSAVE and CPU_MSR more follows."""
