"""Input from pipes, sockets, terminals and devices: what goes by once."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Sequence

from streams.requests import LARGEST_GIVE
from streams.transports import PIECE, RawTransport, buffer_for_giving, failed

# Up to here a fresh bytes object is cheaper than a reused buffer.
SMALL = 16 << 10


class PipeTransport(RawTransport):
    """Any descriptor that is read from front to back. Never reads more than it was asked for.

    A signal's EINTR is retried by Python itself; a non-blocking descriptor is waited for.

    Parameters
    ----------
    fd:
        descriptor of a pipe, FIFO, socket, terminal or device.
    owned:
        whether `close` closes the descriptor.
    """

    rereads = False
    size: int | None = None

    def __init__(self, fd: int, *, owned: bool = False) -> None:
        self.position = 0
        self._fd = fd
        self._owned = owned
        self._peeked = b""
        self._ended = False  # a terminal's end of input comes only once
        self._buffer: memoryview | None = None
        self._drain: int | None = None
        self._splices = sys.platform == "linux" and hasattr(os, "splice") and stat.S_ISFIFO(os.fstat(fd).st_mode)

    def give(self, n: int) -> bytes | memoryview:
        """The next n bytes, read into a reused buffer where that pays."""
        first = b""
        if n <= SMALL or self._peeked:
            first = self.some(n)
            if len(first) == n:
                return first
        if n <= LARGEST_GIVE:
            buffer = self._reused()
            buffer[: len(first)] = first
            return buffer[: self._fill(buffer[:n], len(first))]
        grown = bytearray(first)
        while len(grown) < n:
            piece = self._reused()[: n - len(grown)]
            got = self._fill(piece, 0)
            grown += piece[:got]
            if got < len(piece):
                break
        return memoryview(grown)

    def skip(self, n: int) -> int:
        """Pass over n bytes: spliced to the null device from a pipe, else read and dropped."""
        passed = len(self.some(n)) if n and self._peeked else 0
        while passed < n and not self._ended:
            moved = self._splice(n - passed) if self._splices else None
            if moved is None:
                moved = self._read_into(self._reused()[: n - passed])
            self.position += moved
            passed += moved
            self._ended = not moved
        return passed

    def some(self, limit: int) -> bytes:
        """What one read returns, or what was peeked at."""
        if self._peeked:
            data, self._peeked = self._peeked[:limit], self._peeked[limit:]
        else:
            data = self._read(limit)
        self.position += len(data)
        return data

    def peek(self, n: int) -> bytes:
        """The next n bytes, which stay to be given."""
        while len(self._peeked) < n and (more := self._read(n - len(self._peeked))):
            self._peeked += more
        return self._peeked[:n]

    def reread(self, ranges: Sequence[tuple[int, int]]) -> None:
        """None: there is no going back."""
        return

    def again(self) -> None:
        """None: there is no going back."""
        return

    def close(self) -> None:
        """Close the descriptor, if it is ours."""
        if self._drain is not None:
            os.close(self._drain)
            self._drain, self._splices = None, False
        if self._owned:
            self._owned = False
            os.close(self._fd)

    def _read(self, limit: int) -> bytes:
        """One read of at most `limit` bytes; empty at the end of the input."""
        if not limit or self._ended:
            return b""
        while True:
            try:
                data = os.read(self._fd, min(limit, PIECE))
            except BlockingIOError:
                self._wait()
            except OSError as error:
                raise failed(error, self.position) from error
            else:
                self._ended = not data
                return data

    def _read_into(self, buffer: memoryview) -> int:
        """One read into a buffer that is not empty; 0 at the end of the input."""
        while True:
            try:
                return os.readv(self._fd, [buffer])
            except BlockingIOError:
                self._wait()
            except OSError as error:
                raise failed(error, self.position) from error

    def _fill(self, buffer: memoryview, at: int) -> int:
        """Read until the buffer is full from `at` on; returns where the bytes in it end."""
        while at < len(buffer) and not self._ended:
            got = self._read_into(buffer[at:])
            self.position += got
            at += got
            self._ended = not got
        return at

    def _splice(self, n: int) -> int | None:
        """Move up to n bytes from the pipe to the null device; None where that does not work here."""
        while True:
            try:
                if self._drain is None:
                    self._drain = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                return os.splice(self._fd, self._drain, min(n, PIECE))
            except BlockingIOError:
                self._wait()
            except OSError:
                # An old kernel, a sandbox, no /dev: reading does the same, and tells a real error apart.
                self._splices = False
                return None

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.poll()

    def _reused(self) -> memoryview:
        if self._buffer is None:
            self._buffer = buffer_for_giving()
        return self._buffer
