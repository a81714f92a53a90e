"""pfn words and page types, in bulk.

A pfn word is a u64: type in bits 63..60, reserved 59..52, pfn in 51..0. Type and reserved bits sit in
bytes 7 and 6 of each word, so slices and translation tables answer most questions for 1024 words in a few
microseconds without numpy, which an HVM filter never imports.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cached_property

from streams.wire.framing import PFN_WORD_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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


def _top_bytes(types: Iterable[int]) -> bytes:
    """What byte 7 of a word of these types may be; its low nibble is reserved bits."""
    return bytes(kind << 4 | low for kind in sorted(types) for low in range(16))


_OF_TYPE = tuple(_top_bytes([kind]) for kind in range(TYPES))
_ILLEGAL_BYTES = _top_bytes(ILLEGAL_TYPES)
_DATALESS_BYTES = _top_bytes(DATALESS_TYPES)
_FRAMELESS_BYTES = _top_bytes(FRAMELESS_TYPES)
_TABLE_BYTES = _top_bytes(TABLE_TYPES)
_HAS_DATA = bytes(b not in _DATALESS_BYTES for b in range(256))
_CLEAN_TOP = bytes(range(0, 256, 16))
_CLEAN_SIXTH = bytes(range(16))
_NO_PFN_BITS = bytes(range(0, 256, 16))


def are_tables(types: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of some page types are page tables'; by arithmetic, as of millions it is asked at the end of a stream."""
    tables: NDArray[np.bool_] = (types & LEVEL_MASK) - 1 < max(TABLE_TYPES) & LEVEL_MASK
    return tables


def type_name(kind: int) -> str:
    """Name of a page type, or its number where it is not defined."""
    try:
        return PageType(kind).name
    except ValueError:
        return f"type {kind}"


def _any_set(data: bytes) -> bool:
    """Whether any byte is not 0."""
    return data != bytes(len(data))


def type_marks(mark: Callable[[int], int]) -> bytes:
    """A number from 0 to 255 for each page type, as `PfnWords.marks` wants it."""
    return bytes(mark(top >> 4) for top in range(256))


class PfnWords:
    """The pfn words of one PAGE_DATA record.

    Parameters
    ----------
    raw:
        little-endian u64 words; a whole number of them.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._top = top = raw[7::PFN_WORD_SIZE]
        # One byte tells for all of a record whose pages are of one type, as most are, and no byte where all are 0.
        self._kinds = top[:1] if top == top[:1] * len(top) else top
        sixth = raw[6::PFN_WORD_SIZE]
        self._sixth = sixth if _any_set(sixth) else b""

    def __len__(self) -> int:
        return len(self._top)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PfnWords) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    @property
    def data_pages(self) -> int:
        """How many of the words announce a page of data."""
        kinds = self._kinds
        telling = len(kinds.translate(None, _DATALESS_BYTES))
        return telling if len(kinds) != 1 else telling * len(self._top)

    @property
    def has_illegal_type(self) -> bool:
        """Whether any type is one that no saver may write (5 to 8)."""
        return self._has(_ILLEGAL_BYTES)

    def has_type(self, kind: PageType) -> bool:
        """Whether any word has this type."""
        return self._has(_OF_TYPE[kind])

    @property
    def has_tables(self) -> bool:
        """Whether any word is typed as a page table."""
        return self._has(_TABLE_BYTES)

    @property
    def has_frames(self) -> bool:
        """Whether any word is that of a page with a frame."""
        return bool(self._kinds.translate(None, _FRAMELESS_BYTES))

    def _has(self, top_bytes: bytes) -> bool:
        return len(self._kinds.translate(None, top_bytes)) != len(self._kinds)

    @property
    def are_bare_pfns(self) -> bool:
        """Whether the words are pfns of type 0 and nothing else."""
        return not (_any_set(self._kinds) or self.has_reserved_bits)

    @property
    def has_reserved_bits(self) -> bool:
        """Whether any of bits 59..52 is set in any word."""
        return bool(self._kinds.translate(None, _CLEAN_TOP) or self._sixth.translate(None, _CLEAN_SIXTH))

    @property
    def beyond_32_bits(self) -> bool:
        """Whether any pfn is 2^32 or more."""
        return bool(
            _any_set(self.raw[4::PFN_WORD_SIZE])
            or _any_set(self.raw[5::PFN_WORD_SIZE])
            or self._sixth.translate(None, _NO_PFN_BITS)
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

        return (np.frombuffer(self.raw, "<u8") & PFN_MASK).view(np.int64)

    @cached_property
    def ascending(self) -> bool:
        """Whether each pfn is higher than the one before it: none comes twice."""
        import numpy as np

        pfns = self.pfns
        return bool(np.logical_and.reduce(pfns[1:] > pfns[:-1]))

    @cached_property
    def span(self) -> tuple[int, int]:
        """The lowest and the highest pfn, of at least one word."""
        pfns = self.pfns
        return (int(pfns[0]), int(pfns[-1])) if self.ascending else (int(pfns.min()), int(pfns.max()))

    @cached_property
    def where(self) -> slice | NDArray[np.int64]:
        """What the pfns are as an index: a slice where they are a run."""
        low, high = self.span
        return slice(low, high + 1) if self.ascending and high - low + 1 == len(self) else self.pfns

    def marks(self, of_types: bytes) -> NDArray[np.uint8]:
        """A number for each word by its type, uint8, shape (len,)."""
        import numpy as np

        return np.frombuffer(self._top.translate(of_types), np.uint8)

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
