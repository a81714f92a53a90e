"""What the registers of virtual hardware say, in words: processors, interrupt controllers, clocks, Viridian.

Sources: the manuals of processors and chipsets; for Viridian, the Hypervisor Top-Level Functional Specification.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntFlag

from migrate.inspection.names import names_of, number_ranges, spoken
from streams.counting import count
from streams.wire.cpu_features import set_bits
from streams.wire.framing import PAGE_SHIFT
from streams.wire.hvm_cpu import (
    EVENT_TYPE_MASK,
    EVENT_TYPE_SHIFT,
    EVENT_VECTOR,
    MTRR_FIXED,
    MTRR_PAIR_VALID,
    MTRR_TYPES,
    PAT_TYPES,
    EventType,
    MtrrCap,
    MtrrDefType,
    PendingEvent,
)
from streams.wire.hvm_interrupts import (
    DELIVERY_MASK,
    DELIVERY_MODES,
    DELIVERY_SHIFT,
    DESTINATION_SHIFT,
    VECTOR_MASK,
    ApicBase,
    Redirection,
)
from streams.wire.hvm_timers import (
    CMOS_REGISTERS,
    HPET_ROUTE_MASK,
    HPET_ROUTE_SHIFT,
    HPET_ROUTES_SHIFT,
    RTC_PM,
    HpetTimerConfig,
    RtcControl,
)
from streams.wire.hvm_viridian import VIRIDIAN_ENABLED, SyntheticInterrupt, SyntheticTimer
from streams.wire.lapic import (
    ICR_SHORTHAND_SHIFT,
    ICR_SHORTHANDS,
    LVT_TIMER_MODES,
    LVT_TIMER_SHIFT,
    InterruptCommand,
    LapicError,
    SpuriousVector,
)
from streams.wire.registers import MCG_BANKS, McgCap, SegmentAttribute

_BYTE = 0xFF
_LOW_PAGE = (1 << PAGE_SHIFT) - 1


def _joined(*parts: str | Iterable[str]) -> str:
    """What there is to say, with commas."""
    return ", ".join(filter(None, (part if isinstance(part, str) else " ".join(part) for part in parts)))


def _set(bits: int, one: str, several: str) -> str:
    return f"{one if bits.bit_count() == 1 else several} {number_ranges(set_bits(bits))}" if bits else ""


# -- processors -------------------------------------------------------------------------------------


def segment(attributes: int) -> str:
    """Attributes of a segment register: those of its descriptor, without the limit between them."""
    if not attributes & SegmentAttribute.PRESENT:
        return "not present"
    level = f"ring {attributes >> 5 & 3}"
    kind = attributes & 0xF
    if not attributes & SegmentAttribute.CODE_OR_DATA:
        return f"system, type {kind}"
    if not kind & SegmentAttribute.CODE:
        return f"data, {level}"
    bits = 64 if attributes & SegmentAttribute.LONG else 32 if attributes & SegmentAttribute.BIG else 16
    return f"{bits}-bit code, {level}"


def pending_event(value: int) -> str:
    """An event that waits to be delivered to a vcpu."""
    if not value & PendingEvent.VALID:
        return ""
    kind = spoken(EventType, value >> EVENT_TYPE_SHIFT & EVENT_TYPE_MASK)
    return _joined(f"{kind}, vector {value & EVENT_VECTOR}", "error code" * bool(value & PendingEvent.HAS_ERROR_CODE))


def machine_check_caps(value: int) -> str:
    """MCG_CAP; empty for a plain number of banks."""
    flags = names_of(value & ~MCG_BANKS, McgCap)
    return _joined(count(value & MCG_BANKS, "bank"), flags) if flags else ""


def pat(value: int) -> str:
    """The memory types of the PAT, from entry 0 up."""
    return _types(value, PAT_TYPES)


def _types(value: int, names: dict[int, str]) -> str:
    kinds = [names.get(byte, f"{byte:#x}") for byte in value.to_bytes(8, "little")]
    return f"all {kinds[0]}" if len(set(kinds)) == 1 else " ".join(kinds)


def mtrr_fixed(number: int, value: int) -> str:
    """Addresses and memory types of a fixed-range MTRR."""
    first, step = MTRR_FIXED[number]
    return f"{first:#x}..{first + 8 * step - 1:#x} {_types(value, MTRR_TYPES)}"


def mtrr_range(base: int, mask: int) -> str:
    """Addresses and memory type of a variable range: empty where it is off, or where its mask has gaps."""
    pages = mask & ~_LOW_PAGE
    size = pages & -pages
    if not mask & MTRR_PAIR_VALID or not pages or (pages + size).bit_count() > 1:
        return ""
    first = base & pages
    return f"{first:#x}..{first + size - 1:#x} {MTRR_TYPES.get(base & _BYTE, f'type {base & _BYTE}')}"


def mtrr_cap(value: int) -> str:
    """MTRRcap."""
    return _joined(count(value & _BYTE, "range"), names_of(value & ~_BYTE, MtrrCap))


def mtrr_def_type(value: int) -> str:
    """MTRRdefType."""
    return _joined(MTRR_TYPES.get(value & _BYTE, f"type {value & _BYTE}"), names_of(value & ~_BYTE, MtrrDefType))


# -- interrupts -------------------------------------------------------------------------------------


def lines(value: int) -> str:
    """Interrupt lines, a bit for each."""
    return _set(value, "line", "lines")


def pci_lines(value: int) -> str:
    """Lines of PCI devices, bit device * 4 + INTx of 128."""
    return ", ".join(f"device {bit >> 2} INT{'ABCD'[bit & 3]}" for bit in set_bits(value))


def apic_base(value: int) -> str:
    """The base MSR of a local APIC."""
    return _joined(names_of(value & _LOW_PAGE, ApicBase), f"at {value & ~_LOW_PAGE:#x}")


def _delivery(value: int, bits: type[IntFlag] = Redirection) -> tuple[str, ...]:
    """Vector, delivery mode and the bits behind them."""
    mode = value >> DELIVERY_SHIFT & DELIVERY_MASK
    return (
        f"vector {value & VECTOR_MASK}",
        DELIVERY_MODES.get(mode, f"delivery mode {mode}") if mode else "",
        *(name.replace("_", " ") for name in names_of(value & sum(bits), bits)),
    )


def redirection(value: int) -> str:
    """A redirection entry of an IOAPIC."""
    return _joined(*_delivery(value), f"to {value >> DESTINATION_SHIFT:#x}")


def lapic_register(name: str, value: int) -> str:
    """A register of a local APIC, by the name that it has in the layout; empty for a plain number."""
    if name.startswith("lvt_"):
        mode = LVT_TIMER_MODES.get(value >> LVT_TIMER_SHIFT & 3, "") if name == "lvt_timer" else ""
        return _joined(*_delivery(value), mode)
    match name:
        case "id" | "ldr":
            return f"{value >> 24:#x}" if value else ""
        case "version":
            return f"version {value & _BYTE:#x}, {count((value >> 16 & _BYTE) + 1, 'local vector')}"
        case "svr":
            return _joined(f"vector {value & VECTOR_MASK}", names_of(value & ~VECTOR_MASK, SpuriousVector))
        case "esr":
            return _joined(names_of(value, LapicError))
        case "icr_low":
            shorthand = ICR_SHORTHANDS.get(value >> ICR_SHORTHAND_SHIFT & 3, "")
            return _joined(*_delivery(value, InterruptCommand), shorthand) if value else ""
        case "icr_high":
            return f"to {value >> 24:#x}" if value else ""
        case "timer_divide":
            power = (value & 3 | value >> 1 & 4) + 1 & 7
            return f"by {1 << power}"
    return ""


def vectors(value: int) -> str:
    """Interrupt vectors, a bit for each."""
    return _set(value, "vector", "vectors")


# -- clocks -----------------------------------------------------------------------------------------


def cmos_time(cmos: bytes) -> str:
    """Date and time of an RTC, year-month-day with two digits of the year; empty where the bytes are none."""
    at = dict(zip(CMOS_REGISTERS, cmos, strict=True))
    afternoon = not at["reg_b"] & RtcControl.HOURS_24 and at["hours"] & RTC_PM
    at["hours"] &= ~RTC_PM if not at["reg_b"] & RtcControl.HOURS_24 else _BYTE
    names = ("year", "month", "day_of_month", "hours", "minutes", "seconds")
    try:
        form = str if at["reg_b"] & RtcControl.BINARY else "{:x}".format
        year, month, day, hour, minute, second = (int(form(at[name])) for name in names)
    except ValueError:
        return ""
    if not at["reg_b"] & RtcControl.HOURS_24:
        hour = hour % 12 + 12 * bool(afternoon)
    return f"{year:02}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"


def hpet_capability(value: int) -> str:
    """Capabilities of an HPET."""
    return f"{count((value >> 8 & 0x1F) + 1, 'timer')}, a tick every {value >> 32} fs"


def hpet_timer(value: int) -> str:
    """Configuration of one timer of an HPET."""
    routes = value >> HPET_ROUTES_SHIFT
    return _joined(
        names_of(value & sum(HpetTimerConfig), HpetTimerConfig),
        f"line {value >> HPET_ROUTE_SHIFT & HPET_ROUTE_MASK}",
        f"may have {lines(routes)}" if routes else "may have no line",
    )


# -- Viridian ---------------------------------------------------------------------------------------

_OPEN_SOURCE = 1 << 63
_OPEN_SYSTEMS = {1: "Linux", 2: "FreeBSD", 3: "Xen", 4: "Illumos"}
_MICROSOFT, _WINDOWS_NT = 1, 4


def viridian_page(value: int) -> str:
    """An MSR that names a page."""
    if not value & VIRIDIAN_ENABLED:
        return "off" if value else ""
    return f"enabled, pfn {value >> PAGE_SHIFT:#x}"


def guest_os(value: int) -> str:
    """What the guest says that it is."""
    if not value:
        return "not said"
    build = value & 0xFFFF
    if value & _OPEN_SOURCE:
        kind = value >> 56 & 0x7F
        return f"{_OPEN_SYSTEMS.get(kind, f'open-source system {kind}')}, version {value >> 16 & 0xFFFF_FFFF:#x}"
    vendor, system = value >> 48 & 0x7FFF, value >> 40 & _BYTE
    name = "Windows NT" if (vendor, system) == (_MICROSOFT, _WINDOWS_NT) else f"vendor {vendor:#x}, system {system:#x}"
    return f"{name} {value >> 32 & _BYTE}.{value >> 24 & _BYTE}, service pack {value >> 16 & _BYTE}, build {build}"


def synthetic_interrupt(number: int, value: int) -> str:
    """One of a vcpu's synthetic interrupt sources."""
    return _joined(f"vector {value & VECTOR_MASK}", names_of(value & ~VECTOR_MASK, SyntheticInterrupt))


def synthetic_timer(number: int, value: int) -> str:
    """Configuration of one of a vcpu's synthetic timers."""
    if not value:
        return "off"
    how = f"vector {value >> 4 & VECTOR_MASK}" if value & SyntheticTimer.DIRECT else f"interrupt {value >> 16 & 0xF}"
    return _joined(names_of(value & sum(SyntheticTimer), SyntheticTimer), how)
