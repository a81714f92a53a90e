"""What bits and numbers in a guest's state are called, where no layout says it.

Sources: the processor manuals for registers; Xen's public headers and libxl's stream format for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
    GuestType,
)
from streams.wire.vcpu import ContextFlag, Msr

CR0: dict[int, str] = {
    **{0: "pe", 1: "mp", 2: "em", 3: "ts", 4: "et", 5: "ne"},
    **{16: "wp", 18: "am", 29: "nw", 30: "cd", 31: "pg"},
}
CR4: dict[int, str] = {
    **{0: "vme", 1: "pvi", 2: "tsd", 3: "de", 4: "pse", 5: "pae", 6: "mce", 7: "pge", 8: "pce"},
    **{9: "osfxsr", 10: "osxmmexcpt", 11: "umip", 12: "la57", 13: "vmxe", 14: "smxe", 16: "fsgsbase"},
    **{17: "pcide", 18: "osxsave", 19: "kl", 20: "smep", 21: "smap", 22: "pke", 23: "cet", 24: "pks", 25: "uintr"},
}
EFLAGS: dict[int, str] = {
    **{0: "cf", 2: "pf", 4: "af", 6: "zf", 7: "sf", 8: "tf", 9: "if", 10: "df", 11: "of"},
    **{14: "nt", 16: "rf", 17: "vm", 18: "ac", 19: "vif", 20: "vip", 21: "id"},
}
EFER: dict[int, str] = {
    **{0: "sce", 8: "lme", 10: "lma", 11: "nx", 12: "svme", 13: "lmsle", 14: "ffxsr"},
    **{15: "tce", 17: "mcommit", 18: "intwb", 20: "uaie", 21: "aibrse"},
}
APIC_BASE: dict[int, str] = {8: "bsp", 10: "x2apic", 11: "enabled"}
CONTEXT_FLAGS: dict[int, str] = {flag.bit_length() - 1: (flag.name or "").lower() for flag in ContextFlag}
IMAGE_OPTIONS: dict[int, str] = {OPTION_BIG_ENDIAN.bit_length() - 1: "big-endian"}
LIBXL_OPTIONS: dict[int, str] = {
    LIBXL_OPTION_BIG_ENDIAN.bit_length() - 1: "big-endian",
    LIBXL_OPTION_LEGACY.bit_length() - 1: "legacy",
}
XL_FLAGS: dict[int, str] = {
    XL_FLAG_JSON.bit_length() - 1: "json config",
    XL_FLAG_LIBXL_V2.bit_length() - 1: "libxl stream",
}

_EFLAGS_ALWAYS = 1 << 1
_IOPL_SHIFT, _IOPL_MASK = 12, 0x3

GUEST_TYPES: dict[int, str] = {int(kind): kind.name for kind in GuestType}
TSC_MODES: dict[int, str] = {0: "default", 1: "always emulate", 2: "never emulate", 3: "PVRDTSCP"}
EMULATORS: dict[int, str] = {0: "unknown emulator", 1: "QEMU traditional", 2: "QEMU upstream"}
CHECKPOINT_STATES: dict[int, str] = {0: "new checkpoint", 1: "suspended", 2: "ready", 3: "resumed"}

MSRS: dict[int, str] = {
    **{int(msr): msr.name for msr in Msr},
    **{0x6A0: "U_CET", 0x6A2: "S_CET", 0x6A4: "PL0_SSP", 0x6A5: "PL1_SSP", 0x6A6: "PL2_SSP", 0x6A7: "PL3_SSP"},
    **{0x6A8: "INTERRUPT_SSP_TABLE", 0x6E1: "PKRS", 0xD90: "BNDCFGS", 0xDA0: "XSS", 0xC001_011F: "VIRT_SPEC_CTRL"},
}
"""MSRs that some release saves for a vcpu."""


def names_of(value: int, names: Mapping[int, str]) -> tuple[str, ...]:
    """Names of the bits that are set, from the lowest up; one without a name goes by its number."""
    return tuple(names.get(bit) or f"bit {bit}" for bit in set_bits(value))


def eflags_names(value: int) -> tuple[str, ...]:
    """Names of the bits of eflags or rflags, the I/O privilege level last where it is not 0."""
    level = value >> _IOPL_SHIFT & _IOPL_MASK
    bits = value & ~(_IOPL_MASK << _IOPL_SHIFT | _EFLAGS_ALWAYS)
    return (*names_of(bits, EFLAGS), *([f"iopl {level}"] if level else []))


def component_names(value: int) -> tuple[str, ...]:
    """Names of XSAVE components."""
    return tuple(component_name(bit) for bit in set_bits(value))


def msr_name(index: int) -> str:
    """Name of an MSR, or its number."""
    return MSRS.get(index) or hex(index)


def by_type_name(counts: NDArray[np.int64]) -> dict[str, int]:
    """How many there are of each page type, by its name, those of which there are any; shape (16,)."""
    return {type_name(kind): int(counts[kind]) for kind in np.flatnonzero(counts).tolist()}


def ranges_told(numbers: Iterable[int]) -> str:
    """Ascending numbers as ranges: 0-14, 16-19, 128."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
