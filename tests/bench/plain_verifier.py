"""A verifier as one writes it without much thought: every record read whole, every pfn word checked in a loop.

It stands in for the verifier that Xen ships, where that is not installed.

    python tests/bench/plain_verifier.py FILE
"""

from __future__ import annotations

import struct
import sys
from typing import BinaryIO

from streams.wire.framing import (
    DOMAIN_HEADER,
    IMAGE_HEADER,
    IMAGE_ID,
    IMAGE_MARKER,
    PAGE_DATA_HEADER,
    PAGE_SHIFT,
    PAGE_SIZE,
    PFN_WORD_SIZE,
    RECORD_HEADER,
    RecordType,
    padded,
)

RESERVED = 0xFF << 52
UNDEFINED_TYPES = (5, 6, 7, 8)
TYPES_WITHOUT_DATA = (13, 14, 15)


def require(condition: bool, what: str) -> None:
    """Give up unless a condition holds."""
    if not condition:
        raise SystemExit(f"bad stream: {what}")


def exactly(stream: BinaryIO, size: int) -> bytes:
    """The next bytes, all of them."""
    data = stream.read(size)
    require(len(data) == size, "truncated")
    return data


def verify(stream: BinaryIO) -> None:
    """Check a libxc image up to its END record."""
    marker, image_id, version, options, *reserved = IMAGE_HEADER.unpack(exactly(stream, IMAGE_HEADER.size))
    require(marker == IMAGE_MARKER and image_id == IMAGE_ID, "not an image header")
    require(version in (2, 3) and options == 0 and not any(reserved), "image header fields")
    _, page_shift, reserved_field, _, _ = DOMAIN_HEADER.unpack(exactly(stream, DOMAIN_HEADER.size))
    require(page_shift == PAGE_SHIFT and reserved_field == 0, "domain header fields")
    kind = None
    while kind != RecordType.END:
        kind, length = RECORD_HEADER.unpack(exactly(stream, RECORD_HEADER.size))
        require(kind in list(RecordType), "record type")
        body = exactly(stream, padded(length))
        require(not any(body[length:]), "padding")
        if kind == RecordType.PAGE_DATA:
            verify_page_data(body[:length])
        elif kind == RecordType.END:
            require(length == 0, "END has a body")


def verify_page_data(body: bytes) -> None:
    """Check one PAGE_DATA body word by word."""
    require(len(body) > PAGE_DATA_HEADER.size, "PAGE_DATA too short")
    count, reserved = PAGE_DATA_HEADER.unpack_from(body)
    require(reserved == 0, "PAGE_DATA reserved field")
    end_of_words = PAGE_DATA_HEADER.size + count * PFN_WORD_SIZE
    require(len(body) >= end_of_words, "PAGE_DATA count")
    pages = 0
    for word in struct.unpack_from(f"<{count}Q", body, PAGE_DATA_HEADER.size):
        kind = word >> 60
        require(not word & RESERVED, "reserved bits of a pfn word")
        require(kind not in UNDEFINED_TYPES, "page type")
        if kind not in TYPES_WITHOUT_DATA:
            pages += 1
    require(len(body) == end_of_words + pages * PAGE_SIZE, "PAGE_DATA length")


if __name__ == "__main__":
    with open(sys.argv[1], "rb", buffering=0) as file:
        verify(file)
