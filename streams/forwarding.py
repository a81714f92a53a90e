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
        self._ahead = memoryview(b"")  # bytes that have gone on, and are yet to be given

    def give(self, n: int) -> bytes | memoryview:
        """The next n bytes; they go on at once, or when the next are asked for."""
        if not n:
            return b""  # nothing more is asked for: what is held stays held
        if self._ahead:
            given = self._from_ahead(n)
            return given if len(given) == n else b"".join((given, self.give(n - len(given))))
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
        moved = len(self._from_ahead(n))
        self.release()
        while moved < n and not self.ended:
            moved += self.move(n - moved)
        return moved

    def send_ahead(self, n: int) -> None:
        """Let the first n bytes go on at once; they are given when they are asked for, all the same."""
        self._ahead = memoryview(bytes(self.look(n)))

    def peek(self, n: int) -> bytes:
        """Some of what comes first, up to n bytes, which stay to be given."""
        return bytes(self._ahead[:n]) or super().peek(n)

    def stop_holding(self) -> None:
        """From now on nothing more is held; what is goes on with `release`, or when more is asked for."""
        self.state[HOLDS] = False

    def look(self, n: int) -> memoryview:
        """The next n bytes, which go on as they come, whatever else is held; fewer only at the end of the input."""
        self.release()
        ahead = self._from_ahead(n)
        at = len(ahead)
        self.buffer[:at] = ahead
        while at < n and not self.ended:
            at += self.show(at, n - at)
        return self.buffer[:at]

    def reread(self, ranges: Sequence[tuple[int, int]]) -> None:
        """None: there is no going back."""
        return

    def _from_ahead(self, n: int) -> memoryview:
        """The next bytes of those that went ahead, up to n."""
        given, self._ahead = self._ahead[:n], self._ahead[n:]
        return given

    def _given(self, n: int) -> memoryview:
        """The next n bytes, in the buffer; fewer only at the end of the input."""
        ask = self.take if self.state[HOLDS] and n <= HELD else self.show
        at = 0
        while at < n and not self.ended:
            at += ask(at, n - at)
        return self.buffer[:at]
