"""Where frames live on the receiving host: the stream speaks of pfns, the 4 GiB rule of machine frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from streams.wire.framing import PAGE_SHIFT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from migrate.guest.memory import PvGuest

SOURCE = "source"
NAMES = (SOURCE, "high", "low", "identity")
FILE_PREFIX = "file:"


def check_name(name: str) -> str:
    """Validate a placement's name.

    Raises
    ------
    ValueError
        for anything but source, high, low, identity or file:MAP.
    """
    if name not in NAMES and not name.startswith(FILE_PREFIX):
        raise ValueError(f"unknown placement {name!r}; expected {', '.join(NAMES)} or {FILE_PREFIX}MAP")
    return name


class Placement:
    """Machine frame of every pfn.

    Parameters
    ----------
    frames:
        makes them when they are first asked for: int32 or int64, shape (capacity,), -1 where unknown.
    exact:
        whether the numbers are those of a real host, so that another frame's number can be looked up in them.
    rule:
        tells the frame of any pfn below a limit, where that takes no array of them.
    """

    def __init__(
        self,
        name: str,
        frames: Callable[[], NDArray[np.signedinteger]],
        *,
        exact: bool,
        rule: tuple[Callable[[int], int], int] | None = None,
    ) -> None:
        self.name = name
        self.exact = exact
        self._frames = frames
        self._rule = rule

    @cached_property
    def mfns(self) -> NDArray[np.signedinteger]:
        """int32 or int64, shape (capacity,); -1 where unknown."""
        return self._frames()

    @cached_property
    def _ranking(self) -> tuple[NDArray[np.int64], NDArray[np.signedinteger]]:
        """Pfns in the order of their frames, where those are known, and the frames in that order."""
        known = (self.mfns >= 0).nonzero()[0]
        order = known[self.mfns[known].argsort(kind="stable")]
        return order, self.mfns[order]

    def mfn(self, pfn: int) -> int:
        """Machine frame of a pfn, -1 where unknown."""
        if self._rule is not None:
            frame, count = self._rule
            return frame(pfn) if 0 <= pfn < count else -1
        return int(self.mfns[pfn]) if 0 <= pfn < len(self.mfns) else -1

    def pfns_of(self, mfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """The guest's pfns behind machine frames, -1 where a frame is not the guest's.

        Under `high` and `low` no foreign number is ever taken for one of the guest's.
        """
        import numpy as np

        found = np.full(len(mfns), -1, np.int64)
        if self._rule is not None and self.exact:
            return np.where(mfns < self._rule[1], mfns, -1)
        if self.exact:
            order, ranked = self._ranking
            # Numbers of another size would have the whole array converted each time.
            fits = (mfns >= 0) & (mfns <= np.iinfo(ranked.dtype).max)
            at = np.where(fits, np.searchsorted(ranked, mfns.astype(ranked.dtype)), len(ranked))
            inside = at < len(ranked)
            hit = np.zeros(len(mfns), np.bool_)
            hit[inside] = ranked[at[inside]] == mfns[inside]
            found[hit] = order[at[hit]]
        return found


def place(name: str, guest: PvGuest) -> Placement:
    """The placement of that name for a guest.

    `source` recovers the frames from the guest's own p2m; `high` and `low` put every frame above or below
    4 GiB; `identity` takes pfn for mfn; `file:MAP` reads "pfn mfn" lines (numbers in Python notation, # comments).

    Raises
    ------
    ValueError
        for an unknown name, or a map that is not readable as one.
    OSError
        for a map file that cannot be opened.
    """
    import numpy as np

    from migrate.guest.memory import INVALID_MFN
    from streams.wire.paging import FRAME_MASK, PAE_L3_LIMIT

    count = len(guest.types)
    if name == SOURCE:
        return Placement(name, guest.source_mfns, exact=True)
    rules: dict[str, Callable[[Any], Any]] = {
        "high": lambda pfns: pfns + PAE_L3_LIMIT,
        "low": lambda pfns: pfns % PAE_L3_LIMIT,
        "identity": lambda pfns: pfns,
    }
    if (rule := rules.get(name)) is not None:
        return Placement(
            name, lambda: rule(np.arange(count, dtype=np.int64)), exact=name == "identity", rule=(rule, count)
        )
    check_name(name)
    mfns = np.full(count, INVALID_MFN, np.int64)
    from pathlib import Path

    for number, line in enumerate(Path(name[len(FILE_PREFIX) :]).read_text("utf-8", "replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            pfn, mfn = (int(word, 0) for word in words)
        except ValueError:
            raise ValueError(f"{name}: line {number}: expected 'pfn mfn', found {line.strip()[:60]!r}") from None
        if pfn < 0 or not 0 <= mfn <= FRAME_MASK >> PAGE_SHIFT:
            raise ValueError(f"{name}: line {number}: no host has such a frame: {line.strip()[:60]!r}")
        if 0 <= pfn < count:
            mfns[pfn] = mfn
    return Placement(name, lambda: mfns, exact=True)
