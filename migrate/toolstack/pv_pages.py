"""What libxc's restore does with the pages of a PV guest, record by record.

Sources: `handle_page_data` and `populate_pfns` of `xg_sr_restore.c`, `x86_pv_localise_page` of
`xg_sr_restore_x86_pv.c`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.destination import releases
from migrate.guest.looked_at import LookedAt
from migrate.guest.memory import DATA, FAR, FRAMED, SENT, TABLE, PvGuest, TooSparseError
from migrate.guest.newest import among, distinct
from migrate.guest.pages import PagePool, PageStore, read_pages
from migrate.rules.declaring import SIGABRT
from migrate.toolstack.waiting_tables import Tables, WaitingTables
from migrate.xen.entries import GDT_HEAD, L1TF_SAFE, look_like_gdts
from migrate.xen.plainly_sound import SoundnessTally, by_level
from streams.pages import DATALESS_TYPES, FRAMELESS_TYPES, LEVEL_MASK, TABLE_TYPES, PfnWords, type_marks
from streams.records import PageData, Place, Record
from streams.values import replace
from streams.wire.framing import PAGE_DATA_HEADER, PAGE_SIZE
from streams.wire.paging import ENTRIES, FRAME_MASK, PSE
from streams.wire.start_info import MAGIC_PREFIX

if TYPE_CHECKING:
    from migrate.toolstack.session import Session

Pfns = NDArray[np.int64]
Mask = NDArray[np.bool_]

# How often a compressed stream is decoded once more for pages that were not kept. Xen follows tables four levels down.
MOST_DECODINGS = 16
# Page tables that are looked at together: those of some ten records of a saver's.
TABLES_AT_ONCE = 112

_NO_PFNS = np.zeros(0, np.int64)
_MAGIC = np.uint64(int.from_bytes(MAGIC_PREFIX, "little"))
# What a word makes of its pfn, in a VERIFY phase and else.
_VERIFIED = type_marks(lambda kind: SENT if kind in FRAMELESS_TYPES else SENT | FRAMED)
_TAKEN = type_marks(
    lambda kind: _VERIFIED[kind << 4] | (0 if kind in DATALESS_TYPES else DATA) | (TABLE if kind in TABLE_TYPES else 0)
)
_IS_TABLE = type_marks(lambda kind: kind in TABLE_TYPES)


class PvPages:
    """The memory of a PV guest, as its PAGE_DATA records make it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.report = session.report
        transport = session.transport
        rereads = transport is not None and transport.rereads
        store = PageStore(transport, rereads=rereads, patience=MOST_DECODINGS)
        self._guest = PvGuest(store, (transport.size or 0) // PAGE_SIZE if transport is not None and rereads else 0)
        self._tally = SoundnessTally(self._guest)
        self._tables = WaitingTables(transport)
        session.collector.settle = self._look_at_waiting
        self._peeks = not rereads
        self._pool = PagePool()
        self._looked_at = LookedAt(self._pool)  # of the record that is being read
        self._waiting: dict[int, LookedAt] = {}  # of records that wait for a checkpoint, by their offsets
        self._awaited = 0  # which checkpoint
        self._sure: Mask = np.zeros(0, np.bool_)  # its pages that are kept whatever they hold
        self._p2m_of = self._p2m_in_order = self._guest.p2m_frames  # as they came, and ascending
        self._p2m_known = False
        self._leftovers = False  # REC-29 has been told
        self._far = False  # there are tables that name pfns beyond the arrays

    @property
    def guest(self) -> PvGuest:
        """What the receiver has in hand, of all records so far."""
        self._look_at_waiting()
        return self._guest

    @property
    def tally(self) -> SoundnessTally:
        """Notes on its page tables, of all records so far."""
        self._look_at_waiting()
        return self._tally

    # -- as a record is read -----------------------------------------------------------------------

    def wants_pages(self, words: PfnWords) -> Iterable[tuple[int, int]]:
        """Everything, where nothing can be read again; else nothing yet."""
        if not self._peeks:
            return ()
        self._looked_at.drop()  # what a record that was refused has left
        if not words.data_pages:
            return ()
        # Of the others, p2m pages are known by their pfn; what else is remarkable, by how it begins.
        sure = words.marks(_IS_TABLE).view(np.bool_)
        if not self.session.verifying and (of_p2m := self._of_p2m(words)) is not None:
            sure = sure | of_p2m
        self._sure = sure if words.data_pages == len(words) else sure[words.has_data]
        return ((0, words.data_pages),)

    def pages(self, words: PfnWords, first: int, data: bytes | memoryview) -> None:
        """Where everything goes by, copy the tables and what else the end may need."""
        if not self._peeks:
            return
        pages = np.frombuffer(data, "<u8").reshape(-1, ENTRIES)
        keep = self._sure[first : first + len(pages)]
        if not self.session.verifying:
            keep = keep | (True if self._guest.store.keeps_all else _remarkable(pages))
        self._looked_at.put(first, pages, np.flatnonzero(keep))

    def _of_p2m(self, words: PfnWords) -> Mask | None:
        """Which pfns are those of p2m pages; None where none is, as in most records."""
        if self._p2m_of is not self._guest.p2m_frames:
            self._p2m_of = self._guest.p2m_frames
            self._p2m_in_order = np.sort(self._p2m_of)
        low, high = words.span
        first, last = self._p2m_in_order.searchsorted([low, high + 1])
        return among(words.pfns, self._p2m_in_order[first:last]) if first < last else None

    def detach(self, record: Record | PageData) -> Record | PageData:
        """The record as it can wait for a checkpoint; the pages that were looked at wait in the pool."""
        if not isinstance(record, PageData):
            return record
        if self._awaited != self.session.facts.checkpoints:
            self._awaited = self.session.facts.checkpoints
            for refused in self._waiting.values():
                refused.drop()
            self._waiting.clear()
        if len(self._looked_at):
            self._looked_at.put_by()
            self._waiting[record.place.offset], self._looked_at = self._looked_at, LookedAt(self._pool)
        return replace(record, words=PfnWords(record.words.raw))

    # -- as it is applied --------------------------------------------------------------------------

    def check_pfns(self, record: PageData, first_illegal: int) -> bool:
        """REC-07: no pfn beyond max_pfn. Without a p2m nobody knows max_pfn."""
        if not self._p2m_known or not len(record.words) or record.words.span[1] <= self._guest.max_pfn:
            return True
        pfns = record.words.pfns[:first_illegal]
        beyond = pfns > self._guest.max_pfn
        if not beyond.any():
            return True
        index = int(np.argmax(beyond))
        count = int(beyond.sum())
        self.report(
            "REC-07",
            f"pfn {int(pfns[index]):#x} (word {index}) lies beyond max_pfn {self._guest.max_pfn:#x}"
            + (f", and {count - 1} more of this record" if count > 1 else ""),
            record.place,
            offset=record.place.body + PAGE_DATA_HEADER.size + 8 * index,
            pfn=int(pfns[index]),
            count=count,
        )
        return False

    def page_data(self, record: PageData, *, verifying: bool) -> None:
        """`process_page_data`: populate, set types, localise each page table as it arrives."""
        guest, words = self._guest, record.words
        guest.named += len(words)
        guest.forget_placement()
        if verifying or self._nears_its_limit(len(words)):
            self._look_at_waiting()
        kept = self._waiting.pop(record.place.offset, self._looked_at)
        try:
            guest.reach(words.span[1])
            again = self._set_types(record, verifying=verifying)
            if words.data_pages:
                self._take_contents(record, kept, again, verifying=verifying)
        except TooSparseError as error:
            self._lose_track(error)
        kept.drop()

    def _lose_track(self, error: TooSparseError) -> None:
        """No verdict on the end can be given; but where it is refused already, none is needed."""
        self._look_at_waiting()
        if not self.session.course.end_unknown:
            self.session.give_up(str(error))

    def _set_types(self, record: PageData, *, verifying: bool) -> Pfns:
        """Types and frames of the pfns that are named. Returns those that were tables, and come with contents again."""
        guest, words = self._guest, record.words
        pfns, where, last = words.pfns, words.where, _last_copies(words.pfns, words.ascending)
        if last is None:
            guest.types[where] = words.types
        else:
            guest.types[pfns[last]] = words.types[last]
            twice = int(pfns[int(np.argmin(last))])
            self.report("REC-09", f"pfn {twice:#x} comes twice: the later word counts", record.place, pfn=twice)
        if guest.width == 4:
            self._l4_in_pae(record, pfns, words.types)
        state = guest.state[where]
        if self._counts_frames:
            self._count_frames([pfns[words.marks(_VERIFIED) & ~state & FRAMED != 0]], record.place)
        if verifying:
            self._only_verified(record, pfns[words.has_data & (state & DATA == 0)])
        was_table = state & (TABLE | FAR) != 0
        again = pfns[was_table & words.has_data] if was_table.any() else _NO_PFNS
        guest.state[where] = state | words.marks(_VERIFIED if verifying else _TAKEN)
        if last is not None and not verifying:
            guest.state[pfns[words.has_data]] |= np.uint8(DATA)
        return again

    def _take_contents(self, record: PageData, kept: LookedAt, again: Pfns, *, verifying: bool) -> None:
        """Localise the page tables, or have them wait for those of the next records, and keep what the end needs."""
        words, store = record.words, self._guest.store
        pfns, kinds, are_tables = words.pfns, words.types, words.marks(_IS_TABLE).view(np.bool_)
        if words.data_pages < len(words):
            pfns, kinds, are_tables = pfns[words.has_data], kinds[words.has_data], are_tables[words.has_data]
        last = _last_copies(pfns, words.ascending)
        if not verifying:
            store.note_batch(record.place.body + PAGE_DATA_HEADER.size, words)
            if len(again):
                self._forget(again if last is None else distinct(again))
            if self._peeks:
                store.drop_others(pfns)
                self._keep_others(pfns, kept, ~are_tables if last is None else ~are_tables & last)
        if not words.has_tables:
            return
        ordinals = are_tables.nonzero()[0]
        tables, offsets = pfns[ordinals], record.data_offset + PAGE_SIZE * ordinals
        levels = np.bitwise_and(kinds[ordinals], LEVEL_MASK, dtype=np.uint8)

        def contents(some: slice) -> bytes:
            return kept.contents(ordinals[some]) if self._peeks else read_pages(transport, offsets[some])

        def parts() -> Iterator[tuple[Tables, Mask | None]]:
            for start in range(0, len(tables), TABLES_AT_ONCE):
                some = slice(start, start + TABLES_AT_ONCE)
                part = Tables(tables[some], levels[some], offsets[some], contents(some))
                yield part, None if newest is None else newest[some]

        transport = self.session.transport
        newest = np.zeros(len(tables), np.bool_) if verifying else None if last is None else last[ordinals]
        waits = newest is None and len(tables) <= TABLES_AT_ONCE and not self._nears_its_limit()
        if not waits or self._tables.count + len(tables) > TABLES_AT_ONCE:
            self._look_at_waiting()
        if waits:
            if len(again):
                self._guest.state[tables] |= np.uint8(TABLE)  # by which they are known if they come once more
            self._tables.add(record.place, tables, levels, offsets, contents(slice(None)) if self._peeks else b"")
        else:
            self._take_tables(parts(), lambda row: record.place)

    def _forget(self, pfns: Pfns) -> None:
        """These tables are sent again."""
        if self._tables.has_any(pfns):
            self._look_at_waiting()
        self._tally.forget(pfns)
        self._guest.store.drop_tables(pfns)

    def _look_at_waiting(self) -> None:
        """Take the tables that wait."""
        if self._tables.count:
            waiting, self._tables = self._tables, WaitingTables(self.session.transport)
            self._look_at(waiting)

    def _look_at(self, waiting: WaitingTables) -> None:
        tables = waiting.tables()
        if self._names_too_much(tables) and waiting.records > 1:
            for one in waiting.by_record():
                self._look_at(one)
            return
        try:
            self._take_tables(iter([(tables, None)]), waiting.place)
        except TooSparseError as error:
            self._lose_track(error)

    @property
    def _has_room(self) -> bool:
        """Whether the arrays may cover whatever a table can name."""
        return self._p2m_known and self._guest.room > self._guest.max_pfn

    def _names_too_much(self, tables: Tables) -> bool:
        """Whether a present entry names a pfn beyond max_pfn."""
        return self._p2m_known and tables.highest > self._guest.max_pfn

    def _take_tables(self, parts: Iterator[tuple[Tables, Mask | None]], place: Callable[[int], Place]) -> None:
        """`x86_pv_localise_page`, all entries at once, and notes on the tables.

        A present entry beyond max_pfn trips an assertion; one whose pfn has no frame gets a fresh one.

        Parameters
        ----------
        parts:
            some tables after the other, and which of them are noted: None for all.
        place:
            the record of each of the first tables; of those that name too much there is one record alone.
        """
        guest = self._guest
        fresh: list[Pfns] = []
        for some, newest in parts:
            if self._names_too_much(some):
                self._beyond_max_pfn(chain([some], (more for more, _ in parts)), place(0))
                return
            far = some.highest >= guest.room
            if far:
                guest.reach(max(int(group.named[group.named < guest.room].max(initial=0)) for group in some.groups))
            else:
                guest.reach(some.highest)
            if some.leftovers and not self._leftovers:
                self._look_for_leftovers(some, place)
            if far or newest is not None:
                fresh += [guest.give_frames(group.named[group.named < guest.room])[0] for group in some.groups]
            noted = some if newest is None else some.but(newest)
            if len(noted.pfns):
                fresh += self._enter(noted)
        if fresh and self._counts_frames:
            self._count_frames(fresh, place(0))
        if self._far and self._has_room:
            self._catch_up()

    def _beyond_max_pfn(self, tables: Iterable[Tables], place: Place) -> None:
        """REC-20, of the tables of one record."""
        count, first = 0, None
        for some in tables:
            named = np.where(some.entries & 1, (some.entries & FRAME_MASK) >> 12, 0)
            where = named > self._guest.max_pfn
            count += int(where.sum())
            if first is None and where.any():
                row, slot = (int(x) for x in np.argwhere(where)[0])
                first = int(some.pfns[row]), int(some.offsets[row]), slot, int(named[row, slot])
        assert first is not None
        table, offset, slot, pfn = first
        self.report(
            "REC-20",
            f"page table pfn {table:#x}, entry {slot}, names pfn {pfn:#x} beyond max_pfn "
            f"{self._guest.max_pfn:#x}: libxc's assertion kills it",
            place,
            offset=offset + slot * 8,
            pfn=table,
            slot=slot,
            count=count,
            signal=SIGABRT,
        )
        self.session.course.end_unknown = True

    def _look_for_leftovers(self, tables: Tables, place: Callable[[int], Place]) -> None:
        """REC-29 (`pv_l1tf_check_pte`): told of the first entry."""
        entries = tables.entries
        named = (entries & FRAME_MASK != 0) & (entries & FRAME_MASK < L1TF_SAFE)
        superpage = (entries & PSE != 0) & (tables.levels > 1)[:, None]
        leftover = (named | superpage) & (entries & 1 == 0)
        if not leftover.any():
            return
        self._leftovers = True
        row, slot = (int(x) for x in np.argwhere(leftover)[0])
        pfn = int(tables.pfns[row])
        what = f"page table pfn {pfn:#x}, entry {slot}, is not present and names a frame"
        for does, since, until in (
            ("may switch the guest to shadow paging", releases.l1tf, releases.shadow_paging_off),
            ("crashes the guest, unless Xen was built with shadow paging", releases.shadow_paging_off, None),
        ):
            message = f"{what}: a host that guards against L1TF {does}"
            self.report("REC-29", message, place(row), pfn=pfn, slot=slot, since=since, until=until, on_host="l1tf")

    def _enter(self, tables: Tables) -> list[Pfns]:
        """Note tables, those that name pfns too far off to be tracked now for later. Returns whom they give frames."""
        guest = self._guest
        guest.store.put_tables(tables.pfns, tables.levels, tables.contents, tables.offsets)
        if tables.highest >= len(guest.types):
            named = np.where(tables.entries & 1, (tables.entries & FRAME_MASK) >> 12, 0).max(axis=1, initial=0)
            far = named >= len(guest.types)
            late = tables.pfns[far]
            guest.state[late] = guest.state[late] & np.uint8(~TABLE & 0xFF) | np.uint8(FAR)  # nothing counts it yet
            self._far = True
            tables = tables.but(~far)
        return self._tally.enter(tables.pfns, tables.groups)

    def _catch_up(self) -> None:
        """Track the tables that named pfns too far off when they came. Raises TooSparseError where they still are."""
        guest, self._far = self._guest, False
        far = np.flatnonzero(guest.state & FAR)
        guest.state[far] &= np.uint8(~FAR & 0xFF)
        for pfns, entries in guest.store.table_batches(far):
            groups = by_level(guest.store.levels(pfns), entries)
            guest.reach(max(group.highest for group in groups))
            self._tally.enter(pfns, groups)

    @property
    def _counts_frames(self) -> bool:
        """Whether the guest's configuration limits its frames, and it has not had too many yet."""
        return self.session.frames is not None and self.session.frames.counting

    def _nears_its_limit(self, pfns: int = 0) -> bool:
        """Whether so many pfns, and tables that wait, may need more frames than the guest may have."""
        frames = self.session.frames
        return frames is not None and frames.counting and frames.left - pfns < ENTRIES * TABLES_AT_ONCE

    def _count_frames(self, pfns: Sequence[Pfns], place: Place) -> None:
        """CON-39: these pfns are given a frame."""
        assert self.session.frames is not None
        if pfns:
            self.session.frames.add(len(distinct(np.concatenate(pfns))), place)

    def _only_verified(self, record: PageData, new: Pfns) -> None:
        """ORD-20: after VERIFY nothing is written."""
        if len(new):
            pfn = int(new[0])
            self.report(
                "ORD-20",
                f"pfn {pfn:#x} first comes after VERIFY: it is never written",
                record.place,
                pfn=pfn,
                count=len(new),
            )

    def _l4_in_pae(self, record: PageData, pfns: NDArray[np.int64], types: NDArray[np.uint8]) -> None:
        """REC-12: a 32-bit guest has no fourth level."""
        fourth = types & LEVEL_MASK == 4
        if fourth.any():
            pfn = int(pfns[int(np.argmax(fourth))])
            self.report("REC-12", f"pfn {pfn:#x} of a 32-bit guest is typed as an L4 table", record.place, pfn=pfn)

    def _keep_others(self, pfns: Pfns, kept: LookedAt, which: Mask) -> None:
        """On an input that cannot be read again: keep what the end may ask for of the pages that are no tables."""
        store = self._guest.store
        ordinals = kept.ordinals()
        ordinals = ordinals[which[ordinals]]
        for start in range(0, len(ordinals), TABLES_AT_ONCE):
            some = ordinals[start : start + TABLES_AT_ONCE]
            store.put_others(pfns[some], kept.contents(some))
        if store.crowded:
            store.squeeze(lambda kept, pages: _remarkable(pages) | among(kept, self._guest.p2m_frames))


def _remarkable(pages: NDArray[np.uint64]) -> Mask:
    """Which pages the end may ask for, by how they begin: start_info by its magic, GDTs by their looks."""
    heads = pages[:, :GDT_HEAD].copy()
    first = heads[:, 0]
    found: NDArray[np.bool_] = first == _MAGIC
    null = (first == 0).nonzero()[0]
    if len(null):
        found[null[look_like_gdts(heads if len(null) == len(heads) else heads.take(null, axis=0))]] = True
    return found


def _last_copies(pfns: Pfns, ascending: bool) -> Mask | None:
    """Which words are the last of their record to name their pfn; None where none comes twice."""
    if ascending:
        return None
    last = np.ones(len(pfns), np.bool_)
    order = pfns.argsort(kind="stable")
    last[order[:-1]] = pfns[order[1:]] != pfns[order[:-1]]
    return None if last.all() else last
