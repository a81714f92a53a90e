"""How the records of HVM guests are shown; the entries of a context are in `hvm_entries`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from migrate.inspection.logbook import Layer
from migrate.inspection.records.cursor import Cursor, Field
from migrate.inspection.records.hvm_entries import entry_field
from migrate.inspection.records.kind import MOST_READ, About, Kind, Kinds, listed
from streams.counting import count
from streams.hvm_context import entries
from streams.wire.framing import (
    HVM_PARAM,
    HVM_SAVE_HEADER,
    PARAMS_HEADER,
    SHARED_INFO_SIZE,
    HvmParamEntry,
    ParamsHeader,
    RecordType,
)
from streams.wire.hvm_names import param_name


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
    start, size = PARAMS_HEADER.size, HVM_PARAM.size
    if len(about.body) < start:
        raise ValueError
    there = (len(about.body) - start) // size
    names = [param_name(index) for index, _ in HVM_PARAM.iter_unpack(about.body[start : start + there * size])]
    return f"{count((about.entry.length - start) // size, 'parameter')}: {listed(names)}"


def _params_fields(cursor: Cursor) -> Iterator[Field]:
    yield from cursor.named(PARAMS_HEADER, ParamsHeader)

    def one(number: int) -> Field:
        start, param = cursor.offset, HvmParamEntry._make(HVM_PARAM.unpack_from(cursor.raw, cursor.at))
        meaning = f"{param_name(param.index)} = {param.value:#x}"
        return Field(f"[{number}]", start, None, meaning, tuple(cursor.named(HVM_PARAM, HvmParamEntry)))

    yield from cursor.elements(HVM_PARAM.size, "params", one)


HVM: Kinds = {
    (Layer.LIBXC, RecordType.HVM_CONTEXT): Kind(_context_line, MOST_READ, _context_fields),
    (Layer.LIBXC, RecordType.HVM_PARAMS): Kind(_params_line, SHARED_INFO_SIZE, _params_fields),
}
