"""The registers of HVM guests' vcpus, and what else there is of each: APIC, MTRRs, MSRs, machine checks, Viridian."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from migrate.inspection import hardware
from migrate.inspection.logbook import Entry, Layer
from migrate.inspection.names import names_of, rflags_names
from migrate.inspection.records.cursor import Cursor
from migrate.inspection.records.hvm_entries import lapic_page
from migrate.inspection.vcpus.registers import (
    GENERAL,
    Register,
    Section,
    VcpuState,
    components,
    fpu_section,
    machine_check_section,
    msr_section,
)
from streams.hvm_context import HvmEntry, entries
from streams.wire.framing import RecordType
from streams.wire.hvm_cpu import MTRR_PAIR_VALID
from streams.wire.hvm_interrupts import ApicBase, LapicDisabled
from streams.wire.hvm_names import SaveType
from streams.wire.hvm_viridian import SyntheticInterrupt
from streams.wire.registers import Cr0, Cr4, Efer
from streams.wire.vcpu import cr3_to_pfn

if TYPE_CHECKING:
    from migrate.inspection.reading import Inspection

# Of a longer context, and of more entries, only so much is looked at.
_MOST_READ = 16 << 20
_MOST_ENTRIES = 1 << 17

_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr")
_ALSO = ("shadow_gs", "sysenter_cs", "sysenter_esp", "sysenter_eip")
_MASKS = ("xfeature_mask", "xcr0", "xcr0_accum", "xstate_bv")


def hvm_entries(inspection: Inspection) -> tuple[Entry | None, dict[int, list[HvmEntry]]]:
    """The last HVM_CONTEXT, and its entries about each vcpu that has a CPU entry."""
    last = None
    for entry in inspection.log:
        if entry.layer is Layer.LIBXC and entry.type == RecordType.HVM_CONTEXT:
            last = entry
    found: dict[int, list[HvmEntry]] = {}
    if last is not None:
        for part in islice(entries(inspection.body(last, _MOST_READ)), _MOST_ENTRIES):
            if part.typecode in _SECTIONS:
                found.setdefault(part.instance, []).append(part)
    running = {vcpu: own for vcpu, own in found.items() if any(part.typecode == SaveType.CPU for part in own)}
    return last, running


def hvm_state(vcpu: int, record: Entry, own: Iterable[HvmEntry]) -> VcpuState:
    """The state of a vcpu from its own entries of a context."""
    sections: list[Section] = []
    notes: list[str] = []
    for entry in own:
        try:
            sections += _SECTIONS[entry.typecode](entry.parse())
        except ValueError as error:
            notes.append(str(error))
        if entry.cut:
            notes.append(f"{entry.name}: the context ends inside it; zeros stand for what is not there")
    return VcpuState(vcpu, "hvm", None, (record,), tuple(sections), tuple(notes))


def _cpu(cpu: Any) -> Iterator[Section]:
    def word(name: str, shown: str = "", **more: Any) -> Register:
        return Register(shown or name, cpu[name], 64, **more)

    yield Section("general", tuple(map(word, GENERAL[8])))
    yield Section("next", (word("rip"), word("rflags", flags=rflags_names(cpu.rflags))))
    yield Section("segments", tuple(_segment(cpu, name) for name in _SEGMENTS))
    tables = (
        Register(name, cpu[f"{name}_base"], 64, parts={"limit": cpu[f"{name}_limit"]}) for name in ("gdtr", "idtr")
    )
    yield Section("tables", tuple(tables))
    yield Section(
        "control",
        (
            word("cr0", flags=names_of(cpu.cr0, Cr0)),
            word("cr2"),
            word("cr3", parts={"pfn": cr3_to_pfn(cpu.cr3, 8)}),
            word("cr4", flags=names_of(cpu.cr4, Cr4)),
            word("msr_efer", "efer", flags=names_of(cpu.msr_efer, Efer)),
        ),
    )
    yield Section("debug", tuple(word(f"dr{n}") for n in (0, 1, 2, 3, 6, 7)))
    system = ("msr_star", "msr_lstar", "msr_cstar", "msr_syscall_mask")
    yield Section("system", (*(word(name, name.removeprefix("msr_")) for name in system), *map(word, _ALSO)))
    times = (word(name, name.removeprefix("msr_")) for name in ("tsc", "msr_tsc_aux") if name in cpu)
    yield Section("time", tuple(times))
    event = hardware.pending_event(cpu.pending_event) if cpu.pending_event else ""
    parts = {"error_code": cpu.error_code}
    yield Section("event", (Register("pending_event", cpu.pending_event, 32, parts=parts, meaning=event),))
    yield fpu_section(lambda name: int(cpu.fpu_regs[name]))


def _segment(cpu: Any, name: str) -> Register:
    attributes = cpu[f"{name}_arbytes"]
    parts = {"base": cpu[f"{name}_base"], "limit": cpu[f"{name}_limit"], "attributes": attributes}
    return Register(name, cpu[f"{name}_sel"], 16, parts=parts, meaning=hardware.segment(attributes))


def _lapic(lapic: Any) -> Iterator[Section]:
    base = Register("apic_base", lapic.apic_base_msr, 64, names_of(lapic.apic_base_msr & 0xFFF, ApicBase))
    why = " ".join(names_of(lapic.disabled, LapicDisabled))
    others = Register("disabled", lapic.disabled, meaning=why), Register("timer_divisor", lapic.timer_divisor)
    yield Section("lapic", (base, *others, Register("tdt_msr", lapic.tdt_msr, 64)))


def _lapic_registers(registers: Any) -> Iterator[Section]:
    fields = sorted(lapic_page(Cursor(registers.data, 0)), key=lambda field: bool(field.meaning))
    single = (Register(one.name, one.value, 32, meaning=one.meaning) for one in fields if isinstance(one.value, int))
    yield Section("lapic registers", tuple(single))
    by_vector = ((one, one.value) for one in fields if isinstance(one.value, tuple))
    counts = (Register(one.name, sum(map(int.bit_count, words)), meaning=one.meaning) for one, words in by_vector)
    yield Section("lapic vectors", tuple(counts))


def _mtrr(mtrr: Any) -> Iterator[Section]:
    found = [
        Register("pat", mtrr.msr_pat_cr, 64, meaning=hardware.pat(mtrr.msr_pat_cr)),
        Register("cap", mtrr.msr_mtrr_cap, 64, meaning=hardware.mtrr_cap(mtrr.msr_mtrr_cap)),
        Register("def_type", mtrr.msr_mtrr_def_type, 64, meaning=hardware.mtrr_def_type(mtrr.msr_mtrr_def_type)),
    ]
    for number, (base, mask) in enumerate((pair.base, pair.mask) for pair in mtrr.msr_mtrr_var):
        if mask & MTRR_PAIR_VALID:
            there = hardware.mtrr_range(base, mask)
            found.append(Register(f"base{number}", base, 64, parts={"mask": mask}, meaning=there))
    yield Section("mtrr", tuple(found))


def _xsave(xsave: Any) -> Iterator[Section]:
    found = [components(name, xsave[name]) for name in _MASKS]
    yield Section("xsave", (*found, Register("component_bytes", len(xsave.components))))


def _msrs(msrs: Any) -> Iterator[Section]:
    yield msr_section(msrs.msrs)


def _machine_check(state: Any) -> Iterator[Section]:
    yield machine_check_section("caps", state.__getitem__)


def _tsc_adjust(state: Any) -> Iterator[Section]:
    yield Section("time", (Register("tsc_adjust", state.tsc_adjust, 64),))


def _viridian(state: Any) -> Iterator[Section]:
    pages = ("vp_assist_msr", "simp_msr")
    found = [Register(name, state[name], 64, meaning=hardware.viridian_page(state[name])) for name in pages]
    found.append(Register("apic_assist_pending", state.apic_assist_pending))
    for number, value in enumerate(state.sint_msr):
        if value not in (0, SyntheticInterrupt.MASKED):
            text = hardware.synthetic_interrupt(number, value)
            found.append(Register(f"sint{number}", value, 64, meaning=text))
    for number, (config, times) in enumerate(zip(state.stimer_config_msr, state.stimer_count_msr, strict=True)):
        if config or times:
            text = hardware.synthetic_timer(number, config)
            found.append(Register(f"stimer{number}", config, 64, parts={"count": times}, meaning=text))
    yield Section("viridian", tuple(found))


_SECTIONS: dict[int, Callable[[Any], Iterator[Section]]] = {
    SaveType.CPU: _cpu,
    SaveType.CPU_XSAVE: _xsave,
    SaveType.CPU_MSR: _msrs,
    SaveType.MTRR: _mtrr,
    SaveType.LAPIC: _lapic,
    SaveType.LAPIC_REGS: _lapic_registers,
    SaveType.VIRIDIAN_VCPU: _viridian,
    SaveType.VMCE_VCPU: _machine_check,
    SaveType.TSC_ADJUST: _tsc_adjust,
}
