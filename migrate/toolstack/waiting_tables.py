"""Page tables of a PV guest as they came, those of several records looked at together.

A record has some twenty, and numpy's calls cost the same for twenty as for hundreds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.guest.newest import among
from migrate.guest.pages import read_pages
from migrate.xen.plainly_sound import by_level
from streams.wire.paging import ENTRIES

if TYPE_CHECKING:
    from streams.records import Place
    from streams.transports import Transport

Pfns = NDArray[np.int64]
Levels = NDArray[np.uint8]
Offsets = NDArray[np.int64]


class Tables:
    """Page tables that are looked at together.

    Attributes
    ----------
    pfns, levels, offsets:
        of each; the offset is that of its contents in the stream.
    contents:
        all of them, one after the other; the same as u64 in `entries`, shape (tables, 512).
    groups:
        those of one level each, the lowest first.
    highest:
        the highest pfn that a present entry names.
    leftovers:
        whether an entry that is not present is not zero.
    """

    def __init__(self, pfns: Pfns, levels: Levels, offsets: Offsets, contents: bytes) -> None:
        self.pfns = pfns
        self.levels = levels
        self.offsets = offsets
        self.contents = contents
        self.entries = np.frombuffer(contents, "<u8").reshape(-1, ENTRIES)
        self.groups = by_level(levels, self.entries)
        self.highest = max([group.highest for group in self.groups], default=0)
        self.leftovers = any(group.leftovers for group in self.groups)

    def but(self, which: NDArray[np.bool_]) -> Tables:
        """Only some of them."""
        return Tables(self.pfns[which], self.levels[which], self.offsets[which], self.entries[which].tobytes())


class WaitingTables:
    """Page tables of some records, each record's looked at with those of the next ones.

    Parameters
    ----------
    transport:
        where their contents can be read again, where they are not kept.
    """

    def __init__(self, transport: Transport | None) -> None:
        self._transport = transport
        self._records: list[tuple[Place, Pfns, Levels, Offsets, bytes]] = []
        self.count = 0

    def add(self, place: Place, pfns: Pfns, levels: Levels, offsets: Offsets, contents: bytes = b"") -> None:
        """The tables of a record, at least one; without contents they are read again."""
        self._records.append((place, pfns, levels, offsets, contents))
        self.count += len(pfns)

    def has_any(self, pfns: Pfns) -> bool:
        """Whether one of some pfns waits."""
        waiting = [waiting for _, waiting, _, _, _ in self._records]
        return bool(waiting) and bool(among(np.concatenate(waiting), pfns).any())

    @property
    def records(self) -> int:
        """How many records brought them."""
        return len(self._records)

    def tables(self) -> Tables:
        """All of them."""
        _, pfns, levels, offsets, contents = zip(*self._records, strict=True)
        where = np.concatenate(offsets)
        kept = b"".join(contents) or read_pages(self._transport, where)
        return Tables(np.concatenate(pfns), np.concatenate(levels), where, kept)

    def by_record(self) -> Iterator[WaitingTables]:
        """Each record's."""
        for record in self._records:
            alone = WaitingTables(self._transport)
            alone.add(*record)
            yield alone

    def place(self, row: int) -> Place:
        """Which record brought one of the tables."""
        ends = list(accumulate(len(pfns) for _, pfns, _, _, _ in self._records))
        return self._records[bisect_right(ends, row)][0]
