"""The memory in a stream's items, as arrays; and the same items with some of it gone.

Pages are counted over all PAGE_DATA records in their order, versions of earlier rounds included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from migrate.xen.entries import IS_TABLE
from streams.encoder import Item
from streams.pages import DATALESS_TYPES, PFN_MASK, TYPE_SHIFT, TYPES, PageType, PfnWords
from streams.records import PageData
from streams.wire.framing import PAGE_SHIFT
from streams.wire.paging import ENTRIES, FRAME_MASK, P

Items = tuple[Item, ...]
Mask = NDArray[np.bool_]

# A saver's batch.
MOST_WORDS = 1024

_HAS_DATA = np.array([kind not in DATALESS_TYPES for kind in range(TYPES)])
_XTAB = np.uint64(PageType.XTAB << TYPE_SHIFT)


class Memory:
    """Words and pages of all PAGE_DATA records.

    Attributes
    ----------
    words:
        pfn words, u64, shape (words,).
    pages:
        contents, little-endian u64, shape (pages, 512).
    """

    def __init__(self, items: Items) -> None:
        self._items = items
        records = [item for item in items if isinstance(item, PageData)]
        raw = b"".join(record.words.raw for record in records)
        self.words: NDArray[np.uint64] = np.frombuffer(raw, "<u8")
        data = b"".join(map(_content, records))
        self.pages: NDArray[np.uint64] = np.frombuffer(data, "<u8").reshape(-1, ENTRIES)
        self._pfns = (self.words & np.uint64(PFN_MASK)).astype(np.int64)
        kinds = (self.words >> np.uint64(TYPE_SHIFT)).astype(np.intp)
        self._has_data: Mask = _HAS_DATA[kinds]
        self._tables = np.flatnonzero(IS_TABLE[kinds[self._has_data]])
        self._unique = np.unique(self._pfns[self._has_data])
        self._named: NDArray[np.intp] | None = None

    # -- what there is -----------------------------------------------------------------------------

    def data_pfns(self) -> list[int]:
        """Pfns that come with a page in any round, ascending."""
        found: list[int] = self._unique.tolist()
        return found

    def empty_words(self) -> list[int]:
        """Indices of the words without a page."""
        found: list[int] = np.flatnonzero(~self._has_data).tolist()
        return found

    def repeated_words(self) -> list[int]:
        """Indices of the words that come with a page, as others of the same pfn do."""
        with_page = np.flatnonzero(self._has_data)
        _, which, counts = np.unique(self._pfns[with_page], return_inverse=True, return_counts=True)
        found: list[int] = with_page[counts[which] > 1].tolist()
        return found

    def pages_in_use(self) -> list[int]:
        """Indices of the pages that are not zero."""
        found: list[int] = np.flatnonzero(self.pages.any(axis=1)).tolist()
        return found

    def words_in_use(self) -> list[int]:
        """Where the contents are not zero: indices into all of them, flat."""
        found: list[int] = np.flatnonzero(self.pages).tolist()
        return found

    # -- with some of it gone ----------------------------------------------------------------------

    def without_pages_but(self, pfns: Sequence[int]) -> Items:
        """Any other pfn is absent (XTAB) in every round, and no page-table entry names it any more."""
        kept = np.isin(self._unique, np.array(pfns, np.int64))
        out = np.zeros(len(self.words), np.bool_)
        out[self._has_data] = ~kept[np.searchsorted(self._unique, self._pfns[self._has_data])]
        words = np.where(out, self._pfns.astype(np.uint64) | _XTAB, self.words)
        pages = self.pages
        if len(self._tables):
            pages = pages.copy()
            pages[self._tables] = np.where(np.append(~kept, False)[self._names()], 0, pages[self._tables])
        return self._with(words, np.ones(len(words), np.bool_), pages, ~out[self._has_data])

    def _names(self) -> NDArray[np.intp]:
        """Which of the unique pfns each entry of each table names, shape (tables, 512); one past the last for none."""
        if self._named is None:
            entries = self.pages[self._tables]
            named = ((entries & np.uint64(FRAME_MASK)) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
            at = np.searchsorted(self._unique, named)
            at[at == len(self._unique)] = 0
            none = (entries & np.uint64(P) == 0) | (self._unique[at] != named)
            self._named = np.where(none, len(self._unique), at)
        return self._named

    def without_words(self, indices: Iterable[int]) -> Items:
        """These words are gone, with their pages; and every record that loses its last word."""
        kept = np.ones(len(self.words), np.bool_)
        kept[list(indices)] = False
        return self._with(self.words, kept, self.pages, kept[self._has_data])

    def without_pfns_beyond(self, last: int) -> Items:
        """No word of a pfn beyond this one."""
        kept = self._pfns <= last
        return self._with(self.words, kept, self.pages, kept[self._has_data])

    def with_zeros_but_pages(self, indices: Sequence[int]) -> Items:
        """Any other page is zero."""
        pages = np.zeros_like(self.pages)
        pages[indices] = self.pages[indices]
        return self._with(self.words, np.ones(len(self.words), np.bool_), pages, np.ones(len(pages), np.bool_))

    def with_zeros_but_words(self, indices: Sequence[int]) -> Items:
        """Any other word of the contents is zero."""
        pages = np.zeros_like(self.pages)
        pages.reshape(-1)[indices] = self.pages.reshape(-1)[indices]
        return self._with(self.words, np.ones(len(self.words), np.bool_), pages, np.ones(len(pages), np.bool_))

    def joined(self) -> Items:
        """PAGE_DATA records that follow one another as one, if a saver's batch holds them and no pfn comes twice."""
        out: list[Item] = []
        for item in self._items:
            last = out[-1] if out else None
            if isinstance(last, PageData) and isinstance(item, PageData) and _fit(last.words, item.words):
                out[-1] = _record(last, last.words.raw + item.words.raw, _content(last) + _content(item))
            else:
                out.append(item)
        return tuple(out)

    def _with(self, words: NDArray[np.uint64], kept: Mask, pages: NDArray[np.uint64], kept_pages: Mask) -> Items:
        """The items with these words and pages in their records; a record that loses its last word goes."""
        out: list[Item] = []
        word = page = 0
        for item in self._items:
            if not isinstance(item, PageData):
                out.append(item)
                continue
            in_words = slice(word, word + len(item.words))
            in_pages = slice(page, page + item.words.data_pages)
            word, page = in_words.stop, in_pages.stop
            mine = words[in_words][kept[in_words]]
            if len(mine) or not len(item.words):
                contents = pages[in_pages]
                if not kept_pages[in_pages].all():
                    contents = contents[kept_pages[in_pages]]
                out.append(_record(item, mine.tobytes(), contents.tobytes()))
        return tuple(out)


def _record(like: PageData, words: bytes, contents: bytes) -> PageData:
    built = PfnWords(words)
    return replace(like, count=len(built), words=built, runs=((0, contents),) if contents else (), padding=b"")


def _fit(first: PfnWords, second: PfnWords) -> bool:
    return len(first) + len(second) <= MOST_WORDS and not np.isin(first.pfns, second.pfns).any()


def _content(record: PageData) -> bytes:
    return b"".join(content for _, content in record.runs)
