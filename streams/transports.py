"""Who answers the decoder, and the simplest ones that do: a regular file, and bytes in memory.

A transport hands out bytes in order, or passes over them unseen. An answer shorter than asked means that the
input ended, and nothing else does: input that cannot be read or decompressed raises `TransportError`. No buffer
is sized by what was asked for; they grow with the bytes that really arrive.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from streams.counting import count
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
    compression:
        how the input is compressed: gzip, zstd …; None where it is not.
    """

    position: int
    compression: str | None = None

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


def failed(error: OSError, offset: int) -> TransportError:
    """What an error of the system's is to who reads."""
    return TransportError(f"reading failed at offset 0x{offset:x}: {error.strerror or error}", offset)


def ends_before(offset: int, end: int) -> TransportError:
    """What an input that ends at `end` is to who expects a stream at a byte behind that."""
    return TransportError(f"the file ends before byte {offset}: it has {count(end, 'byte')}", end)


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
            now = count(self._known_size, "byte")
            message = f"the file has become shorter while it was read: {now}, which were {before}"
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
            raise failed(error, offset) from error

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
