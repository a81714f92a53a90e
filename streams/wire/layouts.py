"""Layouts declared once, as named tuples: the annotation of a field says how wide it is. Standard library alone.

    class Pmtimer(NamedTuple):
        tmr_val: U32
        pm1a_sts: U16
        pm1a_en: U16

    PMTIMER = Layout(Pmtimer)
    PMTIMER.size                  # 8
    PMTIMER.read(body).pm1a_en    # as far as the body goes; zeros behind that
    PMTIMER.offset("pm1a_en")     # 6
    PMTIMER.pack(PMTIMER.read(b"")._replace(pm1a_en=1))

An array is `Annotated[tuple[int, ...], 4, "Q"]`, an array of structures `Annotated[tuple[Pmtimer, ...], 3]`, and
bytes `Annotated[bytes, "512s"]`. All is little-endian and without padding.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice

from streams.typed import Generic, TypeVar
from streams.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated, Any
else:

    class Annotated:
        """A type and what is said of it, as they stand in the brackets."""

        def __class_getitem__(cls, said):
            return said


U8 = Annotated[int, "B"]
U16 = Annotated[int, "H"]
U32 = Annotated[int, "I"]
U64 = Annotated[int, "Q"]
S8 = Annotated[int, "b"]
S64 = Annotated[int, "q"]

T = TypeVar("T", bound=NamedTuple)


class Field(NamedTuple):
    """One field of a layout.

    Attributes
    ----------
    offset, size:
        in bytes; of an array, those of all its elements.
    element:
        a code of the struct module, or the layout of a structure.
    elements:
        how many there are of an array; None for a single one.
    """

    name: str
    offset: int
    size: int
    element: str | Layout[Any]
    elements: int | None

    def take(self, values: Iterator[Any]) -> Any:
        """The field's value, from plain values in their order."""
        element = self.element
        if isinstance(element, str):
            return next(values) if self.elements is None else tuple(islice(values, self.elements))
        return element.take(values) if self.elements is None else tuple(map(element.take, [values] * self.elements))

    def plain(self, value: Any) -> Iterator[Any]:
        """The plain values that make up a field's value: the inverse of `take`."""
        for one in [value] if self.elements is None else value:
            if isinstance(self.element, str):
                yield one
            else:
                yield from self.element.plain(one)


class Layout(Generic[T]):
    """Where the fields of a named tuple, its `kind`, lie in bytes."""

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind

    @cached_property
    def size(self) -> int:
        """Of the whole, in bytes."""
        return sum(field.size for field in self.fields)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields in their order."""
        found: list[Field] = []
        offset = 0
        known = vars(sys.modules[self.kind.__module__])
        for name, annotation in self.kind.__annotations__.items():
            hint = known.get(annotation) or eval(annotation, known, {"Annotated": Annotated})
            plain, *marks = hint if isinstance(hint, tuple) else (hint,)
            elements = next((mark for mark in marks if isinstance(mark, int)), None)
            code = next((mark for mark in marks if isinstance(mark, str)), None)
            element = code or Layout(plain if elements is None else plain.__args__[0])
            one = element.size if isinstance(element, Layout) else struct.calcsize(f"<{element}")
            found.append(Field(name, offset, one * (1 if elements is None else elements), element, elements))
            offset += found[-1].size
        return tuple(found)

    @cached_property
    def _packed(self) -> struct.Struct:
        return struct.Struct("<" + self.codes)

    @cached_property
    def _plain(self) -> bool:
        return all(isinstance(field.element, str) and field.elements is None for field in self.fields)

    @property
    def codes(self) -> str:
        """The struct module's codes of the plain values, one after the other."""
        return "".join(
            (field.element if isinstance(field.element, str) else field.element.codes)
            * (1 if field.elements is None else field.elements)
            for field in self.fields
        )

    def read(self, body: bytes | memoryview) -> T:
        """What the bytes say. Fewer read as if zeros followed, as Xen loads them; more are not looked at."""
        whole = body if len(body) >= self.size else bytes(body).ljust(self.size, b"\0")
        return self.take(iter(self._packed.unpack_from(whole)))

    def take(self, values: Iterator[Any]) -> T:
        """The structure, from plain values in their order."""
        if self._plain:
            return self.kind._make(islice(values, len(self.fields)))
        return self.kind._make([field.take(values) for field in self.fields])

    def pack(self, value: T) -> bytes:
        """The bytes that read as this. Raises struct.error for a number that does not fit."""
        return self._packed.pack(*self.plain(value))

    def plain(self, value: Iterable[Any]) -> Iterator[Any]:
        """The plain values that make up a structure: the inverse of `take`."""
        for field, part in zip(self.fields, value, strict=True):
            yield from field.plain(part)

    def field(self, name: str) -> Field:
        """A field by its name. Raises KeyError where there is none."""
        found = next((field for field in self.fields if field.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    def offset(self, *path: str | int) -> int:
        """Where a field starts, in bytes: `PIT.offset("channels", 1, "gate")` is 31.

        A name goes into a structure, an index into an array. Raises KeyError or IndexError where there is none.
        """
        at = size = 0
        inside: Layout[Any] | str = self
        elements: int | None = None
        for step in path:
            if isinstance(step, str):
                if isinstance(inside, str) or elements is not None:
                    raise KeyError(step)
                _, start, size, inside, elements = inside.field(step)
                at += start
            elif elements is None or not 0 <= step < elements:
                raise IndexError(step)
            else:
                at += step * (size // elements)
                elements = None
        return at
