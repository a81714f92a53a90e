"""State of a guest that has to be kept as it came, beyond some MiB in a temporary file."""

from __future__ import annotations

import os
import tempfile

# Bytes that are kept in memory.
MOST_IN_MEMORY = 8 << 20


class Kept:
    """Something that was kept; `load` gives it back."""

    __slots__ = ("_content", "_length", "_offset", "_stash")

    def __init__(self, stash: Stash, content: bytes | None, offset: int, length: int) -> None:
        self._stash = stash
        self._content = content
        self._offset = offset
        self._length = length

    def load(self) -> bytes:
        """What was put."""
        return self._content if self._content is not None else self._stash.read(self._offset, self._length)

    @property
    def in_memory(self) -> int:
        """How many bytes of it are."""
        return 0 if self._content is None else self._length

    @property
    def room(self) -> tuple[int, int]:
        """Where it is in the file, and how long."""
        return self._offset, 0 if self._content is not None else self._length


class Stash:
    """Keeps contents until they are replaced, in memory while they are few, then in an unlinked temporary file."""

    def __init__(self) -> None:
        self._in_memory = 0
        self._end = 0
        self._file: int | None = None

    def put(self, content: bytes, instead_of: Kept | None = None) -> Kept:
        """Keep something, in the place of something else that nobody asks for any more."""
        offset, room = (self._end, 0) if instead_of is None else instead_of.room
        self._in_memory -= 0 if instead_of is None else instead_of.in_memory
        if self._in_memory + len(content) <= MOST_IN_MEMORY:
            self._in_memory += len(content)
            return Kept(self, content, self._end, len(content))
        if len(content) > room:
            offset, self._end = self._end, self._end + len(content)
        self._write(content, offset)
        return Kept(self, None, offset, len(content))

    def _write(self, content: bytes, at: int) -> None:
        if self._file is None:
            with tempfile.TemporaryFile(prefix="migrate-", suffix=".state") as file:
                self._file = os.dup(file.fileno())
        view = memoryview(content)
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written

    def read(self, offset: int, length: int) -> bytes:
        """What is in the file at a place."""
        assert self._file is not None
        return os.pread(self._file, length, offset)

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)
