"""Layouts as construct declarations, for those that parse, edit and build."""

from __future__ import annotations

from functools import cache
from typing import Any

from construct import Array, Bytes, Construct, Int8sl, Int8ul, Int16ul, Int32ul, Int64sl, Int64ul, Struct

from streams.wire.layouts import Field, Layout

_INTEGERS: dict[str, Construct] = {
    "B": Int8ul,
    "H": Int16ul,
    "I": Int32ul,
    "Q": Int64ul,
    "b": Int8sl,
    "q": Int64sl,
}


@cache
def construct_of(layout: Layout[Any], *without: str) -> Struct:
    """The construct declaration of a layout, but for the fields that are named."""
    return Struct(*(field.name / _declaration(field) for field in layout.fields if field.name not in without))


def _declaration(field: Field) -> Construct:
    element = field.element
    one: Construct
    if isinstance(element, Layout):
        one = construct_of(element)
    else:
        one = _INTEGERS[element] if element in _INTEGERS else Bytes(int(element.removesuffix("s")))
    return one if field.elements is None else Array(field.elements, one)
