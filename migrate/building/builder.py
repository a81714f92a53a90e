"""A small consistent guest and its stream, in a few lines and open to every edit.

    b = StreamBuilder.pv(4, vcpus=2, roots=2)
    b.table(b.roots[1])[3] = b.table(b.roots[0])[3]
    b.drop("SHARED_INFO")
    stream = b.build()

Two stages: first the guest (memory, vcpus, start_info …), then its records. The records are made from the
guest on first use of `records`, or of any of the edits that need them; from then on they are what is built.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from migrate.building.configuration import domain_xml, libxl_json
from migrate.building.hvm_contexts import (
    CPUID_FAULTING,
    PC,
    PVH,
    VIRIDIAN_FEATURES,
    Hardware,
    hvm_context,
    promise_xsave,
)
from migrate.building.parts import (
    CPUID_LEAVES,
    DEVICE_MODEL,
    GDT,
    MSRS,
    PAE_EXTENDED_CR3,
    PAE_ROOT,
    PTE_RO,
    PTE_RW,
    TABLE,
    TSC_KHZ,
    Kind,
    Page,
    Rec,
    Vcpu,
    entry,
    number_of,
    zeroed,
)
from migrate.building.savers_records import savers_records
from migrate.building.wrapping import wrapped
from streams.pages import DATALESS_TYPES, PIN_BIT, PageType
from streams.wire.framing import (
    DOMAIN_HEADER,
    EMULATOR_HEADER,
    IMAGE_HEADER,
    IMAGE_ID,
    IMAGE_MARKER,
    LIBXL_IDENT,
    LIBXL_VERSION,
    PAGE_SHIFT,
    PAGE_SIZE,
    SHARED_INFO_SIZE,
    XAPI_MAGIC,
    XL_BYTEORDER,
    XL_FLAG_JSON,
    XL_FLAG_LIBXL_V2,
    XL_MAGIC,
    CpuidLeaf,
    DomainHeader,
    GuestType,
    ImageHeader,
    LibxlHeader,
    LibxlRecordType,
    PolicyMsr,
    TscBody,
    XapiBlockId,
    XlHeader,
    record_name,
)
from streams.wire.hvm_names import HvmParam
from streams.wire.libvirt import LIBVIRT_LIBXL_V2, LIBVIRT_MAGIC, LibvirtHeader
from streams.wire.paging import ENTRIES
from streams.wire.shared_info import SHARED_INFO
from streams.wire.start_info import MAGIC_PREFIX, START_INFO
from streams.wire.views import view

__all__ = ["Page", "Rec", "StreamBuilder", "Vcpu"]

# Where the kernel lives: the last slot of a PAE root, the first one above Xen's in an L4.
SLOT3, KERNEL_SLOT = 3, 272
FIRST_MFN = 0x2A10
ARCHITECTURE = {4: b"x86_32p", 8: b"x86_64"}

XENOPS_STATE = b"((time 20240101T00:00:00Z)(word_size 64))"


class StreamBuilder:
    """A guest and its stream; make one with `pv` or `hvm`, edit it, then `build`."""

    def __init__(self, guest: GuestType, width: int) -> None:
        self.guest = guest
        self.width = width
        self.levels = 3 if width == 4 else 4
        self.container = "libxc"
        self.image: dict[str, Any] = ImageHeader(IMAGE_MARKER, IMAGE_ID, 3, 0, 0, 0)._asdict()
        self.domain: dict[str, Any] = DomainHeader(guest, PAGE_SHIFT, 0, 4, 18)._asdict()
        self.libxl: dict[str, Any] = LibxlHeader(LIBXL_IDENT, LIBXL_VERSION, 0)._asdict()
        self.xl: dict[str, Any] = XlHeader(XL_MAGIC, XL_BYTEORDER, XL_FLAG_JSON | XL_FLAG_LIBXL_V2, 0, 0)._asdict()
        self.xl["optional_data_len"] = None  # None: as long as the optional data is
        self.optional_data: bytes | None = None
        self.libvirt: dict[str, Any] = LibvirtHeader(LIBVIRT_MAGIC, LIBVIRT_LIBXL_V2, 0, bytes(40))._asdict()
        self.libvirt["xml_length"] = None  # None: as long as the XML is, with its NUL
        self.libxl_before = [Rec.of(LibxlRecordType.LIBXC_CONTEXT)]
        self.libxl_after = [Rec.of(LibxlRecordType.END)]
        self.libxl_checkpoint = [Rec.of(LibxlRecordType.CHECKPOINT_END)]

        self.xapi_signature = XAPI_MAGIC
        # id and payload; the image follows a block LIBXC
        self.xapi_blocks: list[tuple[int, bytes]] = [
            (XapiBlockId.XENOPS, XENOPS_STATE),
            (XapiBlockId.LIBXC, b""),
            (XapiBlockId.END_OF_IMAGE, b""),
        ]

        self.memory: dict[int, Page] = {}
        self.max_pfn = -1
        self.p2m_frames: list[int] = []
        self.roots: list[int] = []
        self.start_info_pfn = self.store_pfn = self.console_pfn = self.gdt_pfn = self.absent_pfn = -1
        self._chains: dict[int, tuple[int, ...]] = {}

        self.vcpus: list[Vcpu] = []
        self.start_info: Any = None
        self.shared_info = bytearray(SHARED_INFO_SIZE)
        self.tsc: dict[str, Any] = TscBody(0, TSC_KHZ, 1_000_000_000, 1, 0)._asdict()
        self.cpuid_policy = [CpuidLeaf._make(values)._asdict() for values in CPUID_LEAVES]
        self.msr_policy = [PolicyMsr._make(values)._asdict() for values in MSRS]
        self.hvm_context = bytearray()
        self.hvm_params: dict[int, int] = {}
        self._hvm_vcpus = 0
        self._emulated = True

        self.rounds: list[list[int]] = []
        self.verify = False
        self.checkpoints = 0
        self.batch = 1024
        self.cut: int | None = None
        self.trailing = b""
        self._xl_config: bytes | None = None
        self._domain_xml: bytes | None = None
        self._records: list[Rec] | None = None

    @classmethod
    def pv(cls, width: int = 4, *, vcpus: int = 1, extended: bool = False, roots: int = 1) -> StreamBuilder:
        """A PV guest: stream-format section 9, and a GDT.

        pfns 0 start_info, 1 p2m, 2 xenstore ring, 3 console ring, 4 the first root and after it the tables
        below it, then an absent page, the GDT, and further roots, each an address space of its own. Vcpu i
        runs on root i, or the last one. Nothing maps a page table or the GDT writable.

        Raises ValueError for a width other than 4 and 8 bytes.
        """
        if width not in ARCHITECTURE:
            raise ValueError(f"a guest of width {width}? Words of a PV guest have 4 bytes or 8")
        b = cls(GuestType.PV, width)
        b.start_info = zeroed(START_INFO[width])
        magic = START_INFO[width].field("magic")
        b.start_info.magic = (MAGIC_PREFIX + ARCHITECTURE[width]).ljust(magic.size, b"\0")
        view(SHARED_INFO[width], b.shared_info)["vcpu_info"]["evtchn_upcall_mask"][:] = 1
        b.start_info_pfn = b._append(Page(PageType.NOTAB, bytearray(PAGE_SIZE)))
        b._append_p2m_page()
        b.place(b.start_info_pfn, FIRST_MFN)
        b.store_pfn, b.console_pfn = b.new_page(), b.new_page()
        b.start_info.store_mfn, b.start_info.store_evtchn = b.store_pfn, 1
        b.start_info.console_mfn, b.start_info.console_evtchn = b.console_pfn, 2
        b.new_root()
        b.absent_pfn = b.new_page(PageType.XTAB)
        b.gdt_pfn = b.new_page(content=GDT[width])
        b.table(b.chain(b.roots[0])[-1])[b.gdt_pfn] = entry(b.gdt_pfn, PTE_RO)
        for _ in range(1, roots):
            b.new_root()
        for _ in range(vcpus):
            b.new_vcpu(extended=extended)
        return b

    @classmethod
    def hvm(cls, *, vcpus: int = 1, hardware: Hardware = PC) -> StreamBuilder:
        """An HVM guest of eight pages, two of them the rings, one absent; params and policy suit its hardware."""
        b = cls(GuestType.HVM, 8)
        for _ in range(5):
            b.new_page()
        b.absent_pfn = b.new_page(PageType.XTAB)
        b.store_pfn, b.console_pfn = b.new_page(), b.new_page()
        b.hvm_params = {HvmParam.STORE_PFN: b.store_pfn, HvmParam.CONSOLE_PFN: b.console_pfn}
        b._hvm_vcpus, b._emulated = vcpus, hardware.emulated
        b.hvm_context = bytearray(hvm_context(vcpus, hardware))
        if hardware.viridian:
            b.hvm_params[HvmParam.VIRIDIAN] = VIRIDIAN_FEATURES
        if hardware.xsave:
            promise_xsave(b.cpuid_policy)
        if hardware.msrs:
            b.msr_policy[0]["value"] |= CPUID_FAULTING
        if hardware.emulated:
            b.libxl_after.insert(0, Rec.of(LibxlRecordType.EMULATOR_CONTEXT, DEVICE_MODEL))
            b.libxl_checkpoint.insert(0, Rec.of(LibxlRecordType.EMULATOR_CONTEXT, DEVICE_MODEL))
            b.xapi_blocks.insert(-1, (XapiBlockId.QEMU_TRAD, DEVICE_MODEL[EMULATOR_HEADER.size :]))
        return b

    @classmethod
    def pvh(cls, *, vcpus: int = 1) -> StreamBuilder:
        """A PVH guest: like an HVM guest, but for a local APIC alone and no device model."""
        return cls.hvm(vcpus=vcpus, hardware=PVH)

    def become_pv64(self) -> None:
        """Start over, in this very object, as `pv(8)`."""
        self.__dict__ = StreamBuilder.pv(8).__dict__

    def become_hvm(self, hardware: Hardware = PC) -> None:
        """Start over, in this very object, as `hvm()` with this hardware."""
        self.__dict__ = StreamBuilder.hvm(hardware=hardware).__dict__

    def saved_by(self, major: int, minor: int, version: int) -> None:
        """Have another Xen save it, in an image of this version; below version 3 there are no CPU policies."""
        self.domain |= {"xen_major": major, "xen_minor": minor}
        self.image["version"] = version

    def wrap(self, container: str) -> None:
        """Put the image into a container: libxl, xl, libvirt, xapi, or libxc for none."""
        self.container = container

    # -- memory ------------------------------------------------------------------------------------

    @property
    def pfns_per_p2m_page(self) -> int:
        """Entries of one p2m page."""
        return PAGE_SIZE // self.width

    def _append(self, page: Page) -> int:
        self.max_pfn += 1
        self.memory[self.max_pfn] = page
        self.announce_size()
        return self.max_pfn

    def _append_p2m_page(self) -> None:
        self.p2m_frames.append(self._append(Page(PageType.NOTAB, bytearray(b"\xff" * PAGE_SIZE))))
        self.place(self.max_pfn, FIRST_MFN + self.max_pfn)

    def new_page(self, type: int = PageType.NOTAB, content: bytes = b"") -> int:
        """Append a page, and where the p2m is full a p2m page before it; returns its pfn."""
        if len(content) > PAGE_SIZE:
            raise ValueError(f"a page holds {PAGE_SIZE} bytes, not {len(content)}")
        if self.guest == GuestType.PV and (self.max_pfn + 1) // self.pfns_per_p2m_page >= len(self.p2m_frames):
            self._append_p2m_page()
        page = Page(type, None if type in DATALESS_TYPES else bytearray(content.ljust(PAGE_SIZE, b"\0")))
        pfn = self._append(page)
        if self.guest == GuestType.PV and page.has_data:
            self.place(pfn, FIRST_MFN + pfn)
        return pfn

    def announce_size(self) -> None:
        """Tell start_info and shared_info how many pages there are (max_pfn + 1)."""
        if self.start_info is not None:
            self.start_info.nr_pages = self.max_pfn + 1
            view(SHARED_INFO[self.width], self.shared_info)["arch"]["max_pfn"] = self.max_pfn + 1

    def place(self, pfn: int, mfn: int | None) -> None:
        """Set the source mfn of a pfn (None: it has none), in the guest's p2m."""
        value = (1 << 8 * self.width) - 1 if mfn is None else mfn
        page, index = divmod(pfn, self.pfns_per_p2m_page)
        content = self.memory[self.p2m_frames[page]].content
        assert content is not None
        content[index * self.width : (index + 1) * self.width] = value.to_bytes(self.width, "little")

    def table(self, pfn: int) -> NDArray[np.uint64]:
        """The 512 entries of a page, writable."""
        page = self.memory[pfn]
        if page.content is None:
            page.content = bytearray(PAGE_SIZE)
        return np.frombuffer(page.content, "<u8")

    def new_table(self, level: int, pinned: bool = False) -> int:
        """Append an empty page table of a level; nothing maps it."""
        return self.new_page(level | PIN_BIT if pinned else level)

    def new_root(self, pinned: bool = True) -> int:
        """Append an address space of its own: a root, one table of each level below, every page mapped so far."""
        chain = tuple(self.new_table(level, pinned and level == self.levels) for level in range(self.levels, 0, -1))
        first, flags = (SLOT3, PAE_ROOT) if self.width == 4 else (KERNEL_SLOT, TABLE)
        self.table(chain[0])[first] = entry(chain[1], flags)
        for parent, child in pairwise(chain[1:]):
            self.table(parent)[0] = entry(child, TABLE)
        leaf = self.table(chain[-1])
        for pfn in range(min(ENTRIES, self.max_pfn + 1)):
            page = self.memory.get(pfn)
            if page is not None and page.has_data:
                leaf[pfn] = entry(pfn, PTE_RO if page.is_table or pfn == self.gdt_pfn else PTE_RW)
        self.roots.append(chain[0])
        self._chains[chain[0]] = chain
        return chain[0]

    def chain(self, root: int) -> tuple[int, ...]:
        """The tables that `new_root` made under a root: the root itself first, the L1 last."""
        return self._chains[root]

    def new_vcpu(self, root: int | None = None, *, extended: bool | None = None) -> Vcpu:
        """Append a vcpu, on this root or on the one of its number; extended like vcpu 0 unless said otherwise."""
        id = len(self.vcpus)
        if extended is None:
            extended = bool(self.vcpus and self.vcpus[0].basic.vm_assist & PAE_EXTENDED_CR3)
        root = self.roots[min(id, len(self.roots) - 1)] if root is None else root
        self.vcpus.append(Vcpu.running(id, self.width, root, self.gdt_pfn, extended=extended))
        return self.vcpus[-1]

    # -- records -----------------------------------------------------------------------------------

    @property
    def records(self) -> list[Rec]:
        """The libxc records, made from the guest on first use."""
        if self._records is None:
            self._records = savers_records(self)
        return self._records

    def _find(self, name: Kind, nth: int = 0) -> int:
        kind = number_of(name)
        found = [i for i, rec in enumerate(self.records) if rec.type == kind]
        if not -len(found) <= nth < len(found):
            raise LookupError(f"no {record_name(kind)} number {nth}; there are {len(found)}")
        return found[nth]

    def record(self, name: Kind, nth: int = 0) -> Rec:
        """The nth record of a type (counted from 0; negative from the end)."""
        return self.records[self._find(name, nth)]

    def drop(self, name: Kind, nth: int = 0) -> Rec:
        """Take out the nth record of a type."""
        return self.records.pop(self._find(name, nth))

    def insert(
        self, name: Kind, body: bytes = b"", *, before: Kind | None = None, after: Kind | None = None, nth: int = 0
    ) -> Rec:
        """Put a new record beside the nth of a type; with neither, before the last record (END)."""
        rec = Rec.of(number_of(name), body)
        self.records.insert(self._beside(before, after, nth), rec)
        return rec

    def _beside(self, before: Kind | None, after: Kind | None, nth: int = 0) -> int:
        if before is not None:
            return self._find(before, nth)
        if after is not None:
            return self._find(after, nth) + 1
        return len(self.records) - 1

    def move(self, name: Kind, *, before: Kind | None = None, after: Kind | None = None, nth: int = 0) -> None:
        """Move the nth record of a type beside the first of another."""
        rec = self.drop(name, nth)
        self.records.insert(self._beside(before, after), rec)

    def duplicate(self, name: Kind, nth: int = 0) -> Rec:
        """Repeat the nth record of a type right after itself; returns the copy."""
        index = self._find(name, nth)
        self.records.insert(index + 1, copy.deepcopy(self.records[index]))
        return self.records[index + 1]

    # -- bytes -------------------------------------------------------------------------------------

    @property
    def _configured(self) -> tuple[str, int, int]:
        """What a configuration tells: kind of guest, vcpus, KiB of memory."""
        kind = self.guest.name.lower() if self._emulated else "pvh"
        count = len(self.vcpus) if self.guest == GuestType.PV else self._hvm_vcpus
        return kind, count, len(self.memory) * PAGE_SIZE >> 10

    @property
    def xl_config(self) -> bytes:
        """The domain configuration in an `xl save` file, JSON; generated until it is set."""
        return libxl_json(*self._configured) if self._xl_config is None else self._xl_config

    @xl_config.setter
    def xl_config(self, value: bytes) -> None:
        self._xl_config = value

    @property
    def domain_xml(self) -> bytes:
        """The domain's XML in an image of libvirt, without its NUL; generated until it is set."""
        return domain_xml(*self._configured) if self._domain_xml is None else self._domain_xml

    @domain_xml.setter
    def domain_xml(self, value: bytes) -> None:
        self._domain_xml = value

    def headers(self) -> bytes:
        """Image header and domain header."""
        return IMAGE_HEADER.pack(*self.image.values()) + DOMAIN_HEADER.pack(*self.domain.values())

    def build(self) -> bytes:
        """The stream."""
        return (wrapped(self) + self.trailing)[: self.cut]
