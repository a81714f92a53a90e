"""A changed configuration in front of a stream: keys of libxl's JSON or libvirt's XML, and the lengths with them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from migrate.toolstack import config_libvirt, config_libxl
from migrate.toolstack.config import KINDS, LONGEST_CONFIG, ConfigSource, Unusable, ValueKind, text_of
from migrate.toolstack.config_libxl import parsed
from streams.counting import count
from streams.values import dataclass, replace
from streams.wire.framing import XL_CONFIG_LENGTH, XL_FLAG_JSON, XL_HEADER, XL_MAGIC, XlHeader
from streams.wire.libvirt import LIBVIRT_HEADER, LIBVIRT_MAGIC, decode_header, header_objection


class EditError(ValueError):
    """The configuration cannot be changed so, and why."""


# -- what stands in front of the stream ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Front:
    """An image up to its stream: header and configuration.

    Attributes
    ----------
    config:
        as it lies there, with its NUL.
    behind:
        bytes of xl's optional data behind the configuration, which nobody reads.
    size:
        offset of the stream in the image this was read from.
    """

    source: ConfigSource
    header: bytes
    config: bytes
    behind: bytes
    size: int

    def with_key(self, key: str, value: str | None, *, any_key: bool = False) -> Front:
        """With a key set to a value, or taken away for None.

        Raises EditError; with `any_key` not for a key that neither the configuration has nor this program knows.
        """
        edits = {ConfigSource.JSON: set_json, ConfigSource.XML: set_xml}
        edit = edits.get(self.source)
        if edit is None:
            raise EditError("the configuration is text of xl.cfg, not JSON: give xl restore a changed one as a file")
        config = edit(self.config, key, value, any_key=any_key)
        if len(config) > LONGEST_CONFIG:
            raise EditError(f"the configuration would have {count(len(config), 'byte')}; at most {LONGEST_CONFIG}")
        return replace(self, config=config)

    def build(self) -> bytes:
        """Header and configuration, with the lengths that they have."""
        if self.source is ConfigSource.XML:
            fields = decode_header(self.header)._replace(xml_length=len(self.config))
            return LIBVIRT_HEADER.pack(*fields) + self.config
        optional = XL_CONFIG_LENGTH.pack(len(self.config)) + self.config + self.behind
        header = XlHeader._make(XL_HEADER.unpack(self.header))._replace(optional_data_len=len(optional))
        return XL_HEADER.pack(*header) + optional


def read_front(image: BinaryIO) -> Front:
    """Read an image of xl's or libvirt's up to its stream, which is where the file stands then.

    Raises EditError where it is neither, is cut, or carries no configuration.
    """
    head = image.read(len(XL_MAGIC))
    if head.startswith(LIBVIRT_MAGIC):
        return _libvirt_front(head, image)
    if head != XL_MAGIC:
        raise EditError("the file begins as neither xl nor libvirt write it: no configuration is in front of a stream")
    head += _exactly(image, XL_HEADER.size - len(head), "the header")
    header = XlHeader._make(XL_HEADER.unpack(head))
    length = header.optional_data_len
    if length < XL_CONFIG_LENGTH.size:
        raise EditError("the file carries no configuration")
    optional = _exactly(image, length, "the configuration")
    (config,) = XL_CONFIG_LENGTH.unpack_from(optional)
    end = XL_CONFIG_LENGTH.size + config
    if end > length:
        raise EditError(f"the configuration has {count(config, 'byte')} in {count(length, 'byte')} of optional data")
    source = ConfigSource.JSON if header.mandatory_flags & XL_FLAG_JSON else ConfigSource.CFG
    return Front(source, head, optional[XL_CONFIG_LENGTH.size : end], optional[end:], len(head) + length)


def _libvirt_front(head: bytes, image: BinaryIO) -> Front:
    head += _exactly(image, LIBVIRT_HEADER.size - len(head), "the header")
    header = decode_header(head)
    objection = header_objection(header)
    if objection is not None:
        raise EditError(objection.message)
    xml = _exactly(image, header.xml_length, "the configuration")
    return Front(ConfigSource.XML, head, xml, b"", len(head) + len(xml))


def _exactly(image: BinaryIO, n: int, what: str) -> bytes:
    if n > LONGEST_CONFIG:
        raise EditError(f"{what} has {count(n, 'byte')}; at most {LONGEST_CONFIG} are read")
    data = image.read(n)
    if len(data) < n:
        raise EditError(f"the file ends in {what}: {len(data)} of {count(n, 'byte')}")
    return data


# -- JSON ----------------------------------------------------------------------------------------------------


def set_json(config: bytes, key: str, value: str | None, *, any_key: bool = False) -> bytes:
    """Set a key of libxl's JSON, such as `b_info.max_vcpus` or `b_info.type.hvm.vga.kind`.

    Parameters
    ----------
    value:
        JSON, or a string as it stands; true and false become libxl's "True" and "False". None takes the key away.
    """
    text, nul, behind = config.partition(b"\0")
    try:
        top = parsed(text_of(config))
    except Unusable as error:
        raise EditError(f"the configuration is no JSON: {error}") from None
    names = {*_names(top)}
    at, last = _step_down(top, key)
    if value is not None:
        known = _known_keys(key)
        if not any_key and key not in names and key not in known:
            raise _no_key(key, names | known.keys())
        at[last] = _json_value(key, value, known.get(key) or _kind_like(at.get(last)))
    elif key in config_libxl.NEEDED:
        raise _needed(key)
    elif at.pop(last, None) is None:
        raise EditError(f"there is no {key}")
    ending = text[len(text.rstrip()) :]
    try:
        return json.dumps(top, indent=4, allow_nan=False).encode() + ending + nul + behind
    except ValueError:
        raise EditError("a number is too large for JSON") from None


_TYPE = re.compile(rf"\btype\.(?:{'|'.join(KINDS)})\b")


def _known_keys(key: str) -> dict[str, ValueKind]:
    """The keys that libxl is known to read; of those of one type of guest the ones of the type that a key names."""
    found = _TYPE.search(key)
    known = config_libxl.KEYS | config_libxl.WRITTEN
    return {name.replace("type.*", found[0] if found else "type.*"): kind for name, kind in known.items()}


def _names(top: dict[str, Any]) -> Iterator[str]:
    """All keys that a document has."""
    todo = [("", top)]
    while todo:
        before, at = todo.pop()
        for name, value in at.items():
            yield before + name
            if isinstance(value, dict):
                todo.append((f"{before}{name}.", value))


def _needed(key: str) -> EditError:
    return EditError(f"no domain is created without {key}: it can be set, not taken away")


def _no_key(key: str, names: Iterable[str]) -> EditError:
    from difflib import get_close_matches

    close = get_close_matches(key, names, 1, 0.8)
    meant = f"; did you mean {close[0]}?" if close else ""
    return EditError(f"the configuration has no {key}, and it is no key that is known here{meant} (--any-key sets it)")


def _step_down(top: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The object that holds a key, made where it is missing, and the last part of the key."""
    parts = _parts(key)
    at: Any = top
    for depth, part in enumerate(parts):
        if not isinstance(at, dict):
            raise EditError(f"{'.'.join(parts[:depth])} is no object: there is no {key}")
        if depth + 1 < len(parts):
            at = at.setdefault(part, {})
    return at, parts[-1]


def _parts(key: str) -> list[str]:
    """A key by its dots, but for the one in libxl's `type.pv`, `type.hvm` and `type.pvh`."""
    parts = re.findall(rf"type\.(?:{'|'.join(KINDS)})(?=\.|$)|[^.]+", key)
    if ".".join(parts) != key or not parts:
        raise EditError(f"{key!r} is no key: expected names with dots between them, such as b_info.max_vcpus")
    return parts


def _plain(type: type, expects: str) -> ValueKind:
    return ValueKind(lambda value: value, type, expects)


_LIKE = {
    dict: _plain(dict, "an object"),
    list: config_libxl.LIST,
    bool: _plain(bool, "true or false"),
    int: config_libxl.INTEGER,
    str: config_libxl.TEXT,
}


def _kind_like(value: object) -> ValueKind | None:
    """What may stand in a value's place, where only the value is known; None for anything."""
    is_flag = isinstance(value, str) and value in config_libxl.DEFBOOL
    return config_libxl.BOOL if is_flag else _LIKE.get(type(value))


def _json_value(key: str, value: str, kind: ValueKind | None) -> Any:
    """What a value that was typed is in JSON, as a key takes it."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = value
    if isinstance(found, bool) and kind in (None, config_libxl.BOOL):
        found = str(found)  # libxl's JSON has no true and false
    if kind is None:
        return found
    if kind.type is str and not isinstance(found, str):
        found = value
    try:
        meaning = kind.read(found)
    except Unusable as error:
        raise EditError(f"{key} {error}") from None
    if type(found) is not kind.type or (kind.type is int and meaning is None):
        raise EditError(f"{key} is {value[:40]!r}; expected {kind.expects}")
    return found


# -- XML -----------------------------------------------------------------------------------------------------


def set_xml(config: bytes, key: str, value: str | None, *, any_key: bool = False) -> bytes:
    """Set the text of an element below the domain, such as `os/type`, or an attribute of it: `vcpu@current`.

    The first element of that path is meant.
    All else stays byte for byte. None takes the element or attribute away.
    """
    from xml.sax.saxutils import escape, quoteattr

    text, nul, behind = config.partition(b"\0")
    path, _, attribute = key.partition("@")
    span = _find(text, path)
    kind = (config_libvirt.KEYS | config_libvirt.WRITTEN).get(key)
    if value is None and key in config_libvirt.NEEDED:
        raise _needed(key)
    if value is not None and kind is not None and kind.read(value) is None:
        raise EditError(f"{key} is {value[:40]!r}; expected {kind.expects}")
    opening = text[span.start : span.opened]
    if attribute:
        found = re.search(rb"\s" + re.escape(attribute.encode()) + rb"""\s*=\s*("[^"]*"|'[^']*')""", opening)
        if found is None and value is None:
            raise EditError(f"there is no {key}")
        if found is None and key not in config_libvirt.KEYS and not any_key:
            raise _no_key(key, config_libvirt.KEYS)
        new = b"" if value is None else f" {attribute}={quoteattr(value)}".encode()
        if found is not None:
            opening = opening[: found.start()] + new + opening[found.end() :]
        else:
            name_end = len(re.match(rb"<[^\s/>]+", opening)[0])  # type: ignore[index]
            opening = opening[:name_end] + new + opening[name_end:]
        text = text[: span.start] + opening + text[span.opened :]
    elif value is None:
        text = text[: span.start] + text[span.end :]
    elif span.children:
        raise EditError(f"{path} holds elements, no text")
    else:
        name = path.rpartition("/")[2]
        opening = opening.removesuffix(b"/>").rstrip() + b">" if span.opened == span.end else opening
        text = text[: span.start] + opening + escape(value).encode() + f"</{name}>".encode() + text[span.end :]
    _parse(text)
    return text + nul + behind


@dataclass(slots=True)
class _Span:
    start: int  # of the element
    opened: int = 0  # behind its first tag
    end: int = 0
    children: bool = False


def _find(text: bytes, path: str) -> _Span:
    """Where the first element of a path lies in a text."""
    names = path.split("/")
    if not all(names):
        raise EditError(f"{path!r} is no path: expected names with slashes between them, such as os/type")
    stack: list[str] = []
    found: list[_Span] = []
    open_spans: list[_Span | None] = []

    def start(name: str, at: int) -> None:
        stack.append(name)
        if open_spans and open_spans[-1] is not None:
            open_spans[-1].children = True
        wanted = not found and len(stack) == len(names) + 1 and stack[1:] == names
        span = _Span(at, _tag_end(text, at)) if wanted else None
        if span is not None:
            found.append(span)
        open_spans.append(span)

    def end(at: int) -> None:
        stack.pop()
        span = open_spans.pop()
        if span is not None:
            span.end = span.opened if text[span.opened - 2 : span.opened] == b"/>" else _tag_end(text, at)

    _parse(text, start, end)
    if not found:
        raise EditError(f"there is no {path} below the domain")
    return found[0]


def _parse(
    text: bytes,
    start: Callable[[str, int], None] = lambda name, at: None,
    end: Callable[[int], None] = lambda at: None,
) -> None:
    """Run over the XML; the functions get the offset of each tag."""
    from xml.parsers import expat

    parser = expat.ParserCreate()

    def no_document_type(*_: object) -> None:
        raise EditError("the XML declares a document type, which libvirt's never does")

    parser.StartElementHandler = lambda name, attributes: start(name, parser.CurrentByteIndex)
    parser.EndElementHandler = lambda name: end(parser.CurrentByteIndex)
    parser.StartDoctypeDeclHandler = no_document_type
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise EditError(f"the configuration is no XML: {error}") from None


_TAG = re.compile(rb"""<(?:[^"'>]|"[^"]*"|'[^']*')*>""")


def _tag_end(text: bytes, at: int) -> int:
    tag = _TAG.match(text, at)
    if tag is None:
        raise EditError("the XML is in an encoding other than UTF-8")
    return tag.end()
