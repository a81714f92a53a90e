"""Parts of streams that no saver writes."""

from __future__ import annotations

from migrate.building.builder import StreamBuilder
from migrate.building.parts import Rec
from streams.wire.framing import EMULATOR_HEADER, RECORD_HEADER, LibxlRecordType, RecordType, XapiBlockId

END = RECORD_HEADER.pack(RecordType.END, 0)
OPTIONAL = 0x8000_0001  # a record that whoever does not know it may skip


def record(kind: int, body: bytes = b"", length: int | None = None) -> bytes:
    """A record, its body padded; a length that is not the body's, if one is given."""
    return Rec(int(kind), bytearray(body), length=length).build()


def before_end(stream: bytes, extra: bytes) -> bytes:
    """A libxc stream with more bytes before its END."""
    assert stream.endswith(END)
    return stream.removesuffix(END) + extra + END


def with_config(config: bytes) -> bytes:
    """An xl file with such a configuration of the domain."""
    b = StreamBuilder.pv(8)
    b.wrap("xl")
    b.xl_config = config
    return b.build()


def with_xml(xml: bytes) -> bytes:
    """An image of libvirt's with such a description of the domain."""
    b = StreamBuilder.pv(8)
    b.wrap("libvirt")
    b.domain_xml = xml
    return b.build()


def with_device_model(state: bytes, container: str = "xl") -> bytes:
    """An image of an HVM guest with such a state of its device model."""
    b = StreamBuilder.hvm()
    b.wrap(container)
    b.libxl_after[0].body[EMULATOR_HEADER.size :] = state
    b.xapi_blocks = [(id, state if id == XapiBlockId.QEMU_TRAD else body) for id, body in b.xapi_blocks]
    return b.build()


def with_xenstore(data: bytes) -> bytes:
    """An xl file of an HVM guest with such xenstore data of its device model."""
    b = StreamBuilder.hvm()
    b.wrap("xl")
    body = bytearray(EMULATOR_HEADER.pack(2, 0) + data)
    b.libxl_after.insert(0, Rec(LibxlRecordType.EMULATOR_XENSTORE_DATA, body))
    return b.build()


def with_xenops(text: bytes) -> bytes:
    """A xapi image in which xenopsd's own record is this."""
    b = StreamBuilder.pv(8)
    b.wrap("xapi")
    b.xapi_blocks[0] = (XapiBlockId.XENOPS, text)
    return b.build()
