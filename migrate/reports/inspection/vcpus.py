"""A stream's vcpus for people and for programs: the registers of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from migrate.inspection.vcpus.states import vcpu_states
from migrate.reports.inspection.lines import INDENT, write_line

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.inspection.reading import Inspection
    from migrate.inspection.vcpus.registers import Register, Section, VcpuState

_KEY_WIDTH = 16
_COLUMNS, _GAP = 4, "  "


def render_vcpus(inspection: Inspection, console: Console, vcpus: Sequence[int]) -> None:
    """Print the registers of vcpus. Raises NotInStream for one that the stream has nothing of."""
    for number, state in enumerate(vcpu_states(inspection, vcpus)):
        if number:
            console.print()
        _vcpu(console, state)


def _vcpu(console: Console, state: VcpuState) -> None:
    width = f", {state.width * 8}-bit" if state.width else ""
    write_line(console, f"vcpu {state.vcpu} ({state.kind}{width})", style="bold")
    for section in state.sections:
        key = section.name
        for row in _register_rows(section, console.width - _KEY_WIDTH - len(INDENT)):
            write_line(console, f"{INDENT}{key:<{_KEY_WIDTH}}", row)
            key = ""
    for note in state.notes:
        write_line(console, f"{INDENT}{'note':<{_KEY_WIDTH}}", note, "yellow")
    places = ", ".join(f"record {entry.index} {entry.name} at {entry.offset:#x}" for entry in state.records)
    write_line(console, f"{INDENT}{'from':<{_KEY_WIDTH}}", places)


def _register_rows(section: Section, room: int) -> Iterator[str]:
    """Bare registers share lines, in up to four columns; one with more to say has its own."""
    for bare, group in groupby(section.registers, lambda r: r.flags is None and not r.parts and not r.meaning):
        texts = list(map(_register, group))
        if not bare:
            yield from texts
            continue
        width = max(map(len, texts)) + len(_GAP)
        step = max(1, min(_COLUMNS, (room + len(_GAP)) // width))
        for start in range(0, len(texts), step):
            yield "".join(one.ljust(width) for one in texts[start : start + step]).rstrip()


def _register(register: Register) -> str:
    value = f"{register.value:0{register.bits // 4}x}" if register.bits else str(register.value)
    more = [f"{name.replace('_', ' ')} {part:#x}" for name, part in register.parts.items()]
    if register.flags:
        more.insert(0, " ".join(register.flags))
    if register.meaning:
        more.append(register.meaning)
    return f"{register.name}={value}" + (f"  {', '.join(more)}" if more else "")


def vcpu_objects(inspection: Inspection, vcpus: Sequence[int]) -> list[dict[str, Any]]:
    """The same as JSON objects: a key for each section, in it one for each register. Raises NotInStream as well."""
    return list(map(_vcpu_object, vcpu_states(inspection, vcpus)))


def _vcpu_object(state: VcpuState) -> dict[str, Any]:
    sections: dict[str, dict[str, Any]] = {}
    for section in state.sections:
        registers = sections.setdefault(section.name.replace(" ", "_"), {})
        registers |= {register.name: _register_object(register) for register in section.registers}
    return {
        "vcpu": state.vcpu,
        "kind": state.kind,
        "width": state.width,
        "records": [{"index": e.index, "name": str(e.name), "offset": e.offset} for e in state.records],
        "registers": sections,
        "notes": list(state.notes),
    }


def _register_object(register: Register) -> dict[str, Any]:
    shown: dict[str, Any] = {"value": register.value, **register.parts}
    if register.flags is not None:
        shown["flags"] = list(register.flags)
    if register.meaning:
        shown["meaning"] = register.meaning
    return shown
