"""How the records of HVM guests are shown; the entries of a context are in `hvm_entries`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from migrate.counting import count
from migrate.inspection.logbook import Layer
from migrate.inspection.records.cursor import Cursor, Field
from migrate.inspection.records.hvm_entries import entry_field
from migrate.inspection.records.kind import MOST_READ, About, Kind, Kinds, listed
from streams.hvm_context import entries
from streams.wire.framing import HVM_SAVE_HEADER, PARAMS_HEADER, SHARED_INFO_SIZE, ParamsHeader, RecordType
from streams.wire.hvm import HVM_PARAM
from streams.wire.hvm_names import param_name
from streams.wire.views import dtype_of


def _context_line(about: About) -> str:
    found = Counter(entry.name for entry in entries(about.body))
    names = listed([name if number == 1 else f"{name} x{number}" for name, number in found.items()])
    least = "at least " * (len(about.body) < about.entry.length)
    return f"{least}{count(found.total(), 'entry', 'entries')}: {names}"


def _context_fields(cursor: Cursor) -> Iterator[Field]:
    for number, entry in enumerate(entries(cursor.raw)):
        if number >= cursor.most:
            yield Field("entries", cursor.offset, None, "and more")
            cursor.take(cursor.left)
            return
        size = HVM_SAVE_HEADER.size + len(entry.body)
        yield entry_field(cursor.part(entry.offset, size), entry)
        cursor.take(size)


def _params_line(about: About) -> str:
    start, size = PARAMS_HEADER.size, HVM_PARAM.sizeof()
    if len(about.body) < start:
        raise ValueError
    pairs = np.frombuffer(about.body, dtype_of(HVM_PARAM), (len(about.body) - start) // size, start)
    number = (about.entry.length - start) // size
    return f"{count(number, 'parameter')}: {listed([param_name(int(index)) for index in pairs['index']])}"


def _param_meaning(param: Any) -> str:
    return f"{param_name(param['index'])} = {param['value']:#x}"


def _params_fields(cursor: Cursor) -> Iterator[Field]:
    yield from cursor.named(PARAMS_HEADER, ParamsHeader)

    def one(number: int) -> Field:
        return replace(cursor.parsed(HVM_PARAM, "param", {"": _param_meaning}), name=f"[{number}]")

    yield from cursor.elements(HVM_PARAM.sizeof(), "params", one)


HVM: Kinds = {
    (Layer.LIBXC, RecordType.HVM_CONTEXT): Kind(_context_line, MOST_READ, _context_fields),
    (Layer.LIBXC, RecordType.HVM_PARAMS): Kind(_params_line, SHARED_INFO_SIZE, _params_fields),
}
