"""Pages of one record of an input that cannot be read again, between the look at them and their use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from migrate.guest.pages import PagePool, Pages

Ordinals = NDArray[np.int64]

# As many as a saver's record can have; of more the contents go to the pool.
MOST_AT_HAND = 1024


class LookedAt:
    """Pages by their place among those of the record, in memory while they are few and are not to wait."""

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self._at_hand: dict[int, bytes] = {}
        self._ordinals: list[Ordinals] = []
        self._slots: list[NDArray[np.int64]] = []

    def __len__(self) -> int:
        return len(self._at_hand) + sum(map(len, self._ordinals))

    def put(self, first: int, pages: Pages, rows: NDArray[np.int64]) -> None:
        """Take some pages of a run that begins with a page of the record; later runs come later."""
        for row in rows.tolist():
            self._at_hand[first + row] = pages[row].tobytes()
        if len(self._at_hand) > MOST_AT_HAND:
            self.put_by()

    def put_by(self) -> None:
        """Move all into the pool."""
        if self._at_hand:
            self._ordinals.append(np.fromiter(self._at_hand, np.int64))
            self._slots.append(self._pool.put_all(b"".join(self._at_hand.values())))
            self._at_hand = {}

    def ordinals(self) -> Ordinals:
        """Which pages there are, ascending."""
        return np.concatenate([*self._ordinals, np.fromiter(self._at_hand, np.int64)])

    def contents(self, which: Ordinals) -> bytes:
        """Contents of some of them, one after the other."""
        if not self._slots:
            return b"".join([self._at_hand[one] for one in which.tolist()])
        self.put_by()
        slots = np.concatenate(self._slots)[np.concatenate(self._ordinals).searchsorted(which)]
        return b"".join(map(self._pool.get, slots.tolist()))

    def drop(self) -> None:
        """Forget them."""
        for slots in self._slots:
            for slot in slots.tolist():
                self._pool.drop(slot)
        self._at_hand, self._ordinals, self._slots = {}, [], []
