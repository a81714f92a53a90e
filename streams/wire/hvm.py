"""What an HVM guest's stream carries beside its pages: its params, and the state of its virtual hardware.

Sources: Xen's public `hvm/params.h` and `arch-x86/hvm/save.h`. The frame around every entry of an HVM_CONTEXT body
is `framing.HVM_SAVE_HEADER`; which lengths Xen takes is in `hvm_names.ENTRIES`. Every byte belongs to a named
field, reserved ones too, so that any content builds back as it was read.
"""

from __future__ import annotations

from construct import Array, Bytes, Construct, GreedyBytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct

from streams.wire.hvm_names import SaveType
from streams.wire.vcpu import FXSAVE

HVM_PARAM = Struct("index" / Int64ul, "value" / Int64ul)
"""One pair of an HVM_PARAMS body, after `framing.PARAMS_HEADER`."""


SAVE_HEADER = Struct(
    "magic" / Int32ul,
    "version" / Int32ul,
    "changeset" / Int64ul,
    "cpuid" / Int32ul,
    "gtsc_khz" / Int32ul,
)
"""Body of the HEADER entry (hvm_save_header): always the first, always instance 0.

`cpuid` is eax of CPUID leaf 1 on the saving host; a `changeset` of all ones was not known.
"""

# -- processors -------------------------------------------------------------------------------------

_REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rbp", "rsi", "rdi", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
    *("cr0", "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7"),
)
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr")
_SEGMENTS_AND_TABLES = (*_SEGMENTS, "idtr", "gdtr")
_MSRS = (
    *("sysenter_cs", "sysenter_esp", "sysenter_eip", "shadow_gs", "msr_flags"),
    *("msr_lstar", "msr_star", "msr_cstar", "msr_syscall_mask", "msr_efer"),
)


def _fields(kind: Construct, *names: str) -> tuple[Construct, ...]:
    return tuple(name / kind for name in names)


def _cpu(*last: Construct) -> Struct:
    return Struct(
        "fpu_regs" / FXSAVE,
        *_fields(Int64ul, *_REGISTERS),
        *_fields(Int32ul, *(f"{name}_sel" for name in _SEGMENTS)),
        *_fields(Int32ul, *(f"{name}_limit" for name in _SEGMENTS_AND_TABLES)),
        *_fields(Int64ul, *(f"{name}_base" for name in _SEGMENTS_AND_TABLES)),
        *_fields(Int32ul, *(f"{name}_arbytes" for name in _SEGMENTS)),
        *_fields(Int64ul, *_MSRS),
        *last,
    )


_TSC_AND_EVENT = ("tsc" / Int64ul, "pending_event" / Int32ul, "error_code" / Int32ul)

CPU = _cpu("msr_tsc_aux" / Int64ul, *_TSC_AND_EVENT, "flags" / Int32ul, "pad0" / Int32ul)
"""hvm_hw_cpu, 1032 bytes. `flags` bit 0: the FPU has been used. `msr_flags` is obsolete."""

CPU_1024 = _cpu("msr_tsc_aux" / Int64ul, *_TSC_AND_EVENT)
"""The same before Xen 4.7: an FPU always counts as used."""

CPU_1016 = _cpu(*_TSC_AND_EVENT)
"""The same before Xen 3.4 (hvm_hw_cpu_compat)."""

XSAVE = Struct(
    "xfeature_mask" / Int64ul,
    "xcr0" / Int64ul,
    "xcr0_accum" / Int64ul,
    "fxsave" / FXSAVE,
    "xstate_bv" / Int64ul,
    "xcomp_bv" / Int64ul,
    "reserved" / Bytes(48),
    "components" / GreedyBytes,
)
"""hvm_hw_cpu_xsave. `components` are those behind x87 and SSE, where CPUID leaf 0xd puts them."""

CPU_MSR = Struct(
    "count" / Int32ul,
    "pad" / Bytes(4),
    "msrs" / Array(lambda this: this.count, Struct("index" / Int32ul, "reserved" / Int32ul, "value" / Int64ul)),
    "excess" / GreedyBytes,
)
"""hvm_msr: as many MSRs as were not zero."""

VMCE_VCPU = Struct("caps" / Int64ul, "mci_ctl2_bank0" / Int64ul, "mci_ctl2_bank1" / Int64ul, "mcg_ext_ctl" / Int64ul)
"""hvm_vmce_vcpu, 32 bytes; older forms end at 8 or 24."""

TSC_ADJUST = Struct("tsc_adjust" / Int64ul)
"""hvm_tsc_adjust."""

MTRR_RANGES = 8

MTRR = Struct(
    "msr_pat_cr" / Int64ul,
    "msr_mtrr_var" / Array(MTRR_RANGES, Struct("base" / Int64ul, "mask" / Int64ul)),
    "msr_mtrr_fixed" / Array(11, Int64ul),
    "msr_mtrr_cap" / Int64ul,
    "msr_mtrr_def_type" / Int64ul,
)
"""hvm_hw_mtrr, 240 bytes."""

# -- interrupts -------------------------------------------------------------------------------------

PIC = Struct(
    "irr" / Int8ul,
    "imr" / Int8ul,
    "isr" / Int8ul,
    "irq_base" / Int8ul,
    "init_state_and_priority" / Int8ul,  # 4 bits each, the state lowest
    "modes" / Int8ul,
    "elcr" / Int8ul,
    "int_output" / Int8ul,
)
"""hvm_hw_vpic, 8 bytes. `modes` from bit 0: readsel_isr, poll, auto_eoi, rotate_on_auto_eoi,
special_fully_nested, special_mask, is_master."""

IOAPIC_PINS = 48

IOAPIC = Struct(
    "base_address" / Int64ul,
    "ioregsel" / Int32ul,
    "id" / Int32ul,
    "redirtbl" / Array(IOAPIC_PINS, Int64ul),
)
"""hvm_hw_vioapic, 400 bytes."""

LAPIC = Struct("apic_base_msr" / Int64ul, "disabled" / Int32ul, "timer_divisor" / Int32ul, "tdt_msr" / Int64ul)
"""hvm_hw_lapic, 24 bytes; before Xen 4.2 without `tdt_msr`."""

LAPIC_REGS = Struct("data" / Bytes(1024))
"""hvm_hw_lapic_regs: the register page, up to its last register."""

PCI_IRQ = Struct("lines" / Array(2, Int64ul))
"""hvm_hw_pci_irqs: one bit for each device * 4 + INTx."""

ISA_IRQ = Struct("lines" / Int64ul)
"""hvm_hw_isa_irqs: one bit for each of 16 lines."""

PCI_LINK = Struct("route" / Array(4, Int8ul), "pad" / Bytes(4))
"""hvm_hw_pci_link: the line that each of four links goes to."""

# -- timers -----------------------------------------------------------------------------------------

PIT = Struct(
    "channels"
    / Array(
        3,
        Struct(
            "count" / Int32ul,
            "latched_count" / Int16ul,
            *_fields(Int8ul, "count_latched", "status_latched", "status", "read_state", "write_state", "write_latch"),
            *_fields(Int8ul, "rw_mode", "mode", "bcd", "gate"),
        ),
    ),
    "speaker_data_on" / Int32ul,
    "pad" / Bytes(4),
)
"""hvm_hw_pit, 56 bytes. A count may be 65536."""

RTC = Struct("cmos_data" / Bytes(14), "cmos_index" / Int8ul, "pad" / Bytes(1))
"""hvm_hw_rtc, 16 bytes."""

HPET_TIMERS = 3

HPET = Struct(
    "capability" / Int64ul,
    "reserved0" / Int64ul,
    "config" / Int64ul,
    "reserved1" / Int64ul,
    "isr" / Int64ul,
    "reserved2" / Bytes(25 * 8),
    "mc64" / Int64ul,
    "reserved3" / Int64ul,
    "timers" / Array(HPET_TIMERS, Struct("config" / Int64ul, "cmp" / Int64ul, "fsb" / Int64ul, "reserved4" / Int64ul)),
    "reserved5" / Bytes(4 * (24 - HPET_TIMERS) * 8),
    "period" / Array(HPET_TIMERS, Int64ul),
)
"""hvm_hw_hpet, 1048 bytes: the register page, and the last value written to each comparator."""

PMTIMER = Struct("tmr_val" / Int32ul, "pm1a_sts" / Int16ul, "pm1a_en" / Int16ul)
"""hvm_hw_pmtimer, 8 bytes."""

# -- Viridian ---------------------------------------------------------------------------------------

VIRIDIAN_DOMAIN = Struct(
    "hypercall_gpa" / Int64ul, "guest_os_id" / Int64ul, "time_ref_count" / Int64ul, "reference_tsc" / Int64ul
)
"""hvm_viridian_domain_context, 32 bytes; older forms end at 16 or 24."""

VIRIDIAN_VCPU = Struct(
    "vp_assist_msr" / Int64ul,
    "apic_assist_pending" / Int8ul,
    "pad" / Bytes(7),
    "simp_msr" / Int64ul,
    "sint_msr" / Array(16, Int64ul),
    "stimer_config_msr" / Array(4, Int64ul),
    "stimer_count_msr" / Array(4, Int64ul),
)
"""hvm_viridian_vcpu_context, 216 bytes; the older form ends at 16."""

LAYOUTS: dict[SaveType, Struct] = {
    SaveType.END: Struct(),
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
    SaveType.CPU_MSR: CPU_MSR,
}
"""Body of every type of entry in its newest form."""

OLD_CPU: dict[int, Struct] = {1016: CPU_1016, 1024: CPU_1024}
"""CPU entries by length, where that tells of an older form."""
