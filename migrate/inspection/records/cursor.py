"""Bytes taken apart by their layouts, field by field, each with its offset in the stream."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from construct import Array, Bytes, Construct, Container, FormatField, GreedyBytes, Renamed, Struct

from migrate.guest.cpu_policy import Policy, read_policy

# Of more elements than this only the first are shown, unless all are wanted.
ELEMENTS_SHOWN = 1024
_ALL = 1 << 62

Value = int | bytes | str | tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record.

    Attributes
    ----------
    offset:
        where it lies in the stream; None for what lies nowhere on its own.
    value:
        a number, bytes, text of the stream, or numbers of one size; None where it has only `fields`.
    meaning:
        what the value means, not escaped; empty where there is nothing to add.
    left_out:
        how many more of these there are that are not among `fields`.
    """

    name: str
    offset: int | None
    value: Value = None
    meaning: str = ""
    fields: tuple[Field, ...] = ()
    left_out: int = 0


class CutError(Exception):
    """The bytes end before the field does."""


@dataclass(slots=True)
class Cursor:
    """Bytes that are taken apart from front to back.

    Attributes
    ----------
    base:
        where in the stream the first of them lies.
    everything:
        whether lists are taken apart to their end, however long.
    width:
        word size of the guest in bytes; None where unknown.
    policy:
        gives what the guest was promised of its processor.
    at:
        how many of them have been taken.
    """

    raw: bytes
    base: int
    everything: bool = False
    width: int | None = None
    policy: Callable[[], Policy] = read_policy
    at: int = 0

    def part(self, start: int, size: int) -> Cursor:
        """Some of the bytes, to be taken apart on their own."""
        return replace(self, raw=self.raw[start : start + size], base=self.base + start, at=0)

    @property
    def most(self) -> int:
        """How many elements of a list are shown."""
        return _ALL if self.everything else ELEMENTS_SHOWN

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self.raw) - self.at

    @property
    def offset(self) -> int:
        """Where in the stream the next byte lies."""
        return self.base + self.at

    def take(self, n: int) -> bytes:
        """The next n bytes. Raises CutError where there are fewer."""
        if n > self.left:
            raise CutError
        self.at += n
        return self.raw[self.at - n : self.at]

    def named(self, layout: struct.Struct, kind: type[Any], meanings: Meanings | None = None) -> list[Field]:
        """The fields of a packed structure, under the names of its tuple, and what they mean by these names."""
        codes: list[str] = []
        for times, code in re.findall(r"(\d*)([a-zA-Z])", layout.format):
            codes += [times + code] if code == "s" else [code] * int(times or 1)
        sizes = (struct.calcsize(layout.format[0] + code) for code in codes)
        offsets = accumulate(sizes, initial=self.offset)
        return [
            Field(name, offset, value, meanings[name](value) if meanings and name in meanings else "")
            for name, offset, value in zip(kind._fields, offsets, layout.unpack(self.take(layout.size)), strict=False)
        ]

    def parsed(
        self,
        layout: Construct,
        name: str = "",
        meanings: Meanings | None = None,
        inside: Mapping[str, Inside] | None = None,
    ) -> Field:
        """One construct layout, as far as the bytes go.

        Parameters
        ----------
        meanings:
            what a field's value means, by the field's name, or its path in nested structures: "user_regs.eflags".
            With a path that ends in [] it gets each element of an array, after the element's number.
        inside:
            what takes the bytes of a field apart, by its name or path.
        """
        return _Parser(self, meanings or {}, inside or {}).field(layout, name, "", Container())[0]

    def elements(self, size: int, what: str, one: Callable[[int], Field]) -> Iterator[Field]:
        """As many elements of `size` bytes as there are, or the first of them; `one` takes the next by its number."""
        number = self.left // size
        shown = min(number, self.most)
        yield from map(one, range(shown))
        if rest := number - shown:
            yield Field(what, self.offset, None, f"{rest} more", left_out=rest)
            self.at += rest * size

    def rest(self, name: str, meaning: str = "") -> Iterator[Field]:
        """What is left as it is, if anything."""
        if self.left:
            yield Field(name, self.offset, self.take(self.left), meaning)


Meaning = Callable[..., str]
Meanings = Mapping[str, Meaning]
Inside = Callable[[Cursor], Iterable[Field]]


class _Parser:
    """Takes bytes apart by construct declarations, keeping the offsets."""

    def __init__(self, cursor: Cursor, meanings: Meanings, inside: Mapping[str, Inside]) -> None:
        self._cursor = cursor
        self._meanings = meanings
        self._inside = inside
        self._cut = False

    def field(self, layout: Construct, name: str, path: str, around: Container[Any]) -> tuple[Field, Any]:
        """The field, and its value for fields whose size hangs on it. Raises CutError for less than a scalar."""
        if isinstance(layout, Renamed):
            return self.field(layout.subcon, layout.name, path, around)
        cursor, start = self._cursor, self._cursor.at
        value: Any
        if isinstance(layout, Struct):
            found, value = self._struct(layout, name, path)
        elif isinstance(layout, Array):
            wanted = layout.count(around) if callable(layout.count) else layout.count
            found, value = self._array(layout.subcon, wanted, name, path), None
        else:
            if isinstance(layout, FormatField):
                (value,) = struct.unpack(layout.fmtstr, cursor.take(layout.length))
            elif isinstance(layout, Bytes):
                value = cursor.take(layout.length)
            elif layout is GreedyBytes:
                value = cursor.take(cursor.left)
            else:
                raise TypeError(f"no fields are known of {layout!r}")
            found = Field(name, cursor.base + start, value)
            if path in self._inside:
                parts = tuple(self._inside[path](cursor.part(start, cursor.at - start)))
                found = replace(found, value=None, fields=parts)
        if (meaning := self._meanings.get(path)) and not path.endswith("[]") and not self._cut:
            found = replace(found, meaning=meaning(found.value if value is None else value))
        return found, value

    def _struct(self, layout: Struct, name: str, path: str) -> tuple[Field, Container[Any]]:
        start, found, values = self._cursor.offset, [], Container()
        for subcon in layout.subcons:
            inner = f"{path}.{subcon.name}" if path else subcon.name
            try:
                field, values[subcon.name] = self.field(subcon, subcon.name, inner, values)
            except CutError:
                self._cut = True
                found += [replace(rest, meaning="cut") for rest in self._cursor.rest(subcon.name)]
                break
            found.append(field)
            if self._cut:
                break
        return Field(name, start, fields=tuple(found)), values

    def _array(self, element: Construct, wanted: int, name: str, path: str) -> Field:
        cursor, start = self._cursor, self._cursor.offset
        size = element.sizeof()
        there = min(wanted, cursor.left // size)
        if wanted and not there:
            raise CutError
        shown = min(there, cursor.most)
        meaning = self._meanings.get(f"{path}[]")
        if isinstance(element, FormatField) and meaning is None:
            order, code = element.fmtstr
            numbers = struct.unpack(f"{order}{shown}{code}", cursor.take(shown * size))
            found = Field(name, start, numbers, left_out=there - shown)
        else:
            parts = []
            for number in range(shown):
                part, value = self.field(element, f"[{number}]", f"{path}[]", Container())
                parts.append(replace(part, meaning=meaning(number, value)) if meaning else part)
            found = Field(name, start, fields=tuple(parts), left_out=there - shown)
        cursor.at += (there - shown) * size
        self._cut |= there < wanted
        return found
