"""A guest's memory from far: what kind of pages lie where, by pfn and by machine frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.guest.memory import SENT, room_for
from migrate.inspection.memory.forest import vcpu_roots
from migrate.inspection.reading import NotInStream
from streams.pages import FRAMELESS_TYPES, LEVEL_MASK, TABLE_TYPES, TYPES, PageType, type_name
from streams.wire.paging import PAE_L3_LIMIT

if TYPE_CHECKING:
    from migrate.inspection.reading import Inspection

NEVER_SENT = TYPES  # a kind of its own, behind the page types
KINDS = TYPES + 1
_LEVEL = np.array([kind & LEVEL_MASK if kind in TABLE_TYPES else 0 for kind in range(KINDS)])
_THERE = np.array([kind not in (PageType.XTAB, NEVER_SENT) for kind in range(KINDS)])
_HAS_FRAME = np.array([kind not in (*FRAMELESS_TYPES, NEVER_SENT) for kind in range(KINDS)])
# Table levels whose share of a bin is at least this stand out from its data.
STANDS_OUT = 64
# A stretch in which no page is, all of it XTAB or never sent, is left out where it is at least one part in so many
# of what is shown.
_GAP_SHARE = 8
_MOST_GAPS = 16
_AT_ONCE = 1 << 20


def kind_name(kind: int) -> str:
    """Name of a page type, or of what is none: "never sent"."""
    return "never sent" if kind == NEVER_SENT else type_name(kind)


@dataclass(frozen=True, slots=True)
class Space:
    """A range of frame numbers in bins of equal size; long stretches in which no page is are left out.

    Attributes
    ----------
    step:
        frames per bin, a power of two.
    starts:
        first frame of each bin, ascending, multiples of `step`; shape (bins,).
    end:
        frame after the last one that exists: the last bin may go beyond it.
    counts:
        frames by bin and kind, shape (bins, 17): the sixteen page types, then pfns never sent. In the machine's
        space only the guest's frames count.
    totals:
        frames of each kind, shape (17,), those left out included.
    high_l3s:
        L3 tables of a 32-bit guest that lie above 4 GiB, by bin.
    roots:
        pages that a vcpu's cr3 or cr1 names, by bin.
    """

    step: int
    starts: NDArray[np.int64]
    end: int
    counts: NDArray[np.int64]
    totals: NDArray[np.int64]
    high_l3s: NDArray[np.int64]
    roots: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def dominant(self) -> NDArray[np.int64]:
        """The commonest kind in each bin; -1 for a bin that is empty."""
        return np.where(self.counts.any(axis=1), self.counts.argmax(axis=1), -1)

    @property
    def prominent(self) -> NDArray[np.int64]:
        """What to show of each bin: its highest table level that makes up a 64th of it, else the commonest kind.

        Tables are few, and what a restore fails of: in a large bin they would never be the commonest.
        """
        shown = self.dominant
        size = self.counts.sum(axis=1)
        for level in range(1, 5):
            kinds = np.flatnonzero(level == _LEVEL)
            found = self.counts[:, kinds].sum(axis=1)
            stands_out = (found > 0) & (found * STANDS_OUT >= size)
            commonest = kinds[self.counts[:, kinds].argmax(axis=1)]
            shown = np.where(stands_out, commonest, shown)
        return shown

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Frames left out before a bin: number of the bin, and how many."""
        missing = np.diff(self.starts) - self.step
        return [(at + 1, int(missing[at])) for at in np.flatnonzero(missing).tolist()]

    def bin_of(self, frame: int) -> int | None:
        """Number of the bin in which a frame lies; None for one that is left out or lies beyond."""
        at = int(np.searchsorted(self.starts, frame, "right")) - 1
        return at if at >= 0 and frame < self.starts[at] + self.step else None


@dataclass(frozen=True, slots=True)
class PageMap:
    """What kind of pages lie where.

    Attributes
    ----------
    guest:
        by pfn, from 0 to the highest there is.
    machine:
        by machine frame under the placement, from the lowest of the guest's frames to the highest; None for an HVM
        guest, and where no frame is known. Frames that belong to nobody count as nothing.
    four_gib:
        the first frame above 4 GiB.
    placement:
        name of the placement.
    unplaced:
        pages that should have a machine frame, and nobody knows which.
    beyond:
        pfns that lie too far out to be shown: words that name them, or pfns that are only claimed to exist.
    shift:
        how far every page's machine frame lies above its pfn, where that is the same for all: both spaces then look
        alike. None where it differs, and where no frame is known.
    """

    guest: Space
    machine: Space | None
    placement: str
    unplaced: int = 0
    beyond: int = 0
    four_gib: int = PAE_L3_LIMIT
    shift: int | None = None


def page_map(inspection: Inspection, bins: int = 1024) -> PageMap:
    """A guest's memory in at most so many bins (and one more for each stretch left out).

    Raises
    ------
    NotInStream
        where the stream names no page.
    """
    guest, placement = inspection.guest, inspection.placement
    if guest is None or placement is None:
        kinds, beyond = _last_words(inspection)
        _at_least_one(kinds)
        none = np.zeros(0, np.int64)
        return PageMap(_guest_space(kinds, none, none, bins), None, inspection.report.placement, beyond=beyond)
    kinds = np.where(guest.state & SENT != 0, guest.types, np.uint8(NEVER_SENT))
    _at_least_one(kinds)
    highest = _highest(kinds)
    claimed = guest.max_pfn + 1
    shown = max(highest, min(claimed, room_for(guest.named)))
    kinds = np.concatenate([kinds[:shown], np.full(max(0, shown - len(kinds)), NEVER_SENT, np.uint8)])
    mfns = placement.mfns[: len(kinds)]
    level = _LEVEL[kinds[: len(mfns)]]
    high = np.flatnonzero((level == 3) & (mfns >= PAE_L3_LIMIT)) if guest.width == 4 else np.zeros(0, np.int64)
    roots = np.array([pfn for pfn in vcpu_roots(guest) if pfn < len(kinds)], np.int64)
    by_pfn = _guest_space(kinds, high, roots, bins)
    placed = np.flatnonzero(_HAS_FRAME[kinds[: len(mfns)]] & (mfns >= 0))
    shifts = mfns[placed] - placed
    return PageMap(
        by_pfn,
        _machine_space(mfns, kinds, placed, high, roots, bins) if len(placed) else None,
        placement.name,
        _frames(kinds) - _frames(kinds[placed]),
        max(0, claimed - shown),
        shift=int(shifts[0]) if len(shifts) and np.ptp(shifts) == 0 else None,
    )


def _at_least_one(kinds: NDArray[np.uint8]) -> None:
    if not _highest(kinds):
        raise NotInStream("the stream names no page of the guest's memory")


def _highest(kinds: NDArray[np.uint8]) -> int:
    """One more than the highest pfn that was sent; 0 for none."""
    sent = kinds[::-1] != NEVER_SENT
    return len(kinds) - int(sent.argmax()) if sent.any() else 0


def _frames(kinds: NDArray[np.uint8]) -> int:
    """Pages that have a machine frame."""
    return int(_totals(kinds)[_HAS_FRAME].sum())


def _totals(kinds: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.bincount(kinds, minlength=KINDS)


def _last_words(inspection: Inspection) -> tuple[NDArray[np.uint8], int]:
    """The type of every pfn by the last word that names it, and how many words name one too far out."""
    kinds = np.full(1024, NEVER_SENT, np.uint8)
    named = beyond = 0
    for _, words in inspection.words():
        pfns, types = words.pfns, words.types
        named += len(pfns)
        near = pfns < room_for(named)
        if not near.all():
            beyond += int(np.count_nonzero(~near))
            pfns, types = pfns[near], types[near]
        if not len(pfns):
            continue
        highest = int(pfns.max())
        if highest >= len(kinds):
            more = max(highest + 1, 2 * len(kinds)) - len(kinds)
            kinds = np.concatenate([kinds, np.full(more, NEVER_SENT, np.uint8)])
        kinds[pfns] = types
    return kinds[: _highest(kinds)], beyond


def _guest_space(kinds: NDArray[np.uint8], high: NDArray[np.int64], roots: NDArray[np.int64], bins: int) -> Space:
    there = np.concatenate([[False], _THERE[kinds], [False]])
    edges = np.flatnonzero(there[1:] != there[:-1])
    step, starts = _bins(edges[::2], edges[1::2], 0, len(kinds), bins)
    counts = np.zeros(len(starts) * KINDS, np.int64)
    for first in range(0, len(kinds), _AT_ONCE):
        some = kinds[first : first + _AT_ONCE]
        pfns = np.arange(first, first + len(some))
        at, inside = _within(pfns, starts, step)
        counts += np.bincount(at[inside] * KINDS + some[inside], minlength=len(counts))
    return Space(
        step,
        starts,
        len(kinds),
        counts.reshape(-1, KINDS),
        _totals(kinds),
        _per_bin(high, starts),
        _per_bin(roots, starts),
    )


def _machine_space(
    mfns: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    placed: NDArray[np.int64],
    high: NDArray[np.int64],
    roots: NDArray[np.int64],
    bins: int,
) -> Space:
    ranked = np.sort(mfns[placed])
    breaks = np.flatnonzero(np.diff(ranked) > 1)
    firsts, ends = ranked[np.concatenate([[0], breaks + 1])], ranked[np.concatenate([breaks, [len(ranked) - 1]])] + 1
    step, starts = _bins(firsts, ends, int(ranked[0]), int(ranked[-1]) + 1, bins)
    at = np.searchsorted(starts, mfns[placed], "right") - 1
    counts = np.bincount(at * KINDS + kinds[placed], minlength=len(starts) * KINDS)
    roots = roots[roots < len(mfns)]
    return Space(
        step,
        starts,
        int(ranked[-1]) + 1,
        counts.reshape(-1, KINDS),
        _totals(kinds[placed]),
        _per_bin(mfns[high], starts),
        _per_bin(mfns[roots[mfns[roots] >= 0]], starts),
    )


def _bins(
    firsts: NDArray[np.int64], ends: NDArray[np.int64], first: int, end: int, bins: int
) -> tuple[int, NDArray[np.int64]]:
    """Frames per bin, and the first frame of each, for runs of pages between two frames."""
    bounds = np.concatenate([[first], np.stack([firsts, ends], axis=1).ravel(), [end]]).reshape(-1, 2)
    lengths = bounds[:, 1] - bounds[:, 0]  # of the stretches without pages: before, between and behind the runs
    shown, left_out = end - first, []
    for at in np.argsort(-lengths, kind="stable")[:_MOST_GAPS].tolist():
        if not lengths[at] or lengths[at] * _GAP_SHARE < shown:
            break
        left_out.append(at)
        shown -= int(lengths[at])
    step = 1
    while step * max(bins, 1) < shown:
        step *= 2
    cuts = bounds[sorted(left_out)]
    pieces = np.concatenate([[first], cuts.ravel(), [end]]).reshape(-1, 2)
    found = [np.arange(a // step * step, b, step, dtype=np.int64) for a, b in pieces.tolist() if b > a]
    # Where there are no pages at all, one bin says so.
    return step, np.unique(np.concatenate(found or [np.array([first], np.int64)]))


def _within(
    frames: NDArray[np.int64], starts: NDArray[np.int64], step: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    at = np.maximum(np.searchsorted(starts, frames, "right") - 1, 0)
    return at, (frames >= starts[at]) & (frames < starts[at] + step)


def _per_bin(frames: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    at = np.searchsorted(starts, frames, "right") - 1
    return np.bincount(at[at >= 0], minlength=len(starts))
