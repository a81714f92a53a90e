"""The header of images that libvirt's Xen driver writes: `virsh save`, managed saves.

A 64-byte header, the domain's XML with its NUL, then a libxl stream. Source: libvirt's `libxl_conf.h` and
`libxl_domain.c`.
"""

from __future__ import annotations

import struct

from streams.values import NamedTuple

LIBVIRT_MAGIC = b"libvirt-xml\n \x00 \r"
LIBVIRT_LEGACY = 1
"""Version of an image with a stream from before Xen 4.6."""
LIBVIRT_LIBXL_V2 = 2
"""Version of an image with a libxl stream of version 2, the latest that libvirt reads."""


class LibvirtHeader(NamedTuple):
    """First 64 bytes of an image, in the writer's byte order, which libvirt does not turn round."""

    magic: bytes
    version: int
    xml_length: int
    unused: bytes


LIBVIRT_HEADER = struct.Struct("<16sII40s")
_SWAPPED = struct.Struct(">16sII40s")


def decode_header(raw: bytes) -> LibvirtHeader:
    """The header in the first 64 bytes of an image."""
    return LibvirtHeader._make(LIBVIRT_HEADER.unpack(raw[: LIBVIRT_HEADER.size]))


def encode_image(xml: bytes, stream: bytes, version: int = LIBVIRT_LIBXL_V2) -> bytes:
    """An image of the XML as given (libvirt's ends with a NUL) and a stream."""
    return LIBVIRT_HEADER.pack(LIBVIRT_MAGIC, version, len(xml), bytes(40)) + xml + stream


def decode_image(image: bytes) -> tuple[LibvirtHeader, bytes, bytes]:
    """Header, XML and stream of a whole image; the XML is shorter than announced where the image ends in it.

    Raises ValueError where the image is shorter than its header.
    """
    if len(image) < LIBVIRT_HEADER.size:
        raise ValueError(f"the image ends in the header: {len(image)} of {LIBVIRT_HEADER.size} bytes")
    header = decode_header(image)
    end = LIBVIRT_HEADER.size + header.xml_length
    return header, image[LIBVIRT_HEADER.size : end], image[end:]


class HeaderObjection(NamedTuple):
    """Why libvirt does not read an image: what is wrong, and the offset of the field."""

    message: str
    offset: int


def header_objection(header: LibvirtHeader) -> HeaderObjection | None:
    """What libvirt objects to in a header, in the order in which it looks."""
    if header.magic != LIBVIRT_MAGIC:
        return HeaderObjection("image magic is incorrect", 0)
    if header.version > LIBVIRT_LIBXL_V2:
        swapped = _SWAPPED.unpack(LIBVIRT_HEADER.pack(*header))[1]
        order = "; its header is big-endian, and no x86 host's" if swapped <= LIBVIRT_LIBXL_V2 else ""
        message = f"image version is not supported ({header.version} > {LIBVIRT_LIBXL_V2}){order}"
        return HeaderObjection(message, 16)
    if not header.xml_length:
        return HeaderObjection("invalid XML length: 0", 20)
    return None
