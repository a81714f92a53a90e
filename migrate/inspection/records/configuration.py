"""The configuration that travels with a stream, as it stands there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrate.inspection.logbook import Header, Layer
from migrate.inspection.reading import NotInStream
from migrate.inspection.records.containers import xl_config
from migrate.toolstack.config import LONGEST_CONFIG, ConfigSource
from streams.wire.framing import XL_CONFIG_LENGTH, XL_HEADER, XapiBlockId
from streams.wire.libvirt import LIBVIRT_HEADER

if TYPE_CHECKING:
    from migrate.inspection.logbook import Entry
    from migrate.inspection.reading import Inspection


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration: whose it is, where its text begins in the stream, and the text up to its NUL."""

    source: ConfigSource
    offset: int
    text: bytes


def configuration(inspection: Inspection) -> Configuration:
    """The configuration of xl, libvirt or xenopsd. Raises NotInStream where none travels with the stream."""
    for entry in inspection.log:
        found = _of(inspection, entry)
        if found is not None:
            return found
    raise NotInStream("no configuration travels with the stream")


def _of(inspection: Inspection, entry: Entry) -> Configuration | None:
    if entry.type is None and entry.name == Header.XL:
        config = xl_config(inspection.body(entry))
        start = entry.offset + XL_HEADER.size + XL_CONFIG_LENGTH.size
        return None if config is None else Configuration(config[1], start, _text(config[0]))
    if entry.type is None and entry.name == Header.LIBVIRT:
        xml = inspection.body(entry)[LIBVIRT_HEADER.size :]
        return Configuration(ConfigSource.XML, entry.offset + LIBVIRT_HEADER.size, _text(xml))
    if entry.layer is Layer.XAPI and entry.type == XapiBlockId.XENOPS:
        return Configuration(ConfigSource.XENOPSD, entry.body, inspection.body(entry, LONGEST_CONFIG))
    return None


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]
