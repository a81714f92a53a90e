"""Random HVM and PVH guests, as hypothesis strategies: see `migrate.testing.strategies`, which has them, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from migrate.building.builder import StreamBuilder
from migrate.building.hvm_contexts import Hardware, edit
from streams.hvm_context import decode_context
from streams.wire.hvm_interrupts import IOAPIC_PINS, LAPIC_REGS
from streams.wire.hvm_names import HvmParam, SaveType

_U8, _U16, _U32, _U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))

# Fields that Xen takes as they are, by type: any content is one that every Xen restores.
_FREE: Mapping[int, Mapping[str, st.SearchStrategy[Any]]] = {
    SaveType.CPU: {
        **dict.fromkeys(
            ("rax", "rbx", "rsi", "r8", "r15", "rip", "rsp", "cr2", "dr0", "dr3", "shadow_gs", "tsc"), _U64
        ),
        **dict.fromkeys(("sysenter_eip", "msr_lstar", "msr_star", "msr_syscall_mask"), _U64),
        "rflags": _U64.map(lambda value: value | 2),
        "msr_tsc_aux": _U32,
    },
    SaveType.PIC: {"irr": _U8, "imr": _U8, "isr": _U8, "irq_base": _U8},
    SaveType.IOAPIC: {"base_address": _U64, "redirtbl": st.tuples(*[_U64] * IOAPIC_PINS)},
    SaveType.LAPIC: {"disabled": _U32, "timer_divisor": _U32, "tdt_msr": _U64},
    SaveType.LAPIC_REGS: {"data": st.binary(min_size=LAPIC_REGS.size, max_size=LAPIC_REGS.size)},
    SaveType.PCI_IRQ: {"lines": st.tuples(_U64, _U64)},
    SaveType.ISA_IRQ: {"lines": _U64},
    SaveType.PCI_LINK: {"route": st.tuples(*[st.integers(0, 15)] * 4)},
    SaveType.PIT: {"speaker_data_on": st.integers(0, 1)},
    SaveType.RTC: {"cmos_data": st.binary(min_size=14, max_size=14), "cmos_index": _U8},
    SaveType.HPET: {"mc64": _U64, "isr": _U64},
    SaveType.PMTIMER: {"tmr_val": _U32, "pm1a_sts": _U16, "pm1a_en": _U16},
    SaveType.VIRIDIAN_DOMAIN: {"guest_os_id": _U64, "time_ref_count": _U64},
    SaveType.VMCE_VCPU: {"mci_ctl2_bank0": _U64, "mci_ctl2_bank1": _U64},
    SaveType.TSC_ADJUST: {"tsc_adjust": _U64},
}
# Parameters that any Xen takes, whatever the guest is.
_PARAMS: Mapping[int, st.SearchStrategy[int]] = {
    HvmParam.IDENT_PT: _U64,
    HvmParam.PAGING_RING_PFN: _U64,
    HvmParam.TIMER_MODE: st.integers(0, 3),
    HvmParam.X87_FIP_WIDTH: st.sampled_from([0, 4, 8]),
    HvmParam.NR_IOREQ_SERVER_PAGES: st.integers(1, 64),
    HvmParam.VM_GENERATION_ID_ADDR: _U64,
}


@st.composite
def hvm_guests(draw: st.DrawFn, *, vcpus: int = 3) -> StreamBuilder:
    """HVM and PVH guests with any hardware: every one would be restored by every Xen from 4.14 on.

    Parameters
    ----------
    vcpus:
        how many there are at most.
    """
    hardware = Hardware(draw(st.booleans()), draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))
    b = StreamBuilder.hvm(vcpus=draw(st.integers(1, vcpus)), hardware=hardware)
    there = sorted({(e.typecode, e.instance) for e in decode_context(bytes(b.hvm_context)).entries})
    for kind, instance in draw(st.lists(st.sampled_from(there), max_size=4)):
        free = _FREE.get(kind, {})
        for field in draw(st.lists(st.sampled_from(sorted(free)), max_size=2, unique=True)) if free else ():
            edit(b.hvm_context, kind, instance, **{field: draw(free[field])})
    for index in draw(st.lists(st.sampled_from(sorted(_PARAMS)), max_size=3, unique=True)):
        b.hvm_params[index] = draw(_PARAMS[index])
    return b
