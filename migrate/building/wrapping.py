"""The bytes of a builder's stream: its records, and the container around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.wire.framing import (
    LIBXL_HEADER,
    XAPI_BLOCK_HEADER,
    XL_CONFIG_LENGTH,
    XL_HEADER,
    RecordType,
    XapiBlockId,
)
from streams.wire.libvirt import LIBVIRT_HEADER

if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder


def wrapped(b: StreamBuilder) -> bytes:
    """The stream in its container. Raises ValueError where there is no such container."""
    wraps = {"libxc": _libxc, "libxl": _libxl, "xl": _xl, "libvirt": _libvirt, "xapi": _xapi}
    if b.container not in wraps:
        raise ValueError(f"no container is called {b.container!r}; there are {', '.join(wraps)}")
    return wraps[b.container](b)


def _libxc(b: StreamBuilder, after_checkpoint: bytes = b"") -> bytes:
    parts = [b.headers()]
    for rec in b.records:
        parts.append(rec.build())
        if rec.type == RecordType.CHECKPOINT:
            parts.append(after_checkpoint)
    return b"".join(parts)


def _libxl(b: StreamBuilder) -> bytes:
    image = _libxc(b, b"".join(rec.build() for rec in b.libxl_checkpoint))
    after = [] if b.checkpoints else b.libxl_after  # a checkpointed capture just stops
    head = LIBXL_HEADER.pack(*b.libxl.values())
    return b"".join([head, *(rec.build() for rec in b.libxl_before), image, *(rec.build() for rec in after)])


def _xl(b: StreamBuilder) -> bytes:
    optional = b.optional_data
    if optional is None:
        config = b.xl_config + b"\0"
        optional = XL_CONFIG_LENGTH.pack(len(config)) + config
    fields = dict(b.xl)
    if fields["optional_data_len"] is None:
        fields["optional_data_len"] = len(optional)
    return XL_HEADER.pack(*fields.values()) + optional + _libxl(b)


def _libvirt(b: StreamBuilder) -> bytes:
    xml = b.domain_xml + b"\0"
    fields = dict(b.libvirt)
    if fields["xml_length"] is None:
        fields["xml_length"] = len(xml)
    return LIBVIRT_HEADER.pack(*fields.values()) + xml + _libxl(b)


def _xapi(b: StreamBuilder) -> bytes:
    parts = [b.xapi_signature]
    for id, body in b.xapi_blocks:
        parts += [XAPI_BLOCK_HEADER.pack(id, len(body)), body]
        if id == XapiBlockId.LIBXC:
            parts.append(_libxc(b))
    return b"".join(parts)
