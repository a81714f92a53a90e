"""A vcpu's state as a debugger shows it: registers with the names of their bits, and the pages they point at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from migrate.counting import count
from migrate.destination.placement import SOURCE
from migrate.inspection.logbook import Entry, Layer
from migrate.inspection.reading import NotInStream
from migrate.inspection.records.summary import context_width
from migrate.inspection.vcpus import names
from migrate.inspection.vcpus.names import names_of, ranges_told
from streams.hvm_context import HvmEntry, entries
from streams.wire.cpu_features import set_bits
from streams.wire.framing import VCPU_HEADER, RecordType
from streams.wire.hvm_interrupts import LAPIC_REGS
from streams.wire.hvm_names import SaveType
from streams.wire.lapic import (
    LAPIC_REGISTER,
    LAPIC_REGISTERS,
    LAPIC_STRIDE,
    LAPIC_VECTOR_WORDS,
    LAPIC_VECTORS,
)
from streams.wire.vcpu import (
    CONTEXT,
    EXTENDED,
    FXSAVE,
    MSR_ENTRY,
    USER_ROOT_VALID,
    VM_ASSIST_NAMES,
    XSAVE_HEADER,
    XSAVE_WORDS,
    cr3_to_pfn,
    gdt_frames_used,
)
from streams.wire.views import dtype_of, view

if TYPE_CHECKING:
    from migrate.inspection.reading import Inspection

# Of a longer context, and of more entries, only so much is looked at; and of a longer record of a vcpu.
_MOST_READ = 16 << 20
_MOST_ENTRIES = 1 << 17
_MOST_READ_OF_ONE = 1 << 18
_VCPUS_AT_ONCE = 64
_MSRS_TOLD = 1024

PV_RECORDS = (
    RecordType.X86_PV_VCPU_BASIC,
    RecordType.X86_PV_VCPU_EXTENDED,
    RecordType.X86_PV_VCPU_XSAVE,
    RecordType.X86_PV_VCPU_MSRS,
)

_GENERAL = {
    4: ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp"),
    8: (
        *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
        *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    ),
}
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")
_AS_SENT = "in the stream the pfn stands for the mfn"
_MTRR_VALID = 1 << 11
_FPU = {"fcw": 16, "fsw": 16, "ftw": 8, "mxcsr": 32}


@dataclass(frozen=True, slots=True)
class Register:
    """A register, or another number of a vcpu's state.

    Attributes
    ----------
    bits:
        how wide it is; 0 for a plain number.
    flags:
        names of the bits that are set; None for one without named bits.
    parts:
        what belongs to it: the pfn and mfns of a cr3, the base of a segment.
    told:
        what it means, where that takes words.
    """

    name: str
    value: int
    bits: int = 0
    flags: tuple[str, ...] | None = None
    parts: Mapping[str, int] = field(default_factory=dict)
    told: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Registers that are shown together."""

    name: str
    registers: tuple[Register, ...]


@dataclass(frozen=True, slots=True)
class VcpuState:
    """What a stream says of a vcpu.

    Attributes
    ----------
    kind:
        pv or hvm.
    width:
        word size of the guest in bytes; None where nothing tells.
    records:
        the records it was taken from, each the last of its type.
    notes:
        what could not be read, and why.
    """

    vcpu: int
    kind: str
    width: int | None
    records: tuple[Entry, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()


def vcpu_ids(inspection: Inspection) -> list[int]:
    """The vcpus that the stream has records or entries of, ascending."""
    return sorted(_pv_records(inspection).keys() | _hvm_entries(inspection)[1].keys())


def vcpu_states(inspection: Inspection, vcpus: Sequence[int]) -> Iterator[VcpuState]:
    """The states of several vcpus, in the order asked for, from one reading; made as they are asked for.

    Raises
    ------
    NotInStream
        for a vcpu that the stream has nothing of, before anything else.
    """
    records = _pv_records(inspection)
    context, found = (None, {}) if records.keys() >= set(vcpus) else _hvm_entries(inspection)
    missing = next((vcpu for vcpu in vcpus if vcpu not in records and vcpu not in found), None)
    if missing is not None:
        known = sorted(records.keys() | found.keys())
        has = f"it has vcpus {ranges_told(known)}" if known else "it has no vcpu"
        raise NotInStream(f"the stream has nothing of vcpu {missing}; {has}")
    for start in range(0, len(vcpus), _VCPUS_AT_ONCE):
        some = vcpus[start : start + _VCPUS_AT_ONCE]
        wanted = [entry for vcpu in some for entry in records.get(vcpu, {}).values()]
        bodies = iter(inspection.read((entry.body, min(entry.length, _MOST_READ_OF_ONE)) for entry in wanted))
        for vcpu in some:
            if vcpu in records:
                own = records[vcpu]
                yield _pv(inspection, vcpu, own, {kind: next(bodies) for kind in own})
            else:
                assert context is not None
                yield _hvm(vcpu, context, found[vcpu])


# -- PV ---------------------------------------------------------------------------------------------


def _pv_records(inspection: Inspection) -> dict[int, dict[int, Entry]]:
    """The last record of each type, by vcpu."""
    wanted = [entry for entry in inspection.log if entry.layer is Layer.LIBXC and entry.type in PV_RECORDS]
    heads = inspection.read((entry.body, min(entry.length, VCPU_HEADER.size)) for entry in wanted)
    found: dict[int, dict[int, Entry]] = {}
    for entry, head in zip(wanted, heads, strict=True):
        if len(head) == VCPU_HEADER.size:
            found.setdefault(VCPU_HEADER.unpack(head)[0], {})[entry.type or 0] = entry
    return found


def _pv(inspection: Inspection, vcpu: int, records: Mapping[int, Entry], bodies: Mapping[int, bytes]) -> VcpuState:
    kinds = [kind for kind in PV_RECORDS if kind in records]
    sections: list[Section] = []
    notes: list[str] = []
    width = inspection.judgement.facts.width
    for kind in kinds:
        content = bodies[kind][VCPU_HEADER.size :]
        try:
            if kind == RecordType.X86_PV_VCPU_BASIC:
                width = context_width(len(content), width)
                sections += _context(inspection, content, width)
            else:
                sections += _PV_SECTIONS[kind](content)
        except ValueError:
            entry = records[kind]
            notes.append(f"record {entry.index} {entry.name}: {count(len(content), 'byte')} of content are too few")
    if RecordType.X86_PV_VCPU_BASIC not in records:
        notes.append("there is no X86_PV_VCPU_BASIC of it")
    used = tuple(records[kind] for kind in kinds)
    return VcpuState(vcpu, "pv", width, used, tuple(sections), tuple(notes))


def _context(inspection: Inspection, content: bytes, width: int) -> Iterator[Section]:
    """The sections of a vcpu_guest_context."""
    context, bits = view(CONTEXT[width], content), width * 8
    user = context["user_regs"]

    def word(name: str, value: Any = None, **more: Any) -> Register:
        return Register(name, int(context[name] if value is None else value), bits, **more)

    yield Section("general", tuple(word(name, user[name]) for name in _GENERAL[width]))
    counter, flags = {4: ("eip", "eflags"), 8: ("rip", "rflags")}[width]
    flag_names = names.eflags_names(int(user[flags]))
    yield Section("next", (word(counter, user[counter]), word(flags, user[flags], flags=flag_names)))
    yield Section("segments", tuple(Register(name, int(user[name]), 16) for name in _SEGMENTS))
    if width == 8:
        yield Section("bases", tuple(map(word, ("fs_base", "gs_base_kernel", "gs_base_user"))))
    cr = [int(value) for value in context["ctrlreg"]]
    control = [word("cr0", cr[0], flags=names_of(cr[0], names.CR0))]
    if width == 8:
        told = "" if cr[1] else "no user page table: the vcpu was in its kernel"
        parts = _frame(inspection, cr3_to_pfn(cr[1], width)) if cr[1] else {}
        valid = ("valid",) if cr[1] & USER_ROOT_VALID else None
        control.append(word("cr1", cr[1], flags=valid, parts=parts, told=told))
    control.append(word("cr2", cr[2]))
    control.append(word("cr3", cr[3], parts=_frame(inspection, cr3_to_pfn(cr[3], width)), told=_AS_SENT))
    control.append(word("cr4", cr[4], flags=names_of(cr[4], names.CR4)))
    yield Section("control", tuple(control))
    yield Section("debug", tuple(word(f"dr{n}", value) for n, value in enumerate(context["debugreg"])))
    yield Section("tables", tuple(_tables(context, bits)))
    yield Section("callbacks", tuple(_callbacks(context, width)))
    assist, state = int(context["vm_assist"]), int(context["flags"])
    yield Section(
        "modes",
        (
            word("flags", state, flags=names_of(state, names.CONTEXT_FLAGS)),
            word("vm_assist", assist, flags=names_of(assist, VM_ASSIST_NAMES)),
        ),
    )
    yield _fpu(bytes(context["fpu_ctxt"]))


def _frame(inspection: Inspection, pfn: int) -> dict[str, int]:
    """A page that a control register names: its pfn, and its mfns on the source and as placed, where known."""
    guest, placement = inspection.guest, inspection.placement
    parts = {"pfn": pfn}
    if guest is not None and placement is not None:
        sources = guest.source_mfns()
        source = int(sources[pfn]) if pfn < len(sources) else -1
        mfns = {"source_mfn": source}
        if placement.name != SOURCE:
            mfns["placed_mfn"] = placement.mfn(pfn)
        parts |= {name: mfn for name, mfn in mfns.items() if mfn >= 0}
    return parts


def _tables(context: Any, bits: int) -> Iterator[Register]:
    entries_there = int(context["gdt_ents"])
    frames = context["gdt_frames"][: gdt_frames_used(entries_there)].tolist()
    where = ", ".join(f"{frame:#x}" for frame in frames)
    yield Register("gdt_ents", entries_there, told=f"in pfn {where}" if frames else "")
    yield Register("ldt_base", int(context["ldt_base"]), bits)
    yield Register("ldt_ents", int(context["ldt_ents"]))
    traps = context["trap_ctxt"]
    handled = np.flatnonzero(traps["address"])
    selectors = sorted({f"{int(cs):#x}" for cs in traps["cs"][handled]})
    told = f"{ranges_told(handled.tolist())}; cs {', '.join(selectors)}" if len(handled) else ""
    from_user = handled[(traps["flags"][handled] & 3) == 3]
    told += f"; from user mode {ranges_told(from_user.tolist())}" if len(from_user) else ""
    yield Register("traps", len(handled), told=told)


def _callbacks(context: Any, width: int) -> Iterator[Register]:
    for name in ("event", "failsafe", "syscall"):
        address, selector = f"{name}_callback_eip", f"{name}_callback_cs"
        if address in (context.dtype.names or ()):
            parts = {"cs": int(context[selector])} if width == 4 else {}
            yield Register(f"{name}_callback", int(context[address]), width * 8, parts=parts)
    yield Register("kernel_sp", int(context["kernel_sp"]), width * 8, parts={"ss": int(context["kernel_ss"])})


def _fpu(area: bytes) -> Section:
    fields = view(FXSAVE, area)
    return Section("fpu", tuple(Register(name, int(fields[name]), bits) for name, bits in _FPU.items()))


def _extended(content: bytes) -> Iterator[Section]:
    fields = view(EXTENDED, content[: EXTENDED.sizeof()].ljust(EXTENDED.sizeof(), b"\0"))
    yield Section(
        "compat",
        tuple(
            Register(
                f"{name}_callback",
                int(fields[f"{name}_callback_eip"]),
                64,
                flags=("disables events",) if int(fields[f"{name}_disables_events"]) else None,
                parts={"cs": int(fields[f"{name}_callback_cs"])},
            )
            for name in ("syscall32", "sysenter")
        ),
    )
    machine_check = ("mcg_cap", "mci_ctl2_bank0", "mci_ctl2_bank1", "mcg_ext_ctl")
    yield Section("mce", tuple(Register(name, int(fields[name]), 64) for name in machine_check))


def _xsave(content: bytes) -> Iterator[Section]:
    words = view(XSAVE_WORDS, content)
    found = [_components(name, int(words[name])) for name in ("xcr0", "xcr0_accum")]
    if len(content) >= XSAVE_HEADER.sizeof():
        found.append(_components("xstate_bv", int(view(XSAVE_HEADER, content)["xstate_bv"])))
    yield Section("xsave", (*found, Register("area_bytes", len(content) - XSAVE_WORDS.sizeof())))


def _components(name: str, value: int) -> Register:
    return Register(name, value, 64, names.component_names(value))


def _msrs(content: bytes) -> Iterator[Section]:
    found = np.frombuffer(content, dtype_of(MSR_ENTRY), len(content) // MSR_ENTRY.sizeof())
    yield _msr_section(found[:_MSRS_TOLD])


def _msr_section(found: Iterable[Any]) -> Section:
    return Section("msrs", tuple(Register(names.msr_name(int(m["index"])), int(m["value"]), 64) for m in found))


_PV_SECTIONS: dict[int, Callable[[bytes], Iterator[Section]]] = {
    RecordType.X86_PV_VCPU_EXTENDED: _extended,
    RecordType.X86_PV_VCPU_XSAVE: _xsave,
    RecordType.X86_PV_VCPU_MSRS: _msrs,
}


# -- HVM --------------------------------------------------------------------------------------------


def _hvm_entries(inspection: Inspection) -> tuple[Entry | None, dict[int, list[HvmEntry]]]:
    """The last HVM_CONTEXT, and its entries about each vcpu that has a CPU entry."""
    last = None
    for entry in inspection.log:
        if entry.layer is Layer.LIBXC and entry.type == RecordType.HVM_CONTEXT:
            last = entry
    found: dict[int, list[HvmEntry]] = {}
    if last is not None:
        for part in islice(entries(inspection.body(last, _MOST_READ)), _MOST_ENTRIES):
            if part.typecode in _HVM_SECTIONS:
                found.setdefault(part.instance, []).append(part)
    running = {vcpu: own for vcpu, own in found.items() if any(part.typecode == SaveType.CPU for part in own)}
    return last, running


def _hvm(vcpu: int, record: Entry, mine: Iterable[HvmEntry]) -> VcpuState:
    sections: list[Section] = []
    notes: list[str] = []
    for entry in mine:
        try:
            sections += _HVM_SECTIONS[entry.typecode](entry.parse())
        except ValueError as error:
            notes.append(str(error))
        if entry.cut:
            notes.append(f"{entry.name}: the context ends inside it; zeros stand for what is not there")
    return VcpuState(vcpu, "hvm", None, (record,), tuple(sections), tuple(notes))


def _hvm_cpu(cpu: Any) -> Iterator[Section]:
    def word(name: str, shown: str = "", **more: Any) -> Register:
        return Register(shown or name, cpu[name], 64, **more)

    yield Section("general", tuple(map(word, _GENERAL[8])))
    yield Section("next", (word("rip"), word("rflags", flags=names.eflags_names(cpu.rflags))))
    yield Section(
        "segments",
        tuple(
            Register(
                name,
                cpu[f"{name}_sel"],
                16,
                parts={
                    "base": cpu[f"{name}_base"],
                    "limit": cpu[f"{name}_limit"],
                    "attributes": cpu[f"{name}_arbytes"],
                },
            )
            for name in (*_SEGMENTS, "tr", "ldtr")
        ),
    )
    tables = (
        Register(name, cpu[f"{name}_base"], 64, parts={"limit": cpu[f"{name}_limit"]}) for name in ("gdtr", "idtr")
    )
    yield Section("tables", tuple(tables))
    yield Section(
        "control",
        (
            word("cr0", flags=names_of(cpu.cr0, names.CR0)),
            word("cr2"),
            word("cr3", parts={"pfn": cr3_to_pfn(cpu.cr3, 8)}),
            word("cr4", flags=names_of(cpu.cr4, names.CR4)),
            word("msr_efer", "efer", flags=names_of(cpu.msr_efer, names.EFER)),
        ),
    )
    yield Section("debug", tuple(word(f"dr{n}") for n in (0, 1, 2, 3, 6, 7)))
    system = ("msr_star", "msr_lstar", "msr_cstar", "msr_syscall_mask")
    more = ("shadow_gs", "sysenter_cs", "sysenter_esp", "sysenter_eip")
    yield Section(
        "system",
        (*(word(name, name.removeprefix("msr_")) for name in system), *map(word, more)),
    )
    yield Section(
        "time",
        tuple(Register(name.removeprefix("msr_"), cpu[name], 64) for name in ("tsc", "msr_tsc_aux") if name in cpu),
    )
    event = Register("pending_event", cpu.pending_event, 32, parts={"error_code": cpu.error_code})
    yield Section("event", (event,))
    yield Section("fpu", tuple(Register(name, cpu.fpu_regs[name], bits) for name, bits in _FPU.items()))


def _hvm_lapic(lapic: Any) -> Iterator[Section]:
    base = Register("apic_base", lapic.apic_base_msr, 64, names_of(lapic.apic_base_msr & 0xFFF, names.APIC_BASE))
    others = Register("disabled", lapic.disabled), Register("timer_divisor", lapic.timer_divisor)
    yield Section("lapic", (base, *others, Register("tdt_msr", lapic.tdt_msr, 64)))


def _hvm_lapic_registers(registers: Any) -> Iterator[Section]:
    page: bytes = registers.data
    assert len(page) == LAPIC_REGS.size

    def read(offset: int) -> int:
        return int(LAPIC_REGISTER.unpack_from(page, offset)[0])

    found = [Register(name, read(offset), 32) for name, offset in LAPIC_REGISTERS.items()]
    yield Section("lapic registers", tuple(found))
    vectors = []
    for name, offset in LAPIC_VECTORS.items():
        words = (read(offset + number * LAPIC_STRIDE) for number in range(LAPIC_VECTOR_WORDS))
        value = sum(word << 32 * number for number, word in enumerate(words))
        pending = ranges_told(set_bits(value))
        vectors.append(Register(name, value.bit_count(), told=f"vectors {pending}" if pending else ""))
    yield Section("lapic vectors", tuple(vectors))


def _hvm_mtrr(mtrr: Any) -> Iterator[Section]:
    valid = [(number, pair) for number, pair in enumerate(mtrr.msr_mtrr_var) if pair.mask & _MTRR_VALID]
    ranges = (Register(f"base{number}", pair.base, 64, parts={"mask": pair.mask}) for number, pair in valid)
    yield Section(
        "mtrr",
        (
            Register("pat", mtrr.msr_pat_cr, 64),
            Register("cap", mtrr.msr_mtrr_cap, 64),
            Register("def_type", mtrr.msr_mtrr_def_type, 64),
            *ranges,
        ),
    )


def _hvm_xsave(xsave: Any) -> Iterator[Section]:
    found = [_components(name, xsave[name]) for name in ("xfeature_mask", "xcr0", "xcr0_accum", "xstate_bv")]
    yield Section("xsave", (*found, Register("component_bytes", len(xsave.components))))


def _hvm_msrs(msrs: Any) -> Iterator[Section]:
    yield _msr_section(msrs.msrs[:_MSRS_TOLD])


def _hvm_mce(state: Any) -> Iterator[Section]:
    values = {name: value for name, value in state.items() if isinstance(value, int)}
    yield Section("mce", tuple(Register(name, value, 64) for name, value in values.items()))


def _hvm_tsc_adjust(state: Any) -> Iterator[Section]:
    yield Section("time", (Register("tsc_adjust", state.tsc_adjust, 64),))


_HVM_SECTIONS: dict[int, Callable[[Any], Iterator[Section]]] = {
    SaveType.CPU: _hvm_cpu,
    SaveType.CPU_XSAVE: _hvm_xsave,
    SaveType.CPU_MSR: _hvm_msrs,
    SaveType.MTRR: _hvm_mtrr,
    SaveType.LAPIC: _hvm_lapic,
    SaveType.LAPIC_REGS: _hvm_lapic_registers,
    SaveType.VMCE_VCPU: _hvm_mce,
    SaveType.TSC_ADJUST: _hvm_tsc_adjust,
}
