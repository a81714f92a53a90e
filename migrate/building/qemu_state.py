"""States of QEMU to order: the sections of a small Xen HVM guest, open to every edit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from streams.wire.qemu import HEADER, INSTANCE_VERSION, MAGIC, NUMBER, VERSION, SectionType
from streams.wire.qemu_devices import DEVICES, STRUCTURES, Layout

# What QEMU 10 writes of a guest with one vcpu, but for the disk, serial line and floppies.
GUEST = (
    *("timer", "cpu_common", "cpu", "apic", "0000:00:00.0/I440FX", "PCIBUS", "dma", "mc146818rtc"),
    *("0000:00:01.1/ide", "i2c_bus", "0000:00:01.3/piix4_pm", "0000:00:01.0/PIIX3", "ioapic", "hpet"),
    *("ps2kbd", "ps2mouse", "pckbd", "port92", "0000:00:02.0/platform"),
)


def blank(device: str) -> bytes:
    """A device's data, all zeros: as long as a device writes them that has nothing to add."""
    layouts = DEVICES[device].layouts
    return bytes(_length(layouts[0])) if layouts else b""


def _length(layout: Layout) -> int:
    lengths = (
        part if isinstance(part, int) else _length(STRUCTURES[part]) if isinstance(part, str) else NUMBER.size
        for part in layout
    )
    return sum(lengths)


@dataclass(slots=True)
class SectionRec:
    """A section to be written; what is None is as QEMU has it."""

    name: str
    instance: int = 0
    version: int | None = None
    data: bytes | None = None
    id: int | None = None
    type: int = SectionType.FULL
    subsections: list[tuple[str, bytes]] = field(default_factory=list)

    def body(self) -> bytes:
        """Its data, with the subsections behind them."""
        data = blank(self.name.rpartition("/")[2]) if self.data is None else self.data
        for name, content in self.subsections:
            data += bytes([SectionType.SUBSECTION, len(name)]) + name.encode() + NUMBER.pack(1) + content
        return data

    def build(self, number: int) -> bytes:
        """The section without a footer."""
        version = DEVICES[self.name.rpartition("/")[2]].version if self.version is None else self.version
        head = bytes([self.type]) + NUMBER.pack(number) + bytes([len(self.name)]) + self.name.encode()
        return head + INSTANCE_VERSION.pack(self.instance, version) + self.body()


@dataclass(slots=True)
class QemuStateBuilder:
    """A state: `QemuStateBuilder().build()` is what Xen's QEMU writes of a small guest.

    Attributes
    ----------
    sections:
        in order; the ids count from 0 where a section names none.
    machine, footers, description:
        what QEMU writes elsewhere, but not under Xen: the machine's name, a footer behind each section, the JSON.
    end:
        the byte behind the last section.
    """

    sections: list[SectionRec] = field(default_factory=lambda: [SectionRec(name) for name in GUEST])
    magic: bytes = MAGIC
    version: int = VERSION
    machine: str | None = None
    footers: bool = False
    description: bool = False
    end: bytes = bytes([SectionType.EOF])

    @classmethod
    def of(cls, *names: str) -> QemuStateBuilder:
        """A state with the sections of these names."""
        return cls([SectionRec(name) for name in names])

    def section(self, name: str) -> SectionRec:
        """The first section of a name, with or without the place of its device."""
        return next(rec for rec in self.sections if name in (rec.name, rec.name.rpartition("/")[2]))

    def build(self) -> bytes:
        """The state."""
        parts = [HEADER.pack(self.magic, self.version)]
        if self.machine is not None:
            parts.append(bytes([SectionType.CONFIGURATION]) + NUMBER.pack(len(self.machine)) + self.machine.encode())
        for index, rec in enumerate(self.sections):
            number = index if rec.id is None else rec.id
            parts.append(rec.build(number))
            if self.footers:
                parts.append(bytes([SectionType.FOOTER]) + NUMBER.pack(number))
        parts.append(self.end)
        if self.description:
            text = self._describe()
            parts.append(bytes([SectionType.VMDESCRIPTION]) + NUMBER.pack(len(text)) + text)
        return b"".join(parts)

    def _describe(self) -> bytes:
        devices = [
            {
                "name": rec.name,
                "instance_id": rec.instance,
                "fields": [{"name": "all", "type": "buffer", "size": len(rec.body())}],
            }
            for rec in self.sections
        ]
        return json.dumps({"page_size": 4096, "devices": devices}).encode()
