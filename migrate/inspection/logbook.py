"""Where everything in a stream lies: a consumer that notes each header, block and record, and passes it on."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from migrate.toolstack.passes import Round, RoundCounter
from streams.decoder import Consumer
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
    Record,
    XapiBlock,
    XlStart,
)
from streams.wire.framing import (
    DOMAIN_HEADER,
    IMAGE_HEADER,
    LIBXL_HEADER,
    RECORD_HEADER,
    XAPI_BLOCK_HEADER,
    XL_HEADER,
    RecordType,
    libxl_record_name,
    padded,
    record_name,
    xapi_block_name,
)
from streams.wire.libvirt import LIBVIRT_HEADER

if TYPE_CHECKING:
    from streams.pages import PfnWords
    from streams.records import Place


class Layer(StrEnum):
    """Whose format an entry is part of, the outermost first."""

    XAPI = "xapi"
    XL = "xl"
    LIBVIRT = "libvirt"
    LIBXL = "libxl"
    LIBXC = "libxc"


class Header(StrEnum):
    """Headers, which have no record type."""

    XL = "xl header"
    LIBVIRT = "libvirt header"
    LIBXL = "libxl header"
    IMAGE = "image header"
    DOMAIN = "domain header"


# How each layer calls its records; xl and libvirt have none.
NAMES: Mapping[Layer, Callable[[int], str]] = {
    Layer.XAPI: xapi_block_name,
    Layer.LIBXL: libxl_record_name,
    Layer.LIBXC: record_name,
}
_LAYERS = tuple(Layer)
_HEADERS = tuple(Header)
_NO_INDEX = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """One header, block or record of a stream.

    Attributes
    ----------
    offset:
        byte offset of its first byte in the (uncompressed) stream.
    length:
        bytes of its body: those after a record's header without padding, or all of a header.
    layer:
        whose format it is part of.
    index:
        its number among the records (or blocks) of its layer, from 0, as findings give it; None for a header.
    type:
        record type or block id; None for a header.
    name:
        what the format calls it.
    round:
        for PAGE_DATA, the pass over the guest's memory it is part of, from 0; None for all else.
    cut:
        whether the input ended inside.
    """

    offset: int
    length: int
    layer: Layer
    index: int | None
    type: int | None
    name: str
    round: int | None = None
    cut: bool = False

    @property
    def body(self) -> int:
        """Byte offset of the body."""
        if self.type is None:
            return self.offset
        return self.offset + (XAPI_BLOCK_HEADER if self.layer is Layer.XAPI else RECORD_HEADER).size

    @property
    def is_pages(self) -> bool:
        """Whether this is a PAGE_DATA record."""
        return self.layer is Layer.LIBXC and self.type == RecordType.PAGE_DATA


class Logbook(Consumer):
    """Notes what passes, some 30 bytes for each, and hands it to another consumer.

    Iterating gives the `Entry`s in stream order.

    Attributes
    ----------
    rounds:
        the passes over the guest's memory; those of records that libxc would refuse count as well.
    damaged:
        where the grammar broke, if it did.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._offsets = array("Q")
        self._lengths = array("Q")
        self._types = array("Q")
        self._indices = array("I")
        self._layers = array("B")
        self._rounds = array("i")
        self._cut = False
        self.rounds: list[Round] = []
        self._counter = RoundCounter(self.rounds)
        self.damaged: Damage | None = None

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, number: int) -> Entry:
        layer = _LAYERS[self._layers[number]]
        index, kind = self._indices[number], self._types[number]
        if index == _NO_INDEX:
            return Entry(self._offsets[number], self._lengths[number], layer, None, None, _HEADERS[kind])
        name = NAMES[layer](kind)
        seen = self._rounds[number]
        cut = self._cut and number in (len(self) - 1, -1)
        return Entry(
            self._offsets[number],
            self._lengths[number],
            layer,
            index,
            kind,
            name,
            seen if seen >= 0 else None,
            cut,
        )

    def __iter__(self) -> Iterator[Entry]:
        return (self[number] for number in range(len(self)))

    def find(self, layer: Layer, index: int) -> Entry | None:
        """The record (or block) of a layer with this index."""
        wanted = _LAYERS.index(layer)
        at = -1
        while True:
            try:
                at = self._indices.index(index, at + 1)
            except ValueError:
                return None
            if self._layers[at] == wanted:
                return self[at]

    def _note(self, layer: Layer, offset: int, length: int, kind: int, index: int = _NO_INDEX) -> None:
        self._offsets.append(offset)
        self._lengths.append(length)
        self._types.append(kind)
        self._indices.append(index)
        self._layers.append(_LAYERS.index(layer))
        self._rounds.append(-1)

    # -- what passes -------------------------------------------------------------------------------

    def event(self, item: Event) -> None:
        """Noted where it stands somewhere, and passed on."""
        match item:
            case Record() | PageData():
                self._counter.take(item)
                if item.type == RecordType.PAGE_DATA:
                    self._rounds[-1] = len(self.rounds) - 1
            case XlStart():
                size = XL_HEADER.size + len(item.optional_data)
                self._note(Layer.XL, item.offset, size, _HEADERS.index(Header.XL))
            case LibvirtStart():
                size = LIBVIRT_HEADER.size + len(item.xml)
                self._note(Layer.LIBVIRT, item.offset, size, _HEADERS.index(Header.LIBVIRT))
            case LibxlStart():
                self._note(Layer.LIBXL, item.offset, LIBXL_HEADER.size, _HEADERS.index(Header.LIBXL))
            case LibxlRecord() if item.missing < RECORD_HEADER.size + padded(item.length):
                self._note(Layer.LIBXL, item.offset, item.length, item.type, item.index)
                self._cut = bool(item.missing)
            case XapiBlock():
                # What a libxc block's header gives as its length counts for nothing: the image follows.
                self._note(Layer.XAPI, item.offset, len(item.body) and item.length, item.id, item.index)
            case ImageStart():
                self._note(Layer.LIBXC, item.offset, IMAGE_HEADER.size, _HEADERS.index(Header.IMAGE))
            case DomainStart():
                self._note(Layer.LIBXC, item.offset, DOMAIN_HEADER.size, _HEADERS.index(Header.DOMAIN))
            case Damage():
                self.damaged = item
                # What of another layer the input ends in was not noted.
                self._cut = item.breach is Breach.RECORD_CUT and item.place is not None
        self._consumer.event(item)

    def wants_body(self, place: Place) -> bool:
        """Noted here, so that a record which the input ends in is in the book as well."""
        self._note(Layer.LIBXC, place.offset, place.length, place.type, place.index)
        return self._consumer.wants_body(place)

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
        """What the consumer behind wants."""
        return self._consumer.wants_pages(place, words)

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        """For the consumer behind."""
        return self._consumer.pages(words, first, data)
