"""Where a PV guest's pages lie: runs of pfns with consecutive frames, on its source and under a placement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.guest.memory import FRAMED
from migrate.inspection.reading import NotInStream
from streams.wire.paging import PAE_L3_LIMIT

if TYPE_CHECKING:
    from migrate.inspection.reading import Inspection

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of neighbouring pfns whose machine frames are neighbours too, cut at 4 GiB.

    Attributes
    ----------
    pfns, counts, mfns:
        shape (runs,): first pfn, how many, and the first one's machine frame, -1 where none of them has one.
    """

    pfns: NDArray[np.int64]
    counts: NDArray[np.int64]
    mfns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pfns)

    def sum(self, chosen: NDArray[np.bool_]) -> int:
        """Pages in some of the runs."""
        return int(self.counts[chosen].sum())

    @property
    def above(self) -> int:
        """Pages above 4 GiB."""
        return self.sum(self.mfns >= PAE_L3_LIMIT)

    @property
    def below(self) -> int:
        """Pages below 4 GiB."""
        return self.sum((self.mfns >= 0) & (self.mfns < PAE_L3_LIMIT))

    @property
    def unknown(self) -> int:
        """Pages of which nobody knows the frame, or that have none."""
        return self.sum(self.mfns == UNKNOWN)

    @property
    def span(self) -> tuple[int, int] | None:
        """Lowest and highest machine frame; None where none is known."""
        known = self.mfns >= 0
        if not known.any():
            return None
        return int(self.mfns[known].min()), int((self.mfns[known] + self.counts[known]).max()) - 1


@dataclass(frozen=True, slots=True)
class Placed:
    """A guest's p2m.

    Attributes
    ----------
    placement:
        name of the placement.
    source:
        runs on the host that saved the guest, as its own p2m pages say.
    target:
        runs under the placement.
    p2m_pages:
        pfns of the pages that hold the p2m, in its order; -1 where the stream has not said.
    entries_per_page:
        how many pfns each of them covers.
    frames:
        pages that libxc allocates: those that need a machine frame.
    """

    placement: str
    source: Runs
    target: Runs
    p2m_pages: NDArray[np.int64]
    entries_per_page: int
    frames: int


def runs(mfns: NDArray[np.int64]) -> Runs:
    """Machine frames by pfn as runs, those without one (-1) too; nothing is left out."""
    if not len(mfns):
        none = np.zeros(0, np.int64)
        return Runs(none, none, none)
    before, after = mfns[:-1], mfns[1:]
    on = np.where(before == UNKNOWN, after == UNKNOWN, (after == before + 1) & (after != PAE_L3_LIMIT))
    starts = np.flatnonzero(np.concatenate([[True], ~on]))
    return Runs(starts, np.diff(np.concatenate([starts, [len(mfns)]])), mfns[starts])


def placed(inspection: Inspection) -> Placed:
    """Where a PV guest's pages came from, and where they would lie.

    Raises
    ------
    NotInStream
        for any other guest, and where the stream names no page.
    """
    guest, placement = inspection.guest, inspection.placement
    if guest is None or placement is None:
        raise NotInStream("there is no p2m: only a PV guest has one in its stream")
    count = min(len(guest.types), guest.max_pfn + 1)
    if not count:
        raise NotInStream("there is no p2m: the stream names no page")
    source = guest.source_mfns()[:count]
    return Placed(
        placement.name,
        runs(source),
        runs(np.where(guest.state[:count] & FRAMED != 0, placement.mfns[:count], UNKNOWN)),
        guest.p2m_frames,
        guest.frames_per_page,
        int(np.count_nonzero(guest.state[:count] & FRAMED)),
    )
