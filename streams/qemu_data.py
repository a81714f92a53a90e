"""How long the data of a device are in QEMU's state, by QEMU's own descriptions of them."""

from __future__ import annotations

import json
import re
from typing import Any

from streams.values import NamedTuple
from streams.wire.qemu import INSTANCE_VERSION, NUMBER, SectionType, text
from streams.wire.qemu_devices import DEVICES, STRUCTURES, SUBSECTIONS, Counted, Layout

# The description of the largest machine tried is 150 KiB; JSON takes many times its length once it is parsed.
LONGEST_DESCRIPTION = 1 << 20

_DESCRIPTION_LIKE = re.compile(rb"\x06(....)\{", re.DOTALL)
_SUBSECTION = bytes([SectionType.SUBSECTION])


class Ends(NamedTuple):
    """Where a section's data may end.

    Attributes
    ----------
    offsets:
        one for each description that the data fit.
    short:
        whether by some description they go on behind the last byte.
    """

    offsets: tuple[int, ...]
    short: bool


UNKNOWN = Ends((), False)


class _Short(Exception):
    """The data go on behind the last byte."""


def measured(state: bytes, device: str, version: int, at: int) -> Ends:
    """Where the data of a device may end that begin at an offset; `UNKNOWN` for one without a layout."""
    known = DEVICES.get(device)
    if known is None or version != known.version:
        return UNKNOWN
    ends, short = [], False
    for layout in known.layouts:
        try:
            ends.append(_subsections(state, _measure(state, layout, at), device))
        except _Short:
            short = True
        except LookupError:  # a subsection without a layout
            continue
    return Ends(tuple(ends), short)


def _measure(state: bytes, layout: Layout, at: int) -> int:
    for part in layout:
        if isinstance(part, int):
            at += part
        elif isinstance(part, str):
            at = _subsections(state, _measure(state, STRUCTURES[part], at), part)
        else:
            if at + NUMBER.size > len(state):
                raise _Short
            (number,) = NUMBER.unpack_from(state, at)
            at += NUMBER.size
            if isinstance(part, Counted):
                at += number * part.item
            elif number:
                at += part.length
        if at > len(state):
            raise _Short
    return at


def _subsections(state: bytes, at: int, name: str) -> int:
    """Pass over the subsections of a device or structure, whose names begin with its name."""
    while state[at : at + 1] == _SUBSECTION:
        start = at + 2
        length = state[at + 1] if start <= len(state) else 0
        found = state[start : start + length]
        if len(found) < length or length <= len(name) or not found.startswith(name.encode()):
            break
        at = _measure(state, SUBSECTIONS[text(found)], start + length + NUMBER.size)
        at = _subsections(state, at, text(found))
    return at


def known_header(state: bytes, at: int) -> bool:
    """Whether the section of a known device begins at an offset, whatever its type byte."""
    name_at = at + 1 + NUMBER.size + 1
    if name_at > len(state):
        return False
    end = name_at + state[name_at - 1]
    if end + INSTANCE_VERSION.size > len(state):
        return False
    name = state[name_at:end]
    return name.isascii() and name.decode().isprintable() and name.decode().rpartition("/")[2] in DEVICES


def description(state: bytes) -> dict[str, Any] | None:
    """The JSON at the end of a state, parsed; None where there is none, or it lists no devices."""
    first = max(0, len(state) - LONGEST_DESCRIPTION - 1 - NUMBER.size)
    for match in _DESCRIPTION_LIKE.finditer(state, first):
        start = match.end() - 1
        if start + int.from_bytes(match[1], "big") == len(state):
            try:
                parsed = json.loads(state[start:])
                described_lengths(parsed)
            except (ValueError, KeyError, TypeError, RecursionError):
                return None
            return dict(parsed)
    return None


def described_lengths(described: dict[str, Any]) -> dict[tuple[str, int], int]:
    """Bytes of data by (name, instance) of the section, as a state's own description gives them."""
    return {(device["name"], device["instance_id"]): _described(device) for device in described["devices"]}


def _described(device: dict[str, Any]) -> int:
    length = sum(int(item["size"]) * int(item.get("array_len", 1)) for item in device.get("fields", ()))
    for section in device.get("subsections", ()):
        length += 2 + len(section["vmsd_name"]) + NUMBER.size + _described(section)
    if not device.get("fields"):
        length += int(device.get("size", 0))
    return length
