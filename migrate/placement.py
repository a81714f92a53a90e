"""Where frames live on the receiving host: the stream speaks of pfns, the 4 GiB rule of machine frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from migrate.guest import PvGuest

NAMES = ("source", "high", "low", "identity")
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


@dataclass(frozen=True, slots=True)
class Placement:
    """Machine frame of every pfn.

    Attributes
    ----------
    mfns:
        int64, shape (capacity,); -1 where unknown.
    exact:
        whether the numbers are those of a real host, so that another frame's number can be looked up in them.
    """

    name: str
    mfns: NDArray[np.int64]
    exact: bool

    def mfn(self, pfn: int) -> int:
        """Machine frame of a pfn, -1 where unknown."""
        return int(self.mfns[pfn]) if 0 <= pfn < len(self.mfns) else -1

    def pfns_of(self, mfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """The guest's pfns behind machine frames, -1 where a frame is not the guest's.

        Under `high` and `low` no foreign number is ever taken for one of the guest's.
        """
        import numpy as np

        found = np.full(len(mfns), -1, np.int64)
        if self.exact:
            order = np.argsort(self.mfns, kind="stable")
            ranked = self.mfns[order]
            at = np.searchsorted(ranked, mfns)
            inside = at < len(ranked)
            hit = np.zeros(len(mfns), np.bool_)
            hit[inside] = ranked[at[inside]] == mfns[inside]
            found[hit] = order[at[hit]]
        return found

    @property
    def shared_info_is_high(self) -> bool:
        """Whether a domain's shared_info may be expected at or above 4 GiB: on hosts that hand out high frames."""
        return self.name == "high"


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

    from migrate.guest import INVALID_MFN
    from migrate.paging import PAE_L3_LIMIT

    count = len(guest.types)
    pfns = np.arange(count, dtype=np.int64)
    if name == "source":
        return Placement(name, guest.source_mfns(), exact=True)
    if name == "high":
        return Placement(name, pfns + PAE_L3_LIMIT, exact=False)
    if name == "low":
        return Placement(name, pfns % PAE_L3_LIMIT, exact=False)
    if name == "identity":
        return Placement(name, pfns, exact=True)
    check_name(name)
    mfns = np.full(count, INVALID_MFN, np.int64)
    for number, line in enumerate(Path(name[len(FILE_PREFIX) :]).read_text("utf-8", "replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            pfn, mfn = (int(word, 0) for word in words)
        except ValueError:
            raise ValueError(f"{name}: line {number}: expected 'pfn mfn', found {line.strip()[:60]!r}") from None
        if 0 <= pfn < count:
            mfns[pfn] = mfn
    return Placement(name, mfns, exact=True)
