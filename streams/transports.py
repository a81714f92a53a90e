"""Who answers the decoder: a regular file, a pipe, bytes in memory, and compressed data over any of them.

A transport hands out bytes in order, or passes over them unseen. An answer shorter than asked means that the
input ended, and nothing else does: input that cannot be read or decompressed raises `TransportError`. No buffer
is sized by what was asked for; they grow with the bytes that really arrive.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence

from streams.compression import CODECS, FREE_EXPANSION, LONGEST_MAGIC, MAX_EXPANSION, Codec, Undecodable
from streams.requests import LARGEST_GIVE
from streams.typed import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# Most bytes read by one system call, and the unit in which large answers grow.
PIECE = 1 << 20
# A record header, a PAGE_DATA header and its 1024 pfn words fit in one window, wherever the record starts.
WINDOW = 12 << 10
# From here on a read of just the bytes asked for is cheaper than a whole window for the sake of its neighbours.
BYPASS = 4 << 10
# Up to here a fresh bytes object is cheaper than a reused buffer.
SMALL = 16 << 10


class TransportError(Exception):
    """The input cannot be read on: an I/O error, or compressed data that is truncated or corrupt.

    Attributes
    ----------
    offset:
        byte offset from the input's start; for compressed input, of the compressed bytes.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class Readable(Protocol):
    """A file object: what bytes can be read from."""

    def read(self, size: int, /) -> bytes:
        """At most that many bytes; none at the end."""


class Transport(Protocol):
    """What answers a decoder. All offsets are of uncompressed bytes, from where the input started.

    Attributes
    ----------
    position:
        bytes given or passed over so far.
    """

    position: int

    @property
    def size(self) -> int | None:
        """All bytes the input has, where that is known."""

    @property
    def rereads(self) -> bool:
        """Whether `reread` costs no more than reading what it returns."""

    def give(self, n: int) -> bytes | memoryview:
        """The next n bytes, fewer only at the end of the input. Valid until the next call."""

    def skip(self, n: int) -> int:
        """Pass over n bytes unseen. Returns how many there were, fewer only at the end of the input."""

    def reread(self, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Bytes from elsewhere: `ranges` are (offset, length) in any order; the position stays.

        Returns one bytes object per range, shorter where the input ends in it, or None if there is no going
        back. Compressed input that can be read again is decoded once more for each call, so ask for all at once.
        """

    def reread_in_order(self, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """The same for ranges in ascending order that do not overlap, one after the other: none is kept."""
        for one in ranges:
            yield from self.reread([one]) or ()

    def close(self) -> None:
        """Let go of what the transport opened itself."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RawTransport(Transport, Protocol):
    """A transport of bytes as they are, which a decompressor can be put on."""

    def some(self, limit: int) -> bytes:
        """What is there, at least 1 byte and at most `limit`; empty only at the end of the input."""

    def peek(self, n: int) -> bytes:
        """The next n bytes, which stay to be given; fewer only at the end of the input."""

    def again(self) -> RawTransport | None:
        """The same input from its start, to read independently of this one; None if there is no going back."""


def buffer_for_giving() -> memoryview:
    """A buffer for the longest answer, which takes no memory before it is used."""
    import mmap

    return memoryview(mmap.mmap(-1, LARGEST_GIVE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def _failed(error: OSError, offset: int) -> TransportError:
    return TransportError(f"reading failed at offset 0x{offset:x}: {error.strerror or error}", offset)


# -- regular files ----------------------------------------------------------------------------------


class FileTransport(RawTransport):
    """A regular file, by pread alone: passing over bytes is an addition, and the descriptor's offset stays.

    Parameters
    ----------
    fd:
        descriptor of a regular file.
    start:
        file offset that counts as offset 0; where the descriptor stands, unless given.
    owned:
        whether `close` closes the descriptor.
    """

    rereads = True

    def __init__(self, fd: int, *, start: int | None = None, owned: bool = False) -> None:
        self.position = 0
        self._fd = fd
        self._start = os.lseek(fd, 0, os.SEEK_CUR) if start is None else start
        self._owned = owned
        self._window = b""
        self._window_at = 0
        self._known_size = self.size

    @property
    def size(self) -> int:
        """Bytes from the start to the file's present end: a file may grow while it is read."""
        return max(0, os.fstat(self._fd).st_size - self._start)

    def give(self, n: int) -> bytes:
        """The next n bytes: small ones from a window, a page or more by a read of its own."""
        # The window never begins behind the position: it is read at the position, which only grows.
        at = self.position - self._window_at
        if at + n <= len(self._window):
            data = self._window[at : at + n]
        elif n >= BYPASS:
            data = self._read(self.position, n)
        else:
            self._window = self._read(self.position, WINDOW)
            self._window_at = self.position
            data = self._window[:n]
        if len(data) < n:
            self._see_its_end()
        self.position += len(data)
        return data

    def skip(self, n: int) -> int:
        """Pass over n bytes: an addition, bounded by the file's size."""
        if n > self._known_size - self.position:
            self._see_its_end()
            n = min(n, self._known_size - self.position)
        self.position += n
        return n

    def some(self, limit: int) -> bytes:
        """What one read returns."""
        data = self._read_piece(self.position, limit)
        if not data:
            self._see_its_end()
        self.position += len(data)
        return data

    def _see_its_end(self) -> None:
        """The file may have grown. Raises TransportError where it has lost what it had: it was another stream then."""
        before, self._known_size = self._known_size, self.size
        if self._known_size < before:
            message = f"the file has become shorter while it was read: {self._known_size} bytes, which were {before}"
            raise TransportError(message, self._known_size)

    def peek(self, n: int) -> bytes:
        """The next n bytes, which stay to be given."""
        return self._read(self.position, n)

    def reread(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes from elsewhere, one read each."""
        wanted = sum([n for _, n in ranges])
        try:
            fd, start = self._fd, self._start
            pieces = [os.pread(fd, n if n < PIECE else PIECE, start + offset) for offset, n in ranges]
        except OSError:
            pieces = []  # which of them it is, the slower way tells
        if sum(map(len, pieces)) != wanted:
            pieces = [self._read(offset, n) for offset, n in ranges]
            if sum(map(len, pieces)) != wanted:
                self._see_its_end()
        return pieces

    def again(self) -> FileTransport:
        """The same file from its start."""
        return FileTransport(self._fd, start=self._start)

    def close(self) -> None:
        """Close the descriptor, if it is ours."""
        if self._owned:
            self._owned = False
            os.close(self._fd)

    def _read_piece(self, offset: int, limit: int) -> bytes:
        try:
            return os.pread(self._fd, min(limit, PIECE), self._start + offset)
        except OSError as error:
            raise _failed(error, offset) from error

    def _read(self, offset: int, n: int) -> bytes:
        data = self._read_piece(offset, n)
        if len(data) == n or not data:
            return data
        pieces = [data]
        got = len(data)
        while got < n and (data := self._read_piece(offset + got, n - got)):
            pieces.append(data)
            got += len(data)
        return b"".join(pieces)


# -- pipes, sockets, terminals, devices -------------------------------------------------------------


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
                raise _failed(error, self.position) from error
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
                raise _failed(error, self.position) from error

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


# -- memory -----------------------------------------------------------------------------------------


class BytesTransport(RawTransport):
    """Bytes in memory, handed out without a copy."""

    rereads = True
    size: int = 0

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.position = 0
        self._data = memoryview(data).cast("B")
        self.size = len(self._data)

    def give(self, n: int) -> memoryview:
        """The next n bytes."""
        data = self._data[self.position : self.position + n]
        self.position += len(data)
        return data

    def skip(self, n: int) -> int:
        """Pass over n bytes."""
        n = min(n, self.size - self.position)
        self.position += n
        return n

    def some(self, limit: int) -> bytes:
        """The next `limit` bytes."""
        return bytes(self.give(limit))

    def peek(self, n: int) -> bytes:
        """The next n bytes, which stay to be given."""
        return bytes(self._data[self.position : self.position + n])

    def reread(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes from elsewhere."""
        return [bytes(self._data[offset : offset + n]) for offset, n in ranges]

    def again(self) -> BytesTransport:
        """The same bytes from their start."""
        return BytesTransport(self._data)

    def close(self) -> None:
        """Nothing to let go of."""


# -- compressed input -------------------------------------------------------------------------------


class CompressedTransport(Transport):
    """Compressed input, decoded as it flows. Members or frames that follow one another are one stream.

    Parameters
    ----------
    raw:
        the compressed bytes, from their start; closed with this transport.
    codec:
        the kind of compression.
    max_expansion:
        how many times its length the input may decode to, where that is more than `FREE_EXPANSION` bytes; 0 for any.
    """

    rereads = False
    size: int | None = None

    def __init__(self, raw: RawTransport, codec: Codec, max_expansion: int = MAX_EXPANSION) -> None:
        self.position = 0
        self._max_expansion = max_expansion
        self._decoded = 0
        self.codec = codec
        self._raw = raw
        self._pieces = codec.decode(raw)
        self._piece = b""
        self._at = 0
        self._error: TransportError | None = None

    def give(self, n: int) -> bytes:
        """The next n bytes."""
        data = self._piece[self._at : self._at + n]
        self._at += len(data)
        if len(data) < n:
            pieces = [data]
            left = n - len(data)
            while left and self._advance():
                data = self._piece[:left]
                self._at = len(data)
                left -= len(data)
                pieces.append(data)
            data = b"".join(pieces)
        self.position += len(data)
        return data

    def skip(self, n: int) -> int:
        """Decode n bytes and drop them."""
        left = n
        while True:
            some = min(left, len(self._piece) - self._at)
            self._at += some
            self.position += some
            left -= some
            if not left or not self._advance():
                return n - left

    def reread_in_order(self, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """Bytes from elsewhere, by decoding the input once more, once for all."""
        second = self.again()
        if second is None:
            return
        with second:
            for offset, n in ranges:
                second.skip(offset - second.position)
                yield second.give(n)

    def reread(self, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Bytes from elsewhere, by decoding the input once more from its start."""
        second = self.again()
        if second is None:
            return None
        found: dict[tuple[int, int], bytes] = {}
        with second:
            held, held_at = b"", 0  # what was last given, for ranges that overlap
            for offset, n in sorted(set(ranges)):
                if offset > second.position:
                    second.skip(offset - second.position)
                    held = b""
                else:
                    held = held[offset - held_at :]
                held_at = offset
                if n > len(held):
                    held += second.give(n - len(held))
                found[offset, n] = held[:n]
        return [found[offset, n] for offset, n in ranges]

    def again(self) -> CompressedTransport | None:
        """The same input from its start, to decode independently of this one; None if there is no going back."""
        raw = self._raw.again()
        return None if raw is None else CompressedTransport(raw, self.codec, self._max_expansion)

    def close(self) -> None:
        """Close the compressed input, and free the decoder."""
        self._pieces = iter(())
        self._raw.close()

    def _advance(self) -> bool:
        """Decode the next piece in place of this one; False at the end of the input."""
        # Once failed, always failed: an exhausted generator would pass for the end of the input.
        if self._error is not None:
            raise self._error
        self._at = 0
        try:
            self._piece = next(self._pieces, b"")
            while not self._piece:
                self._piece = next(self._pieces)
            self._mind_expansion()
        except StopIteration:
            return False
        except (Undecodable, TransportError) as error:
            self._piece, self._error = b"", TransportError(str(error), error.offset)
            raise self._error from error
        return True

    def _mind_expansion(self) -> None:
        self._decoded += len(self._piece)
        if self._decoded > FREE_EXPANSION and 0 < self._max_expansion * self._raw.position < self._decoded:
            raise Undecodable(
                f"the first 0x{self._raw.position:x} bytes of {self.codec.name} data decode to more than "
                f"{FREE_EXPANSION >> 30} GiB, and more than {self._max_expansion} times their length, as no guest's "
                "memory does: decode them first if they are what you want, or raise the bound (check --max-expansion)",
                self._raw.position,
            )


# -- opening ----------------------------------------------------------------------------------------


def open_transport(
    source: str | os.PathLike[str] | int | bytes | bytearray | memoryview | Readable,
    *,
    max_expansion: int = MAX_EXPANSION,
) -> Transport:
    """Open an input, and decompress it if it begins as one of `CODECS` does.

    Parameters
    ----------
    source:
        a path; "-" for standard input; a descriptor, which is read from where it stands and is left open by
        `close`; the bytes themselves; or a file object, which is read from where it stands, too, and left open.
    max_expansion:
        as for `CompressedTransport`.

    Raises
    ------
    OSError
        if the path cannot be opened; IsADirectoryError for a directory.
    TransportError
        if its first bytes cannot be read.
    """
    raw: RawTransport
    if isinstance(source, bytes | bytearray | memoryview):
        raw = BytesTransport(source)
    elif isinstance(source, int):
        raw = _on_descriptor(source, f"descriptor {source}", owned=False)
    elif not isinstance(source, str | os.PathLike):
        if not hasattr(source, "read"):
            raise ValueError(f"{source!r:.60} is no stream: expected a path, a descriptor, bytes or a file object")
        from streams.file_objects import transport_of

        raw = transport_of(source)
    elif source == "-":
        raw = _on_descriptor(0, "standard input", owned=False)
    else:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            raw = _on_descriptor(fd, os.fspath(source), owned=True)
        except BaseException:
            os.close(fd)
            raise
    try:
        head = raw.peek(LONGEST_MAGIC)
    except BaseException:
        raw.close()
        raise
    for codec in CODECS:
        if codec.fits(head):
            return CompressedTransport(raw, codec, max_expansion)
    return raw


def _on_descriptor(fd: int, name: str, *, owned: bool) -> RawTransport:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if stat.S_ISREG(mode):
        return FileTransport(fd, owned=owned)
    return PipeTransport(fd, owned=owned)
