"""Pages of one record of an input that cannot be read again, between the look at them and their use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from migrate.guest.pages import PagePool, Pages, Slots

Ordinals = NDArray[np.int64]

# As many as a saver's record can have; of more the contents go to the pool.
MOST_AT_HAND = 1024

_NONE = np.zeros(0, np.int64)


class LookedAt:
    """Pages by their place among those of the record, in memory while they are few and are not to wait."""

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self._at_hand: list[tuple[Ordinals, Pages]] = []
        self._put_by: list[tuple[Ordinals, Slots]] = []

    def __len__(self) -> int:
        return sum(len(ordinals) for ordinals, _ in (*self._at_hand, *self._put_by))

    def put(self, first: int, pages: Pages, rows: Ordinals) -> None:
        """Take some pages of a run that begins with a page of the record; later runs come later."""
        if len(rows):
            self._at_hand.append((rows + first, pages[rows]))
        if sum(len(ordinals) for ordinals, _ in self._at_hand) > MOST_AT_HAND:
            self.put_by()

    def put_by(self) -> None:
        """Move all into the pool."""
        self._put_by += [(ordinals, self._pool.put_all(pages.tobytes())) for ordinals, pages in self._at_hand]
        self._at_hand = []

    def ordinals(self) -> Ordinals:
        """Which pages there are, ascending."""
        return np.concatenate([_NONE, *(ordinals for ordinals, _ in (*self._put_by, *self._at_hand))])

    def contents(self, which: Ordinals) -> bytes:
        """Contents of some of them, ascending, one after the other."""
        if self._put_by:
            self.put_by()
            slots = np.concatenate([slots for _, slots in self._put_by])[self.ordinals().searchsorted(which)]
            return b"".join(map(self._pool.get, slots.tolist()))
        if len(self._at_hand) > 1:
            self._at_hand = [(self.ordinals(), np.concatenate([pages for _, pages in self._at_hand]))]
        return b"".join(
            (pages if len(which) == len(ordinals) else pages[ordinals.searchsorted(which)]).tobytes()
            for ordinals, pages in self._at_hand
        )

    def drop(self) -> None:
        """Forget them."""
        for _, slots in self._put_by:
            for slot in slots.tolist():
                self._pool.drop(slot)
        self._at_hand, self._put_by = [], []
