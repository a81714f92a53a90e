"""How the records of PV guests are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from migrate.inspection.hardware import machine_check_caps
from migrate.inspection.logbook import Layer
from migrate.inspection.names import component_names, rflags_names
from migrate.inspection.records.cursor import Cursor, Field, Meanings
from migrate.inspection.records.fpu import fxsave_fields, xsave_fields
from migrate.inspection.records.image import pfns
from migrate.inspection.records.kind import About, Kind, Kinds, flags, listed, packed
from streams.counting import count
from streams.wire.constructs import construct_of
from streams.wire.framing import (
    P2M_ENTRY_SIZE,
    P2M_HEADER,
    PV_INFO,
    SHARED_INFO_SIZE,
    VCPU_HEADER,
    P2mHeader,
    PvInfoBody,
    RecordType,
    VcpuHeader,
)
from streams.wire.msrs import msr_name
from streams.wire.shared_info import SHARED_INFO
from streams.wire.vcpu import (
    CONTEXT,
    EXTENDED,
    MSR_ENTRY,
    VM_ASSIST_NAMES,
    XSAVE_HEADER,
    XSAVE_WORDS,
    ContextFlag,
    cr3_to_pfn,
)
from streams.wire.views import dtype_of, view

# -- records of the domain --------------------------------------------------------------------------


def _pv_info_line(info: PvInfoBody) -> str:
    return f"{info.guest_width * 8}-bit, {count(info.pt_levels, 'level')} of page tables"


def _p2m_line(about: About) -> str:
    header = P2mHeader._make(P2M_HEADER.unpack_from(about.body))
    pages = (about.entry.length - P2M_HEADER.size) // P2M_ENTRY_SIZE
    return f"p2m of pfns {header.start_pfn:#x}..{header.end_pfn:#x} in {count(pages, 'page')}"


def _p2m_fields(cursor: Cursor) -> Iterator[Field]:
    yield from cursor.named(P2M_HEADER, P2mHeader)
    yield from pfns(cursor)


def _shared_info_line(about: About) -> str:
    if about.width not in SHARED_INFO:
        return "the page shared with Xen"
    info = view(SHARED_INFO[about.width], about.body)
    pending = sum(int(word).bit_count() for word in info["evtchn_pending"])
    return f"p2m of {count(int(info['arch']['max_pfn']), 'pfn', form='#x')}, {count(pending, 'event channel')} pending"


def _shared_info_fields(cursor: Cursor) -> Iterator[Field]:
    if cursor.width in SHARED_INFO:
        yield from cursor.parsed(construct_of(SHARED_INFO[cursor.width]), "shared_info").fields


# -- records of a vcpu ------------------------------------------------------------------------------


def _of_vcpu(line: Callable[[About, bytes], str], fields: Callable[[Cursor], Iterator[Field]], needed: int) -> Kind:
    """What begins with the number of a vcpu; `line` gets what follows that, too."""

    def whole_line(about: About) -> str:
        vcpu = VcpuHeader._make(VCPU_HEADER.unpack_from(about.body)).vcpu_id
        return f"vcpu {vcpu}: {line(about, about.body[VCPU_HEADER.size :])}"

    def all_fields(cursor: Cursor) -> Iterator[Field]:
        yield from cursor.named(VCPU_HEADER, VcpuHeader)
        yield from fields(cursor)

    return Kind(whole_line, needed, all_fields)


def context_width(size: int, width: int | None) -> int:
    """The word size in bytes of the guest whose context has `size` bytes. Raises ValueError where none has."""
    for known in (width,) if width in CONTEXT else tuple(sorted(CONTEXT, reverse=True)):
        assert known is not None
        if size >= CONTEXT[known].size:
            return known
    raise ValueError(f"{count(size, 'byte is', 'bytes are')} too few for a vcpu's context")


def _basic_line(about: About, content: bytes) -> str:
    width = context_width(len(content), about.width)
    context = view(CONTEXT[width], content)
    name = {4: "eip", 8: "rip"}[width]
    root = cr3_to_pfn(int(context["ctrlreg"][3]), width)
    return f"{name} {int(context['user_regs'][name]):#x}, cr3 pfn {root:#x}"


def _basic_fields(cursor: Cursor) -> Iterator[Field]:
    try:
        width = context_width(cursor.left, cursor.width)
    except ValueError:
        width = cursor.width or 8

    def rflags(value: int) -> str:
        return " ".join(rflags_names(value))

    meanings: Meanings = {
        "flags": flags(ContextFlag),
        "vm_assist": flags(VM_ASSIST_NAMES),
        "ctrlreg": lambda values: f"cr3 pfn {cr3_to_pfn(values[3], width):#x}",
        "user_regs.eflags": rflags,
        "user_regs.rflags": rflags,
    }
    yield from cursor.parsed(construct_of(CONTEXT[width]), "context", meanings, {"fpu_ctxt": fxsave_fields}).fields


def _extended_line(about: About, content: bytes) -> str:
    fields = view(EXTENDED, content[: EXTENDED.size].ljust(EXTENDED.size, b"\0"))
    sysenter, caps = int(fields["sysenter_callback_eip"]), int(fields["mcg_cap"])
    return f"{count(len(content), 'byte')}, sysenter to {sysenter:#x}, mcg_cap {caps:#x}"


def _extended_fields(cursor: Cursor) -> Iterator[Field]:
    yield from cursor.parsed(construct_of(EXTENDED), "extended", {"mcg_cap": machine_check_caps}).fields


def _xsave_line(about: About, content: bytes) -> str:
    accum = int(view(XSAVE_WORDS, content)["xcr0_accum"])
    if not accum:
        return "no state"
    return f"{count(about.entry.length - VCPU_HEADER.size, 'byte')} of {' '.join(component_names(accum))}"


def _xsave_fields(cursor: Cursor) -> Iterator[Field]:
    return xsave_fields(cursor, XSAVE_HEADER if cursor.left >= XSAVE_HEADER.size else XSAVE_WORDS)


def _msrs_line(about: About, content: bytes) -> str:
    entries = np.frombuffer(content, dtype_of(MSR_ENTRY), len(content) // MSR_ENTRY.size)
    number = (about.entry.length - VCPU_HEADER.size) // MSR_ENTRY.size
    return f"{count(number, 'MSR')}: {listed([msr_name(int(index)) for index in entries['index']])}"


def msr_meaning(msr: Any) -> str:
    """What an index and a value say."""
    return f"{msr_name(msr['index'])} = {msr['value']:#x}"


def _msrs_fields(cursor: Cursor) -> Iterator[Field]:
    def one(number: int) -> Field:
        return replace(cursor.parsed(construct_of(MSR_ENTRY), "msr", {"": msr_meaning}), name=f"[{number}]")

    return cursor.elements(MSR_ENTRY.size, "msrs", one)


# ---------------------------------------------------------------------------------------------------

PV: Kinds = {
    (Layer.LIBXC, RecordType.X86_PV_INFO): packed(PV_INFO, PvInfoBody, _pv_info_line),
    (Layer.LIBXC, RecordType.X86_PV_P2M_FRAMES): Kind(_p2m_line, P2M_HEADER.size, _p2m_fields),
    (Layer.LIBXC, RecordType.SHARED_INFO): Kind(_shared_info_line, SHARED_INFO_SIZE, _shared_info_fields),
    (Layer.LIBXC, RecordType.X86_PV_VCPU_BASIC): _of_vcpu(_basic_line, _basic_fields, 2 * SHARED_INFO_SIZE),
    (Layer.LIBXC, RecordType.X86_PV_VCPU_EXTENDED): _of_vcpu(_extended_line, _extended_fields, SHARED_INFO_SIZE),
    (Layer.LIBXC, RecordType.X86_PV_VCPU_XSAVE): _of_vcpu(_xsave_line, _xsave_fields, SHARED_INFO_SIZE),
    (Layer.LIBXC, RecordType.X86_PV_VCPU_MSRS): _of_vcpu(_msrs_line, _msrs_fields, SHARED_INFO_SIZE),
}
