"""What a header, block or record says: in a line, and field by field."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from migrate.inspection.logbook import Layer
from migrate.inspection.records.containers import CONTAINERS
from migrate.inspection.records.cursor import Cursor, CutError, Field
from migrate.inspection.records.hvm import HVM
from migrate.inspection.records.image import IMAGE, page_fields
from migrate.inspection.records.kind import About, Kind
from migrate.inspection.records.pv import PV
from streams.counting import count
from streams.wire.framing import PAGE_DATA_HEADER, RECORD_OPTIONAL, padded

if TYPE_CHECKING:
    from migrate.inspection.logbook import Entry
    from migrate.inspection.reading import Inspection

# Of a longer body only so much is taken apart.
MOST_READ = 16 << 20
CUT = "the input ends in it"

KINDS = CONTAINERS | IMAGE | PV | HVM
"""How each type is shown."""


def _kind(entry: Entry) -> Kind | None:
    return KINDS.get((entry.layer, entry.name if entry.type is None else entry.type))


def needed(entry: Entry) -> int:
    """How many bytes of a body its summary takes."""
    kind = _kind(entry)
    return min(entry.length, kind.needed if kind else 0)


def summary(entry: Entry, body: bytes, width: int | None) -> str:
    """What a record says, in a line: not escaped, and text of the stream may be part of it.

    Parameters
    ----------
    body:
        at least the first `needed(entry)` bytes, fewer only where the input ends before.
    width:
        the guest's word size in bytes, 4 or 8; None where the stream does not say.
    """
    kind = _kind(entry)
    if kind is None:
        line = _unknown(entry)
    else:
        try:
            line = kind.line(About(entry, body, width))
        except (ValueError, struct.error):
            if entry.cut:
                return CUT
            line = f"{count(entry.length, 'byte')} that are not laid out as a {entry.name}"
    return f"{CUT}: {line}" if entry.cut else line


def _unknown(entry: Entry) -> str:
    if entry.layer is not Layer.LIBXC:
        return "of no known type"
    return f"of no known type, {'optional' if (entry.type or 0) & RECORD_OPTIONAL else 'mandatory'}"


def fields_of(inspection: Inspection, entry: Entry, *, everything: bool = False) -> list[Field]:
    """All fields of a header, block or record; of a damaged one, those that its bytes hold.

    Parameters
    ----------
    everything:
        all elements of the longest lists, too.
    """
    if entry.is_pages:
        raw = inspection.body(entry, PAGE_DATA_HEADER.size)
        (_, words), *_ = inspection.words([entry])
        return list(page_fields(Cursor(raw, entry.body, everything=everything), entry, words))
    end = entry.length if entry.type is None or entry.layer is Layer.XAPI else padded(entry.length)
    (raw,) = inspection.read([(entry.body, min(end, MOST_READ))])
    body, padding = raw[: entry.length], raw[entry.length :]
    cursor = Cursor(body, entry.body, everything, inspection.judgement.facts.width, lambda: inspection.policy)
    kind = _kind(entry)
    found: list[Field] = []
    try:
        for field in kind.fields(cursor) if kind is not None and kind.fields else ():
            found.append(field)
    except CutError:
        found.append(Field("cut", cursor.offset, None, "the bytes end before the next field does"))
    found += cursor.rest("rest" if found else "content")
    if missing := count(entry.length - len(body), "byte") if len(body) < entry.length else "":
        more, ends = f"{missing} more are not taken apart", f"the input ends {missing} before the end of the record"
        found.append(Field("more", entry.body + len(body), None, more if len(raw) == MOST_READ else ends))
    if any(padding):
        found.append(Field("padding", entry.body + entry.length, padding, "not zero"))
    return found
