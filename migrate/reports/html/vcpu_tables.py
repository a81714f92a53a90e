"""The vcpus' registers as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from migrate.inspection.vcpus.states import vcpu_ids, vcpu_states
from streams.counting import count

if TYPE_CHECKING:
    from migrate.inspection.reading import Inspection
    from migrate.inspection.vcpus.registers import Register
    from migrate.reports.html.anchors import Anchors

MOST_VCPUS = 32


class Row(NamedTuple):
    """A register: its value as text, and what it means; `table` links to the page table it points at."""

    name: str
    value: str
    meaning: str
    table: str | None


class Group(NamedTuple):
    """Registers that are shown together."""

    name: str
    rows: list[Row]

    @property
    def plain(self) -> bool:
        """Whether there is nothing to say of any beside its value."""
        return not any(row.meaning for row in self.rows)


class Vcpu(NamedTuple):
    """A vcpu, what one wants to see of it at first sight, its registers, and what could not be read."""

    number: int
    summary: str
    groups: list[Group]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vcpus:
    """The tables, and how many are left out."""

    shown: list[Vcpu]
    left_out: int


def vcpus(inspection: Inspection, anchors: Anchors) -> Vcpus | None:
    """The vcpus of a stream; None where it has none. Page tables have to have their places before."""
    ids = vcpu_ids(inspection)
    if not ids:
        return None
    shown = []
    for state in vcpu_states(inspection, ids[:MOST_VCPUS]):
        anchors.vcpus.add(state.vcpu)
        groups = [
            Group(section.name, [_row(register, anchors) for register in section.registers])
            for section in state.sections
            if section.registers
        ]
        first = {register.name: register for section in reversed(state.sections) for register in section.registers}
        registers = [f"{name} {first[name].value:#x}" for name in ("eip", "rip", "cr3") if name in first]
        shown.append(Vcpu(state.vcpu, ", ".join(registers) or count(len(state.records), "record"), groups, state.notes))
    return Vcpus(shown, len(ids) - len(shown))


def _row(register: Register, anchors: Anchors) -> Row:
    digits = -(-register.bits // 4)
    value = f"0x{register.value:0{digits}x}" if digits else f"{register.value}"
    meaning = [" ".join(register.flags)] if register.flags else []
    meaning += [f"{name} {number:#x}" for name, number in register.parts.items()]
    meaning += [register.meaning] if register.meaning else []
    return Row(register.name, value, "; ".join(meaning), anchors.table(register.parts.get("pfn")))
