"""Layouts of streams from before Xen 4.6, which have no magic and are written in the toolstack's own words.

Facts about the guest are in the extended info at the start of a PV stream; memory comes in chunks. Sources: libxc
`xg_save_restore.h` and `xc_domain_save.c` of 4.5, and the converter that Xen ships since 4.6.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from streams.values import NamedTuple

RECOGNISED_BY = 12
"""So many bytes tell whether a stream is one of these."""

# pfn words hold types and pfns in 32 bits, whatever the toolstack's word size: so many pfns there can be.
MAX_P2M_SIZE = 1 << 28
PFN_MASK = MAX_P2M_SIZE - 1
TYPE_SHIFT = 28
NOTHING_WORD = 0xF000_0000
"""Stands for pfns that the saver could not map: no statement about pfn 0."""

MAX_BATCH = 1024
MAX_VCPU_ID = 4095

UINT32 = struct.Struct("<I")
CHUNK_KIND = struct.Struct("<i")
INFO_BLOCK = struct.Struct("<4sI")
"""In front of every block of extended info: its id, and the length of its data."""
VCPU_INFO = struct.Struct("<i")
"""Start of VCPU_INFO: the highest vcpu id, before the map of online vcpus in 64-bit words."""
VCPUS_PER_MAP_WORD = 64
MAP_WORD_SIZE = 8
EXTENDED_CONTEXT_SIZE = 128

INFO_VCPU, INFO_EXTENDED, INFO_XSAVE = b"vcpu", b"extv", b"xcnt"
"""Blocks of extended info: a context; that extended contexts come; how long each vcpu's XSAVE state is, as a u32."""


class Chunk(IntEnum):
    """Kinds of chunks in the body; a positive one is a number of pfn words."""

    END = 0
    ENABLE_VERIFY_MODE = -1
    VCPU_INFO = -2
    HVM_IDENT_PT = -3
    HVM_VM86_TSS = -4
    TMEM = -5
    TMEM_EXTRA = -6
    TSC_INFO = -7
    HVM_CONSOLE_PFN = -8
    LAST_CHECKPOINT = -9
    HVM_ACPI_IOPORTS_LOCATION = -10
    HVM_VIRIDIAN = -11
    COMPRESSED_DATA = -12
    ENABLE_COMPRESSION = -13
    HVM_GENERATION_ID_ADDR = -14
    HVM_PAGING_RING_PFN = -15
    HVM_MONITOR_RING_PFN = -16
    HVM_SHARING_RING_PFN = -17
    TOOLSTACK = -18
    HVM_IOREQ_SERVER_PFN = -19
    HVM_NR_IOREQ_SERVER_PAGES = -20


_PARAM_SIZE = struct.calcsize("<IQ")  # 4 bytes of padding, and the value

CHUNK_SIZE: dict[int, int] = {
    Chunk.ENABLE_VERIFY_MODE: 0,
    Chunk.HVM_IDENT_PT: _PARAM_SIZE,
    Chunk.HVM_VM86_TSS: _PARAM_SIZE,
    Chunk.TSC_INFO: struct.calcsize("<IQII"),
    Chunk.HVM_CONSOLE_PFN: _PARAM_SIZE,
    Chunk.LAST_CHECKPOINT: 0,
    Chunk.HVM_ACPI_IOPORTS_LOCATION: _PARAM_SIZE,
    Chunk.HVM_VIRIDIAN: _PARAM_SIZE,
    Chunk.HVM_GENERATION_ID_ADDR: _PARAM_SIZE,
    Chunk.HVM_PAGING_RING_PFN: _PARAM_SIZE,
    Chunk.HVM_MONITOR_RING_PFN: _PARAM_SIZE,
    Chunk.HVM_SHARING_RING_PFN: _PARAM_SIZE,
    Chunk.HVM_IOREQ_SERVER_PFN: _PARAM_SIZE,
    Chunk.HVM_NR_IOREQ_SERVER_PAGES: _PARAM_SIZE,
}
"""Bytes after the kind, of chunks whose length never varies."""


class LegacyKind(NamedTuple):
    """What the first bytes tell: the toolstack's word size in bytes, the guest (pv or hvm), the number of pfns."""

    word: int
    guest: str
    p2m_size: int


def recognise(head: bytes) -> LegacyKind | None:
    """What kind of old stream begins with these bytes (`RECOGNISED_BY` of them), or None if none does.

    A word of the toolstack's size comes first, the number of pfns. A 64-bit one has zeros in its upper half. In a
    PV stream a word of all ones follows, in an HVM stream the kind of the first chunk.
    """
    if len(head) < RECOGNISED_BY:
        return None
    (p2m_size,) = UINT32.unpack_from(head)
    word = 8 if head[4:8] == bytes(4) else 4
    (follows,) = CHUNK_KIND.unpack_from(head, word)
    if not 0 < p2m_size <= MAX_P2M_SIZE or not follows or not min(Chunk) <= follows <= MAX_BATCH:
        return None
    return LegacyKind(word, "pv" if follows == -1 else "hvm", p2m_size)
