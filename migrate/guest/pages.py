"""Page contents kept while a stream flows: newest version wins, and what can be read again is not kept at all."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.guest.newest import NONE, NewestByPfn, Pfns, distinct
from migrate.guest.page_places import PagePlaces
from streams.pages import PFN_MASK
from streams.transports import TransportError
from streams.wire.framing import PAGE_SIZE
from streams.wire.paging import ENTRIES

if TYPE_CHECKING:
    from streams.pages import PfnWords
    from streams.transports import Transport

Pages = NDArray[np.uint64]  # shape (pages, 512): contents as little-endian u64
Slots = NDArray[np.int64]

# Pages kept in memory before a pool moves to a temporary file.
POOL_PAGES_IN_MEMORY = 4096
# Pages that are read together.
PAGES_AT_ONCE = 256
# What a frame holds that the toolstack never wrote to: a debug hypervisor's scrub pattern, as measured.
UNWRITTEN = b"\xc2" * PAGE_SIZE
# Reading over so many bytes that nobody wants costs less than asking twice.
READ_OVER = 4 * PAGE_SIZE
# A table's level, from 1 to 4, stands below the place where it is kept.
LEVEL_BITS, LEVELS = 3, 7


class PagePool:
    """Pages by slot, in memory while few, in an unlinked temporary file when many."""

    def __init__(self) -> None:
        self._memory: list[bytes | None] = []
        self._free = array("Q")
        self._slots = 0
        self._file: int | None = None

    def put(self, contents: bytes | memoryview) -> int:
        """Store one page; returns its slot."""
        if self._free:
            slot = self._free.pop()
        else:
            slot, self._slots = self._slots, self._slots + 1
        if slot >= POOL_PAGES_IN_MEMORY:
            self._write(contents, slot)
        elif slot == len(self._memory):
            self._memory.append(bytes(contents))
        else:
            self._memory[slot] = bytes(contents)
        return slot

    def put_all(self, contents: bytes) -> Slots:
        """Store pages that follow one another; returns their slots."""
        pages, view = len(contents) // PAGE_SIZE, memoryview(contents)
        slots = np.empty(pages, np.int64)
        done = 0
        while done < pages and (self._free or self._slots < POOL_PAGES_IN_MEMORY):
            slots[done] = self.put(view[done * PAGE_SIZE : (done + 1) * PAGE_SIZE])
            done += 1
        if done < pages:
            slots[done:] = np.arange(self._slots, self._slots + pages - done)
            self._write(view[done * PAGE_SIZE :], self._slots)
            self._slots += pages - done
        return slots

    def _write(self, contents: bytes | memoryview, slot: int) -> None:
        if self._file is None:
            with tempfile.TemporaryFile(prefix="migrate-", suffix=".pages") as file:
                self._file = os.dup(file.fileno())
        view, at = memoryview(contents), slot * PAGE_SIZE
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written

    def get(self, slot: int) -> bytes:
        """The page in a slot."""
        if slot < POOL_PAGES_IN_MEMORY:
            kept = self._memory[slot]
            assert kept is not None
            return kept
        assert self._file is not None
        return os.pread(self._file, PAGE_SIZE, slot * PAGE_SIZE)

    def drop(self, slot: int) -> None:
        """Free a slot."""
        if slot < POOL_PAGES_IN_MEMORY:
            self._memory[slot] = None
        self._free.append(slot)

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)


class PageStore:
    """The newest contents of page tables, and of whatever other page is asked for at the end.

    On an input that can be read again, a table is kept as its file offset and other pages are found by going
    back through the records' pfn words. On a pipe tables go to a pool, and other pages are kept while they are
    few; beyond `KEPT_PAGES` only those stay that `remarkable` picks.

    Parameters
    ----------
    patience:
        how often compressed input is decoded once more for pages that nobody saw coming; after that they count as
        not kept. None for as often as it takes.
    """

    KEPT_PAGES = 2304
    REREAD_PAGES = 256

    def __init__(self, transport: Transport | None, *, rereads: bool, patience: int | None = None) -> None:
        self._transport = transport
        self.rereads = rereads
        self._patience = patience
        self._tables = NewestByPfn()  # file offset or pool slot, and the level below it
        self._pool = PagePool()
        self._fetched = NewestByPfn()  # pool slot, of pages that were decoded once more
        self._others = NewestByPfn()  # pool slot
        # Compressed input can be decoded once more for the rare page that nobody saw coming.
        self._overflowed = transport is not None and transport.reread([]) is not None
        self._places = PagePlaces(transport) if transport is not None and self._overflowed else None
        self._reread: dict[int, bytes] = {}  # by offset: each of several hosts asks for the same few pages

    # -- while the stream flows --------------------------------------------------------------------

    def note_batch(self, words_offset: int, words: PfnWords) -> None:
        """Remember where a record's pages lie, for a later look."""
        if self._places is not None:
            self._places.add(words_offset, words)

    def put_tables(self, pfns: Pfns, levels: NDArray[np.uint8], contents: bytes, offsets: NDArray[np.int64]) -> None:
        """Page tables as they arrive, in place of what is not known of their pfns any more (`drop_tables`)."""
        where = offsets if self.rereads else self._pool.put_all(contents)
        self._tables.put(pfns, where << LEVEL_BITS | levels)

    def put_others(self, pfns: Pfns, contents: bytes) -> None:
        """Pages that are not tables, on an input that cannot be read again."""
        self._others.put(pfns, self._pool.put_all(contents))

    def drop_others(self, pfns: Pfns) -> None:
        """These pfns were sent again: what was kept of them is stale."""
        for kept in (self._others, self._fetched):
            if len(pfns) and kept.may_have_any(int(pfns.min())):
                self._drop(kept, pfns)

    def squeeze(self, keep: Callable[[Pfns, Pages], NDArray[np.bool_]]) -> None:
        """Once too many other pages are kept, keep only those of them that are picked by pfns and contents."""
        self._overflowed = True
        pfns, slots = self._others.items()
        for start in range(0, len(pfns), PAGES_AT_ONCE):
            some = slice(start, start + PAGES_AT_ONCE)
            self._drop(
                self._others, pfns[some][~keep(pfns[some], _as_pages(map(self._pool.get, slots[some].tolist())))]
            )

    def _drop(self, kept: NewestByPfn, pfns: Pfns) -> None:
        slots = kept.find(pfns)
        there = slots != NONE
        if there.any():
            kept.drop(pfns[there])
            for slot in slots[there].tolist():
                self._pool.drop(slot)

    @property
    def keeps_all(self) -> bool:
        """Whether every page is still kept."""
        return not self._overflowed

    @property
    def crowded(self) -> bool:
        """Whether more other pages are kept than should be."""
        return not self._overflowed and len(self._others) > self.KEPT_PAGES

    def drop_tables(self, pfns: Pfns) -> None:
        """These pfns, each named once, were sent again: the version kept of them is stale."""
        if not self.rereads:
            for number in self._tables.find(pfns).tolist():
                if number != NONE:
                    self._pool.drop(number >> LEVEL_BITS)
        self._tables.drop(pfns)

    # -- at the end --------------------------------------------------------------------------------

    def tables(self) -> tuple[Pfns, NDArray[np.uint8]]:
        """Pfns whose newest contents came as a page table, ascending, and of what level."""
        pfns, numbers = self._tables.items()
        return pfns, (numbers & LEVELS).astype(np.uint8)

    def levels(self, pfns: Pfns) -> NDArray[np.uint8]:
        """With what level, as a page table, the newest contents of each of some pfns came; 0 for none."""
        numbers = self._tables.find(pfns)
        return np.where(numbers == NONE, 0, numbers & LEVELS).astype(np.uint8)

    def is_table(self, pfn: int) -> bool:
        """Whether a pfn's newest contents came as a page table (and so were localised)."""
        return self._tables.get(pfn) != NONE

    def table(self, pfn: int) -> bytes | None:
        """Newest contents of a page table, pfns in its entries; None for what came as none."""
        number = self._tables.get(pfn)
        if number == NONE:
            return None
        if not self.rereads:
            return self._pool.get(number >> LEVEL_BITS)
        assert self._transport is not None
        pieces = self._transport.reread([(number >> LEVEL_BITS, PAGE_SIZE)])
        return pieces[0] if pieces else None

    def _tables_at(self, numbers: NDArray[np.int64]) -> bytes:
        """Page tables by ascending numbers, one after the other."""
        where = numbers >> LEVEL_BITS
        return read_pages(self._transport, where) if self.rereads else b"".join(map(self._pool.get, where.tolist()))

    def table_batches(
        self, only: Iterable[int] | Pfns | None = None, size: int = PAGES_AT_ONCE
    ) -> Iterator[tuple[Pfns, Pages]]:
        """Tables, all or `only` some, `size` at a time: their pfns, and contents of shape (tables, 512)."""
        if only is None:
            pfns, numbers = self._tables.items()
        else:
            pfns = np.asarray(only if isinstance(only, np.ndarray) else list(only), np.int64)
            numbers = self._tables.find(pfns)
            pfns, numbers = pfns[numbers != NONE], numbers[numbers != NONE]
        order = numbers.argsort(kind="stable")
        for start in range(0, len(order), size):
            some = order[start : start + size]
            yield pfns[some], _as_pages([self._tables_at(numbers[some])])

    def find(self, pfns: Iterable[int]) -> dict[int, bytes | None]:
        """Newest contents of a few pfns: None for one that was never sent with data, or was not kept."""
        found: dict[int, bytes | None] = dict.fromkeys(pfns)
        known = np.array([pfn for pfn in found if 0 <= pfn <= PFN_MASK], np.int64)
        for pfn, table, slot in _rows(known, self._tables.find(known), self._slots(known)):
            if table != NONE:
                found[pfn] = self._tables_at(np.array([table]))
            elif slot != NONE:
                found[pfn] = self._pool.get(slot)
        missing = np.array([pfn for pfn in known.tolist() if found[pfn] is None], np.int64)
        if len(missing) and self._transport is not None and self._places is not None:
            places = {pfn: at for pfn, at in _rows(missing, self._places.offsets(missing)) if at != NONE}
            new = [offset for offset in dict.fromkeys(places.values()) if offset not in self._reread]
            pieces = (
                self._transport.reread([(offset, PAGE_SIZE) for offset in new]) if new and self._may_go_back() else None
            )
            contents = self._reread | dict(zip(new, pieces or [], strict=False))
            if len(contents) <= self.REREAD_PAGES:
                self._reread = contents
            found.update({pfn: contents[offset] for pfn, offset in places.items() if offset in contents})
        return found

    def found_batches(self, pfns: Pfns, size: int = PAGES_AT_ONCE) -> Iterator[tuple[list[int], Pages]]:
        """Of many pfns, `size` at a time, those that are found: where in `pfns` they stand, and shape (found, 512)."""
        self.fetch(pfns)
        tables, slots = self._tables.find(pfns), self._slots(pfns)
        offsets = np.full(len(pfns), NONE, np.int64)
        if self.rereads and self._places is not None:
            missing = (tables == NONE) & (slots == NONE)
            offsets[missing] = self._places.offsets(pfns[missing])
        for start in range(0, len(pfns), size):
            some = slice(start, start + size)
            places = np.where(tables[some] == NONE, offsets[some], tables[some] >> LEVEL_BITS)
            found = np.flatnonzero((places != NONE) | (slots[some] != NONE))
            if not len(found):
                continue
            if self.rereads and self._transport is not None:
                pieces = self._transport.reread([(at, PAGE_SIZE) for at in places[found].tolist()]) or []
            else:
                kept = np.where(places == NONE, slots[some], places)
                pieces = list(map(self._pool.get, kept[found].tolist()))
            yield (start + found).tolist(), _as_pages(pieces)

    @property
    def may_fetch(self) -> bool:
        """Whether this is compressed input, which can be decoded once more."""
        return not self.rereads and self._places is not None and (self._patience is None or self._patience > 0)

    def fetch(self, pfns: Pfns) -> None:
        """Decode compressed input once more for all of some pages, so that `find` need not for each."""
        if not self.may_fetch or self._transport is None or self._places is None:
            return
        missing = distinct(pfns[(self._tables.find(pfns) == NONE) & (self._slots(pfns) == NONE)])
        offsets = self._places.offsets(missing)
        missing, offsets = missing[offsets != NONE], offsets[offsets != NONE]
        if not len(missing) or not self._may_go_back():
            return
        order = offsets.argsort()
        pages = self._transport.reread_in_order((offset, PAGE_SIZE) for offset in offsets[order].tolist())
        slots = np.fromiter(map(self._pool.put, pages), np.int64)
        self._fetched.put(missing[order[: len(slots)]], slots)

    def fetched(self) -> Pfns:
        """Pfns of the pages that were decoded once more."""
        return self._fetched.items()[0]

    def is_at_hand(self, pfn: int) -> bool:
        """Whether a page can be had without decoding the input once more."""
        return self.rereads or any(of.get(pfn) != NONE for of in (self._tables, self._others, self._fetched))

    def _slots(self, pfns: Pfns) -> Slots:
        """Where in the pool those pages are that are not tables, NONE for one that is not kept."""
        others, fetched = self._others.find(pfns), self._fetched.find(pfns)
        return np.where(fetched == NONE, others, fetched)

    def _may_go_back(self) -> bool:
        if self.rereads or self._patience is None:
            return True
        self._patience -= 1
        return self._patience >= 0


def _as_pages(pieces: Iterable[bytes]) -> Pages:
    return np.frombuffer(b"".join(pieces), "<u8").reshape(-1, ENTRIES)


def _rows(*columns: NDArray[np.int64]) -> Iterator[tuple[int, ...]]:
    return zip(*(column.tolist() for column in columns), strict=True)


def read_pages(transport: Transport | None, offsets: NDArray[np.int64]) -> bytes:
    """Pages, ascending in the stream, one after the other; some of what lies between is read as well.

    Raises
    ------
    TransportError
        where the input has lost some of them.
    """
    assert transport is not None
    gaps = np.diff(offsets)
    first = np.concatenate([[True], (gaps > READ_OVER) | (gaps % PAGE_SIZE != 0)])
    starts = offsets[first]
    ends = offsets[np.concatenate([first[1:], [True]])] + PAGE_SIZE
    sizes = ends - starts
    data = b"".join(transport.reread(list(zip(starts.tolist(), sizes.tolist(), strict=True))) or ())
    if len(data) != sizes.sum():
        raise TransportError("the input has become shorter while it was read", int(offsets[0]))
    if (gaps[~first[1:]] == PAGE_SIZE).all():
        return data
    run = np.cumsum(first) - 1
    rows = (offsets - starts[run] + (np.cumsum(sizes) - sizes)[run]) // PAGE_SIZE
    return bytes(_as_pages([data])[rows].data)
