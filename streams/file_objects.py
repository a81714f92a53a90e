"""Streams that come from file objects: what `open` gives, a BytesIO, a response, and whatever else has `read`."""

from __future__ import annotations

import io
import os
import stat
from typing import Any

from streams.pipes import PipeTransport
from streams.transports import PIECE, BytesTransport, FileTransport, RawTransport, Readable, TransportError


class ReaderTransport(PipeTransport):
    """A file object that is read from front to back; closing it is its owner's."""

    def __init__(self, file: Readable) -> None:
        self.position = 0
        self._file = file
        self._owned = self._splices = self._ended = False
        self._peeked = b""
        self._buffer = self._drain = None

    def _read(self, limit: int) -> bytes:
        if not limit or self._ended:
            return b""
        try:
            data: Any = self._file.read(min(limit, PIECE))
        except (OSError, EOFError) as error:
            raise TransportError(f"the file object cannot be read: {error}", self.position) from error
        if not isinstance(data, bytes | bytearray | memoryview):
            what = "text: open it with 'rb'" if isinstance(data, str) else f"{type(data).__name__}, where bytes are due"
            raise TransportError(f"the file object gives {what}", self.position)
        self._ended = not data
        return bytes(data)

    def _read_into(self, buffer: memoryview) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def transport_of(file: Readable) -> RawTransport:
    """Read a file object from where it stands: at any place where that can be done, else from front to back."""
    if isinstance(file, io.BytesIO):
        return BytesTransport(memoryview(file.getvalue())[file.tell() :])
    if isinstance(file, io.BufferedReader | io.BufferedRandom | io.FileIO):
        fd = file.fileno()
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return FileTransport(fd, start=file.tell())
    return ReaderTransport(file)
