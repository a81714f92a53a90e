"""What the receiver has in hand of a PV guest: page types, frames, page contents, vcpus.

Arrays are indexed by pfn and grow with the highest pfn that the stream really names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.guest.stash import Stash
from streams.pages import LEVEL_MASK, PIN_BIT, are_tables
from streams.values import dataclass, field
from streams.wire.framing import P2M_HEADER, PAGE_SIZE
from streams.wire.vcpu import CONTEXT, PAE_EXTENDED_CR3, cr3_to_pfn
from streams.wire.views import view

if TYPE_CHECKING:
    from migrate.guest.pages import PageStore
    from migrate.guest.stash import Kept
    from streams.records import Place

# Bits of `PvGuest.state`.
SENT = 1  # named by a PAGE_DATA record
DATA = 2  # came with contents
FRAMED = 4  # libxc has allocated a frame
REFERENCED = 8  # allocated only because a page table names it
MAPPED = 16  # an L1 that came maps it writable; newer versions of that L1 need not
TABLE = 32  # its newest contents came as a page table
SUSPECT = 64  # and Xen may refuse an entry of that, or take notice of it
FAR = 128  # and that names pfns beyond the arrays

# Arrays may be this large before the stream has named many pfns; after that, so many times as large as named, or as
# the file has pages.
FREE_PFNS = 1 << 20
PFNS_PER_NAMED = 3
PFNS_PER_PAGE = 3

INVALID_MFN = -1
MOST_INT32 = (1 << 31) - 1
# Pfns that are looked at together, where arrays over all of them are not worth their memory.
PFNS_AT_ONCE = 1 << 20


def in_parts(count: int) -> Iterator[slice]:
    """Some thousands of pfns after the other, from 0 to before `count`."""
    return (slice(start, min(start + PFNS_AT_ONCE, count)) for start in range(0, count, PFNS_AT_ONCE))


def which(count: int, test: Callable[[slice], NDArray[np.bool_]]) -> NDArray[np.int64]:
    """The pfns below `count` for which a test of slices of them holds."""
    found = [part.start + np.flatnonzero(test(part)) for part in in_parts(count)]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def room_for(named: int) -> int:
    """How many pfns arrays may cover once a stream has named so many of them, one by one."""
    return max(FREE_PFNS, PFNS_PER_NAMED * named)


class TooSparseError(Exception):
    """A stream names a pfn far beyond anything it has sent; tracking it would cost memory the stream never held."""

    def __init__(self, pfn: int, named: int) -> None:
        super().__init__(f"pfn {pfn:#x} lies far beyond the {named} pfns named so far: too sparse to judge")


@dataclass(slots=True)
class Vcpu:
    """A vcpu's records as they came, by part: contents without the 8-byte header."""

    parts: dict[str, Kept] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)

    @property
    def basic(self) -> bytes | None:
        """The context; None where there is none."""
        return self.parts["basic"].load() if "basic" in self.parts else None


class PvGuest:
    """A PV guest as libxc's restore reconstructs it.

    Attributes
    ----------
    types:
        page type of every pfn, uint8, shape (capacity,): the last record that names it wins, 0 where none does.
    state:
        what has become of every pfn, bits SENT to FAR: uint8, shape (capacity,).
    p2m_frames:
        pfn of each page of the guest's p2m, int64; -1 where the stream has not said.

    Parameters
    ----------
    to_come:
        how many pages the input can hold; 0 where its size is not known.
    """

    def __init__(self, store: PageStore, to_come: int = 0) -> None:
        self.store = store
        self._to_come = to_come
        self.width = 8
        self.levels = 4
        self.max_pfn = 0
        self.types: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.state: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.p2m_frames: NDArray[np.int64] = np.zeros(0, np.int64)
        self.vcpus: dict[int, Vcpu] = {}
        self.stash = Stash()  # of the vcpus' state
        self.shared_info: bytes | None = None
        self.named = 0
        self._source_mfns: NDArray[np.signedinteger] | None = None

    def forget_placement(self) -> None:
        """Memory has changed: the p2m has to be read again."""
        self._source_mfns = None

    @property
    def frames(self) -> int:
        """How many frames libxc has given it."""
        return sum(
            int(np.count_nonzero(self.state[part] & (FRAMED | REFERENCED))) for part in in_parts(len(self.state))
        )

    @property
    def frames_per_page(self) -> int:
        """Entries of the guest's p2m in one page."""
        return PAGE_SIZE // self.width

    @property
    def room(self) -> int:
        """How many pfns the arrays may cover by now."""
        return max(room_for(self.named), PFNS_PER_PAGE * self._to_come, len(self.types))

    def reach(self, pfn: int) -> None:
        """Grow the arrays so that they cover a pfn.

        Raises
        ------
        TooSparseError
            where that would cost far more memory than the stream has named pfns.
        """
        size = len(self.types)
        if pfn < size:
            return
        if pfn >= self.room:
            raise TooSparseError(pfn, self.named)
        new = max(pfn + 1, min(2 * size, self.max_pfn + 1), 1024)
        self.types = np.concatenate([self.types, np.zeros(new - size, np.uint8)])
        self.state = np.concatenate([self.state, np.zeros(new - size, np.uint8)])

    def give_frames(self, named: NDArray[np.int64], *, writable: bool = False) -> tuple[NDArray[np.int64], int]:
        """Tables name these pfns, or L1s map them writable: those without a frame are given one.

        Returns
        -------
        Those, as often as they are named, and the bits that were set of any pfn.
        """
        before = self.state.take(named)
        done = FRAMED | MAPPED if writable else FRAMED
        fresh = named[:0]
        if len(named) and int(np.bitwise_and.reduce(before)) & done != done:
            wanting = (before & done != done).nonzero()[0]
            which, old = named.take(wanting), before.take(wanting)
            without = old & FRAMED == 0
            self.state[which] = old | np.where(without, np.uint8(done | REFERENCED), np.uint8(done))
            fresh = which.compress(without)
        return fresh, int(np.bitwise_or.reduce(before))

    def type_of(self, pfn: int) -> int:
        """Page type as libxc has it: 0 for a pfn nobody named."""
        return int(self.types[pfn]) if 0 <= pfn < len(self.types) else 0

    def has_frame(self, pfn: int) -> bool:
        """Whether libxc has allocated a frame for a pfn."""
        return bool(0 <= pfn < len(self.state) and self.state[pfn] & FRAMED)

    def came_with_data(self, pfn: int) -> bool:
        """Whether the stream ever carried contents for a pfn."""
        return bool(0 <= pfn < len(self.state) and self.state[pfn] & DATA)

    def pinned(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Pfns to pin, ascending, and the level of each (`pin_pagetables`)."""
        pfns = which(min(len(self.types), self.max_pfn + 1), self._pinned)
        return pfns, np.bitwise_and(self.types[pfns], LEVEL_MASK, dtype=np.uint8)

    def _pinned(self, part: slice) -> NDArray[np.bool_]:
        types = self.types[part]
        pinned: NDArray[np.bool_] = are_tables(types) & (types & PIN_BIT != 0)
        return pinned

    @property
    def extended_cr3(self) -> bool | None:
        """Whether vcpu 0 says that the guest has enabled pae_extended_cr3; None where there is no vcpu 0."""
        vcpu0 = self.vcpus.get(0)
        if vcpu0 is None or vcpu0.basic is None:
            return None
        return bool(int(view(CONTEXT[self.width], vcpu0.basic)["vm_assist"]) & PAE_EXTENDED_CR3)

    @property
    def roots(self) -> dict[int, int]:
        """pfn of the page table under each vcpu's cr3, by vcpu id."""
        return {
            index: cr3_to_pfn(int(view(CONTEXT[self.width], vcpu.basic)["ctrlreg"][3]), self.width)
            for index, vcpu in sorted(self.vcpus.items())
            if vcpu.basic is not None
        }

    def source_mfns(self) -> NDArray[np.signedinteger]:
        """Source mfn of every pfn, from the guest's own p2m pages, once all records are in.

        int32, or int64 where a frame needs it, shape (capacity,), -1 where unknown.

        The p2m pages are guest data that travels unmodified (`update_guest_p2m` overwrites them last), so they
        hold the frames of the host that saved the guest. Entries with Linux's foreign or identity bit, and those
        of pfns that came without data, mean no frame.
        """
        if self._source_mfns is not None and len(self._source_mfns) == len(self.types):
            return self._source_mfns
        per_page = self.frames_per_page
        count = len(self.types)
        listed = self.p2m_frames[: -(-count // per_page)]
        mfns: NDArray[np.signedinteger] = np.full(-(-count // per_page) * per_page, INVALID_MFN, np.int32)
        for rows, pages in self._p2m_entries(listed):
            if mfns.dtype == np.int32 and pages.max(initial=0) > MOST_INT32:
                mfns = mfns.astype(np.int64)
            mfns.reshape(-1, per_page)[rows] = pages
        mfns = mfns[:count]
        for some in in_parts(count):
            mfns[some][self.state[some] & DATA == 0] = INVALID_MFN
        self._source_mfns = mfns
        return mfns

    def source_mfn(self, pfn: int) -> int:
        """The same of one pfn, for which no more than a page of the p2m is read."""
        if self._source_mfns is not None:
            return int(self._source_mfns[pfn]) if 0 <= pfn < len(self._source_mfns) else INVALID_MFN
        page, at = divmod(pfn, self.frames_per_page)
        if not self.came_with_data(pfn) or page >= len(self.p2m_frames):
            return INVALID_MFN
        pages = self._p2m_entries(self.p2m_frames[page : page + 1])
        # Nothing is found of a page that never came.
        return next((int(mfns[0, at]) for rows, mfns in pages if rows), INVALID_MFN)

    def _p2m_entries(self, listed: NDArray[np.int64]) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
        """Entries of pages of the p2m: where in a list of them they stand, and shape (pages, frames_per_page)."""
        for rows, pages in self.store.found_batches(listed):
            entries = pages.view("<u4") if self.width == 4 else pages
            foreign = entries >> (30 if self.width == 4 else 62) != 0
            yield rows, np.where(foreign, INVALID_MFN, entries.astype(np.int64))


UNSET = -1


def read_p2m_frames(body: bytes, known: NDArray[np.int64], start: int, end: int) -> NDArray[np.int64]:
    """Store a record's pfns in slots start..end-1 of the list, growing it where needed.

    Parameters
    ----------
    known:
        the list so far: pfns, int64, `UNSET` where nothing was said.

    Returns
    -------
    The new list. A pfn of 2^63 or more reads as `UNSET`: no guest has it.
    """
    frames = np.full(max(len(known), end), UNSET, np.int64)
    frames[: len(known)] = known
    frames[start:end] = np.frombuffer(body, "<i8", offset=P2M_HEADER.size)
    return np.maximum(frames, UNSET)
