"""Which record is meant, where a person names one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate.inspection.logbook import Header, Layer
from migrate.inspection.reading import NotInStream

if TYPE_CHECKING:
    from migrate.inspection.logbook import Entry
    from migrate.inspection.reading import Inspection

HEADERS = {
    "xl": Header.XL,
    "libvirt": Header.LIBVIRT,
    "libxl": Header.LIBXL,
    "image": Header.IMAGE,
    "domain": Header.DOMAIN,
}
SYNTAX = f"N, libxl:N, xapi:N, {', '.join(HEADERS)} or @OFFSET"
_SELECTOR = re.compile(
    r"(?:(?P<layer>libxc|libxl|xapi):)?(?P<index>[0-9]{1,10})|@(?P<offset>0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,18})"
)


def check_selector(asked: str) -> str:
    """A selector as it is. Raises ValueError for what is none.

    N is libxc's record of that index, as findings give it; libxl:N and xapi:N are records of these; a header goes
    by its name; @OFFSET is what lies at a byte offset of the stream.
    """
    if asked not in HEADERS and not _SELECTOR.fullmatch(asked):
        raise ValueError(f"{asked!r} is not {SYNTAX}")
    return asked


def selected(inspection: Inspection, selector: str) -> Entry:
    """The entry that a selector means. Raises NotInStream where there is none."""
    from migrate.inspection.records.contents import number_at

    log, found = inspection.log, _SELECTOR.fullmatch(selector)
    entry: Entry | None
    if found is None:
        named = HEADERS[selector]
        entry = next((entry for entry in log if entry.type is None and entry.name == named), None)
        what = f"no {named}"
    elif found["offset"]:
        offset = int(found["offset"], 0)
        number = number_at(log, offset)
        entry = None if number is None else log[number]
        what = f"nothing at {offset:#x}"
    else:
        layer, index = Layer(found["layer"] or Layer.LIBXC), int(found["index"])
        entry = log.find(layer, index) if index < 1 << 32 else None
        what = f"no {layer.value} record {index}"
    if entry is None:
        raise NotInStream(f"there is {what} in the stream")
    return entry
