"""Where a stream is: a line now and then on standard error, as pv has it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from migrate.cli.piping.messages import Messages
from migrate.safe import safe
from streams.counting import memory_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from typing import Any

# The thread that shows the line needs little; what it reserves may be all that is left.
_STACK = 256 << 10


class StatusLine:
    """What is told of a stream.

    Parameters
    ----------
    status:
        asked for the figures (`Filter.status`).
    name:
        which stream it is; empty for none.
    size:
        bytes that will come, 0 where nobody knows.
    """

    def __init__(self, status: Callable[[], dict[str, Any]], name: str, size: int) -> None:
        self._status = status
        self._name = f"{safe(name)}: " if name else ""
        self._size = size

    def __str__(self) -> str:
        now = self._status()
        done, rate, dirty, found = now["bytes"], now["rate"], now["dirty"], now["findings"]
        of = left = passing = ""
        if self._size:
            of = f" of {memory_size(self._size)} ({min(done / self._size, 1):.0%})"
            if rate and done < self._size:
                left = f", {_clock((self._size - done) / rate)} left"
        if now["round"]:
            passing = f", pass {now['round']} ({dirty} page{_s(dirty)})"
        return (
            f"migrate: {self._name}{memory_size(done)}{of}, {memory_size(rate)}/s{left}{passing}, "
            f"{found} finding{_s(found)}"
        )


class Watch:
    """While it is entered, the line is shown every so many seconds: anew on a terminal, one below the other elsewhere.

    It has a thread of its own, so that a long step of the judge does not stop it, nor it the stream.
    """

    def __init__(self, line: StatusLine, interval: float, messages: Messages) -> None:
        import threading

        self._line = line
        self._interval = interval
        self._messages = messages
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        import threading

        before = threading.stack_size(_STACK)
        try:
            thread = threading.Thread(target=self._watch, daemon=True)
            thread.start()
            self._thread = thread
        except (RuntimeError, MemoryError):  # no more threads: the stream goes on without the line
            self._messages.say("no progress is shown: there is no room for a thread")
        finally:
            threading.stack_size(before)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._messages.clear_status()

    def _watch(self) -> None:
        while not self._over.wait(self._interval):
            show(self._line, self._messages)


def show(line: StatusLine, messages: Messages) -> None:
    """Show the line once; never raises."""
    try:
        messages.show_status(str(line))
    except BaseException:
        messages.dropped += 1


def bytes_to_come(fd: int) -> int:
    """How many bytes a regular file has from where its descriptor stands; 0 of anything else."""
    there = os.fstat(fd)
    return max(0, there.st_size - os.lseek(fd, 0, os.SEEK_CUR)) if stat.S_ISREG(there.st_mode) else 0


def _clock(seconds: float) -> str:
    whole = int(seconds + 0.5)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _s(n: int) -> str:
    return "" if n == 1 else "s"
