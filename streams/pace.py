"""How fast bytes may go: no more than so many a second, without bursts."""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds: what may go in so long may go in one piece.
GRAIN = 0.1


class Pace:
    """A limit of bytes per second.

    Parameters
    ----------
    rate:
        bytes per second, at least 1.
    """

    def __init__(
        self,
        rate: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._piece = max(1, int(rate * GRAIN))
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    def allowed(self, n: int) -> int:
        """How many of n bytes may go now; waits until some may."""
        wait = self._free_at - self._clock()
        if wait > 0:
            self._sleep(wait)
        return min(n, self._piece)

    def gone(self, n: int) -> None:
        """Take note of bytes that have gone. Time that nothing went in is not made up for."""
        self._free_at = max(self._free_at, self._clock()) + n / self._rate
