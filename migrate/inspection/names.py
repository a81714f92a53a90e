"""What bits and numbers in a guest's state are called, where no layout says it.

Sources: Xen's public headers and libxl's stream format; for registers, `streams.wire.registers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum, IntFlag
from functools import cache

import numpy as np
from numpy.typing import NDArray

from migrate.guest.cpu_policy import component_name
from streams.pages import type_name
from streams.wire.cpu_features import set_bits
from streams.wire.framing import (
    LIBXL_OPTION_BIG_ENDIAN,
    LIBXL_OPTION_LEGACY,
    OPTION_BIG_ENDIAN,
    XL_FLAG_JSON,
    XL_FLAG_LIBXL_V2,
    Emulator,
    GuestType,
)
from streams.wire.registers import Rflags

Span = tuple[int, int]  # first and last, both included


def _bits(names: Mapping[int, str]) -> dict[int, str]:
    return {mask.bit_length() - 1: name for mask, name in names.items()}


IMAGE_OPTIONS = _bits({OPTION_BIG_ENDIAN: "big-endian"})
LIBXL_OPTIONS = _bits({LIBXL_OPTION_BIG_ENDIAN: "big-endian", LIBXL_OPTION_LEGACY: "legacy"})
XL_FLAGS = _bits({XL_FLAG_JSON: "json config", XL_FLAG_LIBXL_V2: "libxl stream"})

_RFLAGS_ALWAYS = 1 << 1
_IOPL_SHIFT, _IOPL_MASK = 12, 0x3

GUEST_TYPES: dict[int, str] = {kind: kind.name for kind in GuestType}
TSC_MODES: dict[int, str] = {0: "default", 1: "always emulate", 2: "never emulate", 3: "PVRDTSCP"}
EMULATORS: dict[int, str] = {
    Emulator.UNKNOWN: "unknown emulator",
    Emulator.QEMU_TRADITIONAL: "QEMU traditional",
    Emulator.QEMU_UPSTREAM: "QEMU upstream",
}
CHECKPOINT_STATES: dict[int, str] = {0: "new checkpoint", 1: "suspended", 2: "ready", 3: "resumed"}


def names_of(value: int, names: Mapping[int, str] | type[IntFlag]) -> tuple[str, ...]:
    """Names of the bits that are set, from the lowest up; one without a name goes by its number."""
    known = names if isinstance(names, Mapping) else _flag_names(names)
    return tuple(known.get(bit) or f"bit {bit}" for bit in set_bits(value))


@cache
def _flag_names(flags: type[IntFlag]) -> dict[int, str]:
    return _bits({int(flag): (flag.name or "").lower() for flag in flags})


def spoken(kind: type[IntEnum], value: int) -> str:
    """A member's name in words; the number where it has none."""
    return kind(value).name.lower().replace("_", " ") if value in set(kind) else str(value)


def rflags_names(value: int) -> tuple[str, ...]:
    """Names of the bits of eflags or rflags, the I/O privilege level last where it is not 0."""
    level = value >> _IOPL_SHIFT & _IOPL_MASK
    bits = value & ~(_IOPL_MASK << _IOPL_SHIFT | _RFLAGS_ALWAYS)
    return (*names_of(bits, Rflags), *([f"iopl {level}"] if level else []))


def component_names(value: int) -> tuple[str, ...]:
    """Names of XSAVE components."""
    return tuple(component_name(bit) for bit in set_bits(value))


def by_type_name(counts: NDArray[np.int64]) -> dict[str, int]:
    """How many there are of each page type, by its name, those of which there are any; shape (16,)."""
    return {type_name(kind): int(counts[kind]) for kind in np.flatnonzero(counts).tolist()}


def spans(numbers: NDArray[np.int64]) -> tuple[Span, ...]:
    """Ascending integers as ranges, both ends included."""
    if not len(numbers):
        return ()
    breaks = np.flatnonzero(np.diff(numbers) != 1)
    firsts = numbers[np.concatenate([[0], breaks + 1])]
    lasts = numbers[np.concatenate([breaks, [len(numbers) - 1]])]
    return tuple(zip(firsts.tolist(), lasts.tolist(), strict=True))


def number_ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers as ranges: 0-14, 16-19, 128."""
    found = spans(np.fromiter(numbers, np.int64))
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
