"""Signals that ask a command to end: it takes back what is half done, and ends like one that they killed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

# A shell's notation for what a signal has ended.
ENDED_BY = 128
ENDING = (signal.SIGTERM, signal.SIGHUP)


class EndedBySignal(KeyboardInterrupt):
    """TERM or HUP came; what is in hand is to be left as at an interrupt."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = signal.Signals(number).name
        super().__init__(self.name)


@contextmanager
def orderly_signals() -> Iterator[None]:
    """Within, TERM and HUP raise `EndedBySignal`; outside, the command then ends with 128 and the signal's number.

    What ignores them, as `nohup` has it, goes on ignoring them. One signal is enough: `timeout` sends its own twice,
    and a second one must not disturb the tidying up.
    """
    mine = [number for number in ENDING if _is_left_alone(number)]

    def end(number: int, frame: FrameType | None) -> None:
        for one in mine:
            signal.signal(one, signal.SIG_IGN)
        raise EndedBySignal(number)

    for number in mine:
        signal.signal(number, end)
    try:
        yield
    except EndedBySignal as ended:
        if not mine:  # somebody further out took the signals
            raise
        raise click.exceptions.Exit(ENDED_BY + ended.number) from None
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def _is_left_alone(number: int) -> bool:
    main = threading.current_thread() is threading.main_thread()
    return main and signal.getsignal(number) is signal.SIG_DFL
