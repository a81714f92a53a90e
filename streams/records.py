"""What the decoder hands out: records as frozen dataclasses, each with its place in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.wire.framing import RecordType, record_name

if TYPE_CHECKING:
    from streams.pages import PfnWords


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands: file offset of its header, index among its layer's records, type, body length."""

    offset: int
    index: int
    type: int
    length: int

    @property
    def name(self) -> str:
        """Record type by name, or as a hexadecimal number."""
        return record_name(self.type)

    @property
    def body(self) -> int:
        """File offset of the body."""
        return self.offset + 8


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that break the grammar, so that nothing after them can be read as the format says.

    `rule` is the id of the rule that names the damage.
    """

    rule: str
    message: str
    offset: int
    place: Place | None = None
    reader: str = "libxc"  # whose reader would have met it


@dataclass(frozen=True, slots=True)
class LibxlRecord:
    """A libxl record; of a device model's blob only the beginning is kept."""

    offset: int
    index: int
    type: int
    length: int
    body: bytes
    padding: bytes = b""


@dataclass(frozen=True, slots=True)
class XapiBlock:
    """A block of a xapi suspend image; of large ones only the beginning is kept.

    A libxc image that follows is not part of its block. `length` is what the block's header says.
    """

    offset: int
    index: int
    id: int
    length: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """Any libxc record but PAGE_DATA, its body as raw bytes (None where nobody wanted it)."""

    place: Place
    body: bytes | None
    padding: bytes = b""

    @property
    def type(self) -> int:
        """Record type number."""
        return self.place.type


@dataclass(frozen=True, slots=True)
class PageData:
    """A PAGE_DATA record: its pfn words, and those page contents somebody asked for and kept.

    `runs` holds (ordinal, contents) pairs: the ordinal counts data-carrying pages from 0, the contents are
    a whole number of pages that follow one another. `data_offset` is where page 0's contents lie in the file.
    """

    place: Place
    count: int
    reserved: int
    words: PfnWords
    runs: tuple[tuple[int, bytes], ...]
    data_offset: int
    padding: bytes = b""

    @property
    def type(self) -> int:
        """Record type number."""
        return RecordType.PAGE_DATA
