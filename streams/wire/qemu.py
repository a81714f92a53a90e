"""How the state of upstream QEMU begins: enough to name it. Every number in it is big-endian.

Source: QEMU's `migration/savevm.c`. What a section holds is known to the device alone, so no list of sections can be
read without QEMU's own descriptions: the first one's header is as far as this goes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEAD_SIZE = 600
"""Enough for a header, a machine's name and a section's name, each as long as QEMU lets it be."""

_MAGIC = b"QEVM"
_HEADER = struct.Struct(">4sI")
_CONFIGURATION, _SECTION_START, _SECTION_FULL = 0x07, 0x01, 0x04
_NAME_LENGTH = struct.Struct(">I")
_SECTION = struct.Struct(">IB")  # section id, length of the name
_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class DeviceState:
    """The beginning of a device model's state; None for what it does not say."""

    version: int
    machine: str | None
    first_section: str | None

    def __str__(self) -> str:
        told = [f"QEMU state version {self.version}"]
        if self.machine is not None:
            told.append(f"machine {self.machine}")
        if self.first_section is not None:
            told.append(f"first section {self.first_section}")
        return ", ".join(told)


def device_state(head: bytes) -> DeviceState | None:
    """What the first bytes of a device model's state say, or None if it is not upstream QEMU's."""
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        return None
    _, version = _HEADER.unpack_from(head)
    at = _HEADER.size
    machine = section = None
    if head[at : at + 1] == bytes([_CONFIGURATION]) and len(head) >= at + 1 + _NAME_LENGTH.size:
        (length,) = _NAME_LENGTH.unpack_from(head, at + 1)
        at += 1 + _NAME_LENGTH.size
        machine = _name(head[at : at + min(length, _LONGEST_NAME)])
        at += length
    if at < len(head) and head[at] in (_SECTION_START, _SECTION_FULL) and len(head) >= at + 1 + _SECTION.size:
        _, length = _SECTION.unpack_from(head, at + 1)
        at += 1 + _SECTION.size
        section = _name(head[at : at + length])
    return DeviceState(version, machine, section)


def _name(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii", "backslashreplace")
