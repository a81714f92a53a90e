"""A transport that sits in a pipe: what the decoder asks for goes on to the output, byte for byte.

Bytes the decoder wants to see are read and written; what it passes over goes from pipe to pipe inside the kernel
where that is possible, and so do page contents, of which it only sees a copy. Nothing is read that was not asked for,
and nothing waits in here while input is awaited.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from collections.abc import Callable, Sequence
from contextlib import suppress

from streams.transports import PIECE, Transport, TransportError

# What a pipe is enlarged to where the kernel allows it: the most an unprivileged process may ask for.
PIPE_SIZE = 1 << 20
# Only answers up to this long are ever held: whatever is longer is page contents, which decide nothing alone.
HELD = 1 << 16


class OutputError(Exception):
    """The output cannot be written on."""

    def __init__(self, error: OSError, written: int) -> None:
        super().__init__(f"writing failed after {written} bytes: {error.strerror or error}")
        self.errno = error.errno


class ForwardingTransport(Transport):
    """From one descriptor to another.

    Parameters
    ----------
    source, sink:
        descriptors of any kind.
    hold:
        keep what was given last until the decoder asks for more; else write it as it is read, before it is given.
    splice:
        whether to try to move bytes inside the kernel.
    """

    size: int | None = None
    rereads = False

    def __init__(self, source: int, sink: int, *, hold: bool, splice: bool = True) -> None:
        self._side: tuple[int, int] | None = None  # a pipe of our own, for copies of what goes on inside the kernel
        self.position = 0
        self.written = 0
        self.spliced = 0
        self._source = source
        self._sink = sink
        self._hold = hold
        self._splices = splice and hasattr(os, "splice")  # Linux only
        self._buffer = memoryview(bytearray(PIECE))
        self._pending: memoryview | bytes = b""
        self._ended = False
        self._tees = self._splices
        self._tee_into: Callable[[int, int, int], int] = _no_tee
        for fd in (source, sink):
            _enlarge(fd)

    # -- what the decoder asks for -----------------------------------------------------------------

    def give(self, n: int) -> bytes | memoryview:
        """The next n bytes; they go on at once, or when the next are asked for."""
        if not n:
            return b""  # nothing more is asked for: what is held stays held
        self.release()
        if n <= len(self._buffer):
            return self._take(n)
        pieces = []
        while n and not self._ended:
            self.release()
            piece = bytes(self._take(min(n, PIECE)))
            pieces.append(piece)
            n -= len(piece)
        return b"".join(pieces)

    def skip(self, n: int) -> int:
        """Move n bytes on unseen; fewer only at the end of the input."""
        if not n:
            return 0
        self.release()
        moved = 0
        while moved < n and not self._ended:
            moved += self._move(n - moved)
        return moved

    def release(self) -> None:
        """Write what is held."""
        if len(self._pending):
            self._write(self._pending)
            self._pending = b""

    def stop_holding(self) -> None:
        """From the next request on bytes go on at once."""
        self._hold = False

    @property
    def held(self) -> int:
        """Bytes read and not yet written."""
        return len(self._pending)

    def drain(self) -> None:
        """Move everything that still comes, each piece as soon as it is there."""
        self.release()
        while not self._ended:
            self._move(PIECE)

    def reread(self, ranges: Sequence[tuple[int, int]]) -> None:
        """None: there is no going back."""
        return

    def close(self) -> None:
        """Close the pipe of our own; the descriptors are the caller's."""
        if self._side is not None:
            for fd in self._side:
                os.close(fd)
            self._side = None

    def __del__(self) -> None:
        self.close()

    # -- system calls ------------------------------------------------------------------------------

    def _take(self, n: int) -> memoryview:
        """The next n bytes, in the buffer; fewer only at the end of the input. Held, or written piece by piece."""
        at = 0
        hold = self._hold and n <= HELD
        while at < n and not self._ended:
            got = self._tee(self._buffer[at:n]) if self._tees and n > HELD else None
            if got is None:
                got = self._read_into(self._buffer[at:n])
                self.position += got
                if not hold:
                    self._write(self._buffer[at : at + got])
            self._ended = not got
            at += got
        data = self._buffer[:at]
        if hold:
            self._pending = data
        return data

    def _read_into(self, buffer: memoryview, fd: int | None = None) -> int:
        source = self._source if fd is None else fd
        while True:
            try:
                return os.readv(source, [buffer])
            except BlockingIOError:
                self._wait(source, select.POLLIN)
            except OSError as error:
                message = f"reading failed at offset 0x{self.position:x}: {error.strerror or error}"
                raise TransportError(message, self.position) from error

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while len(view):
            try:
                done = os.write(self._sink, view)
            except BlockingIOError:
                self._wait(self._sink, select.POLLOUT)
            except BrokenPipeError:
                raise
            except ConnectionResetError as error:  # what a socket says where a pipe breaks
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
            except OSError as error:
                raise OutputError(error, self.written) from error
            else:
                view = view[done:]
                self.written += done

    def _move(self, n: int) -> int:
        """Move at most n bytes that are there from input to output; 0 at the end of the input."""
        if self._splices:
            moved = self._splice(n)
            if moved is not None:
                return moved
        got = self._read_into(self._buffer[:n])
        self._ended = not got
        self.position += got
        self._write(self._buffer[:got])
        return got

    def _tee(self, buffer: memoryview) -> int | None:
        """Fill a buffer with a copy of what goes on inside the kernel; None where it does not do that here.

        The bytes are on their way before they are looked at, as any that are not held.
        """
        while True:
            try:
                if self._side is None:
                    from streams.tee import tee

                    self._side, self._tee_into = os.pipe2(os.O_CLOEXEC), tee
                    _enlarge(self._side[1])
                there = self._tee_into(self._source, self._side[1], min(len(buffer), PIPE_SIZE))
            except BlockingIOError:
                self._wait(self._source, select.POLLIN)
            except OSError:
                self._tees = False  # what comes is not from a pipe, or there are no more descriptors
                return None
            else:
                break
        moved = 0
        while moved < there and (some := self._splice(there - moved)):
            moved += some
        at = 0
        while at < there:
            at += self._read_into(buffer[at:there], self._side[0])
        if moved < there:  # the output takes no splice: the rest is still in the input
            self._tees = False
            rest = buffer[moved:there]
            while len(rest):
                got = self._read_into(rest)
                if not got:
                    return there - len(rest)  # somebody else reads from this pipe
                self.position += got
                self._write(rest[:got])
                rest = rest[got:]
        return there

    def _splice(self, n: int) -> int | None:
        """Move bytes inside the kernel; None where it does not do that for these descriptors."""
        while True:
            try:
                moved = os.splice(self._source, self._sink, min(n, PIPE_SIZE))
            except BlockingIOError:
                self._wait(self._source, select.POLLIN)
                self._wait(self._sink, select.POLLOUT)
            except BrokenPipeError:
                raise
            except OSError:
                # No pipe among them, O_APPEND, an old kernel: copying works. A real fault copying tells apart.
                self._splices = False
                return None
            else:
                self._ended = not moved
                self.position += moved
                self.written += moved
                self.spliced += moved
                return moved

    def _wait(self, fd: int, event: int) -> None:
        """Until a descriptor that does not block is ready."""
        poll = select.poll()
        poll.register(fd, event)
        try:
            poll.poll()
        except OSError as error:
            message = f"waiting failed at offset 0x{self.position:x}: {error.strerror or error}"
            raise TransportError(message, self.position) from error


def _no_tee(source: int, sink: int, n: int) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def _enlarge(fd: int) -> None:
    """Make a pipe PIPE_SIZE large, if it is a pipe, is smaller and may grow."""
    with suppress(OSError, AttributeError):  # no pipe, the user's limit; not Linux
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < PIPE_SIZE:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
