"""The VERIFY phase: pages sent once more, to be compared with what the guest's memory holds.

libxc compares and logs; it changes nothing. A difference points at dirty tracking that missed a write, or at
something that wrote to guest memory behind the log. Source: `process_page_data` of `xg_sr_restore.c`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.guest.memory import room_for
from migrate.rules.findings import TOLD_PER_RULE
from streams.pages import type_name
from streams.wire.framing import PAGE_SIZE

if TYPE_CHECKING:
    from migrate.rules.findings import Collector
    from streams.pages import PfnWords
    from streams.records import PageData
    from streams.transports import Transport

WORDS = PAGE_SIZE // 8
# Odd factors make every word of a page matter to its digest, whichever word it is.
_FACTORS = np.random.default_rng(0x58454E).integers(0, 1 << 63, WORDS, np.uint64) * np.uint64(2) + np.uint64(1)
UNKNOWN = -1


class VerifyPhase:
    """A digest of every page before VERIFY, and where it lies where the input can be read again.

    Parameters
    ----------
    transport:
        for the first differing byte; None or a pipe goes without.
    """

    def __init__(self, collector: Collector, transport: Transport | None) -> None:
        self._collector = collector
        self._transport = transport
        self._digests: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._offsets: NDArray[np.int64] = np.zeros(0, np.int64)
        self._read: list[NDArray[np.uint64]] = []  # digests of the record being read, in order
        self._named = 0
        self._told = 0

    def begin(self) -> None:
        """The next record; one that was refused leaves nothing behind."""
        self._read.clear()

    def look(self, data: bytes | memoryview) -> None:
        """Take contents of the record's next data pages."""
        pages = np.frombuffer(data, "<u8").reshape(-1, WORDS)
        self._read.append((pages * _FACTORS).sum(axis=1, dtype=np.uint64))

    def record(self, record: PageData, *, verifying: bool) -> None:
        """A record is complete: keep its digests, or compare them with those kept."""
        words: PfnWords = record.words
        if not self._read:
            return
        pfns = words.pfns[words.has_data]
        digests = np.concatenate(self._read)
        offsets = record.data_offset + PAGE_SIZE * np.arange(len(pfns))
        if verifying:
            self._compare(record, pfns, digests, offsets)
            return
        self._named += len(pfns)
        size = int(pfns.max()) + 1
        most = room_for(self._named)
        if size > most:
            return  # far beyond anything sent: not worth arrays of that size
        if size > len(self._digests):
            more = max(size, min(2 * len(self._digests), most)) - len(self._digests)
            self._digests = np.concatenate([self._digests, np.zeros(more, np.uint64)])
            self._offsets = np.concatenate([self._offsets, np.full(more, UNKNOWN, np.int64)])
        self._digests[pfns] = digests
        self._offsets[pfns] = offsets

    def _compare(
        self, record: PageData, pfns: NDArray[np.int64], digests: NDArray[np.uint64], offsets: NDArray[np.int64]
    ) -> None:
        known = pfns < len(self._offsets)
        known[known] = self._offsets[pfns[known]] != UNKNOWN
        differs = np.flatnonzero(known)[self._digests[pfns[known]] != digests[known]]
        if not len(differs):
            return
        at = int(differs[0])
        pfn = int(pfns[at])
        kind = int(record.words.types[record.words.has_data][at])
        byte = self._first_difference(int(self._offsets[pfn]), int(offsets[at]))
        self._collector.report(
            "XRC-46",
            f"verify: pfn {pfn:#x} ({type_name(kind)}) differs from what was sent before VERIFY"
            + (f", first at byte {byte:#x}" if byte is not None else ""),
            record.place,
            offset=int(offsets[at]) + (byte or 0),
            pfn=pfn,
            count=len(differs),
        )

    def _first_difference(self, before: int, after: int) -> int | None:
        """Told of the first findings alone, and of compressed input, which is decoded once more for it, of one."""
        self._told += 1
        if self._transport is None or self._told > (TOLD_PER_RULE if self._transport.rereads else 1):
            return None
        pieces = self._transport.reread([(before, PAGE_SIZE), (after, PAGE_SIZE)])
        if pieces is None:
            return None
        one, other = (np.frombuffer(piece, np.uint8) for piece in pieces)
        return int(np.argmax(one != other)) if len(one) == len(other) else None
