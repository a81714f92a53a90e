"""The grammar of a stream, sans I/O.

The decoder asks and a transport answers: `Give(n)` for the next n bytes, `Skip(n)` to pass over them. An
answer shorter than asked means that the input ended. What the bytes say goes to a `Consumer`, which also
decides which bodies and which pages are worth having; all others are passed over and never enter Python.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from streams.consumer import Consumer, cut
from streams.containers import ContainerDecoder
from streams.counting import count
from streams.pages import PfnWords
from streams.records import Breach, DomainStart, ImageStart, PageData, Place, Record, Trailing
from streams.requests import LARGEST_GIVE, Answer, Decoding, Give, Request, Taking
from streams.wire.framing import (
    DOMAIN_HEADER,
    IMAGE_HEADER,
    IMAGE_ID,
    IMAGE_MARKER,
    KNOWN_VERSIONS,
    OPTION_BIG_ENDIAN,
    PAGE_DATA_HEADER,
    PAGE_SIZE,
    PFN_WORD_SIZE,
    RECORD_HEADER,
    DomainHeader,
    ImageHeader,
    RecordType,
    padded,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from streams.transports import Transport

# Pages asked for in one go, however long a run is.
PAGES_PER_GIVE = LARGEST_GIVE // PAGE_SIZE
# Pfn words of one record that are read: 256 times as many as a saver writes.
MOST_WORDS = 1 << 18
# What follows the end of a stream is looked at so far: is it another one?
LOOKED_BEHIND = 1 << 16

# What every record is asked with.
_RECORD_HEADER, _PAGE_DATA_HEADER = Give(RECORD_HEADER.size), Give(PAGE_DATA_HEADER.size)
_NO_WORDS = PfnWords(b"")


class Decoder(ContainerDecoder):
    """One stream's decoding: run it with `drive`, or send answers to `run()` yourself.

    Parameters
    ----------
    consumer:
        who is told.
    drain:
        whether to pass over what follows the end of the stream (to count it), or to leave it unread.
    offset:
        byte of the input at which the stream begins; what is before it is passed over.
    """

    def __init__(self, consumer: Consumer, *, drain: bool = True, offset: int = 0) -> None:
        super().__init__(consumer)
        self.drain = drain
        self.ended = False
        self._offset = offset
        self._libxc_index = 0

    def run(self) -> Decoding:
        """Decode one stream from its first byte; returns whether its end was reached."""
        yield from self._pass(self._offset)
        complete = yield from self._container()
        if complete:
            self.ended = True
            if self.drain:
                yield from self._rest()
        return complete

    def _rest(self) -> Generator[Request, Answer, None]:
        """What follows the end."""
        end = self.position
        head = yield from self._take(LOOKED_BEHIND)
        passed = len(head)
        while passed:
            passed = yield from self._pass(1 << 30)
        if head:
            self.consumer.event(Trailing(end, self.position - end, head))

    def _image_headers(self, head: bytes, start: int) -> Decoding:
        if len(head) < IMAGE_HEADER.size:
            return self._damaged(Breach.IMAGE_HEADER_CUT, cut("the image header", head, IMAGE_HEADER.size), start)
        image = ImageHeader._make(IMAGE_HEADER.unpack(head))
        if image.marker != IMAGE_MARKER:
            return self._damaged(Breach.IMAGE_MARKER, f"marker 0x{image.marker:016x}; expected all ones", start)
        if image.id != IMAGE_ID:
            return self._damaged(Breach.IMAGE_ID, f"id 0x{image.id:08x}; expected 0x{IMAGE_ID:08x} (XENF)", start + 8)
        if image.version not in KNOWN_VERSIONS:
            return self._damaged(Breach.IMAGE_VERSION, f"version {image.version}; expected 2 or 3", start + 12)
        self.consumer.event(ImageStart(start, image))
        if image.options & OPTION_BIG_ENDIAN:
            return self._damaged(
                Breach.IMAGE_BIG_ENDIAN, "the body is big-endian, which no toolstack can restore", start + 16
            )
        start = self.position
        head = yield from self._take(DOMAIN_HEADER.size)
        if len(head) < DOMAIN_HEADER.size:
            return self._damaged(Breach.DOMAIN_HEADER_CUT, cut("the domain header", head, DOMAIN_HEADER.size), start)
        self.consumer.event(DomainStart(start, DomainHeader._make(DOMAIN_HEADER.unpack(head))))
        return True

    # -- libxc records -----------------------------------------------------------------------------

    def _records(self, *, inside_libxl: bool) -> Generator[Request, Answer, bool | None]:
        """Decode records up to END (True), damage (False), or a CHECKPOINT that hands over to libxl (None)."""
        consumer = self.consumer
        while True:
            start = self.position
            raw = yield _RECORD_HEADER
            assert not isinstance(raw, int)
            self.position += len(raw)
            if len(raw) < RECORD_HEADER.size:
                if len(raw):
                    return self._damaged(
                        Breach.RECORD_HEADER_CUT, cut("a record header", bytes(raw), RECORD_HEADER.size), start
                    )
                return self._damaged(Breach.NO_END, "the stream stops here, without an END record", start)
            kind, length = RECORD_HEADER.unpack(raw)
            place = Place(start, self._libxc_index, kind, length)
            self._libxc_index += 1
            record: Record | PageData | None
            if kind == RecordType.PAGE_DATA and length >= PAGE_DATA_HEADER.size:
                consumer.wants_body(place)
                record = yield from self._page_data(place)
            else:
                record = yield from self._body(place, consumer.wants_body(place))
            if record is None:
                return self._damaged(
                    Breach.RECORD_CUT,
                    f"the input ends in record {place.index} {place.name}: "
                    f"{self.position - place.body} of {count(padded(length), 'byte')}",
                    start,
                    place,
                )
            consumer.event(record)
            if kind == RecordType.END:
                return True
            if kind == RecordType.CHECKPOINT and inside_libxl:
                return None

    def _body(self, place: Place, wanted: bool) -> Generator[Request, Answer, Record | None]:
        length = place.length
        pad = padded(length) - length
        if wanted:
            data = yield from self._take(length + pad) if length else _nothing()
            if len(data) < length + pad:
                return None
            return Record(place, data[:length], data[length:])
        if (yield from self._pass(length)) < length:
            return None
        padding = yield from self._take(pad) if pad else _nothing()
        return Record(place, None, padding) if len(padding) == pad else None

    def _page_data(self, place: Place) -> Generator[Request, Answer, PageData | None]:
        raw = yield _PAGE_DATA_HEADER
        assert not isinstance(raw, int)
        self.position += len(raw)
        if len(raw) < PAGE_DATA_HEADER.size:
            return None
        count, reserved = PAGE_DATA_HEADER.unpack(raw)
        left = place.length - PAGE_DATA_HEADER.size
        size = count * PFN_WORD_SIZE
        words = _NO_WORDS
        if size <= left and count <= MOST_WORDS:
            raw = yield from self._take(size)
            if len(raw) < size:
                return None
            words = PfnWords(raw)
            left -= size
        data_offset = self.position
        runs: list[tuple[int, bytes]] = []
        if left == words.data_pages * PAGE_SIZE and len(words) == count:
            for first, pages in self.consumer.wants_pages(place, words):
                gap = data_offset + first * PAGE_SIZE - self.position
                if (yield from self._pass(gap)) < gap:
                    return None
                while pages:
                    some = min(pages, PAGES_PER_GIVE)
                    data = yield Give(some * PAGE_SIZE)
                    assert not isinstance(data, int)
                    self.position += len(data)
                    if len(data) < some * PAGE_SIZE:
                        if whole := len(data) // PAGE_SIZE * PAGE_SIZE:
                            self.consumer.pages(words, first, data[:whole])
                        return None
                    kept = self.consumer.pages(words, first, data)
                    if kept is not None:
                        runs.append((first, kept))
                    first += some
                    pages -= some
        rest = place.body + place.length - self.position
        if rest and (yield from self._pass(rest)) < rest:
            return None
        pad = padded(place.length) - place.length
        padding = yield from self._take(pad) if pad else _nothing()
        if len(padding) < pad:
            return None
        return PageData(place, count, reserved, words, tuple(runs), data_offset, padding)


def _nothing() -> Taking:
    return b""
    yield  # what makes it a generator


def drive(
    decoding: Decoding,
    transport: Transport,
    progress: Callable[[int, int | None], None] | None = None,
) -> bool:
    """Answer a decoding's requests from a transport until it is done.

    Parameters
    ----------
    progress:
        called now and then with the position and the total size, where known.

    Returns
    -------
    Whether the end of the stream was reached.
    """
    give, skip = transport.give, transport.skip
    turn = 0
    try:
        request = next(decoding)
        while True:
            answer: Answer = give(request.n) if request.__class__ is Give else skip(request.n)
            request = decoding.send(answer)
            turn += 1
            if progress is not None and not turn & 0x3F:
                progress(transport.position, transport.size)
    except StopIteration as stop:
        return bool(stop.value)


__all__ = ["KNOWN_VERSIONS", "MOST_WORDS", "PAGES_PER_GIVE", "Consumer", "Decoder", "drive"]
