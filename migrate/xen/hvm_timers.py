"""What Xen looks at in the entries of an HVM context about clocks: PIT, and HPET in debug builds.

RTC and PMTIMER entries it takes as they are.

Sources: pit_check (`xen/arch/x86/emul-i8254.c`), hpet_load and hpet_set_timer (`xen/arch/x86/hvm/hpet.c`).
"""

from __future__ import annotations

from collections.abc import Iterator

from migrate.destination import releases
from migrate.xen.hvm_entry import Loading
from migrate.xen.objection import Objection
from streams.wire.hvm_timers import (
    HPET,
    HPET_ROUTES_SHIFT,
    PIT,
    HpetConfig,
    HpetTimer,
    HpetTimerConfig,
)

# The largest value that each field of a PIT channel may have.
_MOST: dict[str, int] = {
    "count": 0x1_0000,
    "count_latched": 4,
    "read_state": 4,
    "write_state": 4,
    "rw_mode": 3,
    "gate": 1,
    "bcd": 1,
}
# The gates of these channels are wired to be open.
_ALWAYS_GATED = (0, 1)


def pit(one: Loading) -> Iterator[Objection]:
    """HVM-17, from 4.19 on."""
    if not one.domain.has(releases.hvm_two_phases):
        return
    state = PIT.read(one.body)
    if state.speaker_data_on > 1:
        message = f"speaker_data_on {state.speaker_data_on:#x}; at most 1"
        yield one.refused("HVM-17", message, "EDOM", at=PIT.offset("speaker_data_on"))
    if any(state.pad):
        yield one.refused("HVM-17", f"padding {state.pad.hex()}; expected zeros", "EDOM", at=PIT.offset("pad"))
    for number, channel in enumerate(state.channels):
        for field, most in _MOST.items():
            value = getattr(channel, field)
            if value > most:
                message = f"channel {number}: {field} {value:#x}; at most {most:#x}"
                yield one.refused("HVM-17", message, "EDOM", at=PIT.offset("channels", number, field))
    for number in _ALWAYS_GATED:
        if not state.channels[number].gate:
            message = f"channel {number}: gate 0; expected 1, as it is wired"
            yield one.refused("HVM-17", message, at=PIT.offset("channels", number, "gate"))


def hpet(one: Loading) -> Iterator[Objection]:
    """HVM-23, from 4.12 on: a release build leaves the timer dead, a debug build stops at it."""
    if not one.domain.has(releases.hvm_hpet_asserted):
        return
    state = HPET.read(one.body)
    if not state.config & HpetConfig.ENABLED:
        return
    for number, timer in enumerate(state.timers):
        if _is_started(timer, state.isr >> number & 1) and not timer.config >> HPET_ROUTES_SHIFT:
            message = f"timer {number}: config {timer.config:#x} has it run, and no route for its interrupts"
            yield one.noted("HVM-23", message, at=HPET.offset("timers", number, "config"))


def _is_started(timer: HpetTimer, pending: int) -> bool:
    """Whether Xen sets it as it loads the entry: one by level waits where its interrupt is pending."""
    return bool(timer.config & HpetTimerConfig.ENABLED and not (timer.config & HpetTimerConfig.LEVEL and pending))
