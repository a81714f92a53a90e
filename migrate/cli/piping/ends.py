"""Between what a filter stands: standard input and output, or TCP connections of its own."""

from __future__ import annotations

import array
import fcntl
import os
import select
import sys
import termios
import time
from contextlib import suppress

from migrate.cli.ending import UsageError

STDIN, STDOUT = 0, 1
# Seconds that a receiver has to close its side once it has got all.
SETTLING = 10.0
# Milliseconds between two looks at whether it has.
_LOOK = 100


class Ends:
    """The two descriptors, and how to leave them.

    Parameters
    ----------
    source, sink:
        descriptors, closed in the end.
    connected:
        whether the sink is a TCP connection: what was written is lost if it is closed with something unread.
    """

    def __init__(self, source: int = STDIN, sink: int = STDOUT, *, connected: bool = False) -> None:
        self.source = source
        self.sink = sink
        self._connected = connected

    def hang_up(self) -> None:
        """Let the receiver see the end, and the sender that nobody reads. Raises OSError."""
        try:
            os.close(self.source)
        finally:
            if self._connected:
                import socket

                with socket.socket(fileno=os.dup(self.sink)) as connection:
                    connection.shutdown(socket.SHUT_WR)
            else:
                os.close(self.sink)

    def let_go(self) -> None:
        """Close the descriptors, and no more than that: another process has them, too."""
        for fd in (self.source, self.sink):
            with suppress(OSError):  # that one hears of it, too
                os.close(fd)

    def settle(self) -> None:
        """Of a connection, wait until the receiver has got all, and a while for it to close its side."""
        if not self._connected:
            return
        poll = select.poll()
        poll.register(self.sink, select.POLLIN)
        until = None
        try:
            while until is None or time.monotonic() < until:
                if poll.poll(_LOOK) and not os.read(self.sink, 1 << 16):
                    break  # what it may have said before is nobody's: the stream goes one way
                if until is None and not _unacknowledged(self.sink):
                    until = time.monotonic() + SETTLING
        except OSError:  # it is gone
            pass


def _unacknowledged(connection: int) -> int:
    """Bytes of a TCP connection that the other side has not got yet."""
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, count)
    return count[0]


def need_standard_ends(*, source: bool, sink: bool) -> None:
    """Refuse standard input or output, where they are used, if they are not there; and a terminal.

    What is not open now is given to the next file that is opened: the stream must never be written to that.

    Raises
    ------
    UsageError
    """
    if source:
        need_open(STDIN, "standard input", sys.stdin)
    if sink:
        need_open(STDOUT, "standard output", sys.stdout)
        if os.isatty(STDOUT):
            raise UsageError("a stream is not for a terminal: redirect standard output")


def need_open(fd: int, name: str, opened: object = ...) -> None:
    """Refuse a descriptor that was not open when this program was started. Raises UsageError."""
    try:
        os.fstat(fd)
    except OSError:
        opened = None
    if opened is None:
        raise UsageError(f"{name} is not open")
