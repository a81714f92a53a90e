"""Signals to a filter: one that would end it lets the receiver see the end; SIGUSR1 asks where the stream is."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# A shell's notation for what a signal has ended.
ENDED_BY = 128
# What would end a program that knows nothing of it.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM, signal.SIGUSR2)
# Seconds in which a signal that comes again is the same one: `timeout` sends its own twice, a terminal to all.
ECHO = 5.0


class Terminated(BaseException):
    """A signal asks the filter to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = ENDED_BY + number
        self.name = signal.Signals(number).name


class Ending:
    """Has signals handled from now on. While the stream flows, one that asks the filter to end breaks it off.

    Once it is through, one ends only what waits for somebody else: what has been found is told first, as that takes
    no time worth mentioning. If it does after all, a second signal ends that, too.

    Parameters
    ----------
    interrupt:
        called with what is to be raised, where it is to be raised.
    show_status:
        called for SIGUSR1; it must not block.
    """

    def __init__(self, interrupt: Callable[[Terminated], None], show_status: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._flowing = True
        self._waiting = False
        self._told: Terminated | None = None  # once the stream was through
        self._last = -ECHO
        for number in ENDING:
            if not is_ignored(number):
                signal.signal(number, self._end)
        signal.signal(signal.SIGUSR1, lambda number, frame: show_status())

    def _end(self, number: int, frame: FrameType | None) -> None:
        before, self._last = self._last, time.monotonic()
        if self._last - before < ECHO:
            return
        ended = Terminated(number)
        if self._flowing or self._waiting or self._told is not None:
            self._interrupt(ended)
        else:
            self._told = ended

    def through(self) -> None:
        """The stream is over."""
        self._flowing = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within, somebody else is waited for. Raises Terminated."""
        if self._told is not None:
            raise self._told
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False


def is_ignored(number: int) -> bool:
    """Whether whoever started this process wants it to ignore a signal, as `nohup` and a shell's & do."""
    return signal.getsignal(number) is signal.SIG_IGN
