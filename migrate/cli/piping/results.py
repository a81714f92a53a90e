"""Where a filter writes its report and its figures: looked at before the stream flows, written when it is through."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

from migrate.cli.ending import UsageError
from migrate.cli.piping.messages import ATOMIC, STDERR

STDERR_TOO = "-"
# Seconds to wait for somebody who reads a FIFO.
PATIENCE = 5.0
_LOOK = 0.05
_Identity = tuple[int, int]


class Result:
    """One file, and what is to stand in it.

    A regular file appears whole or not at all. Whatever else is there is opened at once and without waiting: a FIFO
    that nobody has opened by the time it is written has PATIENCE seconds to find a reader, and so has a reader to read.

    Parameters
    ----------
    option:
        the option that names it.
    path:
        its path, or "-" for standard error, where all that is not the stream goes.

    Raises
    ------
    UsageError
        where nothing can be written there.
    """

    def __init__(self, option: str, path: str, fd: int | None = None) -> None:
        self.option = option
        self.path = path
        self._fd = STDERR if path == STDERR_TOO else fd
        if self._fd is None:
            try:
                self._look()
            except OSError as error:
                raise UsageError(f"{path}: {error.strerror or error}") from error

    def _look(self) -> None:
        try:
            there = os.stat(self.path).st_mode
        except FileNotFoundError:
            there = stat.S_IFREG
        if stat.S_ISDIR(there):
            raise IsADirectoryError("it is a directory")
        if stat.S_ISREG(there):
            folder = os.path.dirname(os.path.realpath(self.path))
            os.stat(folder)
            for place in (folder, *[self.path] * os.path.exists(self.path)):
                if not os.access(place, os.W_OK):
                    raise PermissionError(f"{place} is not to be written")
        else:
            self._open()

    def _open(self) -> None:
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            if not stat.S_ISFIFO(os.stat(self.path).st_mode):
                raise  # of a FIFO: nobody reads it yet

    def identity(self) -> _Identity | str | None:
        """What tells it from all other files; None for a device, which takes anything."""
        try:
            there = os.stat(self.path) if self._fd is None else os.fstat(self._fd)
        except FileNotFoundError:
            return os.path.realpath(self.path)
        return None if stat.S_ISCHR(there.st_mode) else (there.st_dev, there.st_ino)

    def write(self, text: str, waiting: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        """Write all there is to say, and wait for a reader within `waiting`. Raises OSError."""
        data = text.encode()
        if self._fd is None and not stat.S_ISFIFO(_mode(self.path)):
            from migrate.whole_file import whole_file

            with whole_file(self.path) as file:
                file.write(data)
            return
        with waiting():
            _write(self._read(), data)

    def _read(self) -> int:
        """The descriptor, once somebody reads it."""
        until = time.monotonic() + PATIENCE
        while self._fd is None:
            self._open()
            if self._fd is None:
                if time.monotonic() > until:
                    raise TimeoutError("nobody reads it")
                time.sleep(_LOOK)
        return self._fd


def _write(fd: int, data: bytes) -> None:
    """Write to a descriptor whose reader may come, go, or stay and not read. Raises OSError."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    view = memoryview(data)
    while view:
        if not poll.poll(PATIENCE * 1000):
            raise TimeoutError("nobody reads it")
        with suppress(BlockingIOError):
            view = view[os.write(fd, view[:ATOMIC]) :]


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return 0


def refuse_doubles(results: Sequence[Result], stream: Mapping[str, int]) -> None:
    """Refuse two results in one file, and one where the stream goes or comes from.

    Parameters
    ----------
    stream:
        descriptors, by what they are called.

    Raises
    ------
    UsageError
        naming both.
    """
    taken: dict[_Identity | str, str] = {}
    for name, fd in stream.items():
        there = os.fstat(fd)
        if not stat.S_ISCHR(there.st_mode):
            taken[there.st_dev, there.st_ino] = name
    for result in results:
        identity = result.identity()
        if identity is not None and (other := taken.setdefault(identity, result.option)) != result.option:
            where = "standard error" if result.path == STDERR_TOO else result.path
            if other in stream:
                raise UsageError(f"{result.option}: {where} is {other}")
            raise UsageError(f"{other} and {result.option} would both be written to {where}")
