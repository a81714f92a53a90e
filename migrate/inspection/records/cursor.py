"""Bytes taken apart by their layouts, field by field, each with its place in the stream."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from construct import Array, Bytes, Construct, Container, FormatField, GreedyBytes, Renamed, Struct

# Of more elements than this only the first are told, unless all are wanted.
ELEMENTS_TOLD = 1024
_ALL = 1 << 62

Value = int | bytes | str | tuple[int, ...] | None
Explain = Mapping[str, Callable[[Any], str]]
"""What a field's value means, by the field's name, or its path in nested structures: "user_regs.eflags"."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record.

    Attributes
    ----------
    offset:
        where it lies in the stream; None for what has no place of its own.
    value:
        a number, bytes, text of the stream, or numbers of one size; None where it has only `fields`.
    told:
        what the value means, not escaped; empty where there is nothing to add.
    left_out:
        how many more of these there are that are not among `fields`.
    """

    name: str
    offset: int | None
    value: Value = None
    told: str = ""
    fields: tuple[Field, ...] = ()
    left_out: int = 0


class CutError(Exception):
    """The bytes end before the field does."""


class Cursor:
    """Bytes that are taken apart from front to back.

    Parameters
    ----------
    base:
        where in the stream the first of them lies.
    everything:
        whether lists are taken apart to their end, however long.
    """

    def __init__(self, raw: bytes, base: int, everything: bool) -> None:
        self.raw = raw
        self.base = base
        self.at = 0
        self.most = _ALL if everything else ELEMENTS_TOLD

    @property
    def everything(self) -> bool:
        """Whether all elements of a list are wanted."""
        return self.most == _ALL

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self.raw) - self.at

    @property
    def place(self) -> int:
        """Where in the stream the next byte lies."""
        return self.base + self.at

    def take(self, n: int) -> bytes:
        """The next n bytes. Raises CutError where there are fewer."""
        if n > self.left:
            raise CutError
        self.at += n
        return self.raw[self.at - n : self.at]

    def named(self, layout: struct.Struct, kind: type[Any]) -> list[Field]:
        """The fields of a packed structure, under the names of its tuple."""
        start = self.place
        values = layout.unpack(self.take(layout.size))
        codes: list[str] = []
        for times, code in re.findall(r"(\d*)([a-zA-Z])", layout.format):
            codes += [times + code] if code == "s" else [code] * int(times or 1)
        order = layout.format[0]
        places = [start + struct.calcsize(order + "".join(codes[:n])) for n in range(len(codes))]
        return [Field(name, place, value) for name, place, value in zip(kind._fields, places, values, strict=True)]

    def parsed(self, layout: Construct, name: str = "", told: Explain | None = None) -> Field:
        """One construct layout, as far as the bytes go."""
        return _Parser(self, told or {}).field(layout, name, "", Container())[0]

    def elements(self, size: int, what: str, one: Callable[[int], Field]) -> list[Field]:
        """As many elements of `size` bytes as there are, or the first of them; `one` takes the next by its number."""
        number = self.left // size
        found = [one(index) for index in range(min(number, self.most))]
        rest = number - len(found)
        if rest:
            found.append(Field(what, self.place, None, f"{rest} more", left_out=rest))
            self.at += rest * size
        return found

    def rest(self, name: str) -> list[Field]:
        """What is left as it is, if anything."""
        return [Field(name, self.place, self.take(self.left))] if self.left else []


class _Parser:
    """Takes bytes apart by construct declarations, keeping the offsets."""

    def __init__(self, cursor: Cursor, told: Explain) -> None:
        self._cursor = cursor
        self._told = told
        self._cut = False

    def field(self, layout: Construct, name: str, path: str, around: Container[Any]) -> tuple[Field, Any]:
        """The field, and its value for fields whose size hangs on it. Raises CutError for less than a scalar."""
        cursor, start = self._cursor, self._cursor.place
        if isinstance(layout, Renamed):
            return self.field(layout.subcon, layout.name, path, around)
        if isinstance(layout, Struct):
            return self._struct(layout, name, path)
        if isinstance(layout, Array):
            wanted = layout.count(around) if callable(layout.count) else layout.count
            return self._array(layout.subcon, wanted, name, path, around), None
        value: Any
        if isinstance(layout, FormatField):
            (value,) = struct.unpack(layout.fmtstr, cursor.take(layout.length))
        elif isinstance(layout, Bytes):
            value = cursor.take(layout.length)
        elif layout is GreedyBytes:
            value = cursor.take(cursor.left)
        else:
            raise TypeError(f"no fields are known of {layout!r}")
        told = self._told.get(path or name)
        return Field(name, start, value, told(value) if told else ""), value

    def _struct(self, layout: Struct, name: str, path: str) -> tuple[Field, Any]:
        start, found, values = self._cursor.place, [], Container()
        for subcon in layout.subcons:
            inner = f"{path}.{subcon.name}" if path else subcon.name
            try:
                field, values[subcon.name] = self.field(subcon, subcon.name, inner, values)
            except CutError:
                self._cut = True
                if self._cursor.left:
                    found.append(Field(subcon.name, self._cursor.place, self._cursor.take(self._cursor.left), "cut"))
                break
            found.append(field)
            if self._cut:
                break
        return Field(name, start, fields=tuple(found)), values

    def _array(self, element: Construct, wanted: int, name: str, path: str, around: Container[Any]) -> Field:
        cursor, start = self._cursor, self._cursor.place
        size = element.sizeof()
        there = min(wanted, cursor.left // size)
        self._cut |= there < wanted
        if isinstance(element, FormatField):
            order, code = element.fmtstr
            told = min(there, cursor.most)
            numbers = struct.unpack(f"{order}{told}{code}", cursor.take(told * size))
            cursor.at += (there - told) * size
            explain = self._told.get(path)
            return Field(name, start, numbers, explain(numbers) if explain else "", left_out=there - told)
        found = [
            self.field(element, f"[{number}]", f"{path}[]", around)[0] for number in range(min(there, cursor.most))
        ]
        cursor.at += (there - len(found)) * size
        return Field(name, start, fields=tuple(found), left_out=there - len(found))
