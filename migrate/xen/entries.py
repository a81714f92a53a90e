"""Page table entries and segment descriptors as Xen judges them, a whole page at a time.

Sources: `xen/arch/x86/mm.c` (L*_DISALLOW_MASK, get_page_from_l*e), `include/asm-x86/page.h`,
`xen/arch/x86/pv/descriptor-tables.c` (check_descriptor).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.pages import TABLE_TYPES, TYPES
from streams.wire.paging import GNTTAB, HIGH_BITS, PAT, PCD, PSE, PWT, RW, G, P

# Bits that a present entry must not have, by the table's level. A guest without passed-through devices may
# not choose cache attributes either.
DISALLOWED_L1 = PWT | PCD | PAT | GNTTAB
DISALLOWED = PWT | PCD | PSE | G
DISALLOWED_PAE_L3 = DISALLOWED | HIGH_BITS

# Below this address any host may have memory that a non-present entry must not name (l1tf_safe_maddr).
L1TF_SAFE = 1 << 44

IS_TABLE = np.isin(np.arange(TYPES), list(TABLE_TYPES))
"""Whether a page type is a page table's."""

# One byte of an entry tells all that an L1 needs: absent, read-only, writable, refused.
ABSENT, READ_ONLY, WRITABLE, REFUSED = range(4)
L1_CLASS = bytes(
    ABSENT if not low & P else REFUSED if low & DISALLOWED_L1 & 0xFF else WRITABLE if low & RW else READ_ONLY
    for low in range(256)
)
GNTTAB_BYTES = bytes(b for b in range(256) if not b & (GNTTAB >> 56))

# Segment descriptors, as u64.
_DESC_P = np.uint64(1 << 47)
_DESC_S = np.uint64(1 << 44)
_DESC_L = np.uint64(1 << 53)
_DESC_TYPE = np.uint64(0xF << 40)
_DESC_CALL_GATE = np.uint64(0xC << 40)
FIRST_RESERVED_GDT_ENTRY = 7168
_XEN_GATE_SELECTOR = {4: 0xE019, 8: 0xE033}  # Xen's flat kernel code segment, by guest width
_GATE_RESERVED = {4: np.uint64(0xE0 << 32), 8: np.uint64(0xFF << 32)}


def bad_descriptors(page: NDArray[np.uint64], width: int) -> NDArray[np.int64]:
    """Indices of the descriptors that Xen refuses in a GDT page (`check_descriptor`).

    Parameters
    ----------
    page:
        descriptors, shape (512,).
    width:
        the guest's word size: a 32-bit guest may not have long-mode segments.
    """
    present = (page & _DESC_P) != 0
    segment = (page & _DESC_S) != 0
    bad = present & segment & ((page & _DESC_L) != 0) if width == 4 else np.zeros(len(page), np.bool_)
    kind = page & _DESC_TYPE
    system = present & ~segment & (kind != 0)
    gate = system & (kind == _DESC_CALL_GATE)
    selector = (page >> np.uint64(16)) & np.uint64(0xFFFF)
    selectable = (
        (selector >> np.uint64(3) < FIRST_RESERVED_GDT_ENTRY)
        | (selector == _XEN_GATE_SELECTOR[width])
        | (selector & np.uint64(4) != 0)
    )
    bad |= system & ~gate
    bad |= gate & (~selectable | ((page & _GATE_RESERVED[width]) != 0))
    return np.flatnonzero(bad).astype(np.int64)


# So many descriptors of a page tell whether it looks like part of a GDT.
GDT_HEAD = 16


def look_like_gdts(heads: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Which of some pages that begin with a null descriptor go on with a code or data segment.

    Parameters
    ----------
    heads:
        how each page begins, shape (n, GDT_HEAD).

    Returns
    -------
    Their rows, once for each such segment.
    """
    marks = _DESC_P | _DESC_S
    segments: NDArray[np.int64] = ((heads & marks) == marks).reshape(-1).nonzero()[0]
    return segments // GDT_HEAD
