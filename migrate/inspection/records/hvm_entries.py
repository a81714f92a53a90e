"""How each type of entry of an HVM_CONTEXT is shown: what its fields mean, and what is inside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from migrate.guest.cpu_policy import Policy
from migrate.inspection import hardware
from migrate.inspection.names import rflags_names
from migrate.inspection.records.cursor import Cursor, Field, Inside, Meaning
from migrate.inspection.records.fpu import xsave_fields
from migrate.inspection.records.kind import flags, numbers
from migrate.inspection.records.pv import msr_meaning
from streams.counting import count
from streams.wire.cpu_features import set_bits
from streams.wire.framing import HVM_SAVE_HEADER, HvmSaveHeader
from streams.wire.hvm_cpu import SEGMENTS, XSAVE, CpuFlag
from streams.wire.hvm_entries import LAYOUTS
from streams.wire.hvm_interrupts import LapicDisabled, PicMode
from streams.wire.hvm_names import SaveType
from streams.wire.hvm_timers import CMOS_REGISTERS, PIT_MODES, PIT_ORDERS, HpetConfig, PmEvent, RtcControl
from streams.wire.lapic import LAPIC_REGISTER, LAPIC_REGISTERS, LAPIC_STRIDE, LAPIC_VECTOR_WORDS, LAPIC_VECTORS
from streams.wire.registers import Cr0, Cr4, Efer

if TYPE_CHECKING:
    from streams.hvm_context import HvmEntry


@dataclass(frozen=True, slots=True)
class EntryKind:
    """What the fields of a layout mean, and what takes the bytes of one apart, as `Cursor.parsed` has it."""

    meanings: Mapping[str, Meaning] = field(default_factory=dict)
    inside: Mapping[str, Inside] = field(default_factory=dict)


def entry_field(cursor: Cursor, entry: HvmEntry) -> Field:
    """An entry and its fields: those of its type's layout, as far as the entry goes.

    Parameters
    ----------
    cursor:
        over the entry, its header first.
    """
    start = cursor.offset
    inside = cursor.named(HVM_SAVE_HEADER, HvmSaveHeader)
    newest = LAYOUTS.get(entry.typecode)
    meaning = count(entry.length, "byte") + f", of which {len(entry.body)} are there" * entry.cut
    if newest is None or entry.layout is None:
        inside += cursor.rest("content")
    elif entry.typecode == SaveType.CPU_XSAVE:
        inside += xsave_fields(cursor, XSAVE)
    else:
        kind = ENTRY_KINDS.get(entry.typecode, EntryKind())
        found = cursor.parsed(entry.layout, entry.name, kind.meanings, kind.inside).fields
        inside += [part for part in found if part.value != b""]
        if not entry.cut and entry.length < newest.size:
            meaning += f", of {newest.size} in the newest form"
        more = len(found) == len(entry.layout.subcons) and len(entry.body) > newest.size
        inside += cursor.rest("rest", f"{count(cursor.left, 'byte')} more than the newest form known" if more else "")
    return Field(f"{entry.name} {entry.instance}", start, None, meaning, tuple(inside))


def lapic_page(cursor: Cursor) -> Iterator[Field]:
    """The registers of a local APIC: those that have a name, others where they are not zero."""
    names = {offset: name for name, offset in LAPIC_REGISTERS.items()}
    vectors = {offset: name for name, offset in LAPIC_VECTORS.items()}
    while cursor.left:
        offset, start = cursor.at, cursor.offset
        number = LAPIC_VECTOR_WORDS if offset in vectors else 1
        raw = cursor.take(min(number * LAPIC_STRIDE, cursor.left))
        words = tuple(LAPIC_REGISTER.unpack_from(raw, at)[0] for at in range(0, len(raw), LAPIC_STRIDE))
        if any(any(raw[at + LAPIC_REGISTER.size : at + LAPIC_STRIDE]) for at in range(0, len(raw), LAPIC_STRIDE)):
            yield Field(vectors.get(offset, names.get(offset, f"{offset:#x}")), start, raw, "more than registers")
        elif offset in vectors:
            bits = sum(word << 32 * number for number, word in enumerate(words))
            yield Field(vectors[offset], start, words, hardware.vectors(bits))
        elif offset in names or words[0]:
            name = names.get(offset, f"{offset:#x}")
            yield Field(name, start, words[0], hardware.lapic_register(name, words[0]))


def _cmos(cursor: Cursor) -> Iterator[Field]:
    for name in CMOS_REGISTERS:
        meaning = flags(RtcControl)(cursor.raw[cursor.at]) if name == "reg_b" else ""
        yield Field(name, cursor.offset, cursor.take(1)[0], meaning)


def _pci_route(line: int, value: int) -> str:
    return f"link {'ABCD'[line]} to line {value}" if value else f"link {'ABCD'[line]} off"


def _cpuid(value: int) -> str:
    family, model, stepping = Policy({(1, None): (value, 0, 0, 0)}).signature
    return f"family {family:#x}, model {model:#x}, stepping {stepping:#x}"


def _mtrr_pair(number: int, pair: Any) -> str:
    there = hardware.mtrr_range(pair.base, pair.mask)
    return f"base {pair.base:#x}, mask {pair.mask:#x}" + (f": {there}" if there else "")


_LINES = {"lines": hardware.lines}

ENTRY_KINDS: dict[int, EntryKind] = {
    SaveType.HEADER: EntryKind(
        {"cpuid": _cpuid, "changeset": lambda value: "not known" * (value == (1 << 64) - 1)},
    ),
    SaveType.CPU: EntryKind(
        {
            "rflags": lambda value: " ".join(rflags_names(value)),
            "cr0": flags(Cr0),
            "cr4": flags(Cr4),
            "msr_efer": flags(Efer),
            **{f"{name}_arbytes": hardware.segment for name in SEGMENTS},
            "pending_event": hardware.pending_event,
            "flags": flags(CpuFlag),
        }
    ),
    SaveType.PIC: EntryKind(
        {
            **dict.fromkeys(("irr", "imr", "isr"), hardware.lines),
            "init_state_and_priority": lambda value: f"init state {value & 0xF}, priority {value >> 4}",
            "modes": flags(PicMode),
            "elcr": lambda value: hardware.lines(value) and f"{hardware.lines(value)} by level",
        }
    ),
    SaveType.IOAPIC: EntryKind({"redirtbl[]": lambda pin, value: hardware.redirection(value)}),
    SaveType.LAPIC: EntryKind({"apic_base_msr": hardware.apic_base, "disabled": flags(LapicDisabled)}),
    SaveType.LAPIC_REGS: EntryKind(inside={"data": lapic_page}),
    SaveType.PCI_IRQ: EntryKind({"lines": lambda words: hardware.pci_lines(words[0] | words[1] << 64)}),
    SaveType.ISA_IRQ: EntryKind({"lines": hardware.lines}),
    SaveType.PCI_LINK: EntryKind({"route[]": _pci_route}),
    SaveType.PIT: EntryKind({"channels[].mode": numbers(PIT_MODES), "channels[].rw_mode": numbers(PIT_ORDERS)}),
    SaveType.RTC: EntryKind({"cmos_data": hardware.cmos_time}, {"cmos_data": _cmos}),
    SaveType.HPET: EntryKind(
        {
            "capability": hardware.hpet_capability,
            "config": flags(HpetConfig),
            "isr": lambda value: " ".join(f"timer {bit}" for bit in set_bits(value)),
            "timers[].config": hardware.hpet_timer,
        }
    ),
    SaveType.PMTIMER: EntryKind({"pm1a_sts": flags(PmEvent), "pm1a_en": flags(PmEvent)}),
    SaveType.MTRR: EntryKind(
        {
            "msr_pat_cr": hardware.pat,
            "msr_mtrr_var[]": _mtrr_pair,
            "msr_mtrr_fixed[]": hardware.mtrr_fixed,
            "msr_mtrr_cap": hardware.mtrr_cap,
            "msr_mtrr_def_type": hardware.mtrr_def_type,
        }
    ),
    SaveType.VIRIDIAN_DOMAIN: EntryKind(
        {
            "hypercall_gpa": hardware.viridian_page,
            "guest_os_id": hardware.guest_os,
            "reference_tsc": hardware.viridian_page,
        }
    ),
    SaveType.VIRIDIAN_VCPU: EntryKind(
        {
            "vp_assist_msr": hardware.viridian_page,
            "simp_msr": hardware.viridian_page,
            "sint_msr[]": hardware.synthetic_interrupt,
            "stimer_config_msr[]": hardware.synthetic_timer,
        }
    ),
    SaveType.VMCE_VCPU: EntryKind({"caps": hardware.machine_check_caps}),
    SaveType.CPU_MSR: EntryKind({"msrs[]": lambda number, msr: msr_meaning(msr)}),
}
"""By type; what of a type's fields is not here is a plain number."""
