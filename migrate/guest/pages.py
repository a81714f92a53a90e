"""Page contents kept while a stream flows: newest version wins, and what can be read again is not kept at all."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streams.pages import PfnWords
from streams.wire.framing import PAGE_SIZE, PFN_WORD_SIZE

if TYPE_CHECKING:
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
    """

    KEPT_PAGES = 2304
    REREAD_PAGES = 256

    def __init__(self, transport: Transport | None, *, rereads: bool) -> None:
        self._transport = transport
        self.rereads = rereads
        self._tables: dict[int, int] = {}  # pfn -> file offset or pool slot
        self._pool = PagePool()
        self._batches = array("Q")  # threes: offset of the words, their number, offset of the data
        self._others: dict[int, bytes] = {}
        # Compressed input can be decoded once more for the rare page that nobody saw coming.
        self._overflowed = transport is not None and transport.reread([]) is not None
        self._places: dict[int, int | None] = {}
        self._reread: dict[int, bytes] = {}  # by offset: each of several hosts asks for the same few pages

    # -- while the stream flows --------------------------------------------------------------------

    def note_batch(self, words_offset: int, words: PfnWords, data_offset: int) -> None:
        """Remember where a record's pages lie, for a later look."""
        self._batches.extend((words_offset, len(words), data_offset))
        self._places.clear()

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
        for pfn in self._others.keys() & set(pfns.tolist()):
            del self._others[pfn]

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
        found = {pfn: self.table(pfn) if pfn in self._tables else self._others.get(pfn) for pfn in pfns}
        missing = [pfn for pfn, page in found.items() if page is None]
        if missing and self._transport is not None:
            self.locate(missing)
            places = {pfn: at for pfn in missing if (at := self._places.get(pfn)) is not None}
            new = [offset for offset in dict.fromkeys(places.values()) if offset not in self._reread]
            pieces = self._transport.reread([(offset, PAGE_SIZE) for offset in new]) if new else None
            contents = self._reread | dict(zip(new, pieces or [], strict=False))
            if len(contents) <= self.REREAD_PAGES:
                self._reread = contents
            found.update({pfn: contents[offset] for pfn, offset in places.items() if offset in contents})
        return found

    def locate(self, pfns: Iterable[int]) -> None:
        """Look for pages from the last record back to the first, all at once."""
        missing = [pfn for pfn in pfns if pfn not in self._places]
        if not missing or self._transport is None:
            return
        self._places.update(dict.fromkeys(missing))
        wanted = np.unique(np.array(missing, np.int64))
        # What has to be decoded once more to be read again is read again in one go.
        step = 3 * (64 if self.rereads else max(1, len(self._batches)))
        for stop in range(len(self._batches), 0, -step):
            some = self._batches[max(0, stop - step) : stop]
            offsets, counts, data_offsets = some[0::3], some[1::3], some[2::3]
            raws = self._transport.reread(
                [(offset, count * PFN_WORD_SIZE) for offset, count in zip(offsets, counts, strict=True)]
            )
            if raws is None:
                return  # a pipe: what was not kept is gone
            for data, raw in zip(reversed(data_offsets), reversed(raws), strict=True):
                words = PfnWords(raw)
                pfns_here = words.pfns
                at = np.searchsorted(wanted, pfns_here)
                at[at == len(wanted)] = 0
                hits = np.flatnonzero((wanted[at] == pfns_here) & words.has_data)
                if hits.size:
                    ordinals = np.cumsum(words.has_data)[hits] - 1
                    for pfn, ordinal in zip(pfns_here[hits].tolist(), ordinals.tolist(), strict=True):
                        # The last word naming a pfn in a record wins.
                        self._places[pfn] = data + ordinal * PAGE_SIZE
                    wanted = np.setdiff1d(wanted, pfns_here[hits])
                    if not wanted.size:
                        return
