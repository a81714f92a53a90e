"""Other orders in which a restore could ask Xen for the same things, and what each would cost.

libxc's restore sets vcpu contexts first and then pins in pfn order. Restores before 4.6, and the domain
builder to this day, pin first. The other two are thought experiments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from migrate.xen.hypercalls import PIN_BATCH, MapP2m, Pin, Step

Schedule = Callable[[Sequence[Step]], list[Step]]


def _parts(steps: Sequence[Step]) -> tuple[list[Step], list[Pin], list[MapP2m]]:
    """The steps before the pins, the pins, and the p2m."""
    pins = [step for step in steps if isinstance(step, Pin)]
    last = [step for step in steps if isinstance(step, MapP2m)]
    return [step for step in steps if not isinstance(step, Pin | MapP2m)], pins, last


def _restore(steps: Sequence[Step]) -> list[Step]:
    return list(steps)


def _build(steps: Sequence[Step]) -> list[Step]:
    contexts, pins, last = _parts(steps)
    return [*pins, *contexts, *last]


def _bottom_up(steps: Sequence[Step]) -> list[Step]:
    contexts, pins, last = _parts(steps)
    return [*sorted(pins, key=lambda pin: pin.level), *contexts, *last]


def _top_down(steps: Sequence[Step]) -> list[Step]:
    contexts, pins, last = _parts(steps)
    return [*contexts, *sorted(pins, key=lambda pin: -pin.level), *last]


SCHEDULES: dict[str, Schedule] = {
    "restore": _restore,  # contexts, then pins by pfn: libxc since 4.6
    "build": _build,  # pins, then contexts: the domain builder, and restores before 4.6
    "bottom-up": _bottom_up,  # pins from L1 to L4, then contexts
    "top-down": _top_down,  # contexts, then pins from the roots down
}


def hypercalls(steps: Sequence[Step]) -> tuple[int, int]:
    """How many hypercalls the steps take, pins in batches; and how many batches there are."""
    contexts, pins, _ = _parts(steps)
    batches = -(-len(pins) // PIN_BATCH)
    return len(contexts) + batches, batches
