"""One page of a guest, or the body of one record, out of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from migrate.inspection.logbook import Layer
from streams.pages import PFN_MASK
from streams.wire.framing import PAGE_DATA_HEADER, PAGE_SIZE, PFN_WORD_SIZE, RecordType

if TYPE_CHECKING:
    from migrate.inspection import Entry, Inspection

# Bytes of a body read in one go. A compressed stream is decoded again for each piece.
_PIECE = 16 << 20


def page(inspection: Inspection, pfn: int) -> bytes | None:
    """A page of the guest as its receiver would have it: what a raw image has at pfn * 4096.

    None where it never came with contents. What VERIFY and checkpoints mean is told in `memory`.
    """
    if pfn > PFN_MASK:
        return None
    places = []
    for entry, words in inspection.words(islice(inspection.log, _that_count(inspection))):
        start = PAGE_DATA_HEADER.size + len(words) * PFN_WORD_SIZE
        if entry.length == start + words.data_pages * PAGE_SIZE:
            hits = np.flatnonzero(words.pfns[words.has_data] == pfn)
            places += [entry.body + start + hit * PAGE_SIZE for hit in hits.tolist()]
    for place in reversed(places):
        contents = inspection.read([(place, PAGE_SIZE)])[0]
        if len(contents) == PAGE_SIZE:  # else the input ends in it
            return contents
    return None


def _that_count(inspection: Inspection) -> int:
    """How many entries of the logbook stand before the last checkpoint, if there is one, and before VERIFY."""
    last = len(inspection.log)
    for number, entry in enumerate(inspection.log):
        if entry.layer is Layer.LIBXC and entry.type == RecordType.VERIFY:
            return min(last, number)
        if entry.layer is Layer.LIBXC and entry.type == RecordType.CHECKPOINT:
            last = number
    return last


def record_body(inspection: Inspection, entry: Entry) -> Iterator[bytes]:
    """The body of a record or block in pieces, as far as the input has it."""
    at = 0
    while at < entry.length and (piece := inspection.read([(entry.body + at, min(_PIECE, entry.length - at))])[0]):
        yield piece
        at += len(piece)
