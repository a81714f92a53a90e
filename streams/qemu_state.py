"""The state of upstream QEMU, section by section, and where QEMU would refuse it.

A state does not say how long a section's data are. They are measured by QEMU's own descriptions: those of
`streams.wire.qemu_devices`, or the one at the end of the state, which Xen's QEMU does not write. Where there is none
for a device, the next section's header is looked for.

Everything here was tried on QEMU 7.2 and 10.0: what stops it is its first fault, and it never looks at what is behind
the end. Source: `qemu_loadvm_state` in QEMU's `migration/savevm.c`.
"""

from __future__ import annotations

import re
from typing import Any

from streams.counting import count
from streams.qemu_data import UNKNOWN, Ends, described_lengths, description, known_header, measured
from streams.qemu_sections import Fault, FaultKind, QemuState, Section
from streams.values import replace
from streams.wire.qemu import (
    COMMAND_HEADER,
    HEADER,
    INSTANCE_VERSION,
    LAST_COMMAND,
    LONGEST_MACHINE_NAME,
    MAGIC,
    NUMBER,
    OBSOLETE_VERSION,
    VERSION,
    CommandHeader,
    SectionType,
    text,
)
from streams.wire.qemu_devices import DEVICES, Device

# A guest has some forty sections.
MOST_SECTIONS = 1 << 16
# How far behind the beginning of a device's data the next header is looked for; the longest data known are 1 MiB.
LONGEST_SEARCH = 4 << 20


def walk(state: bytes | bytearray | memoryview, total: int | None = None) -> QemuState:
    """Walk over a state.

    Parameters
    ----------
    state:
        the bytes, from its magic on.
    total:
        its length where only its first bytes are here: to run out of them is then no fault.
    """
    return _Walk(bytes(state), len(state) if total is None else total).run()


class _Stop(Exception):
    """QEMU stops here, or the bytes at hand do."""


# A header, but for its name and what follows: type, an id below 65536, length and beginning of the name.
_HEADER_LIKE = re.compile(rb"[\x01\x04](?=\0\0..[\x02-\xff][0-9A-Za-z])", re.DOTALL)
_OPENS = (SectionType.START, SectionType.FULL)
_GOES_ON = (SectionType.PART, SectionType.END)


class _Walk:
    def __init__(self, data: bytes, total: int) -> None:
        self._data = data
        self._whole = total <= len(data)
        self._sections: list[Section] = []
        self._opened: dict[int, Section] = {}
        self._version: int | None = None
        self._machine: str | None = None
        self._footers: bool | None = None
        self._fault: Fault | None = None
        self._doubt: Fault | None = None
        self._end: int | None = None
        self._size = total
        self._description: dict[str, Any] | None = None
        self._described: dict[tuple[str, int], int] = {}

    def run(self) -> QemuState:
        try:
            at = self._header()
            self._describe()
            at = self._configuration(at)
            while len(self._sections) < MOST_SECTIONS:
                next_at = self._section(at)
                if next_at is None:
                    break
                at = next_at
        except _Stop:
            pass
        return QemuState(
            self._size,
            self._version,
            self._machine,
            bool(self._footers),
            tuple(self._sections),
            self._fault,
            self._doubt,
            self._end,
            self._description,
        )

    # -- faults ------------------------------------------------------------------------------------

    def _refuse(self, kind: FaultKind, at: int, errno: str, message: str, section: Section | None = None) -> None:
        if self._fault is None:
            self._fault = Fault(kind, at, errno, message, section)

    def _cut(self, what: str, section: Section | None = None, errno: str = "EIO") -> _Stop:
        """QEMU reads on behind the last byte."""
        if self._whole:
            size = len(self._data)
            self._refuse(FaultKind.CUT, size, errno, f"the state ends at byte {size}, {what}", section)
        return _Stop()

    # -- what stands around the sections -------------------------------------------------------------

    def _header(self) -> int:
        data = self._data
        if len(data) < len(MAGIC) or not data.startswith(MAGIC):
            if self._whole or len(data) >= len(MAGIC):
                found = f"begins with {data[:4].hex(' ')}" if data else "is empty"
                if data and not data.strip(b"\0"):
                    found = "is all zeros"
                expected = f"expected the magic {MAGIC.hex(' ')} (QEVM)"
                self._refuse(FaultKind.MAGIC, 0, "EINVAL", f"it is not QEMU's: it {found}; {expected}")
            raise _Stop
        # A version that is cut reads as zero.
        (version,) = NUMBER.unpack(data[4:8].ljust(4, b"\0")) if self._whole or len(data) >= 8 else (VERSION,)
        self._version = version if len(data) >= HEADER.size else None
        if version != VERSION:
            if self._version is None:
                found = f"the state ends at byte {len(data)}, in its header"
            else:
                found = f"version {version}" + (", which QEMU no longer reads" if version == OBSOLETE_VERSION else "")
            self._refuse(FaultKind.VERSION, 4, "ENOTSUP", f"{found}; expected version {VERSION}")
            raise _Stop
        return HEADER.size

    def _configuration(self, at: int) -> int:
        data = self._data
        if data[at : at + 1] != bytes([SectionType.CONFIGURATION]):
            return at
        at += 1 + NUMBER.size
        if at > len(data):
            raise self._cut("in the machine's name")
        length = int.from_bytes(data[at - NUMBER.size : at], "big")
        self._machine = text(data[at : at + min(length, LONGEST_MACHINE_NAME)])
        if at + length > len(data):
            raise self._cut("in the machine's name")
        return at + length

    def _describe(self) -> None:
        self._description = description(self._data)
        if self._description is not None:
            self._described = described_lengths(self._description)

    # -- sections ----------------------------------------------------------------------------------

    def _section(self, at: int) -> int | None:
        """One section; returns where the next one begins, None at the end."""
        if at >= len(self._data):
            raise self._cut("where a section or the end should follow")
        kind = self._data[at]
        if kind == SectionType.EOF:
            self._finish(at + 1)
            return None
        if kind in _OPENS:
            section = self._opening(at)
            self._opened[section.id] = section
        elif kind in _GOES_ON:
            section = self._going_on(at)
        elif kind == SectionType.COMMAND:
            return self._command(at)
        else:
            self._refuse(FaultKind.SECTION_TYPE, at, "EINVAL", self._no_section(at))
            raise _Stop
        end, certain = self._end_of(section)
        length = None if end is None else end - section.data
        section = replace(section, length=length, measured=certain)
        self._sections.append(section)
        if end is None:
            raise _Stop
        return self._footer(section, end)

    def _no_section(self, at: int) -> str:
        before = self._sections[-1] if self._sections else None
        behind = f" behind section {before}" if before else ""
        return f"type 0x{self._data[at]:02x}{behind}; expected a section or the end (0x00)"

    def _opening(self, at: int) -> Section:
        data = self._data
        name_at = at + 1 + NUMBER.size + 1
        # QEMU says EINVAL where the name is cut or empty, EIO for what follows.
        if name_at > len(data) or name_at + data[name_at - 1] > len(data):
            raise self._cut("in a section's name", errno="EINVAL")
        length = data[name_at - 1]
        if not length:
            self._refuse(FaultKind.SECTION_NAME, name_at - 1, "EINVAL", "a section's name is empty")
            raise _Stop
        name = text(data[name_at : name_at + length])
        (number,) = NUMBER.unpack_from(data, at + 1)
        data_at = name_at + length + INSTANCE_VERSION.size
        if data_at > len(data):
            raise self._cut(f"in the header of section {name!r}")
        instance, version = INSTANCE_VERSION.unpack_from(data, name_at + length)
        section = Section(at, SectionType(data[at]), number, name, instance, version, data_at)
        self._judge(section, name_at, data_at - 4)
        return section

    def _judge(self, section: Section, name_at: int, version_at: int) -> None:
        device = DEVICES.get(section.device)
        if device is None:
            message = f"section {section}: QEMU has no such device"
            self._refuse(FaultKind.UNKNOWN_SECTION, name_at, "EINVAL", message, section)
        elif not device.minimum <= section.version <= device.version:
            expected = f"expected {_range(device)}"
            message = f"section {section} has version {section.version}; {expected}"
            self._refuse(FaultKind.SECTION_VERSION, version_at, "EINVAL", message, section)

    def _going_on(self, at: int) -> Section:
        if at + 1 + NUMBER.size > len(self._data):
            raise self._cut("in a section's header")
        (number,) = NUMBER.unpack_from(self._data, at + 1)
        opened = self._opened.get(number)
        if opened is None:
            message = f"section id {number} goes on, but did not begin"
            self._refuse(FaultKind.UNKNOWN_SECTION, at + 1, "EINVAL", message)
            raise _Stop
        kind = SectionType(self._data[at])
        return Section(at, kind, number, opened.name, opened.instance, opened.version, at + 1 + NUMBER.size)

    def _command(self, at: int) -> int:
        start = at + 1 + COMMAND_HEADER.size
        if start > len(self._data):
            raise self._cut("in a command")
        command, length = CommandHeader._make(COMMAND_HEADER.unpack_from(self._data, at + 1))
        if not 0 < command <= LAST_COMMAND:
            message = f"command {command}; QEMU knows 1 to {LAST_COMMAND}"
            self._refuse(FaultKind.COMMAND, at + 1, "EINVAL", message)
            raise _Stop
        if start + length > len(self._data):
            raise self._cut("in a command")
        self._sections.append(Section(at, SectionType.COMMAND, command, "", 0, 0, start, length, True))
        return start + length

    def _footer(self, section: Section, end: int) -> int:
        """Pass over a section's footer; all sections have one, or none has."""
        size = 1 + NUMBER.size
        found = self._data[end : end + size]
        expected = bytes([SectionType.FOOTER]) + NUMBER.pack(section.id)
        if self._footers is None:
            self._footers = found == expected
        if not self._footers:
            return end
        if found != expected:
            # A byte that is not there reads as zero.
            found = found.ljust(size, b"\0")
            message = f"section {section} ends with {found.hex(' ')}; expected its footer {expected.hex(' ')}"
            self._refuse(FaultKind.FOOTER, end, "EINVAL", message, section)
            raise _Stop
        return end + size

    def _finish(self, end: int) -> None:
        self._end = end
        if self._description is not None and self._data[end : end + 1] == bytes([SectionType.VMDESCRIPTION]):
            self._end = len(self._data)

    # -- where a section's data end ------------------------------------------------------------------

    def _end_of(self, section: Section) -> tuple[int | None, bool]:
        """End of a section's data and whether it was measured; None where it cannot be told."""
        ends, short = self._measured_ends(section)
        best = max(ends, key=self._likelihood, default=None)
        if best is not None and self._likelihood(best) == _HEADER_FOLLOWS:
            return best, True
        found = self._search(section)
        if best is None and not short:
            return found, False
        if found is not None and not (best is not None and self._data.find(MAGIC, best, found) > best):
            self._doubt_length(section, best, found)
            return found, False
        if best is None:
            raise self._cut(f"in the data of section {section}", section)
        return best, True

    def _doubt_length(self, section: Section, measured: int | None, found: int) -> None:
        """The next header is not where this one's data should end: damage, or a QEMU of other descriptions."""
        if self._doubt is None:
            expected = count(measured - section.data, "byte") if measured is not None else "more"
            has = count(found - section.data, "byte")
            message = f"section {section} has {has} of data; QEMU 7.2 and 10.0 read {expected}"
            at = found if measured is None else min(measured, found)
            self._doubt = Fault(FaultKind.LENGTH, at, "EINVAL", message, section)

    def _measured_ends(self, section: Section) -> Ends:
        if section.type not in _OPENS:
            return UNKNOWN
        ends = measured(self._data, section.device, section.version, section.data)
        length = self._described.get((section.name, section.instance))
        # QEMU does not read the description: one that is wrong has no say.
        if length is None or not 0 <= length <= len(self._data) - section.data:
            return ends
        return Ends((section.data + length, *ends.offsets), ends.short)

    def _likelihood(self, at: int) -> int:
        """How likely it is that a section's data end here, by what follows."""
        data = self._data
        if at >= len(data):
            return _NOTHING_FOLLOWS
        if known_header(self._data, at):
            return _HEADER_FOLLOWS  # even where its type byte is damaged
        kind = data[at]
        if kind in _OPENS:
            length = data[at + 5] if at + 5 < len(data) else 0
            name = data[at + 6 : at + 6 + length]
            return _HEADER_FOLLOWS if len(name) == length > 1 and name.isascii() else _OTHER_FOLLOWS
        if kind in (SectionType.FOOTER, *_GOES_ON) and at + 5 <= len(data):
            (number,) = NUMBER.unpack_from(data, at + 1)
            return _HEADER_FOLLOWS if number in self._opened else _OTHER_FOLLOWS
        return _END_FOLLOWS if kind == SectionType.EOF else _OTHER_FOLLOWS

    def _search(self, section: Section) -> int | None:
        """The next place at which this section's footer or another section's header stands."""
        if self._footers is not False:
            footer = self._data.find(bytes([SectionType.FOOTER]) + NUMBER.pack(section.id), section.data)
            if footer >= 0 or self._footers:
                return None if footer < 0 else footer
        for match in _HEADER_LIKE.finditer(self._data, section.data, section.data + LONGEST_SEARCH):
            if known_header(self._data, match.start()):
                return match.start()
        return None


_OTHER_FOLLOWS, _NOTHING_FOLLOWS, _END_FOLLOWS, _HEADER_FOLLOWS = range(4)


def _range(device: Device) -> str:
    if device.minimum == device.version:
        return f"version {device.version}"
    return f"versions {device.minimum} to {device.version}"
