"""What is no Xen stream, or not one from its first byte on, and what to do with it.

Sources: the formats' own specifications; for Xen's and libvirt's, `xl`, xend, xenopsd and libvirt's `qemu_saveimage.h`.
"""

from __future__ import annotations

from streams.compression import CODECS
from streams.counting import count
from streams.values import NamedTuple, dataclass
from streams.wire.framing import (
    IMAGE_ID,
    IMAGE_MARKER,
    LIBXL_IDENT,
    LIBXL_VERSION,
    MIGRATE_BANNER,
    XAPI_LEGACY_MAGIC,
    XAPI_MAGIC,
    XL_MAGIC,
)
from streams.wire.libvirt import LIBVIRT_MAGIC
from streams.wire.qemu import MAGIC as QEMU_MAGIC

HEAD_SIZE = 2048
"""Bytes from the beginning that decide what a file is."""
TAIL_SIZE = 512
"""Bytes from the end that tell a fixed VHD."""
SEARCHED = 1 << 20
"""How far into a file the beginning of a stream is looked for."""


@dataclass(frozen=True, slots=True)
class OtherFile:
    """A file that is recognised, and is not read as a stream.

    Attributes
    ----------
    kind:
        a short name for programs.
    what:
        what it is, as "this is ..." goes on.
    advice:
        how its owner gets to a stream, if there is one in it.
    """

    kind: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}; {self.advice}" if self.advice else self.what


class Signature(NamedTuple):
    """Bytes at an offset that tell what a file is."""

    offset: int
    bytes: tuple[bytes, ...]
    file: OtherFile


_NO_STREAM = "there is no guest of Xen's in it"
_MODEL = "the state of QEMU, a guest's device model, alone"
_MODEL_ADVICE = "the guest's memory and processors are in another file"
_UNPACK = "unpack it first"
_PAGE = "the download or copy failed, and this is the answer in its place: fetch the file again"
_SUSPEND_DISK = (
    "a suspend disk of xapi holds the image from its first byte on: attach it, or convert it to raw, and read it there"
)

XVA = OtherFile(
    "xva",
    "an exported virtual machine of XenServer or XCP-ng (xva), a tar archive",
    "the memory of a suspended machine is in the disk that ova.xml names suspend-VDI: put the chunks of its directory "
    "Ref:N/ together in order, without the checksums, and read that",
)

SIGNATURES: tuple[Signature, ...] = (
    Signature(
        0,
        (b"LinuxGuestRecord",),
        OtherFile(
            "xm-save",
            "a guest of Xen's saved by xm (xend), LinuxGuestRecord",
            "nothing reads it since xend went with Xen 4.5; restore it with Xen 4.4 or older, and save it again there",
        ),
    ),
    Signature(
        0,
        (b"LibvirtQemudSave",),
        OtherFile("libvirt-qemu", "a guest of QEMU or KVM saved by libvirt (LibvirtQemudSave)", _NO_STREAM),
    ),
    Signature(
        0,
        (b"LibvirtQemudPart",),
        OtherFile(
            "libvirt-qemu", "a guest of QEMU or KVM, not completely saved by libvirt (LibvirtQemudPart)", _NO_STREAM
        ),
    ),
    Signature(0, (QEMU_MAGIC,), OtherFile("qemu", f"{_MODEL} (QEVM)", _MODEL_ADVICE)),
    Signature(
        0,
        (b"QemuDeviceModelRecord", b"DeviceModelRecord0002", b"RemusDeviceModelState"),
        OtherFile("qemu-record", f"{_MODEL}, as it stood behind a stream from before Xen 4.6", _MODEL_ADVICE),
    ),
    Signature(0, (b"conectix",), OtherFile("vhd", "a disk image, VHD", _SUSPEND_DISK)),
    Signature(0, (b"vhdxfile",), OtherFile("vhdx", "a disk image, VHDX", _SUSPEND_DISK)),
    Signature(0, (b"QFI\xfb",), OtherFile("qcow2", "a disk image, qcow2", _SUSPEND_DISK)),
    Signature(0, (b"KDMV", b"# Disk DescriptorFile"), OtherFile("vmdk", "a disk image, VMDK", _NO_STREAM)),
    Signature(0, (b"\x89LZO\0\r\n\x1a\n",), OtherFile("lzop", "compressed with lzop", f"{_UNPACK}: lzop -dc")),
    Signature(0, (b"PK\x03\x04", b"PK\x05\x06"), OtherFile("zip", "a zip archive", f"{_UNPACK}: unzip")),
    Signature(0, (b"7z\xbc\xaf\x27\x1c",), OtherFile("7z", "a 7z archive", _UNPACK)),
    Signature(257, (b"ustar",), OtherFile("tar", "a tar archive", _UNPACK)),
    Signature(
        1080,
        (b"\x53\xef",),
        OtherFile(
            "ext",
            "a disk with an ext2, ext3 or ext4 file system",
            "on a suspend disk of old XenServer the image is the file suspend-image: mount it and read that",
        ),
    ),
)
"""Tried in this order; a file of several signatures is what the first one says."""

EMPTY = OtherFile("empty", "empty: 0 bytes, no data", "the save did not begin, or its file was truncated")
ZEROS = OtherFile("zeros", "all zeros, as far as it was read", "nothing was written here: the disk or file is sparse")
HTML = OtherFile("html", "a page of HTML", _PAGE)
XML = OtherFile("xml", "XML text", _NO_STREAM)
DOMAIN_XML = OtherFile("domain-xml", "a domain's configuration in libvirt's XML, alone", _NO_STREAM)
JSON = OtherFile("json", "JSON text", _PAGE)
DOMAIN_JSON = OtherFile("domain-json", "a domain's configuration in libxl's JSON, alone", _NO_STREAM)
CORE = OtherFile(
    "core",
    "an ELF core file, as xl dump-core writes it",
    "a core cannot be restored; crash and xen-gdb read it",
)
ELF = OtherFile("elf", "an ELF file: a program or library", _NO_STREAM)
FIXED_VHD = OtherFile("vhd", "a disk image, VHD of fixed size by its last 512 bytes", _SUSPEND_DISK)

_VHD = b"conectix"
_ELF_MAGIC, _ELF_TYPE, _ELF_CORE, _ELF_BIG = b"\x7fELF", 16, 4, b"\2"
_SPACE = b" \t\r\n\xef\xbb\xbf"


def is_signed(head: bytes) -> bool:
    """Whether the first bytes are some other file's signature, which the sizes that begin an old stream never are."""
    return any(head.startswith(signature.bytes) for signature in SIGNATURES if not signature.offset)


def recognise(head: bytes, tail: bytes | None = None) -> OtherFile | None:
    """What a file is that is no stream; None where it is nothing known.

    Parameters
    ----------
    head:
        its first bytes, `HEAD_SIZE` of them where it has as many. More tell more surely whether it is all zeros.
    tail:
        its last `TAIL_SIZE` bytes, where they can be had.
    """
    if not head:
        return EMPTY
    for signature in SIGNATURES:
        if any(head.startswith(magic, signature.offset) for magic in signature.bytes):
            return XVA if signature.file.kind == "tar" and head.startswith(b"ova.xml\0") else signature.file
    for codec in CODECS:
        if codec.fits(head):
            return OtherFile(codec.name, f"compressed with {codec.name}, which is not unpacked here", _UNPACK)
    if head.startswith(_ELF_MAGIC):
        kind = head[_ELF_TYPE : _ELF_TYPE + 2]
        return CORE if int.from_bytes(kind, "big" if head[5:6] == _ELF_BIG else "little") == _ELF_CORE else ELF
    if tail is not None and tail[-TAIL_SIZE:].startswith(_VHD):
        return FIXED_VHD
    if not head.strip(b"\0") and (tail is None or not tail.strip(b"\0")):
        return ZEROS
    return _text(head.lstrip(_SPACE))


def _text(text: bytes) -> OtherFile | None:
    lower = text[:HEAD_SIZE].lower()
    if lower.startswith((b"<!doctype html", b"<html")) or (lower.startswith(b"<!--") and b"<html" in lower):
        return HTML
    if lower.startswith(b"<domain") or (lower.startswith(b"<?xml") and b"<domain" in lower):
        return DOMAIN_XML
    if lower.startswith((b"<?xml", b"<!doctype")):
        return HTML if b"html" in lower else XML
    if lower.startswith((b"{", b"[")) and lower[1:].lstrip()[:1] in b'"{[]}':
        return DOMAIN_JSON if b'"c_info"' in lower else JSON
    return None


# -- streams with something in front -------------------------------------------------------------------------


class Found(NamedTuple):
    """The beginning of a stream: where, and in which container."""

    offset: int
    container: str


RAW_MAGIC = IMAGE_MARKER.to_bytes(8, "big") + IMAGE_ID.to_bytes(4, "big")
STREAM_MAGICS: tuple[tuple[bytes, str], ...] = (
    (XL_MAGIC, "xl"),
    (LIBVIRT_MAGIC, "libvirt"),
    (XAPI_MAGIC, "xapi"),
    (XAPI_LEGACY_MAGIC, "xapi-legacy"),
    (LIBXL_IDENT, "libxl"),
    (RAW_MAGIC, "libxc"),
)


def find_stream(data: bytes) -> Found | None:
    """The first beginning of a stream in some bytes; `SEARCHED` of them are looked at."""
    found = [
        Found(at, container)
        for magic, container in STREAM_MAGICS
        if (at := data.find(magic, 0, SEARCHED + len(magic))) >= 0
    ]
    return min(found, default=None)


def describe_prefix(prefix: bytes) -> str:
    """What stands in front of a stream: zeros, a text that is known or the beginning of another, or bytes."""
    size = len(prefix)
    if not prefix.strip(b"\0"):
        return count(size, "zero byte")
    if MIGRATE_BANNER.rstrip() in prefix:
        return f"{count(size, 'byte')}, the greeting of xl migrate-receive among them"
    if RECEIVER_READY in prefix:
        return f"{count(size, 'byte')}, {RECEIVER_READY.decode()!r} of xl migrate-receive among them"
    text = _first_line(prefix)
    return (
        f"{count(size, 'byte')} of text, {text!r} first"
        if text
        else f"{count(size, 'byte that belongs', 'bytes that belong')} to no stream"
    )


def describe_suffix(suffix: bytes, length: int, start: int) -> str:
    """What stands behind the end of a stream, to be told after its length; empty for bytes of no known kind.

    Parameters
    ----------
    suffix:
        its first bytes.
    length, start:
        how many there are in all, and the offset of the first of them in the input.
    """
    another = find_stream(suffix)
    if another is not None:
        at = start + another.offset
        return f"; another stream ({another.container}) begins at byte {at} ({at:#x}), which --offset {at} reads"
    if not suffix.strip(b"\0"):
        return "" if not suffix else ", all of them zeros" if len(suffix) == length else ", the first of them zeros"
    text = _first_line(suffix)
    return f", text, {text!r} first" if text else ""


def _first_line(data: bytes) -> str:
    """The beginning of the first line of some text; empty where it is none."""
    first = data.lstrip(b"\0\r\n").split(b"\n")[0][:60].rstrip()
    return first.decode() if first.isascii() and first.decode().isprintable() else ""


RECEIVER_READY = b"migration target: Ready to receive domain."


def explain(head: bytes, start: int = 0) -> str:
    """What an input is that does not begin as a stream does, and how its owner goes on: a sentence.

    Parameters
    ----------
    head:
        its first bytes, `SEARCHED` of them where it has as many.
    start:
        offset of the first of them in the input.
    """
    other = recognise(head)
    if other is not None and other is not ZEROS:
        return f"not a Xen stream: this is {other}"
    changed = translated_newlines(head)
    if changed is not None:
        return (
            f"the stream that begins at byte {start + changed.offset} was changed on its way: {changed.what}; "
            "transfer it again in binary mode"
        )
    found = find_stream(head)
    if found is not None:
        at, prefix = start + found.offset, describe_prefix(head[: found.offset])
        return (
            f"a stream ({found.container}) begins at byte {at} ({at:#x}), behind {prefix}, which no toolstack passes "
            f"over; --offset {at} reads it from there"
        )
    if head.startswith(MIGRATE_BANNER):
        return "the greeting of xl migrate-receive: this is the back direction of a migration"
    return f"not a Xen stream: this is {other}" if other else "not a Xen stream: it begins with " + head[:8].hex(" ")


# -- damaged magics ----------------------------------------------------------------------------------------------

MAGICS_TOLD_BY = len(XL_MAGIC)
"""So many bytes tell whether a magic is there, but damaged."""
_DAMAGED: tuple[tuple[bytes, str], ...] = (
    (XL_MAGIC, "xl"),
    (LIBVIRT_MAGIC, "libvirt"),
    (XAPI_MAGIC, "xapi"),
    (LIBXL_IDENT + LIBXL_VERSION.to_bytes(4, "big") + bytes(4), "libxl"),
)


def damaged_magic(head: bytes) -> str | None:
    """The container whose magic a stream begins with but for a few bytes; None where it is none."""
    for magic, container in _DAMAGED:
        same = sum(a == b for a, b in zip(head, magic, strict=False))
        if 4 * same >= 3 * len(magic):
            return container
    return None


# -- newlines ----------------------------------------------------------------------------------------------------


class Translation(NamedTuple):
    """What became of the line ends on the way: told by a magic that holds one of each."""

    offset: int
    what: str


# The ends of xl's and libvirt's magic: newline, space, NUL, space, carriage return.
_END = b"\n \0 \r"
_TRANSLATED: tuple[tuple[bytes, str], ...] = (
    (b"\r\n \0 \r", "each newline became a carriage return and a newline (CR LF), as a terminal (pty) does it"),
    (b"\n \0 \n", "each carriage return became a newline, as a terminal (pty) does it on input"),
    (b"\r \0 \r", "each newline became a carriage return"),
    (b"\n  \r", "the NUL bytes were lost"),
    (b" \0 \r", "the newlines were lost"),
    # Behind the magic stands xl's mark of the byte order, or libvirt's version.
    (b"\n \0 \4\3\2\1", "the carriage returns were lost"),
    (b"\n \0 \1\0\0\0", "the carriage returns were lost"),
    (b"\n \0 \2\0\0\0", "the carriage returns were lost"),
)
_BEGINNINGS = tuple(magic[: -len(_END)] for magic in (XL_MAGIC, LIBVIRT_MAGIC))
_XAPI_BEGINNINGS = (XAPI_MAGIC[:-1], XAPI_LEGACY_MAGIC[:-1])


def translated_newlines(data: bytes) -> Translation | None:
    """How the line ends of a stream were changed on the way; None where a magic is whole, or none is there."""
    for beginning in _BEGINNINGS:
        at = data.find(beginning, 0, SEARCHED)
        if at < 0:
            continue
        end = data[at + len(beginning) :]
        if end.startswith(_END):
            return None
        for found, what in _TRANSLATED:
            if end.startswith(found):
                return Translation(at, what)
    for beginning in _XAPI_BEGINNINGS:
        at = data.find(beginning + b"\r\n", 0, SEARCHED)
        if at >= 0:
            return Translation(at, _TRANSLATED[0][1])
    return None
