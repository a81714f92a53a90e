"""What a decoder asks for, and what it gets: the only words between a grammar and a transport."""

from __future__ import annotations

from collections.abc import Generator

# Bytes of page contents that are asked for in one go, and so the buffer that a transport needs: the pages of a record
# as savers write it.
LARGEST_GIVE = 4 << 20


class Give:
    """Ask for the next n bytes."""

    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n


class Skip:
    """Ask to pass over the next n bytes."""

    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n


Request = Give | Skip
Answer = bytes | memoryview | int
Decoding = Generator[Request, "Answer", bool]
Taking = Generator[Request, "Answer", bytes]
