"""How the state of a device model is shown: its sections, and where QEMU would stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from migrate.inspection.logbook import Layer
from migrate.inspection.records.cursor import Cursor, Field
from streams.containers import BODY_LIMIT
from streams.counting import count
from streams.qemu_sections import QemuState, Section
from streams.qemu_state import walk
from streams.wire.framing import EMULATOR_HEADER, LibxlRecordType, XapiBlockId
from streams.wire.qemu import HEADER, MAGIC, SectionType, device_state

if TYPE_CHECKING:
    from migrate.inspection.logbook import Entry
    from migrate.inspection.reading import Inspection


def state_line(head: bytes) -> str:
    """What the beginning of a state says."""
    return str(device_state(head) or "its state begins as no QEMU writes it")


def state_fields(cursor: Cursor) -> Iterator[Field]:
    """All sections with their places, and what QEMU would refuse."""
    start, raw = cursor.offset, cursor.take(cursor.left)
    state = walk(raw, None if len(raw) <= BODY_LIMIT else len(raw) + 1)
    if not raw.startswith(MAGIC):
        yield Field("state", start, raw, _told(state))
        return
    yield Field("magic", start, raw[: len(MAGIC)])
    if state.version is not None:
        yield Field("version", start + len(MAGIC), state.version)
    if state.machine is not None:
        yield Field("machine", start + HEADER.size, state.machine)
    shown = state.sections[: cursor.most]
    sections = tuple(_section_field(section, start, raw) for section in shown)
    number = count(len(state.sections), "section") + (", each with a footer" if state.footers else "")
    yield Field("sections", start + HEADER.size, None, number, sections, len(state.sections) - len(shown))
    for fault in (state.fault, state.doubt):
        if fault is not None:
            yield Field("fault", start + fault.offset, None, f"{fault.message} ({fault.errno})")
    if state.description is not None and state.end is not None:
        described = count(len(state.description["devices"]), "device")
        yield Field("description", None, None, f"QEMU's own, of {described}")
    if state.trailing:
        yield Field("behind", start + state.size - state.trailing, None, count(state.trailing, "byte") + " unread")


def _told(state: QemuState) -> str:
    return "" if state.fault is None else state.fault.message


def _section_field(section: Section, start: int, raw: bytes) -> Field:
    if section.type is SectionType.COMMAND:
        return Field("command", start + section.offset, section.id, count(section.length or 0, "byte"))
    size = "of unknown length" if section.length is None else count(section.length, "byte")
    if section.length is not None and not section.measured:
        size += ", up to where the next section begins"
    end = None if section.length is None else section.data + section.length
    inside = (
        Field("id", None, section.id),
        Field("instance", None, section.instance),
        Field("version", None, section.version),
        Field("data", start + section.data, raw[section.data : end]),
    )
    return Field(section.name, start + section.offset, None, f"version {section.version}, {size}", inside)


def state_entry(inspection: Inspection) -> Entry | None:
    """The record or block with the device model's state that counts, the last one; None where there is none."""
    return next((entry for entry in reversed(list(inspection.log)) if _holds_state(entry)), None)


def _holds_state(entry: Entry) -> bool:
    return (entry.layer, entry.type) in (
        (Layer.LIBXL, LibxlRecordType.EMULATOR_CONTEXT),
        (Layer.XAPI, XapiBlockId.QEMU_TRAD),
    )


def state_of(inspection: Inspection) -> QemuState | None:
    """The device model's state in a stream; None where it has none."""
    entry = state_entry(inspection)
    if entry is None:
        return None
    skipped = EMULATOR_HEADER.size if entry.layer is Layer.LIBXL else 0
    raw = inspection.body(entry, BODY_LIMIT)[skipped:]
    return walk(raw, max(0, entry.length - skipped))
