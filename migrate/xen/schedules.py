"""Other orders in which a restore could ask Xen for the same things, and what each would cost.

libxc's restore sets vcpu contexts first and then pins in pfn order. Restores before 4.6, and the domain
builder to this day, pin first. The other two are thought experiments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from migrate.xen.hypercalls import PIN_BATCH, MapP2m, Step
from migrate.xen.program import Pins, Program

Schedule = Callable[[Program], Program]


def _parts(program: Program) -> tuple[list[Step], Pins, list[Step]]:
    """The steps before the pins, the pins, and the p2m."""
    others = program.others
    last: list[Step] = [step for step in others if isinstance(step, MapP2m)]
    return [step for step in others if not isinstance(step, MapP2m)], program.pins, last


def _restore(program: Program) -> Program:
    return program


def _build(program: Program) -> Program:
    contexts, pins, last = _parts(program)
    return Program((pins, contexts, last))


def _bottom_up(program: Program) -> Program:
    contexts, pins, last = _parts(program)
    return Program((pins.by_level(), contexts, last))


def _top_down(program: Program) -> Program:
    contexts, pins, last = _parts(program)
    return Program((contexts, pins.by_level(highest_first=True), last))


SCHEDULES: dict[str, Schedule] = {
    "restore": _restore,  # contexts, then pins by pfn: libxc since 4.6
    "build": _build,  # pins, then contexts: the domain builder, and restores before 4.6
    "bottom-up": _bottom_up,  # pins from L1 to L4, then contexts
    "top-down": _top_down,  # contexts, then pins from the roots down
}


def hypercalls(steps: Sequence[Step]) -> tuple[int, int]:
    """How many hypercalls a PV guest's steps take, pins in batches; and how many batches there are."""
    assert isinstance(steps, Program)
    contexts, pins, _ = _parts(steps)
    batches = -(-len(pins) // PIN_BATCH)
    return len(contexts) + batches, batches
