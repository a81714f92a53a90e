"""The bytes of a Xen core dump: ELF headers, notes, and the tables that go with the pages.

Sources: the ELF specification; Xen's `docs/misc/dump-core-format.txt`, `xen/include/public/elfnote.h`,
`xen/include/public/version.h` and `tools/libs/ctrl/xc_core.h`. It is no part of a stream.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from construct import Bytes, Const, Construct, Default, Int8ul, Int16ul, Int32ul, Int64ul, Padding, Struct

from streams.values import NamedTuple
from streams.wire.layouts import U64, Layout
from streams.wire.vcpu import CONTEXT

# -- ELF --------------------------------------------------------------------------------------------

ELF_HEADER = Struct(
    "magic" / Const(b"\x7fELF"),
    "class64" / Const(2, Int8ul),
    "little_endian" / Const(1, Int8ul),
    "ident_version" / Const(1, Int8ul),
    "os_abi" / Const(0, Int8ul),
    "abi_version" / Const(1, Int8ul),
    Padding(7),
    "type" / Const(4, Int16ul),  # ET_CORE
    "machine" / Const(62, Int16ul),  # EM_X86_64, whatever the guest's word size: the toolstack's
    "version" / Const(1, Int32ul),
    "entry" / Const(0, Int64ul),
    "phoff" / Const(0, Int64ul),
    "shoff" / Int64ul,
    "flags" / Const(0, Int32ul),
    "ehsize" / Int16ul,
    "phentsize" / Const(0, Int16ul),
    "phnum" / Const(0, Int16ul),
    "shentsize" / Int16ul,
    "shnum" / Int16ul,
    "shstrndx" / Int16ul,
)
"""What stands at the start of the file. There are no program headers, only sections."""

SECTION_HEADER = Struct(
    "name" / Int32ul,
    "type" / Int32ul,
    "flags" / Const(0, Int64ul),
    "addr" / Const(0, Int64ul),
    "offset" / Int64ul,
    "size" / Int64ul,
    "link" / Const(0, Int32ul),
    "info" / Const(0, Int32ul),
    "addralign" / Int64ul,
    "entsize" / Int64ul,
)

ALIGN = 8
"""Alignment of what has no reason for another."""


class SectionType(IntEnum):
    """Types of sections that are used."""

    NULL = 0
    PROGBITS = 1
    STRTAB = 3
    NOTE = 7


class Section(StrEnum):
    """Names of the sections."""

    STRINGS = ".shstrtab"
    NOTES = ".note.Xen"
    CONTEXTS = ".xen_prstatus"
    SHARED_INFO = ".xen_shared_info"
    PAGES = ".xen_pages"
    P2M = ".xen_p2m"
    PFN = ".xen_pfn"


# -- notes ------------------------------------------------------------------------------------------

NOTE_NAME = b"Xen\0"
NOTE_ALIGN = 4
NOTE_HEADER = Struct("namesz" / Int32ul, "descsz" / Int32ul, "type" / Int32ul, "name" / Const(NOTE_NAME))


class Note(IntEnum):
    """XEN_ELFNOTE_DUMPCORE_*."""

    NONE = 0x2000000
    HEADER = 0x2000001
    XEN_VERSION = 0x2000002
    FORMAT_VERSION = 0x2000003


MAGIC_PV = 0xF00FEBED
MAGIC_HVM = 0xF00FEBEE
FORMAT_VERSION = 0x1  # major 0 in the upper half, minor 1 in the lower

DUMP_HEADER = Struct("magic" / Int64ul, "vcpus" / Int64ul, "pages" / Int64ul, "page_size" / Int64ul)
DUMP_FORMAT = Struct("version" / Int64ul)


def _text(room: int) -> Construct:
    """A text of the host's, which no stream tells."""
    return Default(Bytes(room), bytes(room))


def _xen_version(*last: Construct) -> Struct:
    return Struct(
        "major" / Int64ul,
        "minor" / Int64ul,
        "extra_version" / _text(16),
        "compiler" / _text(64),
        "compile_by" / _text(16),
        "compile_domain" / _text(32),
        "compile_date" / _text(32),
        "capabilities" / _text(1024),
        "changeset" / _text(64),
        *last,
    )


XEN_VERSION: dict[int, Struct] = {
    4: _xen_version("virt_start" / Default(Int32ul, 0), "page_size" / Int64ul, Padding(4)),
    8: _xen_version("virt_start" / Default(Int64ul, 0), "page_size" / Int64ul),
}
"""By guest width; of one size, but the page size of a 32-bit guest lies where a 32-bit toolstack would have it."""

# -- tables -----------------------------------------------------------------------------------------


class P2mEntry(NamedTuple):
    """A page of a PV guest, and the machine frame it was."""

    pfn: U64
    gmfn: U64


class PfnEntry(NamedTuple):
    """A page of any other guest."""

    pfn: U64


P2M_ENTRY = Layout(P2mEntry)
PFN_ENTRY = Layout(PfnEntry)
NO_FRAME = (1 << 64) - 1
"""XC_CORE_INVALID_GMFN: the page's machine frame is not known."""

CONTEXT_ROOM = max(context.size for context in CONTEXT.values())
"""Bytes of an entry of the contexts' section: a 64-bit toolstack gives those of a 32-bit guest as much."""
