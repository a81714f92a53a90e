"""A stream in its items: read, taken apart, and counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.bodies import Body, VcpuBasic
from streams.decoder import drive
from streams.encoder import Item, Recorder, encode
from streams.opening import open_transport
from streams.records import LibxlRecord, PageData, Trailing
from streams.transports import BytesTransport, TransportError
from streams.wire.framing import LibxlRecordType, record_name

if TYPE_CHECKING:
    from migrate.judging.check import Source

Items = tuple[Item, ...]
# Bytes of a stream that are read, and of what nobody reads because a restore stops before it.
LONGEST, TAIL = 1 << 30, 1 << 20
CHANGED = "the file was changed while it was read"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a stream is made of.

    Attributes
    ----------
    records:
        number of records by name, libxl's under their own.
    pfns, pages:
        pfn words in all rounds, and those of them that come with a page.
    """

    bytes: int
    records: dict[str, int]
    pfns: int
    pages: int
    vcpus: int


def read_whole(source: Source) -> bytes:
    """A stream, uncompressed, with the beginning of what follows where its restore stops: that may have no end.

    Raises
    ------
    OSError, TransportError
        for an input that cannot be read, or is changed meanwhile, and for a stream that is too long to be held in
        memory.
    """
    data = bytearray()
    before = state_of(source)
    with open_transport(source) as transport:

        def read(n: int) -> bytes | memoryview:
            nonlocal data
            piece = transport.give(n)
            data += piece
            if len(data) > LONGEST:
                raise TransportError(f"more than {LONGEST >> 20} MiB, and all of it would be in memory", len(data))
            return piece

        recording = Recorder().run()
        with suppress(StopIteration):
            request = next(recording)
            while True:
                request = recording.send(read(request.n))
        end = len(data) + TAIL
        while len(data) < end and read(end - len(data)):
            pass
    if state_of(source) != before:
        raise TransportError(CHANGED, len(data))
    return bytes(data)


def state_of(source: Source) -> tuple[int, int] | None:
    """What is another once a file has been changed; None for what is no file that has a name."""
    if not isinstance(source, str | os.PathLike) or not os.path.isfile(source):
        return None
    known = os.stat(source)
    return known.st_size, known.st_mtime_ns


def taken_apart(data: bytes) -> Items:
    """A stream in its items; what cannot be read of a damaged one is its last item, a `Trailing`."""
    recorder = Recorder()
    drive(recorder.run(), BytesTransport(data))
    items = tuple(recorder.items)
    read = len(encode(items))
    return (*items, Trailing(read, len(data) - read, data[read:])) if read < len(data) else items


def contents(items: Sequence[Item]) -> Contents:
    """What a stream is made of."""
    records: Counter[str] = Counter()
    for item in items:
        if isinstance(item, LibxlRecord):
            known = item.type in list(LibxlRecordType)
            records[f"libxl {LibxlRecordType(item.type).name if known else hex(item.type)}"] += 1
        elif isinstance(item, Body | PageData):
            records[record_name(item.type)] += 1
    pages = [item for item in items if isinstance(item, PageData)]
    return Contents(
        bytes=len(encode(items)),
        records=dict(records),
        pfns=sum(len(item.words) for item in pages),
        pages=sum(item.words.data_pages for item in pages),
        vcpus=len({item.vcpu_id for item in items if isinstance(item, VcpuBasic)}),
    )
