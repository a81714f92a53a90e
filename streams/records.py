"""What the decoder hands out: headers, records and what broke, each with its place in the file."""

from __future__ import annotations

from enum import Enum, auto

from streams.values import dataclass
from streams.wire.framing import XAPI_MAGIC, RecordType, record_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from streams.legacy import LegacyStream
    from streams.pages import PfnWords
    from streams.wire.framing import DomainHeader, ImageHeader, LibxlHeader, XlHeader
    from streams.wire.libvirt import LibvirtHeader


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands: file offset of its header, index among its layer's records, type, body length."""

    offset: int
    index: int
    type: int
    length: int

    @property
    def name(self) -> str:
        """Record type by name, or as a hexadecimal number."""
        return record_name(self.type)

    @property
    def body(self) -> int:
        """File offset of the body."""
        return self.offset + 8


class Breach(Enum):
    """How bytes can break the grammar. Which rule that is, those decide who know what a rule is."""

    IMAGE_HEADER_CUT = auto()
    IMAGE_MARKER = auto()
    IMAGE_ID = auto()
    IMAGE_VERSION = auto()
    IMAGE_BIG_ENDIAN = auto()
    DOMAIN_HEADER_CUT = auto()
    RECORD_HEADER_CUT = auto()
    RECORD_CUT = auto()
    NO_END = auto()
    XL_MAGIC = auto()
    OPTIONAL_DATA_CUT = auto()
    NO_LIBXL_STREAM = auto()
    LIBXL_HEADER_CUT = auto()
    LIBXL_VERSION = auto()
    LIBXL_BIG_ENDIAN = auto()
    LIBXL_RECORD_CUT = auto()
    LIBVIRT_HEADER = auto()
    LIBVIRT_XML_CUT = auto()
    XAPI_SIGNATURE = auto()


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that break the grammar, so that nothing after them can be read as the format says."""

    breach: Breach
    message: str
    offset: int
    place: Place | None = None
    reader: str = "libxc"  # whose reader would have met it


@dataclass(frozen=True, slots=True)
class Recognised:
    """What the stream was recognised as: libxc, libxl, xl, libvirt, xapi, legacy … (the outermost first)."""

    container: str


@dataclass(frozen=True, slots=True)
class Unread:
    """The stream is of a kind that is recognised and not read further."""

    reason: str


@dataclass(frozen=True, slots=True)
class XlStart:
    """Header of an `xl save` file and the optional data after it (shorter than claimed at the end of the input)."""

    offset: int
    header: XlHeader
    optional_data: bytes


@dataclass(frozen=True, slots=True)
class LibvirtStart:
    """Header of an image of libvirt's Xen driver and its XML (shorter than claimed at the end of the input)."""

    offset: int
    header: LibvirtHeader
    xml: bytes


@dataclass(frozen=True, slots=True)
class LibxlStart:
    """Header of a libxl stream."""

    offset: int
    header: LibxlHeader


@dataclass(frozen=True, slots=True)
class XapiStart:
    """Signature of a xapi suspend image."""

    offset: int
    signature: bytes = XAPI_MAGIC


@dataclass(frozen=True, slots=True)
class ImageStart:
    """Header of a libxc image."""

    offset: int
    header: ImageHeader


@dataclass(frozen=True, slots=True)
class DomainStart:
    """Domain header of a libxc image."""

    offset: int
    header: DomainHeader


@dataclass(frozen=True, slots=True)
class Trailing:
    """What follows the end of the stream: its length, and its first bytes (all where somebody keeps them)."""

    offset: int
    length: int
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class LibxlRecord:
    """A libxl record; of one that is longer than any saver's only the beginning is kept.

    `missing` counts the bytes of header, body and padding that the input does not have any more. libxl does not
    notice its end, and takes them for zeros: such a record is told after the `Damage` that it is.
    """

    offset: int
    index: int
    type: int
    length: int
    body: bytes
    padding: bytes = b""
    missing: int = 0


@dataclass(frozen=True, slots=True)
class XapiBlock:
    """A block of a xapi suspend image; of large ones only the beginning is kept.

    A libxc image that follows is not part of its block. `length` is what the block's header says.
    """

    offset: int
    index: int
    id: int
    length: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """Any libxc record but PAGE_DATA, its body as raw bytes (None where nobody wanted it)."""

    place: Place
    body: bytes | None
    padding: bytes = b""

    @property
    def type(self) -> int:
        """Record type number."""
        return self.place.type


@dataclass(frozen=True, slots=True)
class PageData:
    """A PAGE_DATA record: its pfn words, and those page contents somebody asked for and kept.

    `runs` holds (ordinal, contents) pairs: the ordinal counts data-carrying pages from 0, the contents are
    a whole number of pages that follow one another. `data_offset` is where page 0's contents lie in the file.
    """

    place: Place
    count: int
    reserved: int
    words: PfnWords
    runs: tuple[tuple[int, bytes], ...]
    data_offset: int
    padding: bytes = b""

    @property
    def type(self) -> int:
        """Record type number."""
        return RecordType.PAGE_DATA


Event: TypeAlias = (
    "Recognised | XlStart | LibvirtStart | LibxlStart | LibxlRecord | XapiStart | XapiBlock | ImageStart | DomainStart"
    " | Record | PageData | LegacyStream | Damage | Unread | Trailing"
)
"""All that a stream can say, or that can be said of it."""
