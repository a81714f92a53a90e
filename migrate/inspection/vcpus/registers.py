"""A vcpu's state as a debugger shows it: registers with the names of their bits, and what they point at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from migrate.inspection.hardware import machine_check_caps
from migrate.inspection.names import component_names
from streams.wire.msrs import msr_name

if TYPE_CHECKING:
    from migrate.inspection.logbook import Entry

GENERAL = {
    4: ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp"),
    8: (
        *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
        *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    ),
}
"""General registers by word size in bytes, in the order in which they are shown."""
_FPU = {"fcw": 16, "fsw": 16, "ftw": 8, "mxcsr": 32}
_MACHINE_CHECK = ("mci_ctl2_bank0", "mci_ctl2_bank1", "mcg_ext_ctl")
_MSRS_SHOWN = 1024


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
    meaning:
        what it means, where that takes words.
    """

    name: str
    value: int
    bits: int = 0
    flags: tuple[str, ...] | None = None
    parts: Mapping[str, int] = field(default_factory=dict)
    meaning: str = ""


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


Number = Callable[[str], int]
"""The value of a structure's field, by its name."""


def fpu_section(number: Number) -> Section:
    """An FXSAVE image without its data registers."""
    return Section("fpu", tuple(Register(name, number(name), bits) for name, bits in _FPU.items()))


def components(name: str, value: int) -> Register:
    """A mask of XSAVE components."""
    return Register(name, value, 64, component_names(value))


def machine_check_section(caps: str, number: Number) -> Section:
    """Machine checks; `caps` is the name of the capabilities."""
    others = (Register(name, number(name), 64) for name in _MACHINE_CHECK)
    value = number(caps)
    return Section("mce", (Register(caps, value, 64, meaning=machine_check_caps(value)), *others))


def msr_section(msrs: Iterable[Any]) -> Section:
    """MSRs by their names, the first of very many."""
    shown = islice(msrs, _MSRS_SHOWN)
    return Section("msrs", tuple(Register(msr_name(int(msr["index"])), int(msr["value"]), 64) for msr in shown))
