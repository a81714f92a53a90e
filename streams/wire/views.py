"""Read a field of a buffer without unpacking all of it: numpy types of the layouts, made when first asked for."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from streams.wire.layouts import Field, Layout

Buffer = bytes | bytearray | memoryview

_INTEGERS = {"B": "<u1", "H": "<u2", "I": "<u4", "Q": "<u8", "b": "<i1", "q": "<i8"}


@cache
def dtype_of(layout: Layout[Any]) -> np.dtype[Any]:
    """The numpy type with a layout's fields at their offsets; bytes are void of their length.

    `np.frombuffer(buffer, dtype_of(CONTEXT[8]), 1)[0]["ctrlreg"][3]` reads one field.
    """
    return np.dtype([(field.name, _element(field), _shape(field)) for field in layout.fields])


def _shape(field: Field) -> tuple[int, ...]:
    return () if field.elements is None else (field.elements,)


def _element(field: Field) -> np.dtype[Any] | str:
    element = field.element
    if isinstance(element, Layout):
        return dtype_of(element)
    return _INTEGERS.get(element) or f"V{element.removesuffix('s')}"


def view(layout: Layout[Any], buffer: Buffer) -> np.void:
    """One structure in a buffer, uncopied: `view(CONTEXT[8], content)["ctrlreg"][3]`.

    Raises ValueError where the buffer ends before the structure does. Numbers read from it are numpy scalars
    of their own width: take `int(...)` before shifting one.
    """
    found: np.void = np.frombuffer(buffer, dtype_of(layout), 1)[0]
    return found
