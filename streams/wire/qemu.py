"""How upstream QEMU writes the state of its devices. Every number in it is big-endian.

Source: QEMU's `migration/savevm.c` and `docs/devel/migration`. What the data of a section hold is known to the device
alone: `qemu_devices` has what QEMU's own descriptions say of it.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from streams.values import NamedTuple, dataclass

HEAD_SIZE = 600
"""Enough for a header, a machine's name and a section's name, each as long as QEMU lets it be."""

MAGIC = b"QEVM"
VERSION = 3
OBSOLETE_VERSION = 2
HEADER = struct.Struct(">4sI")


class SectionType(IntEnum):
    """The byte that stands in front of everything behind the header."""

    EOF = 0x00
    START = 0x01
    PART = 0x02
    END = 0x03
    FULL = 0x04
    SUBSECTION = 0x05
    VMDESCRIPTION = 0x06
    CONFIGURATION = 0x07
    COMMAND = 0x08
    FOOTER = 0x7E


NUMBER = struct.Struct(">I")
"""A section's id; the length of a machine's name or of the description."""
INSTANCE_VERSION = struct.Struct(">II")
"""Behind a section's name: which of its kind, and the version of its data."""


class CommandHeader(NamedTuple):
    """Behind the type byte of a command, before its data."""

    command: int
    length: int


COMMAND_HEADER = struct.Struct(">HH")
LAST_COMMAND = 11
"""The first is 1; Xen's QEMU sends none."""
LONGEST_MACHINE_NAME = 256

XAPI_LONGEST_STATE = 1 << 20
"""xenopsd refuses a longer device model's record in a suspend image."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """The beginning of a device model's state; None for what it does not say."""

    version: int
    machine: str | None
    first_section: str | None

    def __str__(self) -> str:
        parts = [f"QEMU state version {self.version}"]
        if self.machine is not None:
            parts.append(f"machine {self.machine}")
        if self.first_section is not None:
            parts.append(f"first section {self.first_section}")
        return ", ".join(parts)


def device_state(head: bytes) -> DeviceState | None:
    """What the first bytes of a device model's state say, or None if it is not upstream QEMU's."""
    if len(head) < HEADER.size or not head.startswith(MAGIC):
        return None
    _, version = HEADER.unpack_from(head)
    at = HEADER.size
    machine = section = None
    if head[at : at + 1] == bytes([SectionType.CONFIGURATION]) and len(head) >= at + 1 + NUMBER.size:
        (length,) = NUMBER.unpack_from(head, at + 1)
        at += 1 + NUMBER.size
        machine = text(head[at : at + min(length, LONGEST_MACHINE_NAME)])
        at += length
    if at < len(head) and head[at] in (SectionType.START, SectionType.FULL) and len(head) > at + 1 + NUMBER.size:
        at += 1 + NUMBER.size
        section = text(head[at + 1 : at + 1 + head[at]])
    return DeviceState(version, machine, section)


def text(raw: bytes) -> str:
    """A name, with escapes for what is no ASCII."""
    return raw.rstrip(b"\0").decode("ascii", "backslashreplace")
