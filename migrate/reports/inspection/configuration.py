"""What `migrate show` tells of the configuration, and of a device model's state beside another's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from migrate.inspection.reading import NotInStream
from migrate.inspection.records.configuration import configuration
from migrate.inspection.records.device_model import state_of
from migrate.safe import safe, well_formed
from migrate.toolstack.config import ConfigSource
from migrate.toolstack.configuration import read
from streams.counting import count
from streams.qemu_sections import QemuState, unknown_to

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.inspection.reading import Inspection


def render_config(inspection: Inspection, console: Console) -> None:
    """Print the text of the configuration as it stands, and what is wrong with it."""
    found = configuration(inspection)
    whose = f"configuration of {found.source} at {found.offset:#x}, {count(len(found.text), 'byte')}"
    print(safe(whose), file=console.file)
    print(file=console.file)
    for line in found.text.decode("utf-8", "backslashreplace").rstrip("\n").split("\n"):
        print(safe(line), file=console.file)
    config = read(found.text, found.source)
    for problem in () if config is None else config.problems:
        by = f"{problem.by} refuses it: " if problem.by else ""
        print(safe(f"! {by}{problem.message}"), file=console.file)


def config_object(inspection: Inspection) -> dict[str, Any]:
    """The same as a JSON object: the text, its JSON where it is such, and the problems."""
    found = configuration(inspection)
    text = found.text.decode("utf-8", "backslashreplace")
    config = read(found.text, found.source)
    return {
        "source": found.source,
        "offset": found.offset,
        "text": well_formed(text),
        "json": _json(found.text) if found.source is ConfigSource.JSON else None,
        "problems": [problem._asdict() for problem in (() if config is None else config.problems)],
    }


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# -- two device models --------------------------------------------------------------------------------


def render_against(inspection: Inspection, other: QemuState, name: str, console: Console) -> None:
    """Print which sections of a stream's device model the QEMU that wrote another state would not know."""
    state = _state(inspection)
    differences = unknown_to(state, other)
    sections, others = count(len(state.sections), "section"), count(len(other.sections), "section")
    print(safe(f"the device model's state, {sections}, against that of {name}, {others}"), file=console.file)
    for difference in differences:
        print(safe(f"! {difference}"), file=console.file)
    if not differences:
        print("the QEMU that wrote the other has all of them, in versions as late", file=console.file)


def against_object(inspection: Inspection, other: QemuState) -> list[dict[str, Any]]:
    """The same as JSON objects, one for each section that would not be known."""
    return [
        {
            "section": well_formed(one.section.name),
            "instance": one.section.instance,
            "version": one.section.version,
            "known_version": one.known_version,
        }
        for one in unknown_to(_state(inspection), other)
    ]


def _state(inspection: Inspection) -> QemuState:
    state = state_of(inspection)
    if state is None:
        raise NotInStream("there is no device model's state in the stream")
    return state
