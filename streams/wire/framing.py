"""Headers and small fixed bodies: what every stream needs, with the standard library alone.

A filter in front of an HVM guest reads nothing else, so nothing here may import construct or numpy.
Sources: libxc `xg_sr_stream_format.h`, libxl `libxl_sr_stream_format.h`, xl `xl_vmcontrol.c`,
xapi `xenopsd/suspend_image.ml`.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from streams.values import NamedTuple

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

# -- libxc ------------------------------------------------------------------------------------------

IMAGE_MARKER = 0xFFFF_FFFF_FFFF_FFFF
IMAGE_ID = 0x5845_4E46  # "XENF"
# Versions whose framing is known, whatever a given release accepts.
KNOWN_VERSIONS = (2, 3)
OPTION_BIG_ENDIAN = 0x0001
RECORD_ALIGN = 8
RECORD_OPTIONAL = 0x8000_0000


class ImageHeader(NamedTuple):
    """First 24 bytes of a libxc image; always big-endian."""

    marker: int
    id: int
    version: int
    options: int
    reserved1: int
    reserved2: int


class DomainHeader(NamedTuple):
    """Bytes 24..39 of a libxc image."""

    type: int
    page_shift: int
    reserved: int
    xen_major: int
    xen_minor: int


class RecordHeader(NamedTuple):
    """In front of every libxc and libxl record; length excludes header and padding."""

    type: int
    length: int


class PageDataHeader(NamedTuple):
    """Start of a PAGE_DATA body, before the pfn words."""

    count: int  # type: ignore[assignment]
    reserved: int


class VcpuHeader(NamedTuple):
    """Start of the four vcpu record bodies."""

    vcpu_id: int
    reserved: int


class PvInfoBody(NamedTuple):
    """X86_PV_INFO."""

    guest_width: int
    pt_levels: int
    reserved: bytes


class P2mHeader(NamedTuple):
    """Start of X86_PV_P2M_FRAMES, before the u64 pfns; end_pfn is inclusive."""

    start_pfn: int
    end_pfn: int


class TscBody(NamedTuple):
    """X86_TSC_INFO."""

    mode: int
    khz: int
    nsec: int
    incarnation: int
    reserved: int


class ParamsHeader(NamedTuple):
    """Start of HVM_PARAMS, before (u64 index, u64 value) pairs."""

    count: int  # type: ignore[assignment]
    reserved: int


class HvmParamEntry(NamedTuple):
    """One entry of HVM_PARAMS."""

    index: int  # type: ignore[assignment]
    value: int


class CpuidLeaf(NamedTuple):
    """One entry of X86_CPUID_POLICY."""

    leaf: int
    subleaf: int
    a: int
    b: int
    c: int
    d: int


class PolicyMsr(NamedTuple):
    """One entry of X86_MSR_POLICY."""

    index: int  # type: ignore[assignment]
    flags: int
    value: int


class HvmSaveHeader(NamedTuple):
    """In front of every entry of an HVM_CONTEXT body (hvm_save_descriptor)."""

    typecode: int
    instance: int
    length: int


IMAGE_HEADER = struct.Struct(">QIIHHI")
DOMAIN_HEADER = struct.Struct("<IHHII")
RECORD_HEADER = struct.Struct("<II")
PAGE_DATA_HEADER = struct.Struct("<II")
VCPU_HEADER = struct.Struct("<II")
PV_INFO = struct.Struct("<BB6s")
P2M_HEADER = struct.Struct("<II")
TSC_INFO = struct.Struct("<IIQII")
PARAMS_HEADER = struct.Struct("<II")
HVM_PARAM = struct.Struct("<QQ")
HVM_SAVE_HEADER = struct.Struct("<HHI")
PFN_WORD_SIZE = 8
P2M_ENTRY_SIZE = 8
CPUID_LEAF = struct.Struct("<6I")
POLICY_MSR = struct.Struct("<IIQ")
CPUID_LEAF_SIZE = CPUID_LEAF.size
NO_SUBLEAF = 0xFFFF_FFFF  # subleaf of a leaf that has none
MSR_ENTRY_SIZE = POLICY_MSR.size
SHARED_INFO_SIZE = PAGE_SIZE


class GuestType(IntEnum):
    """Type field of the domain header."""

    PV = 1
    HVM = 2


class RecordType(IntEnum):
    """libxc record types."""

    END = 0x00
    PAGE_DATA = 0x01
    X86_PV_INFO = 0x02
    X86_PV_P2M_FRAMES = 0x03
    X86_PV_VCPU_BASIC = 0x04
    X86_PV_VCPU_EXTENDED = 0x05
    X86_PV_VCPU_XSAVE = 0x06
    SHARED_INFO = 0x07
    X86_TSC_INFO = 0x08
    HVM_CONTEXT = 0x09
    HVM_PARAMS = 0x0A
    TOOLSTACK = 0x0B
    X86_PV_VCPU_MSRS = 0x0C
    VERIFY = 0x0D
    CHECKPOINT = 0x0E
    CHECKPOINT_DIRTY_PFN_LIST = 0x0F
    STATIC_DATA_END = 0x10
    X86_CPUID_POLICY = 0x11
    X86_MSR_POLICY = 0x12


FREE_RECORD_TYPE = max(RecordType) + 1
"""The first mandatory type that no specification defines."""


# -- libxl ------------------------------------------------------------------------------------------

LIBXL_IDENT = b"LibxlFmt"
LIBXL_VERSION = 2
LIBXL_OPTION_BIG_ENDIAN = 0x1
LIBXL_OPTION_LEGACY = 0x2


class LibxlHeader(NamedTuple):
    """First 16 bytes of a libxl stream; big-endian."""

    ident: bytes
    version: int
    options: int


class EmulatorHeader(NamedTuple):
    """Start of the EMULATOR_* bodies."""

    emulator_id: int
    index: int  # type: ignore[assignment]


class CheckpointState(NamedTuple):
    """CHECKPOINT_STATE."""

    control_id: int


LIBXL_HEADER = struct.Struct(">8sII")
EMULATOR_HEADER = struct.Struct("<II")
CHECKPOINT_STATE = struct.Struct("<I")


class Emulator(IntEnum):
    """Ids of device models in EMULATOR_* bodies."""

    UNKNOWN = 0
    QEMU_TRADITIONAL = 1
    QEMU_UPSTREAM = 2


class LibxlRecordType(IntEnum):
    """libxl record types."""

    END = 0
    LIBXC_CONTEXT = 1
    EMULATOR_XENSTORE_DATA = 2
    EMULATOR_CONTEXT = 3
    CHECKPOINT_END = 4
    CHECKPOINT_STATE = 5


# -- xl ---------------------------------------------------------------------------------------------

XL_MAGIC = b"Xen saved domain, xl format\n \x00 \r"
XL_BYTEORDER = 0x0102_0304
XL_FLAG_JSON = 0x1
XL_FLAG_LIBXL_V2 = 0x2


class XlHeader(NamedTuple):
    """First 48 bytes of an `xl save` file."""

    magic: bytes
    byteorder: int
    mandatory_flags: int
    optional_flags: int
    optional_data_len: int


XL_HEADER = struct.Struct("<32sIIII")
XL_CONFIG_LENGTH = struct.Struct("<I")

# -- xapi -------------------------------------------------------------------------------------------

XAPI_MAGIC = b"XenSavedDomv2-\n"
XAPI_LEGACY_MAGIC = b"XenSavedDomain\n"


class XapiBlockHeader(NamedTuple):
    """In front of every block of a xapi suspend image; blocks follow one another without padding."""

    id: int
    length: int


XAPI_BLOCK_HEADER = struct.Struct("<QQ")


class XapiBlockId(IntEnum):
    """Block ids of a xapi suspend image."""

    XENOPS = 0x000F
    LIBXC = 0x00F0
    LIBXL = 0x00F1
    LIBXC_LEGACY = 0x00F2
    QEMU_TRAD = 0x0F00
    QEMU_XEN = 0x0F01
    DEMU = 0x0F10
    VARSTORED = 0x0F11
    SWTPM0 = 0x0F12
    SWTPM = 0x0F13
    END_OF_IMAGE = 0xFFFF


# Blocks without a payload of their own: whatever their length field says, nobody reads it.
XAPI_LENGTH_UNREAD = frozenset({XapiBlockId.LIBXC, XapiBlockId.LIBXC_LEGACY, XapiBlockId.END_OF_IMAGE})

# -- the back direction -----------------------------------------------------------------------------

MIGRATE_BANNER = b"xl migration receiver ready, send binary domain data.\n"


_RECORD_NAMES = {int(kind): kind.name for kind in RecordType}
_LIBXL_NAMES = {int(kind): kind.name for kind in LibxlRecordType}
_XAPI_NAMES = {int(kind): kind.name for kind in XapiBlockId}


def record_name(kind: int) -> str:
    """Name of a libxc record type, or its number where none is defined."""
    return _RECORD_NAMES.get(kind) or f"0x{kind:08x}"


def libxl_record_name(kind: int) -> str:
    """Name of a libxl record type, or its number where none is defined."""
    return _LIBXL_NAMES.get(kind) or f"0x{kind:08x}"


def xapi_block_name(kind: int) -> str:
    """Name of a xapi block id, or its number where none is defined."""
    return _XAPI_NAMES.get(kind) or f"0x{kind:08x}"


def padded(length: int) -> int:
    """Length of a record body with its padding."""
    return (length + RECORD_ALIGN - 1) & -RECORD_ALIGN
