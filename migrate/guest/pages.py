"""Page contents kept while a stream flows: newest version wins, and what can be read again is not kept at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from migrate.guest.page_places import PagePlaces
from streams.wire.framing import PAGE_SIZE

if TYPE_CHECKING:
    from streams.pages import PfnWords
    from streams.transports import Transport

Pages = NDArray[np.uint64]  # shape (pages, 512): contents as little-endian u64

# Pages kept in memory before a pool moves to a temporary file.
POOL_PAGES_IN_MEMORY = 4096
# What a frame holds that the toolstack never wrote to: a debug hypervisor's scrub pattern, as measured.
UNWRITTEN = b"\xc2" * PAGE_SIZE


class PagePool:
    """Pages by slot, in memory while few, in an unlinked temporary file when many."""

    def __init__(self) -> None:
        self._memory: list[bytes | None] = []
        self._free: list[int] = []
        self._file: int | None = None

    def put(self, contents: bytes) -> int:
        """Store one page; returns its slot."""
        slot = self._free.pop() if self._free else len(self._memory)
        if slot == len(self._memory):
            self._memory.append(None)
        if slot < POOL_PAGES_IN_MEMORY:
            self._memory[slot] = contents
        else:
            if self._file is None:
                with tempfile.TemporaryFile(prefix="migrate-", suffix=".pages") as file:
                    self._file = os.dup(file.fileno())
            os.pwrite(self._file, contents, slot * PAGE_SIZE)
        return slot

    def get(self, slot: int) -> bytes:
        """The page in a slot."""
        kept = self._memory[slot]
        if kept is not None:
            return kept
        assert self._file is not None
        return os.pread(self._file, PAGE_SIZE, slot * PAGE_SIZE)

    def drop(self, slot: int) -> None:
        """Free a slot."""
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
        self._tables: dict[int, int] = {}  # pfn -> file offset or pool slot
        self._pool = PagePool()
        self._fetched: dict[int, int] = {}  # pfn -> pool slot, of pages that were decoded once more
        self._others: dict[int, bytes] = {}
        # Compressed input can be decoded once more for the rare page that nobody saw coming.
        self._overflowed = transport is not None and transport.reread([]) is not None
        self._places = PagePlaces(transport) if transport is not None and self._overflowed else None
        self._reread: dict[int, bytes] = {}  # by offset: each of several hosts asks for the same few pages

    # -- while the stream flows --------------------------------------------------------------------

    def note_batch(self, words_offset: int, words: PfnWords, data_offset: int) -> None:
        """Remember where a record's pages lie, for a later look."""
        if self._places is not None:
            self._places.add(words_offset, words, data_offset)

    def put_tables(self, pfns: Sequence[int], contents: Sequence[bytes], offsets: Sequence[int]) -> None:
        """Page tables as they arrive: a pfn's newest version replaces older ones."""
        if self.rereads:
            self._tables.update(zip(pfns, offsets, strict=True))
            return
        for pfn, page in zip(pfns, contents, strict=True):
            self._forget(pfn)
            self._others.pop(pfn, None)
            self._tables[pfn] = self._pool.put(page)

    def put_others(self, pages: Mapping[int, bytes]) -> None:
        """Pages that are not tables, by pfn, on an input that cannot be read again."""
        self._others.update(pages)

    def drop_others(self, pfns: NDArray[np.int64]) -> None:
        """These pfns were sent again: what was kept of them is stale."""
        again = set(pfns.tolist())
        for pfn in self._others.keys() & again:
            del self._others[pfn]
        for pfn in self._fetched.keys() & again:
            self._pool.drop(self._fetched.pop(pfn))

    def squeeze(self, keep: Iterable[int]) -> None:
        """Once too many other pages are kept, keep only these of them."""
        self._overflowed = True
        self._others = {pfn: self._others[pfn] for pfn in keep if pfn in self._others}

    @property
    def keeps_all(self) -> bool:
        """Whether every page is still kept."""
        return not self._overflowed

    @property
    def crowded(self) -> bool:
        """Whether more other pages are kept than should be."""
        return not self._overflowed and len(self._others) > self.KEPT_PAGES

    @property
    def others(self) -> dict[int, bytes]:
        """The other pages kept, by pfn."""
        return self._others

    def tables_among(self, pfns: NDArray[np.int64]) -> list[int]:
        """Which of some pfns have a page table as their newest contents."""
        return list(self._tables.keys() & set(pfns.tolist())) if self._tables else []

    def drop_tables(self, pfns: Iterable[int]) -> None:
        """These pfns were sent as something that is not a table: the version kept of them is stale."""
        for pfn in pfns:
            self._forget(pfn)

    def _forget(self, pfn: int) -> None:
        slot = self._tables.pop(pfn, None)
        if slot is not None and not self.rereads:
            self._pool.drop(slot)

    # -- at the end --------------------------------------------------------------------------------

    @property
    def tables(self) -> set[int]:
        """Pfns whose newest contents came as a page table."""
        return set(self._tables)

    def is_table(self, pfn: int) -> bool:
        """Whether a pfn's newest contents came as a page table (and so were localised)."""
        return pfn in self._tables

    def table(self, pfn: int) -> bytes:
        """Newest contents of a page table, pfns in its entries."""
        where = self._tables[pfn]
        if not self.rereads:
            return self._pool.get(where)
        assert self._transport is not None
        found = self._transport.reread([(where, PAGE_SIZE)])
        assert found is not None
        return found[0]

    def table_batches(self, only: Iterable[int] | None = None, size: int = 256) -> Iterable[tuple[list[int], Pages]]:
        """Tables, all or `only` some, `size` at a time: their pfns, and contents of shape (tables, 512)."""
        pfns = sorted(self._tables if only is None else only, key=self._tables.__getitem__)
        for start in range(0, len(pfns), size):
            some = pfns[start : start + size]
            if self.rereads and self._transport is not None:
                pieces = self._transport.reread([(self._tables[p], PAGE_SIZE) for p in some]) or []
            else:
                pieces = [self._pool.get(self._tables[p]) for p in some]
            yield some, np.frombuffer(b"".join(pieces), "<u8").reshape(-1, 512)

    def find(self, pfns: Iterable[int]) -> dict[int, bytes | None]:
        """Newest contents of any pfns: None for one that was never sent with data, or was not kept."""
        found = {pfn: self._kept(pfn) for pfn in pfns}
        missing = [pfn for pfn, page in found.items() if page is None]
        if missing and self._transport is not None and self._places is not None:
            places = self._places.offsets(missing)
            new = [offset for offset in dict.fromkeys(places.values()) if offset not in self._reread]
            pieces = (
                self._transport.reread([(offset, PAGE_SIZE) for offset in new]) if new and self._may_go_back() else None
            )
            contents = self._reread | dict(zip(new, pieces or [], strict=False))
            if len(contents) <= self.REREAD_PAGES:
                self._reread = contents
            found.update({pfn: contents[offset] for pfn, offset in places.items() if offset in contents})
        return found

    def found_batches(self, pfns: Sequence[int], size: int = 256) -> Iterable[tuple[list[int], Pages]]:
        """The same, `size` at a time, of those that are found: where in `pfns` they stand, shape (found, 512)."""
        if self.rereads and self._places is not None:
            self._places.offsets(pfn for pfn in pfns if pfn not in self._tables)  # in one search
        self.fetch(pfns)
        for start in range(0, len(pfns), size):
            some = pfns[start : start + size]
            found = self.find(some)
            rows = [at for at, pfn in enumerate(some, start) if found[pfn] is not None]
            if rows:
                yield rows, np.frombuffer(b"".join(found[pfns[at]] or b"" for at in rows), "<u8").reshape(-1, 512)

    @property
    def may_fetch(self) -> bool:
        """Whether this is compressed input, which can be decoded once more."""
        return not self.rereads and self._places is not None and (self._patience is None or self._patience > 0)

    def fetch(self, pfns: Iterable[int]) -> None:
        """Decode compressed input once more for all of some pages, so that `find` need not for each."""
        if not self.may_fetch or self._transport is None or self._places is None:
            return
        places = self._places.offsets(pfn for pfn in pfns if self._kept(pfn) is None)
        if not places or not self._may_go_back():
            return
        in_order = sorted(places, key=places.__getitem__)
        pages = self._transport.reread_in_order((places[pfn], PAGE_SIZE) for pfn in in_order)
        self._fetched.update((pfn, self._pool.put(page)) for pfn, page in zip(in_order, pages, strict=False))

    @property
    def fetched(self) -> list[int]:
        """Pfns of the pages that were decoded once more."""
        return list(self._fetched)

    def is_at_hand(self, pfn: int) -> bool:
        """Whether a page can be had without decoding the input once more."""
        return self.rereads or pfn in self._tables or pfn in self._others or pfn in self._fetched

    def _kept(self, pfn: int) -> bytes | None:
        if pfn in self._tables:
            return self.table(pfn)
        if pfn in self._fetched:
            return self._pool.get(self._fetched[pfn])
        return self._others.get(pfn)

    def _may_go_back(self) -> bool:
        if self.rereads or self._patience is None:
            return True
        self._patience -= 1
        return self._patience >= 0
