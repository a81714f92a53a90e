"""What does this stream say? A sans-io decoder, transports and an encoder for Xen migration streams."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from streams.bodies import Body, decode_body, encode_body
    from streams.decoder import Consumer, Decoder, drive
    from streams.encoder import DecodeError, Recorder, Stream, decode, encode, encode_item
    from streams.feeder import Feeder
    from streams.opening import open_transport
    from streams.pages import PageType, PfnWords
    from streams.records import Damage, LibxlRecord, PageData, Place, Record, XapiBlock
    from streams.transports import Transport, TransportError
    from streams.wire.framing import GuestType, LibxlRecordType, RecordType

__all__ = [
    "Body",
    "Consumer",
    "Damage",
    "DecodeError",
    "Decoder",
    "Feeder",
    "GuestType",
    "LibxlRecord",
    "LibxlRecordType",
    "PageData",
    "PageType",
    "PfnWords",
    "Place",
    "Record",
    "RecordType",
    "Recorder",
    "Stream",
    "Transport",
    "TransportError",
    "XapiBlock",
    "decode",
    "decode_body",
    "drive",
    "encode",
    "encode_body",
    "encode_item",
    "open_transport",
]

# A filter in front of an HVM guest imports this package and must not pay for numpy and construct.
_HOMES = {
    "bodies": ("Body", "decode_body", "encode_body"),
    "decoder": ("Consumer", "Decoder", "drive"),
    "encoder": ("DecodeError", "Recorder", "Stream", "decode", "encode", "encode_item"),
    "feeder": ("Feeder",),
    "opening": ("open_transport",),
    "pages": ("PageType", "PfnWords"),
    "records": ("Damage", "LibxlRecord", "PageData", "Place", "Record", "XapiBlock"),
    "transports": ("Transport", "TransportError"),
    "wire.framing": ("GuestType", "LibxlRecordType", "RecordType"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name's module on its first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
