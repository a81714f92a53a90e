"""Pages that did not come as page tables, and that Xen reads as such because a table names them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.guest.memory import DATA
from migrate.xen.entries import IS_TABLE
from streams.pages import LEVEL_MASK
from streams.wire.framing import PAGE_SHIFT
from streams.wire.paging import FRAME_MASK, P

if TYPE_CHECKING:
    from migrate.destination.placement import Placement
    from migrate.guest.memory import PvGuest

# Entries whose targets are looked at together.
AT_ONCE = 256


class UntypedPages:
    """Finds them. Where that means to decode the input once more, all that may be needed next are gathered first.

    What tables of the upper levels name may be read as a table; and then what that names in turn, one level down.
    So the input is decoded once more, and again for each further level at which such a page stands above another.
    """

    def __init__(self, guest: PvGuest, placement: Placement) -> None:
        self._guest = guest
        self._placement = placement

    def contents(self, pfn: int) -> bytes | None:
        """What a page holds; None where that was not kept."""
        store = self._guest.store
        if store.may_fetch and not store.is_at_hand(pfn):
            wanted = np.zeros(len(self._guest.types), np.bool_)
            wanted[pfn] = True
            for named in self._named():
                wanted[named[(named >= 0) & (named < len(wanted))]] = True
            wanted &= self._guest.state & DATA != 0
            store.fetch(np.flatnonzero(wanted))
        return store.find([pfn])[pfn]

    def _named(self) -> Iterator[NDArray[np.int64]]:
        """Pfns that tables of the upper levels name, or, once those are fetched, what they name."""
        guest, store = self._guest, self._guest.store
        if len(fetched := store.fetched()):
            for _, pages in store.found_batches(fetched, AT_ONCE):
                yield self._placement.pfns_of(_frames(pages))
            return
        tables, _ = store.tables()
        kinds = guest.types[tables]
        upper = tables[IS_TABLE[kinds] & (kinds & LEVEL_MASK > 1)]
        for _, pages in store.table_batches(upper, AT_ONCE):
            yield _frames(pages)


def _frames(pages: NDArray[np.uint64]) -> NDArray[np.int64]:
    named: NDArray[np.uint64] = pages[pages & np.uint64(P) != 0] & np.uint64(FRAME_MASK)
    return (named >> np.uint64(PAGE_SHIFT)).astype(np.int64)
