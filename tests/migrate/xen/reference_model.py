"""A second model of the end of a PV restore, to hold the replay engine against: slow, and as plain as can be.

It works the way the real thing does. libxc's part turns the pages of the stream into machine memory: a frame for
every pfn that needs one, the pfns in page tables replaced by machine frames. Xen's part then knows machine frames
only: one record of type and counts per frame, tables walked entry by entry, in Python integers.

Types are named by strings: L1, L2, L2X (the L2 with Xen's own slots of a 32-bit guest), L3, L4, SEG (descriptors)
and WR (mapped writable).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from migrate.building.builder import StreamBuilder

Placement = Callable[[int], int]  # pfn -> machine frame

PAGE_DATA, VERIFY = 0x01, 0x0D
PAGE = 4096
UNWRITTEN = b"\xc2" * PAGE  # how a debug hypervisor hands out a frame

PRESENT, RW = 1 << 0, 1 << 1
PWT, PCD, PSE_OR_PAT, GLOBAL = 1 << 3, 1 << 4, 1 << 7, 1 << 8
GRANT_MARK = 1 << 62
REFUSED_IN_L1 = PWT | PCD | PSE_OR_PAT | GRANT_MARK
REFUSED_ABOVE = PWT | PCD | PSE_OR_PAT | GLOBAL
REFUSED_IN_PAE_L3 = REFUSED_ABOVE | 0xFFF << 52
FOUR_GIB = 0x100000


@dataclass(frozen=True)
class Step:
    """One call to Xen, and its answer: what, of which vcpu or pfn, 0 or the errno's name."""

    what: str
    number: int
    answer: int | str


class Refused(Exception):
    def __init__(self, errno: str) -> None:
        super().__init__(errno)
        self.errno = errno


def frame_of(entry: int) -> int:
    return entry >> 12 & (1 << 40) - 1


# -- libxc -----------------------------------------------------------------------------------------


class Received:
    """What the PAGE_DATA records leave behind: machine memory, and the type of each pfn."""

    def __init__(self, builder: StreamBuilder, placement: Placement) -> None:
        self.placement = placement
        self.memory: dict[int, bytes] = {}  # by machine frame
        self.types: dict[int, int] = {}  # by pfn
        self.with_data: set[int] = set()  # pfns
        writing = True
        for record in builder.records:
            if record.type == VERIFY:
                writing = False
            if record.type == PAGE_DATA:
                self._page_data(bytes(record.body), writing)

    def _page_data(self, body: bytes, writing: bool) -> None:
        (count,) = struct.unpack_from("<I", body)
        words = struct.unpack_from(f"<{count}Q", body, 8)
        at = 8 + 8 * count
        for word in words:
            pfn, kind = word & (1 << 52) - 1, word >> 60
            self.types[pfn] = kind
            if kind not in (0xD, 0xF):
                self._populate(pfn)
        for word in words:
            pfn, kind = word & (1 << 52) - 1, word >> 60
            if kind in (0xD, 0xE, 0xF):
                continue
            page = body[at : at + PAGE]
            at += PAGE
            if kind != 0:
                page = self._localised(page)
            if writing:
                self.with_data.add(pfn)
                self.memory[self.placement(pfn)] = page

    def _populate(self, pfn: int) -> None:
        self.memory.setdefault(self.placement(pfn), UNWRITTEN)

    def _localised(self, page: bytes) -> bytes:
        entries = list(struct.unpack("<512Q", page))
        for slot, entry in enumerate(entries):
            if entry & PRESENT:
                self._populate(frame_of(entry))
                entries[slot] = entry & ~(((1 << 40) - 1) << 12) | self.placement(frame_of(entry)) << 12
        return struct.pack("<512Q", *entries)


# -- Xen -------------------------------------------------------------------------------------------


@dataclass
class Frame:
    type: str | None = None
    count: int = 0
    validated: bool = False
    pinned: bool = False
    linear: int = 0  # above 0: entries naming other tables of its level; below: entries of others naming it


class Xen:
    """The frames of one domain."""

    def __init__(self, memory: dict[int, bytes], width: int, *, l3_rule: bool, linear_allowed: bool = True) -> None:
        self.memory = memory
        self.frames = {mfn: Frame() for mfn in memory}
        self.width = width
        self.l3_rule = l3_rule
        self.linear_allowed = linear_allowed
        self.extended_cr3 = False
        self.vcpu0_initialised = False

    # -- hypercalls ----------------------------------------------------------------------------------

    def set_context(self, vcpu: int, vm_assist: int, gdt: list[int], cr3: int, cr1: int | None) -> None:
        if vcpu == 0:
            self.extended_cr3 = bool(vm_assist & 1 << 3)
        for mfn in gdt:
            try:
                self.acquire(mfn, "SEG")
            except Refused:
                raise Refused("EINVAL") from None
        root = "L3" if self.width == 4 else "L4"
        self.acquire(cr3, root)
        if self.width == 8 and cr1 is not None:
            self.acquire(cr1, root)
        if vcpu == 0:
            self.vcpu0_initialised = True

    def pin(self, mfn: int, level: int) -> None:
        if self.width == 4 and level == 4:
            return
        self.acquire(mfn, f"L{level}")
        if self.frames[mfn].pinned:
            raise Refused("EINVAL")
        self.frames[mfn].pinned = True

    def map_writable(self, mfn: int) -> None:
        """As the toolstack does with a page of the guest."""
        try:
            self.acquire(mfn, "WR")
        except Refused:
            raise Refused("EBUSY") from None

    # -- types ---------------------------------------------------------------------------------------

    def acquire(self, mfn: int, want: str) -> None:
        if mfn not in self.frames:
            raise Refused("EINVAL")  # not the domain's
        frame = self.frames[mfn]
        if frame.count > 0:
            if frame.type != want:
                raise Refused("EINVAL")
            assert frame.validated, "Xen would wait for ever"
            frame.count += 1
            return
        frame.type, frame.count, frame.linear = want, 1, 0
        try:
            self.validate(mfn, want)
        except Refused:
            frame.type, frame.count = None, 0
            raise
        frame.validated = True

    def validate(self, mfn: int, kind: str) -> None:
        words = list(struct.unpack("<512Q", self.memory[mfn]))
        if kind == "SEG":
            for word in words:
                self.check_descriptor(word)
        elif kind == "L1":
            for entry in words:
                if entry & PRESENT:
                    self.l1_entry(entry)
        elif kind == "L2":
            for entry in words:
                if entry & PRESENT:
                    self.upper_entry(mfn, "L2", entry, "L1")
        elif kind == "L2X":
            for entry in words[:428]:
                if entry & PRESENT:
                    self.upper_entry(mfn, "L2", entry, "L1")
        elif kind == "L3" and self.width == 4:
            self.pae_l3(mfn, words)
        elif kind == "L3":
            for entry in words:
                if entry & PRESENT:
                    self.upper_entry(mfn, "L3", entry, "L2")
        elif kind == "L4":
            for slot, entry in enumerate(words):
                if entry & PRESENT and not 256 <= slot <= 271:
                    self.upper_entry(mfn, "L4", entry, "L3")

    def l1_entry(self, entry: int) -> None:
        if entry & REFUSED_IN_L1:
            raise Refused("EINVAL")
        mfn = frame_of(entry)
        if mfn not in self.frames:
            if mfn == (1 << 40) - 1:
                raise Refused("EINVAL")
            if mfn < 0x100 or mfn > 0xFFFFFF:
                raise Refused("EPERM")
            raise Refused("EBUSY")
        if entry & RW:
            try:
                self.acquire(mfn, "WR")
            except Refused:
                raise Refused("EBUSY") from None

    def upper_entry(self, table: int, level: str, entry: int, want: str) -> None:
        if entry & REFUSED_ABOVE:
            raise Refused("EINVAL")
        try:
            self.acquire(frame_of(entry), want)
        except Refused as refused:
            if refused.errno != "EINVAL" or not self.linear_entry(table, level, entry):
                raise

    def linear_entry(self, table: int, level: str, entry: int) -> bool:
        """An entry of a table that names a table of the same level."""
        if not self.linear_allowed or entry & RW:
            return False
        mfn = frame_of(entry)
        if mfn == table:
            return True
        if mfn not in self.frames:
            return False
        here, there = self.frames[table], self.frames[mfn]
        if here.linear < 0 or there.linear > 0:
            return False
        same_level = there.type == level or (level == "L2" and there.type == "L2X")
        if not (same_level and there.validated):
            return False
        here.linear += 1
        there.linear -= 1
        there.count += 1
        return True

    def pae_l3(self, mfn: int, words: list[int]) -> None:
        if self.l3_rule and not self.extended_cr3 and mfn >= FOUR_GIB and self.vcpu0_initialised:
            raise Refused("ERANGE")
        for entry in words[:3]:
            if entry & PRESENT:
                if entry & REFUSED_IN_PAE_L3:
                    raise Refused("EINVAL")
                self.acquire(frame_of(entry), "L2")
        last = words[3]
        if not last & PRESENT or last & REFUSED_IN_PAE_L3:
            raise Refused("EINVAL")
        self.acquire(frame_of(last), "L2X")
        if self.frames[frame_of(last)].count != 1:
            raise Refused("EINVAL")

    def check_descriptor(self, word: int) -> None:
        if not word >> 47 & 1:
            return  # not present
        if word >> 44 & 1:  # code or data
            if self.width == 4 and word >> 53 & 1:
                raise Refused("EINVAL")
            return
        kind = word >> 40 & 0xF
        if kind == 0:
            return  # second half of a call gate
        if kind != 0xC:
            raise Refused("EINVAL")
        selector = word >> 16 & 0xFFFF
        xens = 0xE019 if self.width == 4 else 0xE033
        if selector >> 3 >= 14 * 512 and selector != xens and not selector & 4:
            raise Refused("EINVAL")
        if word >> 32 & (0xE0 if self.width == 4 else 0xFF):
            raise Refused("EINVAL")


# -- the two together ------------------------------------------------------------------------------


def restore(builder: StreamBuilder, placement: Placement, *, l3_rule: bool) -> list[Step]:
    """What Xen answers to the restore of a guest, up to the first refusal.

    Checks of libxc's own are not made: where it would stop, what follows here means nothing.
    """
    received = Received(builder, placement)
    xen = Xen(received.memory, builder.width, l3_rule=l3_rule)
    steps: list[Step] = []

    def did(what: str, number: int, call: Callable[[], None]) -> bool:
        try:
            call()
        except Refused as refused:
            steps.append(Step(what, number, refused.errno))
            return False
        steps.append(Step(what, number, 0))
        return True

    for vcpu in sorted(builder.vcpus, key=lambda vcpu: vcpu.id):
        basic = vcpu.basic
        gdt = [placement(pfn) for pfn in basic.gdt_frames[: (basic.gdt_ents + 511) // 512]]
        cr3, cr1 = basic.ctrlreg[3], basic.ctrlreg[1]
        root = (cr3 >> 12 | cr3 << 20) & 0xFFFFFFFF if builder.width == 4 else cr3 >> 12
        user = None if cr1 == 0 else placement(cr1 >> 12) if cr1 & 1 else cr1 >> 12

        def set_context() -> None:
            xen.set_context(vcpu.id, basic.vm_assist, gdt, placement(root), user)  # noqa: B023 - called at once

        if not did("context", vcpu.id, set_context):
            return steps
    for pfn in sorted(received.types):
        kind = received.types[pfn]
        if kind in (0x9, 0xA, 0xB, 0xC) and not did("pin", pfn, lambda: xen.pin(placement(pfn), kind & 7)):  # noqa: B023
            return steps

    def map_p2m() -> None:
        for pfn in builder.p2m_frames[: builder.max_pfn * builder.width // PAGE + 1]:
            xen.map_writable(placement(pfn))

    did("p2m", 0, map_p2m)
    return steps
