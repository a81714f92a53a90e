"""pfn words and page types, in bulk.

A pfn word is a u64: type in bits 63..60, reserved 59..52, pfn in 51..0. Type and reserved bits sit in
bytes 7 and 6 of each word, so slices and translation tables answer most questions for 1024 words in a few
microseconds without numpy, which an HVM filter never imports.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING

from streams.wire.framing import PFN_WORD_SIZE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TYPE_SHIFT = 60
PFN_MASK = (1 << 52) - 1
PIN_BIT = 0x8
LEVEL_MASK = 0x7
TYPES = 16
"""How many values the type field has, most of them page types."""


class PageType(IntEnum):
    """Type field of a pfn word (XEN_DOMCTL_PFINFO_* shifted down by 28)."""

    NOTAB = 0x0
    L1TAB = 0x1
    L2TAB = 0x2
    L3TAB = 0x3
    L4TAB = 0x4
    L1TAB_PINNED = 0x9
    L2TAB_PINNED = 0xA
    L3TAB_PINNED = 0xB
    L4TAB_PINNED = 0xC
    BROKEN = 0xD
    XALLOC = 0xE
    XTAB = 0xF


ILLEGAL_TYPES = frozenset(range(TYPES)) - frozenset(PageType)
DATALESS_TYPES = frozenset({PageType.BROKEN, PageType.XALLOC, PageType.XTAB})
FRAMELESS_TYPES = frozenset({PageType.BROKEN, PageType.XTAB})
TABLE_TYPES = frozenset(t for t in PageType if 1 <= (t & LEVEL_MASK) <= 4)

# Translation tables over byte 7 of a word; its low nibble is reserved bits.
_HAS_DATA = bytes(int(b >> 4 not in DATALESS_TYPES) for b in range(256))
_ILLEGAL_BYTES = bytes(b for b in range(256) if b >> 4 in ILLEGAL_TYPES)
_DATALESS_BYTES = bytes(b for b in range(256) if b >> 4 in DATALESS_TYPES)
_TABLE_BYTES = bytes(b for b in range(256) if b >> 4 in TABLE_TYPES)
_CLEAN_TOP = bytes(b for b in range(256) if not b & 0x0F)
_CLEAN_SIXTH = bytes(range(16))
_NO_PFN_BITS = bytes(b for b in range(256) if not b & 0x0F)


def type_name(kind: int) -> str:
    """Name of a page type, or its number where it is not defined."""
    try:
        return PageType(kind).name
    except ValueError:
        return f"type {kind}"


class PfnWords:
    """The pfn words of one PAGE_DATA record.

    Parameters
    ----------
    raw:
        little-endian u64 words; a whole number of them.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._top = raw[7::PFN_WORD_SIZE]

    def __len__(self) -> int:
        return len(self._top)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PfnWords) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    @cached_property
    def data_pages(self) -> int:
        """How many of the words announce a page of data."""
        return len(self._top.translate(None, _DATALESS_BYTES))

    @property
    def has_illegal_type(self) -> bool:
        """Whether any type is one that no saver may write (5 to 8)."""
        return len(self._top.translate(None, _ILLEGAL_BYTES)) != len(self._top)

    def has_type(self, kind: PageType) -> bool:
        """Whether any word has this type."""
        return any(bytes([kind << 4 | low]) in self._top for low in range(16))

    @property
    def has_tables(self) -> bool:
        """Whether any word is typed as a page table."""
        return len(self._top.translate(None, _TABLE_BYTES)) != len(self._top)

    @property
    def has_reserved_bits(self) -> bool:
        """Whether any of bits 59..52 is set in any word."""
        return bool(self._top.translate(None, _CLEAN_TOP) or self.raw[6::PFN_WORD_SIZE].translate(None, _CLEAN_SIXTH))

    @property
    def beyond_32_bits(self) -> bool:
        """Whether any pfn is 2^32 or more."""
        return bool(
            self.raw[4::PFN_WORD_SIZE].strip(b"\0")
            or self.raw[5::PFN_WORD_SIZE].strip(b"\0")
            or self.raw[6::PFN_WORD_SIZE].translate(None, _NO_PFN_BITS)
        )

    def first_with(self, types: frozenset[int]) -> int:
        """Index of the first word whose type is one of these; -1 for none."""
        return next((i for i, byte in enumerate(self._top) if byte >> 4 in types), -1)

    def word(self, index: int) -> int:
        """One word."""
        return int.from_bytes(self.raw[index * PFN_WORD_SIZE : (index + 1) * PFN_WORD_SIZE], "little")

    def pfn(self, index: int) -> int:
        """The pfn of one word."""
        return self.word(index) & PFN_MASK

    @cached_property
    def types(self) -> NDArray[np.uint8]:
        """Page types, uint8, shape (len,)."""
        import numpy as np

        return np.right_shift(np.frombuffer(self._top, np.uint8), 4, dtype=np.uint8)

    @cached_property
    def pfns(self) -> NDArray[np.int64]:
        """The pfns, int64, shape (len,)."""
        import numpy as np

        return (np.frombuffer(self.raw, "<u8") & PFN_MASK).astype(np.int64)

    @cached_property
    def has_data(self) -> NDArray[np.bool_]:
        """Which words announce a page of data, bool, shape (len,)."""
        import numpy as np

        flags: NDArray[np.bool_] = np.frombuffer(self._top.translate(_HAS_DATA), np.bool_)
        return flags

    @classmethod
    def build(cls, pfns: NDArray[np.int64], types: NDArray[np.uint8]) -> PfnWords:
        """Words from arrays of pfns and types of one length."""
        import numpy as np

        words = (types.astype("<u8") << np.uint64(TYPE_SHIFT)) | pfns.astype("<u8")
        return cls(words.tobytes())
