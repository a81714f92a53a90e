"""Compressed input over any other, decoded as it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from streams.compression import FREE_EXPANSION, MAX_EXPANSION, Codec, Undecodable
from streams.counting import count
from streams.transports import RawTransport, Transport, TransportError


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
            read = count(self._raw.position, "byte", form="#x")
            raise Undecodable(
                f"the first {read} of {self.codec.name} data decode to more than "
                f"{FREE_EXPANSION >> 30} GiB, and more than {self._max_expansion} times their length, as no guest's "
                "memory does: decode them first if they are what you want, or raise the bound (check --max-expansion)",
                self._raw.position,
            )
