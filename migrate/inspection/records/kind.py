"""How one type of header, block or record is shown: its line in a table of contents, and its fields."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Any

from migrate.inspection.names import names_of
from streams.counting import count

if TYPE_CHECKING:
    from migrate.inspection.logbook import Entry, Layer
    from migrate.inspection.records.cursor import Cursor, Field, Meaning

# Of a longer body only so much is looked at for its line.
MOST_READ = 1 << 20
_NAMES_LISTED = 12


@dataclass(frozen=True, slots=True)
class About:
    """A record and the start of its body, for a guest of this word size in bytes (None where unknown)."""

    entry: Entry
    body: bytes
    width: int | None


@dataclass(frozen=True, slots=True)
class Kind:
    """How one type is shown.

    Attributes
    ----------
    line:
        what a record says, in a line, from the first `needed` bytes of its body. Raises ValueError or struct.error
        for one that is not laid out as its type is.
    fields:
        takes a body apart, as far as its bytes go, and may leave a rest. Raises CutError where they end within a
        field. Without it a body is shown as it is.
    """

    line: Callable[[About], str]
    needed: int = 0
    fields: Callable[[Cursor], Iterable[Field]] | None = None


Kinds = dict[tuple["Layer", int | str], Kind]
"""By layer, and type or name of a header."""


def always(line: str) -> Kind:
    """Without a body, or one that is shown as it is."""
    return Kind(lambda about: line)


def size_of(what: str) -> Kind:
    """With a body that is shown as it is."""
    return Kind(lambda about: f"{count(about.entry.length, 'byte')} of {what}")


def packed(layout: struct.Struct, kind: type[Any], line: Callable[[Any], str], **meanings: Meaning) -> Kind:
    """With a body that is one packed structure.

    Parameters
    ----------
    line:
        gets the structure's tuple.
    meanings:
        what fields mean, by their names.
    """

    def fields(cursor: Cursor) -> Iterator[Field]:
        yield from cursor.named(layout, kind, meanings)

    return Kind(lambda about: line(kind._make(layout.unpack_from(about.body))), layout.size, fields)


def listed(names: list[str]) -> str:
    """Names with commas, the first dozen of them."""
    return ", ".join(names[:_NAMES_LISTED]) + ", …" * (len(names) > _NAMES_LISTED)


def flags(known: Mapping[int, str] | type[IntFlag]) -> Meaning:
    """What a field of single bits means."""
    return lambda value: " ".join(names_of(value, known))


def numbers(known: Mapping[int, str]) -> Meaning:
    """What a field means whose values have names."""
    return lambda value: known.get(value, "")


def text(raw: bytes) -> str:
    """Bytes of the stream as text."""
    return raw.decode("utf-8", "surrogateescape")
