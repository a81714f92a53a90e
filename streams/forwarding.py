"""A transport that sits in a pipe: what the decoder asks for goes on to the output, byte for byte.

Bytes the decoder wants to see it is shown a copy of; what it passes over goes on unseen. Nothing is read that was not
asked for, and nothing waits in here while input is awaited, but what is held.
"""

from __future__ import annotations

from collections.abc import Sequence

from streams.conduit import HOLDS, Conduit
from streams.pace import Pace
from streams.transports import Transport

# Only answers up to this long are ever held: whatever is longer is page contents, which decide nothing alone.
HELD = 1 << 16


class ForwardingTransport(Conduit, Transport):
    """A conduit that answers a decoder.

    Parameters
    ----------
    source, sink, splice, pace:
        as of `Conduit`.
    hold:
        keep what was given last until the decoder asks for more; else it has gone on before it is given.
    """

    size: int | None = None
    rereads = False

    def __init__(self, source: int, sink: int, *, hold: bool, splice: bool = True, pace: Pace | None = None) -> None:
        super().__init__(source, sink, splice=splice, pace=pace)
        self.state[HOLDS] = hold

    def give(self, n: int) -> bytes | memoryview:
        """The next n bytes; they go on at once, or when the next are asked for."""
        if not n:
            return b""  # nothing more is asked for: what is held stays held
        self.release()
        if n <= len(self.buffer):
            return self._given(n)
        pieces = []
        while n and not self.ended:
            self.release()
            piece = bytes(self._given(min(n, len(self.buffer))))
            pieces.append(piece)
            n -= len(piece)
        return b"".join(pieces)

    def skip(self, n: int) -> int:
        """Move n bytes on unseen; fewer only at the end of the input."""
        if not n:
            return 0
        self.release()
        moved = 0
        while moved < n and not self.ended:
            moved += self.move(n - moved)
        return moved

    def stop_holding(self) -> None:
        """From now on nothing more is held; what is goes on with `release`, or when more is asked for."""
        self.state[HOLDS] = False

    def look(self, n: int) -> memoryview:
        """The next n bytes, which go on as they come, whatever else is held; fewer only at the end of the input."""
        self.release()
        at = 0
        while at < n and not self.ended:
            at += self.show(at, n - at)
        return self.buffer[:at]

    def reread(self, ranges: Sequence[tuple[int, int]]) -> None:
        """None: there is no going back."""
        return

    def _given(self, n: int) -> memoryview:
        """The next n bytes, in the buffer; fewer only at the end of the input."""
        ask = self.take if self.state[HOLDS] and n <= HELD else self.show
        at = 0
        while at < n and not self.ended:
            at += ask(at, n - at)
        return self.buffer[:at]
