"""What a built guest is made of: page-table entries, pages, vcpus, records."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from migrate.building.qemu_state import QemuStateBuilder
from streams.pages import DATALESS_TYPES, LEVEL_MASK, TYPE_SHIFT
from streams.wire.constructs import construct_of
from streams.wire.framing import (
    EMULATOR_HEADER,
    NO_SUBLEAF,
    PAGE_DATA_HEADER,
    PAGE_SHIFT,
    PAGE_SIZE,
    RECORD_HEADER,
    VCPU_HEADER,
    RecordType,
    padded,
    record_name,
)
from streams.wire.layouts import Layout
from streams.wire.paging import ENTRIES, RW, US, A, D, P
from streams.wire.vcpu import (
    CONTEXT,
    EXTENDED,
    USER_ROOT_VALID,
    VM_ASSIST_NAMES,
    XSAVE_MIN_SIZE,
    ContextFlag,
    cr3_to_pfn,
    pfn_to_cr3,
)
from streams.wire.xstate import FXSAVE

PTE_RW = P | RW | US | A | D
PTE_RO = P | US | A | D
TABLE = P | RW | US | A | D
PAE_ROOT = P | RW | US | A

PAE_EXTENDED_CR3 = 1 << next(bit for bit, name in VM_ASSIST_NAMES.items() if name == "pae_extended_cr3")

# How a kernel of each width looks when it is suspended: addresses and selectors that Xen takes as they are.
KERNEL_TEXT = {4: 0xC010_0000, 8: 0xFFFF_FFFF_8000_1000}
KERNEL_STACK = {4: 0xC020_0000, 8: 0xFFFF_FFFF_8020_0000}
KERNEL_CS = {4: 0xE019, 8: 0xE033}
KERNEL_SS = {4: 0xE021, 8: 0xE02B}
EFLAGS = 0x202
CR0, CR4 = 0x8005_0033, 0x660
DR6, DR7 = 0xFFFF_0FF0, 0x400
AFTER_FNINIT = FXSAVE.pack(FXSAVE.read(b"")._replace(fcw=0x37F, mxcsr=0x1F80))

GDT = {
    4: struct.pack("<3Q", 0, 0x00CF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF),
    8: struct.pack("<3Q", 0, 0x00AF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF),
}
"""Start of a GDT page: null, flat code, flat data."""

CPUID_LEAVES = (
    (0, NO_SUBLEAF, 0xD, 0x756E_6547, 0x6C65_746E, 0x4965_6E69),
    (1, NO_SUBLEAF, 0x60FB1, 0x800, 0x8000_2001, 0x078B_FBFF),
    (0x8000_0000, NO_SUBLEAF, 0x8000_0008, 0, 0, 0),
)
MSRS = ((0xCE, 0, 0),)

TSC_KHZ = 0x24_9F00
DEVICE_MODEL = EMULATOR_HEADER.pack(2, 0) + QemuStateBuilder.of("timer", "0000:00:02.0/platform").build()
"""Body of an EMULATOR_CONTEXT record: a state that upstream QEMU loads, of two of its devices."""

Kind = str | int


def entry(pfn: int, flags: int = PTE_RW) -> int:
    """A page-table entry for a pfn (the stream's tables hold pfns where the guest's hold mfns)."""
    return pfn << PAGE_SHIFT | flags


def page_data(entries: Iterable[tuple[int, int, bytes | None]]) -> bytes:
    """Body of a PAGE_DATA record from (pfn, type, contents or None); whatever is given is written."""
    listed = list(entries)
    words = b"".join((kind << TYPE_SHIFT | pfn).to_bytes(8, "little") for pfn, kind, _ in listed)
    contents = b"".join(data for _, _, data in listed if data is not None)
    return PAGE_DATA_HEADER.pack(len(listed), 0) + words + contents


def zeroed(layout: Layout[Any]) -> Any:
    """A structure to be edited, as a construct Container, with every field zero."""
    return construct_of(layout).parse(bytes(layout.size))


def built(layout: Layout[Any], edited: Any) -> bytes:
    """The bytes of a structure that was edited: the inverse of `zeroed`."""
    return bytes(construct_of(layout).build(edited))


def number_of(name: Kind) -> int:
    """A record type's number by its libxc name, or the number itself."""
    return name if isinstance(name, int) else RecordType[name]


@dataclass(slots=True)
class Rec:
    """One record to be written: libxc's or libxl's, by its number.

    `padding` replaces the zeros that fill the body up to 8 bytes, `length` the true length in the header.
    """

    type: int
    body: bytearray
    padding: bytes | None = None
    length: int | None = None

    @classmethod
    def of(cls, kind: int, body: bytes = b"") -> Rec:
        """A record with a body of its own, to be edited."""
        return cls(int(kind), bytearray(body))

    @property
    def name(self) -> str:
        """Its libxc name."""
        return record_name(self.type)

    def build(self) -> bytes:
        """The record as bytes."""
        size = len(self.body)
        padding = bytes(padded(size) - size) if self.padding is None else self.padding
        return RECORD_HEADER.pack(self.type, size if self.length is None else self.length) + self.body + padding


@dataclass(slots=True)
class Page:
    """One page of the guest: its type in the pfn word, and 4096 bytes (None where the type carries none)."""

    type: int
    content: bytearray | None

    @property
    def has_data(self) -> bool:
        """Whether a PAGE_DATA record carries contents for this type."""
        return self.type not in DATALESS_TYPES

    @property
    def is_table(self) -> bool:
        """Whether the type is that of a page table."""
        return 1 <= self.type & LEVEL_MASK <= 4

    def data(self) -> bytes | None:
        """What a PAGE_DATA record carries: the contents, zeros if there are none, or None by the type."""
        return bytes(self.content or PAGE_SIZE) if self.has_data else None


@dataclass(slots=True)
class Vcpu:
    """One vcpu's records, each None where it is not sent."""

    id: int
    width: int
    basic: Any
    extended: Any = None
    xsave: bytearray | None = None
    msrs: bytearray | None = None

    @property
    def root(self) -> int:
        """The pfn that cr3 names."""
        return cr3_to_pfn(self.basic.ctrlreg[3], self.width)

    @root.setter
    def root(self, pfn: int) -> None:
        self.basic.ctrlreg[3] = pfn_to_cr3(pfn, self.width)

    @property
    def user_root(self) -> int | None:
        """The pfn that ctrlreg[1] names, width 8 only; None without a user root."""
        cr1 = self.basic.ctrlreg[1]
        return cr3_to_pfn(cr1, self.width) if cr1 & USER_ROOT_VALID else None

    @user_root.setter
    def user_root(self, pfn: int | None) -> None:
        self.basic.ctrlreg[1] = 0 if pfn is None else pfn_to_cr3(pfn, self.width) | USER_ROOT_VALID

    @classmethod
    def running(cls, id: int, width: int, root: int, gdt: int, *, extended: bool = False) -> Vcpu:
        """A vcpu in its kernel, as Xen reports one, on this root and with one GDT frame."""
        basic = zeroed(CONTEXT[width])
        basic.fpu_ctxt = AFTER_FNINIT
        basic.flags = ContextFlag.I387_VALID | ContextFlag.IN_KERNEL | ContextFlag.ONLINE
        regs = basic.user_regs
        regs.cs, regs.ss, regs.es, regs.ds = KERNEL_CS[width], *[KERNEL_SS[width]] * 3
        text, stack = KERNEL_TEXT[width], KERNEL_STACK[width]
        if width == 4:
            regs.eip, regs.esp, regs.eflags = text, stack, EFLAGS
            basic.event_callback_cs = basic.failsafe_callback_cs = KERNEL_CS[width]
        else:
            regs.rip, regs.rsp, regs.rflags = text, stack, EFLAGS
            basic.syscall_callback_eip = text
        basic.event_callback_eip = basic.failsafe_callback_eip = text
        basic.kernel_ss, basic.kernel_sp = KERNEL_SS[width], stack
        basic.ctrlreg[0], basic.ctrlreg[4] = CR0, CR4
        basic.debugreg[6], basic.debugreg[7] = DR6, DR7
        basic.gdt_frames[0], basic.gdt_ents = gdt, ENTRIES
        basic.vm_assist = PAE_EXTENDED_CR3 if extended else 0
        more = zeroed(EXTENDED)
        more.vcpu, more.size = id, EXTENDED.size
        vcpu = cls(id, width, basic, more, bytearray(XSAVE_MIN_SIZE))
        vcpu.root = root
        return vcpu

    def records(self) -> list[Rec]:
        """Its records in a saver's order."""
        bodies = {
            RecordType.X86_PV_VCPU_BASIC: None if self.basic is None else built(CONTEXT[self.width], self.basic),
            RecordType.X86_PV_VCPU_EXTENDED: None if self.extended is None else built(EXTENDED, self.extended),
            RecordType.X86_PV_VCPU_XSAVE: self.xsave,
            RecordType.X86_PV_VCPU_MSRS: self.msrs,
        }
        head = VCPU_HEADER.pack(self.id, 0)
        return [Rec.of(kind, head + body) for kind, body in bodies.items() if body is not None]
