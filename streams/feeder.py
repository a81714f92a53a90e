"""Decoding bytes that are pushed in: the other way round from a transport."""

from __future__ import annotations

from streams.requests import Answer, Decoding, Give

# How far the buffer is consumed before what is used up is thrown away.
COMPACT_AT = 1 << 16


class Feeder:
    """Answers a decoding's requests from the pieces it is fed, keeping only what is not yet asked for whole."""

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding
        self._buffer = bytearray()
        self._at = 0
        self._passed = 0  # of the present Skip
        self._done = False
        self._closed = False
        self.position = 0
        self._request = next(decoding)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes, and decode as far as they go; what follows the last one asked for is dropped.

        Raises
        ------
        ValueError
            after `close`.
        """
        if self._closed:
            raise ValueError("closed: no more bytes can be fed")
        if self._done:
            return
        self._buffer += data
        self._run(ended=False)
        if self._at > COMPACT_AT or self._at == len(self._buffer):
            del self._buffer[: self._at]
            self._at = 0

    def close(self) -> None:
        """No more bytes will come: what is asked for is answered with what there is. To close again does nothing."""
        self._closed = True
        while not self._done:
            self._run(ended=True)

    def _run(self, *, ended: bool) -> None:
        while not self._done:
            request = self._request
            left = len(self._buffer) - self._at
            if request.__class__ is Give:
                if left < request.n and not ended:
                    return
                size = min(left, request.n)
                answer: Answer = bytes(self._buffer[self._at : self._at + size])
                self._at += size
                self.position += size
            else:
                size = min(left, request.n - self._passed)
                self._at += size
                self.position += size
                self._passed += size
                if self._passed < request.n and not ended:
                    return
                answer, self._passed = self._passed, 0
            try:
                self._request = self._decoding.send(answer)
            except StopIteration:
                self._done = True
