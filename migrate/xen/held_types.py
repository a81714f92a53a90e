"""The types that Xen holds a PV guest's frames as, and how it says that a frame cannot have one."""

from __future__ import annotations

from enum import IntEnum

from migrate.rules.findings import Link


class FrameType(IntEnum):
    """Types a frame can have (PGT_*); L2X is the L2 that carries Xen's slots of a PAE guest."""

    NONE = 0
    L1 = 1
    L2 = 2
    L3 = 3
    L4 = 4
    L2X = 5
    SEG = 6
    WRITABLE = 7

    def __str__(self) -> str:
        return _TYPE_NAMES[self]


_TYPE_NAMES = {
    FrameType.NONE: "nothing",
    FrameType.L1: "L1",
    FrameType.L2: "L2",
    FrameType.L3: "L3",
    FrameType.L4: "L4",
    FrameType.L2X: "L2 with Xen's slots",
    FrameType.SEG: "descriptor table",
    FrameType.WRITABLE: "writable",
}
NONE, L1, L2, L3, L4, L2X, SEG, WRITABLE = FrameType


class Refused(Exception):
    """Xen refuses: with which errno, by which rule, and through which tables it came there."""

    def __init__(self, rule: str, errno: str, message: str, pfn: int | None = None, slot: int | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        self.errno = errno
        self.message = message
        self.pfn = pfn
        self.slot = slot
        self.chain: list[Link] = []  # innermost first
        self.target: Link | None = None  # what the innermost entry names
