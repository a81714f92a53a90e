"""Compressed input for those who come back to it often: decoded once more at most."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from streams.transports import Transport

if TYPE_CHECKING:
    from streams.compressed import CompressedTransport

# Bytes that are decoded and written at a time; those that are all zeros become holes.
_PIECE = 1 << 20


class DecodedOnce(Transport):
    """Compressed input, of which `reread` keeps what it decodes in an unlinked temporary file.

    No more is decoded than up to the end of what is asked for, and nothing before something is.

    Parameters
    ----------
    first:
        the input; closed with this transport.
    """

    rereads = False
    size = None

    def __init__(self, first: CompressedTransport) -> None:
        self._first = first
        self.compression = first.compression
        self._second: CompressedTransport | None = None
        self._file: int | None = None

    @property
    def position(self) -> int:  # type: ignore[override]
        """Bytes given or passed over so far."""
        return self._first.position

    def give(self, n: int) -> bytes:
        """The next n bytes."""
        return self._first.give(n)

    def skip(self, n: int) -> int:
        """Decode n bytes and drop them."""
        return self._first.skip(n)

    def reread(self, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Bytes from elsewhere."""
        if self._second is None:
            self._second = self._first.again()
        if self._second is None:
            return None
        if self._file is None:
            with tempfile.TemporaryFile(prefix="migrate-", suffix=".decoded") as file:
                self._file = os.dup(file.fileno())
        self._decode(self._second, self._file, max((offset + n for offset, n in ranges if n), default=0))
        return [self._kept(self._file, offset, min(n, self._second.position - offset)) for offset, n in ranges]

    def _decode(self, second: CompressedTransport, file: int, end: int) -> None:
        """Go on until so many bytes are in the file, or all."""
        while second.position < end:
            at = second.position
            piece = second.give(min(_PIECE, end - at))
            if not piece:
                return
            if piece.count(0) < len(piece):
                _write(file, piece, at)

    def _kept(self, file: int, offset: int, n: int) -> bytes:
        pieces = []
        while n > 0 and (piece := os.pread(file, n, offset)):
            pieces.append(piece)
            offset, n = offset + len(piece), n - len(piece)
        return b"".join(pieces) + bytes(max(0, n))  # the file may end with a hole

    def close(self) -> None:
        """Close the input and the file."""
        if self._second is not None:
            self._second.close()
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._first.close()


def _write(file: int, piece: bytes, at: int) -> None:
    rest = memoryview(piece)
    while rest:
        done = os.pwrite(file, rest, at)
        rest, at = rest[done:], at + done
