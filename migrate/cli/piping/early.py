"""The first bytes of a stream, which need not wait for the judge: nothing takes longer to be ready."""

from __future__ import annotations

import select

from streams.wire.framing import (
    DOMAIN_HEADER,
    IMAGE_HEADER,
    IMAGE_ID,
    IMAGE_MARKER,
    KNOWN_VERSIONS,
    LIBXL_HEADER,
    LIBXL_IDENT,
    LIBXL_VERSION,
    RECORD_HEADER,
    XL_HEADER,
    XL_MAGIC,
    DomainHeader,
    GuestType,
    LibxlRecordType,
    XlHeader,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from streams.forwarding import ForwardingTransport

# What is looked at, and goes on early.
HEAD = 64 << 10
_LIBXL = LIBXL_HEADER.pack(LIBXL_IDENT, LIBXL_VERSION, 0) + RECORD_HEADER.pack(LibxlRecordType.LIBXC_CONTEXT, 0)
_IMAGES = frozenset(IMAGE_HEADER.pack(IMAGE_MARKER, IMAGE_ID, version, 0, 0, 0) for version in KNOWN_VERSIONS)


def send_early(transport: ForwardingTransport) -> None:
    """Pass on what is there by now, if it begins an HVM guest: once bytes have gone on, numpy is not to be imported."""
    poll = select.poll()
    poll.register(transport.source, select.POLLIN)
    if poll.poll(0):
        head = transport.peek(HEAD)
        if begins_hvm(head):
            transport.send_ahead(len(head))


def begins_hvm(head: bytes) -> bool:
    """Whether bytes are the beginning of an HVM guest's stream, as savers write it, and long enough to say so."""
    at = 0
    if head.startswith(XL_MAGIC) and len(head) >= XL_HEADER.size:
        at = XL_HEADER.size + XlHeader._make(XL_HEADER.unpack_from(head)).optional_data_len
    if head.startswith(_LIBXL, at):
        at += len(_LIBXL)
    domain = at + IMAGE_HEADER.size
    if head[at:domain] not in _IMAGES or len(head) < domain + DOMAIN_HEADER.size:
        return False
    return DomainHeader._make(DOMAIN_HEADER.unpack_from(head, domain)).type == GuestType.HVM
