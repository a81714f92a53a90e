"""How many frames a guest needs, against those that libxl lets its domain have.

libxc asks Xen for a frame when a pfn first comes that needs one (`populate_pfns` of `xg_sr_restore.c`). An HVM guest's
are counted without numpy, which its restore does not import.
"""

from __future__ import annotations

import struct
from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING

from migrate.guest.room import room_for
from migrate.rules.declaring import Stage
from streams.pages import FRAMELESS_TYPES, PFN_MASK, TYPE_SHIFT, PageType
from streams.wire.framing import PAGE_SHIFT

if TYPE_CHECKING:
    from migrate.toolstack.session import Session
    from streams.pages import PfnWords
    from streams.records import Place

_KIB_PER_PAGE = (1 << PAGE_SHIFT) >> 10


class FrameCount:
    """Counts, and reports the record that goes beyond the limit (CON-39).

    Attributes
    ----------
    limit:
        pages that the domain may have.
    counting:
        whether there is still something to find out: not once the limit is exceeded, or the pfns are too far apart.
    """

    def __init__(self, session: Session, limit_kib: int) -> None:
        self._session = session
        self.limit = limit_kib // _KIB_PER_PAGE
        self._limit_kib = limit_kib
        self.counting = True
        self._frames = 0
        self._named = 0
        self._seen = bytearray()

    def add(self, fresh: int, place: Place) -> None:
        """So many pfns of a record get a frame."""
        self._frames += fresh
        if self.counting and self._frames > self.limit:
            self.counting = False
            self._session.report(
                "CON-39",
                f"{place.name}: the guest's frames become {self._frames}, and its configuration lets it have "
                f"{self.limit} ({self._limit_kib} KiB of memory, libxl's slack included)",
                place,
                call="populate_physmap",
                errno="EBUSY",
                step=Stage.RECORD,
            )

    def add_words(self, words: PfnWords, place: Place) -> None:
        """The same by pfn words, of which those count that are new and need a frame."""
        count = len(words)
        self._named += count
        first = words.pfn(0)
        if words.raw == struct.pack(f"<{count}Q", *range(first, first + count)):
            # A run without types, as most records are.
            if self._reach(first + count - 1):
                known = self._seen.count(1, first, first + count)
                self._seen[first : first + count] = b"\1" * count
                self.add(count - known, place)
            return
        pfns = _framed(words)
        if pfns and self._reach(max(pfns)):
            known = sum(map(self._seen.__getitem__, pfns))
            deque(map(self._seen.__setitem__, pfns, repeat(1)), maxlen=0)
            self.add(len(pfns) - known, place)

    def _reach(self, pfn: int) -> bool:
        """Make room for a pfn, unless it lies far beyond all that was named."""
        if pfn >= max(room_for(self._named), len(self._seen)):
            self.counting = False
        elif pfn >= len(self._seen):
            self._seen.extend(bytes(max(pfn + 1 - len(self._seen), min(len(self._seen), 1 << 20))))
        return self.counting


def _framed(words: PfnWords) -> set[int]:
    """The pfns that need a frame."""
    raw = struct.unpack(f"<{len(words)}Q", words.raw)
    if not (words.has_tables or words.has_type(PageType.XALLOC) or words.has_reserved_bits):
        return set(filter((1 << TYPE_SHIFT).__gt__, raw))  # pages without a type alone
    return {word & PFN_MASK for word in raw if word >> TYPE_SHIFT not in FRAMELESS_TYPES}
