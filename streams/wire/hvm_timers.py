"""Entries of an HVM_CONTEXT about clocks: PIT, RTC, HPET and the PM timer.

Source: Xen's public `arch-x86/hvm/save.h`; for what is in the registers, the manuals of chipsets.
"""

from __future__ import annotations

from enum import IntFlag

from streams.values import NamedTuple
from streams.wire.layouts import S64, U8, U16, U32, U64, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated


class PitChannel(NamedTuple):
    """One of the PIT's counters. A count may be 65536."""

    count: U32  # type: ignore[assignment]
    latched_count: U16
    count_latched: U8
    status_latched: U8
    status: U8
    read_state: U8
    write_state: U8
    write_latch: U8
    rw_mode: U8
    mode: U8
    bcd: U8
    gate: U8


PIT_CHANNELS = 3
"""Counters of a PIT entry."""


PIT_MODES: dict[int, str] = {
    0: "interrupt on terminal count",
    1: "one-shot",
    2: "rate generator",
    3: "square wave",
    4: "software strobe",
    5: "hardware strobe",
}
"""`mode` of a counter; 6 and 7 are 2 and 3 again."""
PIT_ORDERS: dict[int, str] = {1: "low byte", 2: "high byte", 3: "low byte, then high byte"}
"""`rw_mode` of a counter."""


class Pit(NamedTuple):
    """PIT (hvm_hw_pit)."""

    channels: Annotated[tuple[PitChannel, ...], PIT_CHANNELS]
    speaker_data_on: U32
    pad: Annotated[bytes, "4s"]


PIT = Layout(Pit)

CMOS_REGISTERS = (
    *("seconds", "alarm_seconds", "minutes", "alarm_minutes", "hours", "alarm_hours"),
    *("day_of_week", "day_of_month", "month", "year", "reg_a", "reg_b", "reg_c", "reg_d"),
)
"""The bytes of an RTC entry's `cmos_data`, in their order."""


class Rtc(NamedTuple):
    """RTC (hvm_hw_rtc). Before Xen 4.14 it ended at `rtc_offset`, the guest's clock's difference in seconds."""

    cmos_data: Annotated[bytes, "14s"]
    cmos_index: U8
    pad: Annotated[bytes, "1s"]
    rtc_offset: S64


RTC = Layout(Rtc)


class RtcControl(IntFlag):
    """Bits of the RTC's register B."""

    DST = 1 << 0
    HOURS_24 = 1 << 1
    BINARY = 1 << 2
    SQUARE_WAVE = 1 << 3
    UPDATE_INTERRUPT = 1 << 4
    ALARM_INTERRUPT = 1 << 5
    PERIODIC_INTERRUPT = 1 << 6
    SET = 1 << 7


RTC_PM = 1 << 7
"""Bit of `hours` in the afternoon, on a clock of twelve hours."""

HPET_TIMERS = 3
"""Timers of an HPET entry."""


class HpetTimer(NamedTuple):
    """One of the HPET's timers."""

    config: U64
    cmp: U64
    fsb: U64
    reserved4: U64


class Hpet(NamedTuple):
    """HPET (hvm_hw_hpet): the register page, and the last period written to each timer."""

    capability: U64
    reserved0: U64
    config: U64
    reserved1: U64
    isr: U64
    reserved2: Annotated[bytes, "200s"]
    mc64: U64
    reserved3: U64
    timers: Annotated[tuple[HpetTimer, ...], HPET_TIMERS]
    reserved5: Annotated[bytes, "672s"]
    period: Annotated[tuple[int, ...], HPET_TIMERS, "Q"]


HPET = Layout(Hpet)


class HpetConfig(IntFlag):
    """`config` of an HPET entry."""

    ENABLED = 1 << 0
    LEGACY_ROUTES = 1 << 1


class HpetTimerConfig(IntFlag):
    """`config` of an HPET's timer; bits 9 to 13 are its route, bits 32 to 63 the routes that it may have."""

    LEVEL = 1 << 1
    ENABLED = 1 << 2
    PERIODIC = 1 << 3
    CAN_BE_PERIODIC = 1 << 4
    CAN_BE_64_BIT = 1 << 5
    SET_VALUE = 1 << 6
    BITS_32 = 1 << 8
    FSB = 1 << 14
    CAN_DO_FSB = 1 << 15


HPET_ROUTE_SHIFT, HPET_ROUTE_MASK, HPET_ROUTES_SHIFT = 9, 0x1F, 32


class Pmtimer(NamedTuple):
    """PMTIMER (hvm_hw_pmtimer)."""

    tmr_val: U32
    pm1a_sts: U16
    pm1a_en: U16


PMTIMER = Layout(Pmtimer)


class PmEvent(IntFlag):
    """`pm1a_sts` and `pm1a_en`; bits from 15 down to 11 are of the status alone."""

    TIMER = 1 << 0
    BUS_MASTER = 1 << 4
    GLOBAL = 1 << 5
    POWER_BUTTON = 1 << 8
    SLEEP_BUTTON = 1 << 9
    RTC = 1 << 10
    PCIE_WAKE = 1 << 14
    WAKE = 1 << 15
