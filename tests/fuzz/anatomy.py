"""Where the pieces of an input lie: headers, records, pages, entries. Best effort: nothing here refuses anything.

Pieces overlap (a record, and each of the pages in it), and whatever is damaged is one last piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple

from streams.qemu_state import walk as walk_state
from streams.wire.framing import (
    DOMAIN_HEADER,
    HVM_SAVE_HEADER,
    IMAGE_HEADER,
    IMAGE_ID,
    IMAGE_MARKER,
    LIBXL_HEADER,
    LIBXL_IDENT,
    PAGE_DATA_HEADER,
    PAGE_SIZE,
    PFN_WORD_SIZE,
    RECORD_HEADER,
    XAPI_BLOCK_HEADER,
    XAPI_LENGTH_UNREAD,
    XAPI_MAGIC,
    XL_HEADER,
    XL_MAGIC,
    LibxlRecordType,
    RecordType,
    XapiBlockId,
    padded,
)
from streams.wire.hvm_names import SaveType
from streams.wire.legacy import CHUNK_KIND, CHUNK_SIZE, INFO_BLOCK, UINT32
from streams.wire.libvirt import LIBVIRT_HEADER, LIBVIRT_MAGIC
from streams.wire.qemu import HEADER as QEMU_HEADER

# Pieces of a hopeless input, or of one that has been multiplied: more are not worth their time.
MOST_PIECES = 4096
IMAGE_START = IMAGE_HEADER.pack(IMAGE_MARKER, IMAGE_ID, 0, 0, 0, 0)[:12]


class Piece(NamedTuple):
    """Bytes start to end; `framed` where they are a u32 type and a u32 length before a body of that length."""

    start: int
    end: int
    framed: bool = False


Pieces = Iterator[Piece]
Anatomy = Callable[[bytes], Pieces]


def _at(layout: Struct, data: bytes, at: int) -> tuple[int, ...] | None:
    return layout.unpack_from(data, at) if at + layout.size <= len(data) else None


class _Walk:
    """One walk through an input, with the place that it has come to."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def step(self, size: int, *, framed: bool = False) -> Piece:
        """The next `size` bytes, as far as there are any."""
        start, self.at = self.at, min(self.at + size, len(self.data))
        return Piece(start, self.at, framed)

    def rest(self) -> Pieces:
        """What is left."""
        if self.at < len(self.data):
            yield self.step(len(self.data))

    def record(self) -> tuple[int, Piece] | None:
        """Type and bytes of the next libxc or libxl record."""
        header = _at(RECORD_HEADER, self.data, self.at)
        return header and (header[0], self.step(RECORD_HEADER.size + padded(header[1]), framed=True))

    def image_headers(self) -> Pieces:
        yield self.step(IMAGE_HEADER.size)
        yield self.step(DOMAIN_HEADER.size)

    def image_records(self, last: frozenset[int]) -> Pieces:
        """libxc's records up to one of these types."""
        while found := self.record():
            kind, piece = found
            yield piece
            if kind == RecordType.PAGE_DATA:
                yield from _pages(self.data, piece)
            if kind in last:
                return

    def libxl_records(self) -> Pieces:
        while found := self.record():
            kind, piece = found
            yield piece
            if kind == LibxlRecordType.LIBXC_CONTEXT:
                yield from self.image_headers()
            if kind in (LibxlRecordType.LIBXC_CONTEXT, LibxlRecordType.CHECKPOINT_END):
                yield from self.image_records(frozenset({RecordType.END, RecordType.CHECKPOINT}))

    def xapi_blocks(self) -> Pieces:
        while header := _at(XAPI_BLOCK_HEADER, self.data, self.at):
            kind, length = header
            yield self.step(XAPI_BLOCK_HEADER.size + (0 if kind in XAPI_LENGTH_UNREAD else length))
            if kind == XapiBlockId.LIBXC:
                yield from self.image_headers()
                yield from self.image_records(frozenset({RecordType.END}))


def _pages(data: bytes, record: Piece) -> Pieces:
    """The words and the pages of a PAGE_DATA record."""
    header = _at(PAGE_DATA_HEADER, data, record.start + RECORD_HEADER.size)
    if header is None:
        return
    words = record.start + RECORD_HEADER.size + PAGE_DATA_HEADER.size
    start = words + header[0] * PFN_WORD_SIZE
    if start > record.end:
        return
    yield Piece(words, start)
    yield from (Piece(at, at + PAGE_SIZE) for at in range(start, record.end - PAGE_SIZE + 1, PAGE_SIZE))


def stream(data: bytes) -> Pieces:
    """Any stream that is recognised by its first bytes."""
    walk = _Walk(data)
    if data.startswith(XAPI_MAGIC):
        yield walk.step(len(XAPI_MAGIC))
        yield from walk.xapi_blocks()
    elif data.startswith(LIBXL_IDENT):
        yield walk.step(LIBXL_HEADER.size)
        yield from walk.libxl_records()
    elif data.startswith(XL_MAGIC):
        header = _at(XL_HEADER, data, 0)
        yield walk.step(XL_HEADER.size)
        yield walk.step(header[-1] if header else 0)
        yield walk.step(LIBXL_HEADER.size)
        yield from walk.libxl_records()
    elif data.startswith(LIBVIRT_MAGIC):
        header = _at(LIBVIRT_HEADER, data, 0)
        yield walk.step(LIBVIRT_HEADER.size)
        yield walk.step(header[2] if header else 0)
        yield walk.step(LIBXL_HEADER.size)
        yield from walk.libxl_records()
    elif data.startswith(IMAGE_START):
        yield from walk.image_headers()
        yield from walk.image_records(frozenset({RecordType.END}))
    yield from walk.rest()


def libxl_payload(data: bytes) -> Pieces:
    """libxl's records, without the header before them."""
    walk = _Walk(data)
    yield from walk.libxl_records()
    yield from walk.rest()


def configured_payload(data: bytes) -> Pieces:
    """The length of xl's optional data or libvirt's XML, they, and libxl's records."""
    walk = _Walk(data)
    length = _at(UINT32, data, 0)
    yield walk.step(UINT32.size)
    yield walk.step(length[0] if length else 0)
    yield from walk.libxl_records()
    yield from walk.rest()


def xapi_payload(data: bytes) -> Pieces:
    """xapi's blocks, without the signature before them."""
    walk = _Walk(data)
    yield from walk.xapi_blocks()
    yield from walk.rest()


def legacy_payload(word: int) -> Anatomy:
    """What follows the first two words of an old PV stream, for a toolstack of this word size."""

    def pieces(data: bytes) -> Pieces:
        walk = _Walk(data)
        length = _at(UINT32, data, 0)
        yield walk.step(UINT32.size)
        end = walk.at + (length[0] if length else 0)
        while walk.at < end and (block := _at(INFO_BLOCK, data, walk.at)):
            yield walk.step(INFO_BLOCK.size + block[1], framed=True)
        while kind := _at(CHUNK_KIND, data, walk.at):
            count = kind[0]
            yield walk.step(CHUNK_KIND.size + (count * word if count > 0 else CHUNK_SIZE.get(count, 0)))
            while count > 0 and walk.at + PAGE_SIZE <= len(data):
                count -= 1
                yield walk.step(PAGE_SIZE)
        yield from walk.rest()

    return pieces


def hvm_context(data: bytes) -> Pieces:
    """The entries of an HVM context."""
    walk = _Walk(data)
    while header := _at(HVM_SAVE_HEADER, data, walk.at):
        yield walk.step(HVM_SAVE_HEADER.size + header[2], framed=True)
        if header[0] == SaveType.END:
            break
    yield from walk.rest()


def log(data: bytes) -> Pieces:
    """A log, line by line."""
    walk = _Walk(data)
    for line in data.splitlines(keepends=True)[:MOST_PIECES]:
        yield walk.step(len(line))
    yield from walk.rest()


def device_model(data: bytes) -> Pieces:
    """The header and the sections of QEMU's state."""
    walk = _Walk(data)
    yield walk.step(QEMU_HEADER.size)
    for section in walk_state(data).sections[:MOST_PIECES]:
        yield walk.step(max(0, section.data + (section.length or 0) - walk.at))
    yield from walk.rest()


def shapeless(data: bytes) -> Pieces:
    """All of it."""
    yield Piece(0, len(data))
