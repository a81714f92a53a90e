"""Bytes on their way from one descriptor to another, whatever becomes of those who look at them.

Where the kernel can do it, a byte never comes into this program alone: it goes on inside the kernel (splice), and who
wants to see it is shown a copy (tee). What has not gone on is still in the input, or in a pipe of our own, so that no
failure at any instant, of memory in the middle of a call or of the whole process, loses, doubles or bends one: whoever
holds the same descriptors goes on from there (`pass_all`). Only where the kernel does not move them, a file that is
appended to for one, are bytes read and written; `state` tells where that leaves them.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import stat
import termios
from collections.abc import Callable
from contextlib import suppress

from streams.counting import count
from streams.pace import Pace
from streams.transports import PIECE, TransportError, buffer_for_giving

# What a pipe is enlarged to where the kernel allows it: the most an unprivileged process may ask for.
PIPE_SIZE = 1 << 20

# What stands in `Conduit.state`: what is in our hands; whether that is meant to be so; and how often who looks at the
# bytes has begun or ended a step, odd while it is at one.
HANDS, HOLDS, STEPS = range(3)
# In our hands: no byte; some, which are counted; a call is under way, and should it never come back, nobody knows how
# many it has moved.
EMPTY, HOLDING, CALLING = range(3)


class OutputError(Exception):
    """The output cannot be written on."""

    def __init__(self, error: OSError, written: int) -> None:
        super().__init__(f"writing failed after {count(written, 'byte')}: {error.strerror or error}")
        self.errno = error.errno


class Conduit:
    """From one descriptor to another. Everything it needs on its way exists once it is made.

    Parameters
    ----------
    source, sink:
        descriptors of any kind; they stay the caller's.
    splice:
        whether to try to move bytes inside the kernel.
    pace:
        how fast bytes may go.

    Attributes
    ----------
    position, written, spliced:
        bytes taken from the input, written to the output, and how many of those inside the kernel.
    buffer:
        where bytes are shown.
    state:
        HANDS is EMPTY, HOLDING or CALLING; HOLDS is 1 where bytes are kept back on purpose; STEPS counts. A process
        that shares it can tell whether it may go on for this one.
    """

    def __init__(self, source: int, sink: int, *, splice: bool = True, pace: Pace | None = None) -> None:
        self._bridge: tuple[int, int] | None = None  # between ends of which neither is a pipe
        self._side: tuple[int, int] | None = None  # for copies
        self.source = source
        self.sink = sink
        self.position = 0
        self.written = 0
        self.spliced = 0
        self.ended = False
        self.buffer = buffer_for_giving()
        self.state: array.array[int] | memoryview = array.array("Q", [EMPTY, False, 0])
        self._kept_from = self._kept_to = 0  # of the buffer: read, and not yet written
        self._pace = pace
        self._splices = self._tees = splice and hasattr(os, "splice")  # Linux only
        self._tee: Callable[[int, int, int], int] = _no_tee
        self._source_kind, self._sink_kind = (stat.S_IFMT(os.fstat(fd).st_mode) for fd in (source, sink))
        for fd in (source, sink):
            _enlarge(fd)
        if self._splices:
            self._prepare()

    def _prepare(self) -> None:
        try:
            self._bridge, self._side = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        except OSError:  # no more descriptors
            self._splices = self._tees = False
            return
        for pipe in (self._bridge, self._side):
            _enlarge(pipe[1])
        from streams.tee import tee

        self._tee = tee

    def share(self, state: memoryview) -> None:
        """Keep the state there from now on, where another process sees it: in as many 64-bit numbers."""
        for at, value in enumerate(self.state):
            state[at] = value
        self.state = state

    def close(self) -> None:
        """Close the pipes of our own."""
        pipes, self._bridge, self._side = (self._bridge, self._side), None, None
        for fd in (end for pipe in pipes if pipe is not None for end in pipe):
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    # -- passing on --------------------------------------------------------------------------------

    def show(self, at: int, n: int) -> int:
        """The next 1 to n bytes, which have gone on by now, in the buffer from `at` on; 0 at the end of the input."""
        n = self._allowed(n)
        shown = self._show_inside(at, n) if self._tees else None
        if shown is None:
            shown = self._take(at, n)
            self.release()
        return self._counted(shown)

    def move(self, n: int) -> int:
        """Pass on 1 to n bytes that are there; 0 at the end of the input."""
        n = self._allowed(min(n, PIPE_SIZE))
        moved = self._move_inside(n) if self._splices else None
        if moved is None:
            moved = self._take(0, n)
            self.release()
        return self._counted(moved)

    def pass_all(self) -> None:
        """Pass on what is still on its way, and everything that comes, each piece as soon as it is there.

        Raises
        ------
        BrokenPipeError, OutputError, TransportError
            as all that move bytes.
        OutputError
            also where a call never came back, and it cannot be known which byte is the next.
        """
        if self.state[HANDS] == CALLING:
            raise OutputError(OSError(errno.ENOMEM, "a copy broke off in the middle"), self.written)
        self.release()
        if self._bridge is not None and (left := _waiting(self._bridge[0])):
            self._pass(self._bridge[0], left, 0)
        while not self.ended:
            self.move(PIECE)

    # -- keeping back ------------------------------------------------------------------------------

    def take(self, at: int, n: int) -> int:
        """Read 1 to n bytes into the buffer from `at` on, and keep them back; 0 at the end of the input.

        What is kept back already has to end at `at`.
        """
        return self._counted(self._take(at, self._allowed(n)))

    def release(self) -> None:
        """Write what is kept back."""
        while self._kept_from < self._kept_to:
            view = self.buffer[self._kept_from : self._kept_to]
            try:
                self.state[HANDS] = CALLING
                done = os.write(self.sink, view)
            except OSError as error:
                self.state[HANDS] = HOLDING
                self._write_failed(error)
            else:
                self._kept_from += done
                self.written += done
                self.state[HANDS] = HOLDING
        self._kept_from = self._kept_to = 0
        self.state[HANDS] = EMPTY

    @property
    def held(self) -> int:
        """Bytes that are kept back."""
        return self._kept_to - self._kept_from

    def peek(self, n: int) -> bytes:
        """Some of what comes first, up to n bytes, which stay where they are; b"" where nobody can see them there."""
        if self._source_kind == stat.S_IFIFO and self._tees:
            there = self._copied(self.source, min(n, PIECE)) or 0
            self._see(0, there)
            return bytes(self.buffer[:there])
        try:
            if self._source_kind == stat.S_IFREG:
                return os.pread(self.source, n, os.lseek(self.source, 0, os.SEEK_CUR))
            if self._source_kind == stat.S_IFSOCK:
                return self._peek_at_socket(n)
        except OSError:
            pass  # whatever it is, it comes again where it matters
        return b""

    def _peek_at_socket(self, n: int) -> bytes:
        import socket

        with socket.socket(fileno=os.dup(self.source)) as end:
            while True:
                try:
                    return end.recv(n, socket.MSG_PEEK)
                except BlockingIOError:
                    self._wait(self.source, select.POLLIN)

    # -- inside the kernel -------------------------------------------------------------------------

    def _show_inside(self, at: int, n: int) -> int | None:
        """As `show`; None where nothing of it works inside the kernel."""
        assert self._bridge is not None
        assert self._side is not None
        bridged = self._source_kind != stat.S_IFIFO
        if bridged:
            there = self._splice_in(n)
            if not there:
                return there
            origin = self._bridge[0]
        else:
            there, origin = n, self.source
        got = 0
        while got < there:
            copied = self._copied(origin, there - got)
            if copied is None:
                if not bridged:
                    return None  # nothing has been touched yet
                return got + self._carry(origin, there - got, at + got)
            if not bridged:
                there = copied  # of a pipe that goes on for as long as it likes
                self.ended = not copied
            # Read before the receiver can: who comes last gives the memory of the bytes back, as receivers do.
            self._see(at + got, copied)
            moved = self._splice_out(origin, copied)
            if moved < copied:
                moved += self._carry(origin, copied - moved, at + got + moved)
            got += moved
            if moved < copied:
                break  # what has not gone on is not shown either
        return got

    def _move_inside(self, n: int) -> int | None:
        """As `move`; None where the kernel does not do it for these descriptors."""
        assert self._bridge is not None
        if stat.S_IFIFO not in (self._source_kind, self._sink_kind):
            there = self._splice_in(n)
            if there:
                self._pass(self._bridge[0], there, 0)
            return there
        while True:
            try:
                moved = os.splice(self.source, self.sink, n)
            except BlockingIOError:
                self._wait(self.source, select.POLLIN)
                self._wait(self.sink, select.POLLOUT)
            except BrokenPipeError:
                raise
            except OSError:
                # O_APPEND, an old kernel: copying works. A real fault copying tells apart.
                self._splices = self._tees = False
                return None
            else:
                self.ended = not moved
                self.position += moved
                self.written += moved
                self.spliced += moved
                return moved

    def _splice_in(self, n: int) -> int | None:
        """Bring bytes that are there into the bridge, which is empty; None where the kernel does not do it."""
        assert self._bridge is not None
        while True:
            try:
                there = os.splice(self.source, self._bridge[1], min(n, PIPE_SIZE))
            except BlockingIOError:
                self._wait(self.source, select.POLLIN)
            except OSError:
                self._splices = self._tees = False
                return None
            else:
                self.ended = not there
                self.position += there
                return there

    def _splice_out(self, origin: int, n: int) -> int:
        """Pass on n bytes that are in a pipe; returns how many have gone: fewer where the output takes no splice."""
        moved = 0
        while moved < n:
            try:
                some = os.splice(origin, self.sink, n - moved)
            except BlockingIOError:
                self._wait(self.sink, select.POLLOUT)
            except BrokenPipeError:
                raise
            except OSError:
                self._splices = self._tees = False
                break
            else:
                if not some:
                    break
                moved += some
                self.position += some * (origin == self.source)
                self.written += some
                self.spliced += some
        return moved

    def _pass(self, origin: int, n: int, at: int) -> None:
        """Pass on n bytes that are in a pipe, whatever the output takes."""
        moved = self._splice_out(origin, n) if self._splices else 0
        if moved < n:
            self._carry(origin, n - moved, at)

    def _carry(self, origin: int, n: int, at: int) -> int:
        """Read n bytes that are in a pipe into the buffer from `at` on, and write them; returns how many there were."""
        carried = 0
        while carried < n:
            got = self._read(origin, at, min(n - carried, len(self.buffer) - at))
            if not got:
                self.ended = True  # somebody else reads from this pipe, and has it
                break
            self.position += got * (origin == self.source)
            self.release()
            carried += got
            at = (at + got) % len(self.buffer)
        return carried

    def _copied(self, origin: int, n: int) -> int | None:
        """Have a copy of up to n bytes of a pipe in the side pipe; None where that is not to be had."""
        assert self._side is not None
        while True:
            try:
                return self._tee(origin, self._side[1], min(n, PIPE_SIZE))
            except BlockingIOError:
                self._wait(origin, select.POLLIN)
            except OSError:
                self._tees = False
                return None

    def _see(self, at: int, n: int) -> None:
        """Read a copy of n bytes from the side pipe."""
        assert self._side is not None
        end = at + n
        while at < end:
            try:
                at += os.readv(self._side[0], [self.buffer[at:end]])
            except BlockingIOError:
                self._wait(self._side[0], select.POLLIN)

    # -- in our hands ------------------------------------------------------------------------------

    def _take(self, at: int, n: int) -> int:
        got = self._read(self.source, at, n)
        self.position += got
        self.ended = not got
        return got

    def _read(self, fd: int, at: int, n: int) -> int:
        window = self.buffer[at : at + n]
        before = self.state[HANDS]
        while True:
            try:
                self.state[HANDS] = CALLING
                got = os.readv(fd, [window])
            except OSError as error:
                self.state[HANDS] = before
                if not isinstance(error, BlockingIOError):
                    message = f"reading failed at offset 0x{self.position:x}: {error.strerror or error}"
                    raise TransportError(message, self.position) from error
                self._wait(fd, select.POLLIN)
            else:
                if before == EMPTY:
                    self._kept_from = at
                self._kept_to = at + got
                self.state[HANDS] = HOLDING if got else before
                return got

    def _write_failed(self, error: OSError) -> None:
        if isinstance(error, BlockingIOError):
            self._wait(self.sink, select.POLLOUT)
        elif isinstance(error, BrokenPipeError):
            raise error
        elif isinstance(error, ConnectionResetError):  # what a socket says where a pipe breaks
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
        else:
            raise OutputError(error, self.written) from error

    # -- waiting -----------------------------------------------------------------------------------

    def _wait(self, fd: int, event: int) -> None:
        """Until a descriptor that does not block is ready."""
        poll = select.poll()
        poll.register(fd, event)
        try:
            poll.poll()
        except OSError as error:
            message = f"waiting failed at offset 0x{self.position:x}: {error.strerror or error}"
            raise TransportError(message, self.position) from error

    def _allowed(self, n: int) -> int:
        return n if self._pace is None else self._pace.allowed(n)

    def _counted(self, n: int) -> int:
        if self._pace is not None:
            self._pace.gone(n)
        return n


def _no_tee(source: int, sink: int, n: int) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def _waiting(pipe: int) -> int:
    """Bytes that wait in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def _enlarge(fd: int) -> None:
    """Make a pipe PIPE_SIZE large, if it is a pipe, is smaller and may grow."""
    with suppress(OSError, AttributeError):  # no pipe, the user's limit; not Linux
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < PIPE_SIZE:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
