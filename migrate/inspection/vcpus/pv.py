"""The registers of PV guests' vcpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from migrate.destination.placement import SOURCE
from migrate.inspection.logbook import Entry, Layer
from migrate.inspection.names import names_of, number_ranges, rflags_names
from migrate.inspection.records.pv import context_width
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
from streams.counting import count
from streams.wire.framing import VCPU_HEADER, RecordType
from streams.wire.registers import Cr0, Cr4
from streams.wire.vcpu import (
    CONTEXT,
    EXTENDED,
    MSR_ENTRY,
    USER_ROOT_VALID,
    VM_ASSIST_NAMES,
    XSAVE_HEADER,
    XSAVE_WORDS,
    ContextFlag,
    cr3_to_pfn,
    gdt_frames_used,
)
from streams.wire.views import dtype_of, view
from streams.wire.xstate import FXSAVE

if TYPE_CHECKING:
    from migrate.inspection.reading import Inspection

# Of a longer record of a vcpu only so much is looked at.
MOST_READ = 1 << 18

PV_RECORDS = (
    RecordType.X86_PV_VCPU_BASIC,
    RecordType.X86_PV_VCPU_EXTENDED,
    RecordType.X86_PV_VCPU_XSAVE,
    RecordType.X86_PV_VCPU_MSRS,
)

_NEXT = {4: ("eip", "eflags"), 8: ("rip", "rflags")}
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")
_AS_SENT = "in the stream the pfn stands for the mfn"


def pv_records(inspection: Inspection) -> dict[int, dict[int, Entry]]:
    """The last record of each type, by vcpu."""
    wanted = [entry for entry in inspection.log if entry.layer is Layer.LIBXC and entry.type in PV_RECORDS]
    heads = inspection.read((entry.body, min(entry.length, VCPU_HEADER.size)) for entry in wanted)
    found: dict[int, dict[int, Entry]] = {}
    for entry, head in zip(wanted, heads, strict=True):
        if len(head) == VCPU_HEADER.size:
            found.setdefault(VCPU_HEADER.unpack(head)[0], {})[entry.type or 0] = entry
    return found


def pv_state(inspection: Inspection, vcpu: int, records: Mapping[int, Entry], bodies: Mapping[int, bytes]) -> VcpuState:
    """The state of a vcpu from its records and their bodies, by type."""
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
                sections += _SECTIONS[kind](content)
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

    yield Section("general", tuple(word(name, user[name]) for name in GENERAL[width]))
    counter, flags = _NEXT[width]
    yield Section(
        "next", (word(counter, user[counter]), word(flags, user[flags], flags=rflags_names(int(user[flags]))))
    )
    yield Section("segments", tuple(Register(name, int(user[name]), 16) for name in _SEGMENTS))
    if width == 8:
        yield Section("bases", tuple(map(word, ("fs_base", "gs_base_kernel", "gs_base_user"))))
    cr = [int(value) for value in context["ctrlreg"]]
    control = [word("cr0", cr[0], flags=names_of(cr[0], Cr0))]
    if width == 8:
        meaning = "" if cr[1] else "no user page table: the vcpu was in its kernel"
        parts = _frame(inspection, cr3_to_pfn(cr[1], width)) if cr[1] else {}
        valid = ("valid",) if cr[1] & USER_ROOT_VALID else None
        control.append(word("cr1", cr[1], flags=valid, parts=parts, meaning=meaning))
    control.append(word("cr2", cr[2]))
    control.append(word("cr3", cr[3], parts=_frame(inspection, cr3_to_pfn(cr[3], width)), meaning=_AS_SENT))
    control.append(word("cr4", cr[4], flags=names_of(cr[4], Cr4)))
    yield Section("control", tuple(control))
    yield Section("debug", tuple(word(f"dr{n}", value) for n, value in enumerate(context["debugreg"])))
    yield Section("tables", tuple(_tables(context, bits)))
    yield Section("callbacks", tuple(_callbacks(context, width)))
    assist, state = int(context["vm_assist"]), int(context["flags"])
    yield Section(
        "modes",
        (
            word("flags", state, flags=names_of(state, ContextFlag)),
            word("vm_assist", assist, flags=names_of(assist, VM_ASSIST_NAMES)),
        ),
    )
    fpu = view(FXSAVE, bytes(context["fpu_ctxt"]))
    yield fpu_section(lambda name: int(fpu[name]))


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
    yield Register("gdt_ents", entries_there, meaning=f"in pfn {where}" if frames else "")
    yield Register("ldt_base", int(context["ldt_base"]), bits)
    yield Register("ldt_ents", int(context["ldt_ents"]))
    traps = context["trap_ctxt"]
    handled = np.flatnonzero(traps["address"])
    selectors = sorted({f"{int(cs):#x}" for cs in traps["cs"][handled]})
    meaning = f"{number_ranges(handled.tolist())}; cs {', '.join(selectors)}" if len(handled) else ""
    from_user = handled[(traps["flags"][handled] & 3) == 3]
    meaning += f"; from user mode {number_ranges(from_user.tolist())}" if len(from_user) else ""
    yield Register("traps", len(handled), meaning=meaning)


def _callbacks(context: Any, width: int) -> Iterator[Register]:
    for name in ("event", "failsafe", "syscall"):
        address, selector = f"{name}_callback_eip", f"{name}_callback_cs"
        if address in (context.dtype.names or ()):
            parts = {"cs": int(context[selector])} if width == 4 else {}
            yield Register(f"{name}_callback", int(context[address]), width * 8, parts=parts)
    yield Register("kernel_sp", int(context["kernel_sp"]), width * 8, parts={"ss": int(context["kernel_ss"])})


def _extended(content: bytes) -> Iterator[Section]:
    fields = view(EXTENDED, content[: EXTENDED.size].ljust(EXTENDED.size, b"\0"))
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
    yield machine_check_section("mcg_cap", lambda name: int(fields[name]))


def _xsave(content: bytes) -> Iterator[Section]:
    words = view(XSAVE_WORDS, content)
    found = [components(name, int(words[name])) for name in ("xcr0", "xcr0_accum")]
    if len(content) >= XSAVE_HEADER.size:
        found.append(components("xstate_bv", int(view(XSAVE_HEADER, content)["xstate_bv"])))
    yield Section("xsave", (*found, Register("area_bytes", len(content) - XSAVE_WORDS.size)))


def _msrs(content: bytes) -> Iterator[Section]:
    yield msr_section(np.frombuffer(content, dtype_of(MSR_ENTRY), len(content) // MSR_ENTRY.size))


_SECTIONS: dict[int, Callable[[bytes], Iterator[Section]]] = {
    RecordType.X86_PV_VCPU_EXTENDED: _extended,
    RecordType.X86_PV_VCPU_XSAVE: _xsave,
    RecordType.X86_PV_VCPU_MSRS: _msrs,
}
