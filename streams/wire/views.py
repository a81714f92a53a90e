"""Read a field of a buffer without parsing all of it: numpy types derived from the construct declarations.

The declarations stay the only source; a type made here has the same names at the same offsets.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from construct import Array, Bytes, Construct, FormatField, Padded, Pass, Renamed, Struct

Buffer = bytes | bytearray | memoryview


@cache
def dtype_of(declaration: Construct) -> np.dtype[Any]:
    """The numpy type that lays out its fields as a construct declaration of fixed size does.

    Integers keep their width and sign, arrays and nested structs their shape, Bytes and Padding become void
    of their length. Raises TypeError for any other kind of declaration.

    `np.frombuffer(buffer, dtype_of(CONTEXT[8]), 1)[0]["ctrlreg"][3]` reads one field.
    """
    match declaration:
        case Renamed():
            return dtype_of(declaration.subcon)
        case FormatField() if declaration.fmtstr[1] in "bBhHlLqQ":
            order, code = declaration.fmtstr
            # struct's l is 4 bytes at a fixed byte order, numpy's is the platform's long: go by size.
            return np.dtype(f"{order}{'i' if code.islower() else 'u'}{declaration.length}")
        case Bytes(length=int(length)):
            return np.dtype(f"V{length}")
        case Padded(length=int(length)) if declaration.subcon is Pass:
            return np.dtype(f"V{length}")
        case Array(count=int(count)):
            return np.dtype((dtype_of(declaration.subcon), (count,)))
        case Struct():
            return _struct(declaration)
    raise TypeError(f"no numpy type for {declaration!r}")


def _struct(declaration: Construct) -> np.dtype[Any]:
    names, formats, offsets, end = [], [], [], 0
    for field in declaration.subcons:
        layout = dtype_of(field)
        if field.name is not None:
            names.append(field.name)
            formats.append(layout)
            offsets.append(end)
        end += layout.itemsize
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": end})


def view(declaration: Construct, buffer: Buffer) -> np.void:
    """One structure in a buffer, uncopied: `view(CONTEXT[8], content)["ctrlreg"][3]`.

    Raises ValueError where the buffer ends before the structure does. Numbers read from it are numpy scalars
    of their own width: take `int(...)` before shifting one.
    """
    found: np.void = np.frombuffer(buffer, dtype_of(declaration), 1)[0]
    return found


def offset_of(declaration: Construct, *path: str | int) -> int:
    """Where a field starts, in bytes: `offset_of(CONTEXT[4], "ctrlreg", 3)` is 2728.

    A name goes into a struct, an index into an array. Raises KeyError or IndexError where there is none.
    """
    layout, offset = dtype_of(declaration), 0
    for step in path:
        if isinstance(step, str):
            if layout.fields is None or step not in layout.fields:
                raise KeyError(step)
            layout, start = layout.fields[step][:2]
        else:
            if layout.subdtype is None or not 0 <= step < layout.shape[0]:
                raise IndexError(step)
            layout = layout.subdtype[0]
            start = step * layout.itemsize
        offset += start
    return offset
