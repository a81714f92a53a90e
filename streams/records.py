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
    """A PAGE_DATA record: its pfn words, and those page contents somebody asked for.

    `pages` maps the ordinal of a data-carrying page (0 is the first that has data) to 4096 bytes.
    """

    place: Place
    count: int
    reserved: int
    words: PfnWords
    pages: dict[int, bytes]
    padding: bytes = b""

    @property
    def type(self) -> int:
        """Record type number."""
        return RecordType.PAGE_DATA
