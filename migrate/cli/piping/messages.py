"""What a filter says on standard error, which nobody may be reading: it never waits; what is not taken is dropped."""

from __future__ import annotations

import io
import os
import select
import stat
import sys
from contextlib import suppress

from migrate.cli.ending import complaint

STDERR = 2
# Up to so many bytes a pipe takes whole or not at all, and as long as it is writable at all without waiting.
ATOMIC = 4096
# Columns of a terminal that does not know.
WIDTH = 80
_UNTELLABLE = b"migrate: the filter itself failed\n"


class Messages:
    """Lines on standard error, each whole where its reader keeps up, and else not at all.

    Parameters
    ----------
    stream:
        the descriptor that the stream is written to: if standard error is the same, nothing is said at all.
    fd:
        standard error.

    Attributes
    ----------
    dropped:
        lines that were not taken.
    patience:
        seconds to wait for a reader who takes nothing; 0 while the stream flows. Used up, it is 0 again.
    """

    def __init__(self, stream: int | None = None, fd: int = STDERR) -> None:
        self.dropped = 0
        self.patience = 0.0
        self._fd = _opened(fd, stream)
        self._ours = self._fd != fd  # and does not block
        self._cut = False  # in the middle of a line
        self._status = 0  # characters of a status line on the terminal

    @property
    def terminal(self) -> bool:
        """Whether somebody is looking."""
        return self._fd is not None and os.isatty(self._fd)

    def say(self, message: str, error: BaseException | None = None) -> None:
        """Tell a line; never raises."""
        try:
            text = complaint(message, error).encode("utf-8", "backslashreplace")
        except BaseException:  # no memory, an error that cannot even be named
            text = _UNTELLABLE
        self.write(text)

    def write(self, text: bytes) -> None:
        """Write text that ends with a line's end; never raises."""
        try:
            self._put(self._cleared() + text)
        except BaseException:
            self.dropped += 1

    def show_status(self, line: str) -> None:
        """On a terminal, a line in the place of the last one; elsewhere a line of its own. Never raises."""
        if not self.terminal:
            self.write(f"{line}\n".encode("utf-8", "backslashreplace"))
            return
        try:
            cleared = self._cleared()
            line = line[: (os.get_terminal_size(self._fd or 0).columns or WIDTH) - 1]
            self._status = len(line)
            self._put(cleared + line.encode("utf-8", "backslashreplace"))
        except BaseException:
            self._status = 0

    def clear_status(self) -> None:
        """Take the line off the terminal."""
        if cleared := self._cleared():
            self._put(cleared)

    def close(self) -> None:
        """Tell how much was dropped, if any was and this is not."""
        if self.dropped:
            dropped = f"{self.dropped} message{'s' * (self.dropped > 1)}"
            self.say(f"{dropped} dropped: nobody read standard error")

    def _cleared(self) -> bytes:
        width, self._status = self._status, 0
        return b"\r" + b" " * width + b"\r" if width else b""

    def _put(self, text: bytes) -> None:
        if self._fd is None:
            return
        view = memoryview(b"\n" + text if self._cut else text)
        whole = len(view)
        while view and (taken := self._taken(view[:ATOMIC])):
            view = view[taken:]
        if view:
            self.dropped += 1
            self._cut |= len(view) < whole
        else:
            self._cut = False

    def _taken(self, text: memoryview) -> int:
        """How much of a piece was taken: all of it or nothing, as a rule."""
        assert self._fd is not None
        try:
            if self._ours:
                with suppress(BlockingIOError):
                    return os.write(self._fd, text)
            if _ready(self._fd, self.patience):
                return os.write(self._fd, text)
        except OSError:  # full after all; the reader is gone: nobody will ever know
            pass
        self.patience = 0.0
        return 0


class Silent(io.TextIOBase):
    """In the place of sys.stderr, where whatever prints, a warning for one, would wait for a reader."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    def write(self, text: str) -> int:
        """Say text that may be no whole line."""
        self._messages.write(text.encode("utf-8", "backslashreplace"))
        return len(text)


def _ready(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


def _opened(fd: int, stream: int | None) -> int | None:
    """Standard error; opened anew where it could block, for the one it has is others' too, and shall block for them."""
    if sys.stderr is None:
        return None
    try:
        there = os.fstat(fd)
        if stream is not None and not stat.S_ISCHR(there.st_mode) and os.path.samestat(there, os.fstat(stream)):
            return None
    except OSError:
        return None
    if stat.S_ISFIFO(there.st_mode) or stat.S_ISCHR(there.st_mode):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with suppress(OSError):  # no /proc, another user's terminal, nobody to read it
            return os.open(f"/proc/self/fd/{fd}", flags)
    return fd
