"""Which pages of a PV guest its restore looks into: page tables, and what registers, the p2m and tables name.

Sources: `x86_pv_stream_complete` of `xg_sr_restore_x86_pv.c`; `get_page_type` and its kin in `xen/arch/x86/mm.c`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from migrate.judging.check import judge
from migrate.xen.entries import IS_TABLE
from streams.pages import LEVEL_MASK, PFN_MASK, PfnWords
from streams.wire.framing import PAGE_SHIFT
from streams.wire.paging import FRAME_MASK, P
from streams.wire.vcpu import START_INFO_REGISTER, USER_ROOT_VALID, gdt_frames_used

if TYPE_CHECKING:
    from migrate.judging.check import Source
    from migrate.judging.judgement import Judgement

Pfns = NDArray[np.int64]

ROOT_LEVEL = 4
_NONE = np.zeros(0, np.int64)


def levels(words: PfnWords) -> NDArray[np.uint8]:
    """Of each page that comes with the words: its level as a page table, 0 for any other."""
    kinds = words.types[words.has_data]
    return np.where(IS_TABLE[kinds], kinds & LEVEL_MASK, 0).astype(np.uint8)


def frames(entries: NDArray[np.uint64]) -> Pfns:
    """What the present ones of some page-table entries name, each once."""
    present = entries[entries & np.uint64(P) != 0]
    return np.unique((present & np.uint64(FRAME_MASK)) >> np.uint64(PAGE_SHIFT)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Batch:
    """A PAGE_DATA record: pfns and levels of the pages it carries, and where the first of them lies."""

    pfns: Pfns
    levels: NDArray[np.uint8]
    data_offset: int


class Needed:
    """Gathers what names pages while a stream goes by; then asks which pages that makes.

    Attributes
    ----------
    p2m, start_infos, gdts:
        pfns that the p2m list and the contexts name.
    suspects:
        pfns of pages that are no page tables, and that Xen would read as such for what names them.
    """

    def __init__(self) -> None:
        self.p2m: set[int] = set()
        self.start_infos: set[int] = set()
        self.gdts: set[int] = set()
        self.suspects: set[int] = set()
        self._user_mfns: set[int] = set()
        self._by_level: dict[int, set[int]] = {level: set() for level in range(1, ROOT_LEVEL + 1)}
        # Page tables in hand: level, and what those of level 2 and up name.
        self._tables: dict[int, tuple[int, Pfns]] = {}

    def batch(self, batch: Batch, names: dict[int, Pfns]) -> None:
        """Take pages: the newest version of a pfn counts. `names` tells by ordinal what upper tables name."""
        is_table = batch.levels > 0
        for pfn in self._tables.keys() & set(batch.pfns[~is_table].tolist()):
            del self._tables[pfn]
        for ordinal in np.flatnonzero(is_table).tolist():
            self._tables[int(batch.pfns[ordinal])] = int(batch.levels[ordinal]), names.get(ordinal, _NONE)

    def context(self, vcpu: int, context: Any, width: int) -> None:
        """Take what a vcpu_guest_context names."""
        if vcpu == 0:
            self.start_infos.add(int(context["user_regs"][START_INFO_REGISTER[width]]))
        self.gdts.update(context["gdt_frames"][: gdt_frames_used(int(context["gdt_ents"]))].tolist())
        user = int(context["ctrlreg"][1])
        if width == 8 and not user & USER_ROOT_VALID and user:
            self._user_mfns.add(user >> PAGE_SHIFT)

    def settle(self) -> None:
        """A checkpoint, or the end: at this moment the guest would be restored."""
        for level, suspects in self._by_level.items():
            named = [names for above, names in self._tables.values() if above == level + 1]
            if named:
                suspects |= set(np.unique(np.concatenate(named)).tolist()) - self._tables.keys()

    def finish(self, source: Source) -> None:
        """The stream is over: find the suspects."""
        self.settle()
        if self._user_mfns or any(self._by_level[level] for level in range(2, ROOT_LEVEL + 1)):
            judge(source, then=self._follow)
        self.suspects = set().union(*self._by_level.values())

    def _follow(self, judgement: Judgement) -> None:
        """A page that was not sent as a table names what it names by machine frame."""

        guest = judgement.pv_guest
        assert guest is not None
        mfns = guest.source_mfns()
        order = np.argsort(mfns, kind="stable")
        ranked = mfns[order]

        def pfns_of(named: Pfns) -> set[int]:
            """Under the source's placement, and under that where mfn = pfn."""
            at = np.searchsorted(ranked, named)
            inside = at < len(ranked)
            at, known = at[inside], named[inside]
            return {*order[at[ranked[at] == known]].tolist(), *named.tolist()}

        self._by_level[ROOT_LEVEL] |= pfns_of(np.array(sorted(self._user_mfns), np.int64))
        for level in range(ROOT_LEVEL, 1, -1):
            pages = [page for page in guest.store.find(sorted(self._by_level[level])).values() if page is not None]
            if pages:
                self._by_level[level - 1] |= pfns_of(frames(np.frombuffer(b"".join(pages), "<u8")))


def as_array(pfns: set[int]) -> Pfns:
    """Those of some numbers that a pfn word can carry, ascending."""
    return np.array(sorted(pfn for pfn in pfns if 0 <= pfn <= PFN_MASK), np.int64)
