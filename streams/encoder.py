"""Whole streams as values: every byte of a stream in typed items, and the items back to its bytes.

    stream = decode(data)
    assert encode(stream) == data

The grammar is the decoder's; nothing here knows what follows what. Items are frozen dataclasses, so that
`dataclasses.replace` makes the same stream with one record changed. Lengths and padding follow what is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import singledispatch

from streams.bodies import Body, Opaque, decode_body, encode_body
from streams.decoder import Decoder, drive
from streams.pages import PfnWords
from streams.records import (
    Breach,
    Damage,
    DomainStart,
    Event,
    ImageStart,
    LibvirtStart,
    LibxlRecord,
    LibxlStart,
    PageData,
    Place,
    Record,
    Trailing,
    Unread,
    XapiBlock,
    XapiStart,
    XlStart,
)
from streams.requests import Answer, Decoding, Give, Taking
from streams.transports import PIECE, BytesTransport
from streams.values import dataclass, replace
from streams.wire.framing import (
    DOMAIN_HEADER,
    IMAGE_HEADER,
    LIBXL_HEADER,
    PAGE_DATA_HEADER,
    RECORD_HEADER,
    XAPI_BLOCK_HEADER,
    XAPI_LENGTH_UNREAD,
    XAPI_MAGIC,
    XL_HEADER,
    LibxlRecordType,
    RecordType,
    padded,
)
from streams.wire.libvirt import LIBVIRT_HEADER

# -- what a stream is made of -----------------------------------------------------------------------


class DecodeError(ValueError):
    """The bytes are no well-formed stream.

    Attributes
    ----------
    message:
        what is wrong.
    offset:
        byte offset of what is wrong.
    breach:
        how the grammar is broken; None for a stream of a kind that is not read.
    """

    def __init__(self, message: str, offset: int, breach: Breach | None = None) -> None:
        super().__init__(f"at 0x{offset:x}: {message}")
        self.message = message
        self.offset = offset
        self.breach = breach


Item = (
    XlStart
    | LibvirtStart
    | LibxlStart
    | LibxlRecord
    | XapiStart
    | XapiBlock
    | ImageStart
    | DomainStart
    | Body
    | PageData
    | Trailing
)


@dataclass(frozen=True, slots=True)
class Stream:
    """All of a stream, in its order."""

    items: tuple[Item, ...]

    @property
    def records(self) -> tuple[Body | PageData, ...]:
        """The libxc records."""
        return tuple(item for item in self.items if isinstance(item, Body | PageData))

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def with_item(self, old: Item, new: Item) -> Stream:
        """The same stream with one item in another's place. Raises ValueError if `old` is not in it."""
        at = self.items.index(old)
        return Stream((*self.items[:at], new, *self.items[at + 1 :]))


# -- bytes to items ---------------------------------------------------------------------------------


class Recorder:
    """A consumer that keeps everything: `drive(recorder.run(), transport)`, then `recorder.stream()`.

    Attributes
    ----------
    items:
        what was read so far.
    broken:
        why there is no more; None while all is well.
    """

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.broken: DecodeError | None = None
        self._front: XlStart | LibvirtStart | None = None
        # Bytes that are read and in no item yet, and the offset of their first.
        self._pending = bytearray()
        self._at = 0

    def run(self) -> Decoding:
        """Decode one stream. Every byte is asked for, where a decoder alone would pass over some."""
        decoding = Decoder(self).run()
        try:
            request = next(decoding)
            while True:
                answer: Answer
                if isinstance(request, Give):
                    answer = yield from self._read(request.n)
                else:
                    answer = 0
                    while piece := len((yield from self._read(min(request.n - answer, PIECE)))):
                        answer += piece
                request = decoding.send(answer)
        except StopIteration as stop:
            return bool(stop.value)

    def _read(self, n: int) -> Taking:
        data = yield Give(n)
        assert not isinstance(data, int)
        self._pending += data
        return bytes(data)

    def stream(self) -> Stream:
        """What was recorded. Raises DecodeError where the stream is damaged, or of a kind that is not read."""
        if self.broken is not None and not self._stopped_at_checkpoint():
            raise self.broken
        return Stream(tuple(self.items))

    def _stopped_at_checkpoint(self) -> bool:
        """Whether the stream stops where a capture of a checkpointed one does, and nothing is left over."""
        assert self.broken is not None
        if self._pending or self.broken.offset != self._at or not self.items:
            return False
        last = self.items[-1]
        if isinstance(last, LibxlRecord):
            return last.type == LibxlRecordType.CHECKPOINT_END
        return isinstance(last, Body) and last.type == RecordType.CHECKPOINT

    def _take(self, start: int, end: int) -> bytes:
        """The bytes from offset start to end; all up to there are done with."""
        taken = bytes(self._pending[start - self._at : end - self._at])
        del self._pending[: end - self._at]
        self._at = end
        return taken

    def _padding(self, start: int, length: int) -> bytes:
        return self._take(start + length, start + padded(length))

    # -- streams.decoder.Consumer ------------------------------------------------------------------

    def wants_body(self, place: Place) -> bool:
        """Every body."""
        return True

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
        """Every page."""
        return ((0, words.data_pages),)

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes:
        """Keep them."""
        return bytes(data)

    def event(self, item: Event) -> None:
        """Keep what it says, with all of its bytes."""
        match item:
            case XlStart() | LibvirtStart():
                self._front = item  # only where the libxl header comes all of its configuration has been read
            case XapiStart():
                self._keep(replace(item, signature=self._take(0, len(XAPI_MAGIC))))
            case LibxlStart():
                if isinstance(self._front, XlStart):
                    self._keep(replace(self._front, optional_data=self._take(XL_HEADER.size, item.offset)))
                elif self._front is not None:
                    self._keep(replace(self._front, xml=self._take(LIBVIRT_HEADER.size, item.offset)))
                self._keep(item, LIBXL_HEADER.size)
            case ImageStart():
                self._keep(item, IMAGE_HEADER.size)
            case DomainStart():
                self._keep(item, DOMAIN_HEADER.size)
            case LibxlRecord() if not item.missing:
                start = item.offset + RECORD_HEADER.size
                body = self._take(start, start + item.length)
                self._keep(replace(item, body=body, padding=self._padding(start, item.length)))
            case XapiBlock():
                start = item.offset + XAPI_BLOCK_HEADER.size
                size = 0 if item.id in XAPI_LENGTH_UNREAD else item.length
                self._keep(replace(item, body=self._take(start, start + size)))
            case Record() | PageData():
                self._record(item)
            case Damage():
                self.broken = DecodeError(item.message, item.offset, item.breach)
            case Unread():
                self.broken = DecodeError(item.reason, 0)
            case Trailing():
                self._keep(replace(item, content=self._take(item.offset, item.offset + item.length)))

    def _keep(self, item: Item, size: int = 0) -> None:
        self.items.append(item)
        if size:
            self._take(self._at, self._at + size)

    def _record(self, record: Record | PageData) -> None:
        """Keep the record; a PAGE_DATA that is not made of header, words and whole pages as it is."""
        place = record.place
        raw = self._take(place.body, place.body + place.length)
        self._padding(place.body, place.length)
        if isinstance(record, Record):
            self._keep(decode_body(record))
        elif len(page_data_body(record)) == place.length:
            self._keep(record)
        else:
            self._keep(Opaque(place, raw, padding=record.padding))


def decode(data: bytes | bytearray | memoryview) -> Stream:
    """All of a stream, of any container the decoder reads: libxc, libxl, xl, libvirt, xapi.

    A checkpointed stream may stop after a checkpoint; any other has to be complete.

    Raises
    ------
    DecodeError
        where the bytes break the grammar, or are of a kind that is not read.
    """
    recorder = Recorder()
    drive(recorder.run(), BytesTransport(data))
    return recorder.stream()


# -- items to bytes ---------------------------------------------------------------------------------


def encode(stream: Stream | Iterable[Item]) -> bytes:
    """The bytes of a stream: the inverse of `decode`, for what it returned byte for byte.

    Raises struct.error or OverflowError for a number that does not fit its field.
    """
    return b"".join(map(encode_item, stream))


@singledispatch
def encode_item(item: Item) -> bytes:
    """The bytes of one item, padding included.

    A record's length is that of its body, and its padding zero where the item has none of the right length;
    its offset and index say where it was and are not read.
    """
    raise TypeError(f"no item of a stream: {item!r}")


@encode_item.register
def _(item: XlStart) -> bytes:
    return XL_HEADER.pack(*item.header._replace(optional_data_len=len(item.optional_data))) + item.optional_data


@encode_item.register
def _(item: LibvirtStart) -> bytes:
    return LIBVIRT_HEADER.pack(*item.header._replace(xml_length=len(item.xml))) + item.xml


@encode_item.register
def _(item: LibxlStart) -> bytes:
    return LIBXL_HEADER.pack(*item.header)


@encode_item.register
def _(item: XapiStart) -> bytes:
    return item.signature


@encode_item.register
def _(item: XapiBlock) -> bytes:
    length = item.length if item.id in XAPI_LENGTH_UNREAD else len(item.body)
    return XAPI_BLOCK_HEADER.pack(item.id, length) + item.body


@encode_item.register
def _(item: ImageStart) -> bytes:
    return IMAGE_HEADER.pack(*item.header)


@encode_item.register
def _(item: DomainStart) -> bytes:
    return DOMAIN_HEADER.pack(*item.header)


@encode_item.register
def _(item: LibxlRecord) -> bytes:
    return _framed(item.type, item.body, item.padding)


@encode_item.register
def _(item: Body) -> bytes:
    return _framed(item.type, encode_body(item), item.padding)


@encode_item.register
def _(item: PageData) -> bytes:
    return _framed(item.type, page_data_body(item), item.padding)


@encode_item.register
def _(item: Trailing) -> bytes:
    return item.content


def page_data_body(record: PageData) -> bytes:
    """The body of a PAGE_DATA record, of its words and the pages that were kept."""
    header = PAGE_DATA_HEADER.pack(record.count, record.reserved)
    return b"".join((header, record.words.raw, *(data for _, data in record.runs)))


def _framed(kind: int, body: bytes, padding: bytes) -> bytes:
    missing = padded(len(body)) - len(body)
    if len(padding) != missing:
        padding = bytes(missing)
    return b"".join((RECORD_HEADER.pack(kind, len(body)), body, padding))
