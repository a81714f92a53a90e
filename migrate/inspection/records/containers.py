"""How what lies around a libxc image is shown: headers, records and blocks of xl, libvirt, libxl and xapi."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from migrate.inspection.logbook import Header, Layer
from migrate.inspection.names import CHECKPOINT_STATES, EMULATORS, LIBXL_OPTIONS, XL_FLAGS, names_of
from migrate.inspection.records.cursor import Cursor, Field
from migrate.inspection.records.device_model import state_fields, state_line
from migrate.inspection.records.kind import (
    MOST_READ,
    About,
    Kind,
    Kinds,
    always,
    flags,
    listed,
    numbers,
    packed,
    size_of,
    text,
)
from migrate.toolstack.config import LONGEST_CONFIG, ConfigSource
from migrate.toolstack.configuration import read
from streams.counting import count
from streams.sexp import SexpError, parse
from streams.sexp import fields as sexp_fields
from streams.wire.framing import (
    CHECKPOINT_STATE,
    EMULATOR_HEADER,
    LIBXL_HEADER,
    XL_CONFIG_LENGTH,
    XL_FLAG_JSON,
    XL_HEADER,
    CheckpointState,
    EmulatorHeader,
    LibxlHeader,
    LibxlRecordType,
    XapiBlockId,
    XlHeader,
)
from streams.wire.libvirt import LIBVIRT_HEADER, LibvirtHeader, decode_header
from streams.wire.qemu import HEAD_SIZE

_DEEPEST = 16
_LONGEST_NUMBER = 1 << 16

# -- xl ---------------------------------------------------------------------------------------------


def xl_config(raw: bytes) -> tuple[bytes, ConfigSource] | None:
    """The configuration in a whole xl header, and whose it is; None where there is none.

    Raises struct.error for less than a header.
    """
    header = XlHeader._make(XL_HEADER.unpack_from(raw))
    optional = raw[XL_HEADER.size :]
    if header.optional_data_len < XL_CONFIG_LENGTH.size or len(optional) < XL_CONFIG_LENGTH.size:
        return None
    (length,) = XL_CONFIG_LENGTH.unpack_from(optional)
    source = ConfigSource.JSON if header.mandatory_flags & XL_FLAG_JSON else ConfigSource.CFG
    return optional[XL_CONFIG_LENGTH.size :][:length], source


def _config_line(raw: bytes, source: ConfigSource, what: str) -> str:
    config = read(raw, source)
    words = []
    if config is not None:
        words += [config.name[:80]] if config.name is not None else []
        words += [config.kind] if config.kind is not None else []
        words += [count(config.max_vcpus, "vcpu")] if config.max_vcpus is not None else []
    refused = config.refused if config is not None else None
    words.append(f"{what} of {count(len(raw), 'byte')}" + (f", which {refused.by} refuses" if refused else ""))
    return ", ".join(words)


def _xl_line(about: About) -> str:
    found = xl_config(about.body)
    return "no domain config" if found is None else _config_line(*found, "config")


def _xl_fields(cursor: Cursor) -> Iterator[Field]:
    config = xl_config(cursor.raw) if len(cursor.raw) >= XL_HEADER.size else None
    yield from cursor.named(XL_HEADER, XlHeader, {"mandatory_flags": flags(XL_FLAGS)})
    if config is None:
        return
    start = cursor.offset
    (length,) = XL_CONFIG_LENGTH.unpack(cursor.take(XL_CONFIG_LENGTH.size))
    yield Field("config_length", start, length)
    start, raw = cursor.offset, cursor.take(min(length, cursor.left))
    yield _config_field("config", raw, config[1], start, cursor.most)


def _config_field(name: str, raw: bytes, source: ConfigSource, start: int, most: int) -> Field:
    """A configuration: JSON as a tree, any other as the text that it is."""
    from migrate.toolstack.config import Unusable, text_of
    from migrate.toolstack.config_libxl import parsed

    try:
        config = text_of(raw)
    except Unusable as error:
        return Field(name, start, raw, str(error))
    if source is not ConfigSource.JSON:
        return Field(name, start, config)
    try:
        return replace(_from_json(name, parsed(config), most), offset=start)
    except Unusable:
        return Field(name, start, raw, "not readable as JSON")


def _libvirt_line(about: About) -> str:
    header = decode_header(about.body)
    xml = _config_line(about.body[LIBVIRT_HEADER.size :][: header.xml_length], ConfigSource.XML, "XML")
    return f"version {header.version}, {xml}"


def _libvirt_fields(cursor: Cursor) -> Iterator[Field]:
    yield from cursor.named(LIBVIRT_HEADER, LibvirtHeader)
    start, raw = cursor.offset, cursor.take(cursor.left)
    yield _config_field("xml", raw, ConfigSource.XML, start, cursor.most)


def _from_json(name: str, value: Any, most: int, depth: int = 0) -> Field:
    if isinstance(value, dict | list) and depth < _DEEPEST:
        pairs = list(value.items()) if isinstance(value, dict) else [(f"[{i}]", v) for i, v in enumerate(value)]
        inside = tuple(_from_json(str(key), part, most, depth + 1) for key, part in pairs[:most])
        return Field(name, None, fields=inside, left_out=len(pairs) - len(inside))
    plain = isinstance(value, int | str) and not isinstance(value, bool)
    return Field(name, None, value if plain else repr(value)[:_LONGEST_NUMBER])


# -- libxl ------------------------------------------------------------------------------------------


def _libxl_line(header: LibxlHeader) -> str:
    return ", ".join([f"version {header.version}", *names_of(header.options, LIBXL_OPTIONS)])


def _emulator(about: About) -> str:
    header = EmulatorHeader._make(EMULATOR_HEADER.unpack_from(about.body))
    return EMULATORS.get(header.emulator_id, f"emulator {header.emulator_id}")


def _emulator_fields(cursor: Cursor) -> Iterator[Field]:
    yield from cursor.named(EMULATOR_HEADER, EmulatorHeader, {"emulator_id": numbers(EMULATORS)})


def _xenstore_line(about: About) -> str:
    return f"{_emulator(about)}, {count(about.body.count(0, EMULATOR_HEADER.size) // 2, 'key')}"


def _xenstore_fields(cursor: Cursor) -> Iterator[Field]:
    """Keys and values of a device model, each of which ends with a NUL."""
    yield from _emulator_fields(cursor)
    most = 2 * min(cursor.most, cursor.left)
    parts = cursor.raw[cursor.at :].split(b"\0", most)[:most]
    for key, value in zip(parts[::2], parts[1::2], strict=False):
        start = cursor.offset
        cursor.take(min(len(key) + len(value) + 2, cursor.left))
        yield Field(text(key), start, text(value))


def _emulator_context_line(about: About) -> str:
    return f"{_emulator(about)}: {state_line(about.body[EMULATOR_HEADER.size :])}"


def _emulator_context_fields(cursor: Cursor) -> Iterator[Field]:
    yield from _emulator_fields(cursor)
    yield from state_fields(cursor)


def _checkpoint_line(body: CheckpointState) -> str:
    return CHECKPOINT_STATES.get(body.control_id, f"control id {body.control_id}")


# -- xapi -------------------------------------------------------------------------------------------


def _xenops_line(about: About) -> str:
    if about.entry.length > len(about.body):
        return "xenopsd's own record"
    names = sorted(name.decode("ascii", "replace") for name in sexp_fields(parse(about.body)))
    return f"xenopsd's own record: {listed(names)}"


def _xenops_fields(cursor: Cursor) -> Iterator[Field]:
    if cursor.left > LONGEST_CONFIG:
        return
    start, raw = cursor.offset, cursor.take(cursor.left)
    try:
        yield replace(_from_sexp("record", parse(raw), cursor.most), offset=start)
    except SexpError as error:
        yield Field("record", start, raw, str(error))


def _from_sexp(name: str, value: Any, most: int, depth: int = 0) -> Field:
    if isinstance(value, bytes):
        return Field(name, None, text(value))
    if depth >= _DEEPEST:
        return Field(name, None, None, count(len(value), "element"))

    def pair(part: Any) -> bool:
        return isinstance(part, list) and len(part) == 2 and isinstance(part[0], bytes)

    inside = tuple(
        _from_sexp(text(part[0]), part[1], most, depth + 1) if pair(part) else _from_sexp("", part, most, depth + 1)
        for part in value[:most]
    )
    return Field(name, None, fields=inside, left_out=len(value) - len(inside))


# ---------------------------------------------------------------------------------------------------

_CONTEXT_NEEDED = EMULATOR_HEADER.size + HEAD_SIZE

CONTAINERS: Kinds = {
    (Layer.XL, Header.XL): Kind(_xl_line, MOST_READ, _xl_fields),
    (Layer.LIBVIRT, Header.LIBVIRT): Kind(_libvirt_line, MOST_READ, _libvirt_fields),
    (Layer.LIBXL, Header.LIBXL): packed(LIBXL_HEADER, LibxlHeader, _libxl_line, options=flags(LIBXL_OPTIONS)),
    (Layer.LIBXL, LibxlRecordType.END): always("the libxl stream is complete"),
    (Layer.LIBXL, LibxlRecordType.LIBXC_CONTEXT): always("the libxc image follows"),
    (Layer.LIBXL, LibxlRecordType.EMULATOR_XENSTORE_DATA): Kind(_xenstore_line, MOST_READ, _xenstore_fields),
    (Layer.LIBXL, LibxlRecordType.EMULATOR_CONTEXT): Kind(
        _emulator_context_line, _CONTEXT_NEEDED, _emulator_context_fields
    ),
    (Layer.LIBXL, LibxlRecordType.CHECKPOINT_END): always("libxl's part of a checkpoint is complete"),
    (Layer.LIBXL, LibxlRecordType.CHECKPOINT_STATE): packed(
        CHECKPOINT_STATE, CheckpointState, _checkpoint_line, control_id=numbers(CHECKPOINT_STATES)
    ),
    (Layer.XAPI, XapiBlockId.XENOPS): Kind(_xenops_line, LONGEST_CONFIG, _xenops_fields),
    (Layer.XAPI, XapiBlockId.LIBXC): always("the libxc image follows"),
    (Layer.XAPI, XapiBlockId.LIBXC_LEGACY): always("a pre-4.6 image follows"),
    (Layer.XAPI, XapiBlockId.LIBXL): size_of("a libxl stream, which nobody reads"),
    (Layer.XAPI, XapiBlockId.QEMU_TRAD): Kind(lambda about: state_line(about.body), HEAD_SIZE, state_fields),
    (Layer.XAPI, XapiBlockId.QEMU_XEN): size_of("a device model's state, which nobody reads"),
    (Layer.XAPI, XapiBlockId.DEMU): size_of("demu's state"),
    (Layer.XAPI, XapiBlockId.VARSTORED): size_of("varstored's state"),
    (Layer.XAPI, XapiBlockId.SWTPM0): size_of("swtpm's state"),
    (Layer.XAPI, XapiBlockId.SWTPM): size_of("swtpm's state"),
    (Layer.XAPI, XapiBlockId.END_OF_IMAGE): always("the suspend image is complete"),
}
