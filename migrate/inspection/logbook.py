"""Where everything in a stream lies: a consumer that notes each header, block and record, and passes it on."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from migrate.toolstack.passes import Round, RoundCounter
from streams.decoder import Consumer
from streams.wire.framing import (
    DOMAIN_HEADER,
    IMAGE_HEADER,
    LIBXL_HEADER,
    RECORD_HEADER,
    XAPI_BLOCK_HEADER,
    XL_HEADER,
    RecordType,
    libxl_record_name,
    record_name,
    xapi_block_name,
)

if TYPE_CHECKING:
    from migrate.toolstack.restore import Restorer
    from streams.legacy import LegacyStream
    from streams.pages import PfnWords
    from streams.records import Damage, LibxlRecord, PageData, Place, Record, XapiBlock
    from streams.wire.framing import DomainHeader, ImageHeader, LibxlHeader, XlHeader


class Layer(StrEnum):
    """Whose format an entry is part of, the outermost first."""

    XAPI = "xapi"
    XL = "xl"
    LIBXL = "libxl"
    LIBXC = "libxc"


class Header(StrEnum):
    """Headers, which have no record type."""

    XL = "xl header"
    LIBXL = "libxl header"
    IMAGE = "image header"
    DOMAIN = "domain header"


# How each layer calls its records; xl has none.
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
    """Notes what passes, some 30 bytes for each, and hands it to the restorer.

    Iterating gives the `Entry`s in stream order.

    Attributes
    ----------
    rounds:
        the passes over the guest's memory; those of records that libxc would refuse count as well.
    damaged:
        where the grammar broke, if it did.
    """

    def __init__(self, restorer: Restorer) -> None:
        self._restorer = restorer
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

    def container(self, name: str) -> None:
        """Passed on."""
        self._restorer.container(name)

    def xl_header(self, header: XlHeader, optional_data: bytes) -> None:
        """Noted; it stands at the very beginning."""
        self._note(Layer.XL, 0, XL_HEADER.size + len(optional_data), _HEADERS.index(Header.XL))
        self._restorer.xl_header(header, optional_data)

    def libxl_header(self, header: LibxlHeader, offset: int) -> None:
        """Noted."""
        self._note(Layer.LIBXL, offset, LIBXL_HEADER.size, _HEADERS.index(Header.LIBXL))
        self._restorer.libxl_header(header, offset)

    def libxl_record(self, record: LibxlRecord) -> None:
        """Noted."""
        self._note(Layer.LIBXL, record.offset, record.length, record.type, record.index)
        self._restorer.libxl_record(record)

    def xapi_block(self, block: XapiBlock) -> None:
        """Noted."""
        # What a libxc block's header gives as its length counts for nothing: the image follows.
        self._note(Layer.XAPI, block.offset, len(block.body) and block.length, block.id, block.index)
        self._restorer.xapi_block(block)

    def legacy(self, stream: LegacyStream) -> None:
        """Passed on."""
        self._restorer.legacy(stream)

    def image_header(self, header: ImageHeader, offset: int) -> None:
        """Noted."""
        self._note(Layer.LIBXC, offset, IMAGE_HEADER.size, _HEADERS.index(Header.IMAGE))
        self._restorer.image_header(header, offset)

    def domain_header(self, header: DomainHeader, offset: int) -> None:
        """Noted."""
        self._note(Layer.LIBXC, offset, DOMAIN_HEADER.size, _HEADERS.index(Header.DOMAIN))
        self._restorer.domain_header(header, offset)

    def wants_body(self, place: Place) -> bool:
        """Noted here, so that a record which the input ends in is in the book as well."""
        self._note(Layer.LIBXC, place.offset, place.length, place.type, place.index)
        return self._restorer.wants_body(place)

    def wants_pages(self, place: Place, words: PfnWords) -> Iterable[tuple[int, int]]:
        """Passed on."""
        return self._restorer.wants_pages(place, words)

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> bytes | None:
        """Passed on."""
        return self._restorer.pages(words, first, data)

    def record(self, record: Record | PageData) -> None:
        """Passed on, its round noted."""
        self._counter.take(record)
        if record.type == RecordType.PAGE_DATA:
            self._rounds[-1] = len(self.rounds) - 1
        self._restorer.record(record)

    def damage(self, damage: Damage) -> None:
        """Noted."""
        self.damaged = damage
        # What of another layer the input ends in was not noted.
        self._cut = damage.rule == "FRM-03" and damage.place is not None
        self._restorer.damage(damage)

    def not_judged(self, reason: str) -> None:
        """Passed on."""
        self._restorer.not_judged(reason)

    def trailing(self, offset: int, length: int) -> None:
        """Passed on."""
        self._restorer.trailing(offset, length)
