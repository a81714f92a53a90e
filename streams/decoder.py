"""The grammar of a stream, sans I/O.

The decoder asks and a transport answers: `Give(n)` for the next n bytes, `Skip(n)` to pass over them. An
answer shorter than asked means that the input ended. What the bytes say goes to a `Consumer`, which also
decides which bodies and which pages are worth having; all others are passed over and never enter Python.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Protocol

from streams.pages import PfnWords
from streams.records import (
    Breach,
    Damage,
    DomainStart,
    Event,
    ImageStart,
    LibxlRecord,
    LibxlStart,
    PageData,
    Place,
    Recognised,
    Record,
    Trailing,
    Unread,
    XapiBlock,
    XapiStart,
    XlStart,
)
from streams.requests import Answer, Decoding, Give, Request, Skip, Taking
from streams.wire.framing import (
    DOMAIN_HEADER,
    EMULATOR_HEADER,
    IMAGE_HEADER,
    IMAGE_ID,
    IMAGE_MARKER,
    LIBXL_HEADER,
    LIBXL_IDENT,
    LIBXL_OPTION_BIG_ENDIAN,
    LIBXL_VERSION,
    MIGRATE_BANNER,
    OPTION_BIG_ENDIAN,
    PAGE_DATA_HEADER,
    PAGE_SIZE,
    PFN_WORD_SIZE,
    RECORD_HEADER,
    XAPI_BLOCK_HEADER,
    XAPI_LEGACY_MAGIC,
    XAPI_LENGTH_UNREAD,
    XAPI_MAGIC,
    XL_FLAG_LIBXL_V2,
    XL_HEADER,
    XL_MAGIC,
    DomainHeader,
    ImageHeader,
    LibxlHeader,
    LibxlRecordType,
    PageDataHeader,
    RecordType,
    XapiBlockId,
    XlHeader,
    padded,
)
from streams.wire.legacy import RECOGNISED_BY, recognise
from streams.wire.qemu import HEAD_SIZE

if TYPE_CHECKING:
    from streams.transports import Transport

# Pages asked for in one go: bounds the buffer a transport needs, however long a run is.
PAGES_PER_GIVE = 256
# Pfn words of one record that are read: 256 times as many as a saver writes.
MOST_WORDS = 1 << 18
# A libxl record or xapi block that could be worth keeping whole is at most this long; the device model's is not.
LIBXL_BODY_LIMIT = 16 << 20

# Versions whose framing is known, whatever a given release accepts.
KNOWN_VERSIONS = (2, 3)


class Consumer(Protocol):
    """Who is told what the stream says, in its order."""

    def event(self, item: Event) -> None:
        """One thing that the stream says, or that is to be said of it."""

    def wants_body(self, place: Place) -> bool:
        """A record header was read: is its body worth having?"""

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
        """Runs (first ordinal, pages) of a PAGE_DATA record's data pages worth having, ascending."""

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        """Contents of data pages from ordinal `first` on, valid until this returns; what of it goes into the record.

        Of a record that the input ends in, the pages that came whole are told; no record follows.
        """


class Decoder:
    """One stream's decoding: run it with `drive`, or send answers to `run()` yourself.

    Parameters
    ----------
    consumer:
        who is told.
    drain:
        whether to pass over what follows the end of the stream (to count it), or to leave it unread.
    """

    def __init__(self, consumer: Consumer, *, drain: bool = True) -> None:
        self.consumer = consumer
        self.drain = drain
        self.position = 0
        self.ended = False
        self._libxc_index = 0

    # -- asking ------------------------------------------------------------------------------------

    def _take(self, n: int) -> Taking:
        data = yield Give(n)
        assert not isinstance(data, int)
        self.position += len(data)
        return bytes(data)

    def _pass(self, n: int) -> Generator[Request, Answer, int]:
        passed = (yield Skip(n)) if n else 0
        assert isinstance(passed, int)
        self.position += passed
        return passed

    def _damaged(
        self, breach: Breach, message: str, offset: int, place: Place | None = None, reader: str = "libxc"
    ) -> bool:
        self.consumer.event(Damage(breach, message, offset, place, reader))
        return False

    # -- containers --------------------------------------------------------------------------------

    def run(self) -> Decoding:
        """Decode one stream from its first byte; returns whether its end was reached."""
        complete = yield from self._container()
        if complete:
            self.ended = True
            end = self.position
            if self.drain:
                passed = 1
                while passed:
                    passed = yield from self._pass(1 << 30)
                if self.position > end:
                    self.consumer.event(Trailing(end, self.position - end))
        return complete

    def _container(self) -> Decoding:
        head = yield from self._take(8)
        if not head:
            return self._damaged(
                Breach.IMAGE_HEADER_CUT, "the input is empty; expected the 24-byte image header of a stream", 0
            )
        if head == XAPI_MAGIC[:8]:
            return (yield from self._xapi(head))
        if head == MIGRATE_BANNER[:8] and (yield from self._take(len(MIGRATE_BANNER) - 8)) == MIGRATE_BANNER[8:]:
            self.consumer.event(Recognised("banner"))
            self.consumer.event(Unread("the greeting of xl migrate-receive: this is the back direction of a migration"))
            return False
        if head == XL_MAGIC[:8]:
            return (yield from self._xl(head))
        if head == LIBXL_IDENT:
            self.consumer.event(Recognised("libxl"))
            return (yield from self._libxl(head))
        if len(head) == 8:
            head += yield from self._take(RECOGNISED_BY - 8)
        if head[:8] == b"\xff" * len(head[:8]) or head[8:12] == IMAGE_ID.to_bytes(4, "big"):
            self.consumer.event(Recognised("libxc"))
            return (yield from self._libxc(head))
        if recognise(head):
            self.consumer.event(Recognised("legacy"))
            return (yield from self._legacy(head))
        self.consumer.event(Recognised("unknown"))
        self.consumer.event(Unread("not a Xen stream: it begins with " + head[:8].hex(" ")))
        return False

    def _legacy(self, head: bytes, inside: str = "") -> Decoding:
        """A stream from before 4.6, as far as it says what it is; never complete, for it is not judged."""
        head += yield from self._take(RECOGNISED_BY - len(head))
        self.consumer.event(Unread(f"a pre-4.6 stream{inside}"))
        kind = recognise(head)
        if kind is not None:
            from streams.legacy import LegacyReader

            self.consumer.event((yield from LegacyReader(kind, head, self._take, self._pass).run()))
        return False

    def _xapi(self, head: bytes) -> Decoding:
        head += yield from self._take(len(XAPI_MAGIC) - len(head))
        if head == XAPI_LEGACY_MAGIC:
            self.consumer.event(Recognised("xapi-legacy"))
            return (yield from self._legacy(b"", " in a xapi suspend image"))
        self.consumer.event(Recognised("xapi"))
        if head != XAPI_MAGIC:
            return self._damaged(Breach.XAPI_SIGNATURE, f"the signature is {head!r}; expected {XAPI_MAGIC!r}", 0)
        self.consumer.event(XapiStart(0))
        index = 0
        while True:
            start = self.position
            raw = yield from self._take(XAPI_BLOCK_HEADER.size)
            if len(raw) < XAPI_BLOCK_HEADER.size:
                what = _cut("a block header", raw, XAPI_BLOCK_HEADER.size) if raw else "no End_of_image block here"
                return self._damaged(Breach.RECORD_HEADER_CUT if raw else Breach.NO_END, what, start, reader="xapi")
            kind, length = XAPI_BLOCK_HEADER.unpack(raw)
            size = 0 if kind in XAPI_LENGTH_UNREAD else length
            body = yield from self._take(min(size, HEAD_SIZE if kind == XapiBlockId.QEMU_TRAD else LIBXL_BODY_LIMIT))
            got = len(body) + (yield from self._pass(size - len(body)))
            if got < size:
                what = f"the input ends in block {index} (id {kind:#x}): {got} of {size} bytes"
                return self._damaged(Breach.RECORD_CUT, what, start, reader="xapi")
            self.consumer.event(XapiBlock(start, index, kind, length, body))
            index += 1
            if kind == XapiBlockId.END_OF_IMAGE:
                return True
            if kind == XapiBlockId.LIBXC_LEGACY:
                return (yield from self._legacy(b"", " in a xapi suspend image"))
            if kind == XapiBlockId.LIBXC and not (yield from self._libxc(b"")):
                return False

    def _xl(self, head: bytes) -> Decoding:
        self.consumer.event(Recognised("xl"))
        head += yield from self._take(XL_HEADER.size - len(head))
        if len(head) < XL_HEADER.size:
            return self._damaged(
                Breach.XL_MAGIC, f"the input ends in the {XL_HEADER.size}-byte xl header", self.position
            )
        header = XlHeader._make(XL_HEADER.unpack(head))
        if header.magic != XL_MAGIC:
            return self._damaged(Breach.XL_MAGIC, "the xl magic does not match in all of its 32 bytes", 0)
        size = header.optional_data_len
        optional = yield from self._take(min(size, LIBXL_BODY_LIMIT))
        self.consumer.event(XlStart(0, header, optional))
        got = len(optional) + (yield from self._pass(max(0, size - LIBXL_BODY_LIMIT)))
        if got < size:
            return self._damaged(
                Breach.OPTIONAL_DATA_CUT,
                f"the input ends in the optional data: {got} of {size} bytes",
                self.position,
            )
        if not header.mandatory_flags & XL_FLAG_LIBXL_V2:
            return (yield from self._legacy(b"", " in an xl file"))
        start = self.position
        head = yield from self._take(8)
        if head != LIBXL_IDENT:
            return self._damaged(
                Breach.NO_LIBXL_STREAM,
                f"the payload begins with {head.hex(' ')}; expected a libxl stream (LibxlFmt)",
                start,
            )
        return (yield from self._libxl(head))

    def _libxl(self, head: bytes) -> Decoding:
        start = self.position - len(head)
        head += yield from self._take(LIBXL_HEADER.size - len(head))
        if len(head) < LIBXL_HEADER.size:
            return self._damaged(
                Breach.LIBXL_HEADER_CUT, f"the input ends in the {LIBXL_HEADER.size}-byte libxl header", start
            )
        header = LibxlHeader._make(LIBXL_HEADER.unpack(head))
        self.consumer.event(LibxlStart(start, header))
        if header.version != LIBXL_VERSION:
            return self._damaged(
                Breach.LIBXL_VERSION, f"libxl version {header.version}; expected {LIBXL_VERSION}", start + 8
            )
        if header.options & LIBXL_OPTION_BIG_ENDIAN:
            return self._damaged(
                Breach.LIBXL_BIG_ENDIAN, "the libxl stream is big-endian, which no x86 host can read", start + 12
            )
        index = 0
        image = None  # the libxc image, while it is interrupted by a checkpoint
        while True:
            start = self.position
            raw = yield from self._take(RECORD_HEADER.size)
            if len(raw) < RECORD_HEADER.size:
                return self._damaged(
                    Breach.RECORD_HEADER_CUT, _cut("a libxl record header", raw, RECORD_HEADER.size), start
                )
            kind, length = RECORD_HEADER.unpack(raw)
            keep = length
            if kind == LibxlRecordType.EMULATOR_CONTEXT or length > LIBXL_BODY_LIMIT:
                keep = min(length, EMULATOR_HEADER.size + HEAD_SIZE)
            body = yield from self._take(keep)
            passed = yield from self._pass(padded(length) - keep)
            if len(body) + passed < padded(length):
                return self._damaged(
                    Breach.RECORD_CUT,
                    f"the input ends in libxl record {index} (type {kind}): "
                    f"{len(body) + passed} of {padded(length)} bytes",
                    start,
                )
            self.consumer.event(LibxlRecord(start, index, kind, length, body[:length]))
            index += 1
            if kind == LibxlRecordType.END:
                return True
            if kind == LibxlRecordType.LIBXC_CONTEXT:
                first = self.position
                image = yield from self._image_headers((yield from self._take(IMAGE_HEADER.size)), first)
                if not image:
                    return False
            elif kind != LibxlRecordType.CHECKPOINT_END or not image:
                continue
            ended = yield from self._records(inside_libxl=True)
            if ended is None:
                continue  # a checkpoint: libxl's turn
            if not ended:
                return False
            image = None

    def _libxc(self, head: bytes) -> Decoding:
        start = self.position - len(head)
        head += yield from self._take(IMAGE_HEADER.size - len(head))
        if not (yield from self._image_headers(head, start)):
            return False
        return bool((yield from self._records(inside_libxl=False)))

    def _image_headers(self, head: bytes, start: int) -> Decoding:
        if len(head) < IMAGE_HEADER.size:
            return self._damaged(Breach.IMAGE_HEADER_CUT, _cut("the image header", head, IMAGE_HEADER.size), start)
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
            return self._damaged(Breach.DOMAIN_HEADER_CUT, _cut("the domain header", head, DOMAIN_HEADER.size), start)
        self.consumer.event(DomainStart(start, DomainHeader._make(DOMAIN_HEADER.unpack(head))))
        return True

    # -- libxc records -----------------------------------------------------------------------------

    def _records(self, *, inside_libxl: bool) -> Generator[Request, Answer, bool | None]:
        """Decode records up to END (True), damage (False), or a CHECKPOINT that hands over to libxl (None)."""
        consumer = self.consumer
        while True:
            start = self.position
            raw = yield from self._take(RECORD_HEADER.size)
            if len(raw) < RECORD_HEADER.size:
                if raw:
                    return self._damaged(
                        Breach.RECORD_HEADER_CUT, _cut("a record header", raw, RECORD_HEADER.size), start
                    )
                return self._damaged(Breach.NO_END, "the stream stops here, without an END record", start)
            place = Place(start, self._libxc_index, *RECORD_HEADER.unpack(raw))
            self._libxc_index += 1
            record: Record | PageData | None
            if place.type == RecordType.PAGE_DATA and place.length >= PAGE_DATA_HEADER.size:
                consumer.wants_body(place)
                record = yield from self._page_data(place)
            else:
                record = yield from self._body(place, consumer.wants_body(place))
            if record is None:
                return self._damaged(
                    Breach.RECORD_CUT,
                    f"the input ends in record {place.index} {place.name}: "
                    f"{self.position - place.body} of {padded(place.length)} bytes",
                    start,
                    place,
                )
            consumer.event(record)
            if place.type == RecordType.END:
                return True
            if place.type == RecordType.CHECKPOINT and inside_libxl:
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
        raw = yield from self._take(PAGE_DATA_HEADER.size)
        if len(raw) < PAGE_DATA_HEADER.size:
            return None
        header = PageDataHeader._make(PAGE_DATA_HEADER.unpack(raw))
        left = place.length - PAGE_DATA_HEADER.size
        size = header.count * PFN_WORD_SIZE
        words = PfnWords(b"")
        if size <= left and header.count <= MOST_WORDS:
            raw = yield from self._take(size)
            if len(raw) < size:
                return None
            words = PfnWords(raw)
            left -= size
        data_offset = self.position
        runs: list[tuple[int, bytes]] = []
        if left == words.data_pages * PAGE_SIZE and len(words) == header.count:
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
        if (yield from self._pass(rest)) < rest:
            return None
        pad = padded(place.length) - place.length
        padding = yield from self._take(pad) if pad else _nothing()
        if len(padding) < pad:
            return None
        return PageData(place, header.count, header.reserved, words, tuple(runs), data_offset, padding)


def _nothing() -> Taking:
    return b""
    yield  # what makes it a generator


def _cut(what: str, got: bytes, size: int) -> str:
    return f"the input ends in {what}: {len(got)} of {size} bytes"


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
