"""What a debug build of Xen asserts of an HVM vcpu's segments as it loads them: the state of a processor that runs.

Source: hvm_set_segment_register (`xen/arch/x86/hvm/hvm.c`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntFlag

from streams.values import NamedTuple
from streams.wire.hvm_cpu import TABLES, Cpu

_U16, _U32 = 0xFFFF, 0xFFFF_FFFF
_TABLE_INDICATOR = 1 << 2


class Attribute(IntFlag):
    """Bits of a segment's attributes; the type is bits 0 to 3."""

    ACCESSED = 1 << 0
    READABLE = 1 << 1  # of code; of data, writable
    CODE = 1 << 3
    USER = 1 << 4  # code or data, as opposed to a system segment
    PRESENT = 1 << 7


_TYPE = 0xF
_LDT, _TSS16_BUSY, _TSS_BUSY = 0x2, 0x3, 0xB


def canonical(address: int) -> bool:
    """Whether bits 63..47 of an address are all equal."""
    return address >> 47 in (0, 0x1FFFF)


class _Segment(NamedTuple):
    name: str
    selector: int
    base: int
    attributes: int

    @property
    def present(self) -> bool:
        return bool(self.attributes & Attribute.PRESENT)

    @property
    def kind(self) -> int:
        return self.attributes & _TYPE


Fault = tuple[str, int, str]
"""A field of a CPU entry, its value, and what is wrong with it."""


def asserted(cpu: Cpu, unfold: Callable[[int], int]) -> Iterator[Fault]:
    """The first fault of each segment and table; `unfold` tells how Xen reads attributes."""
    for table in TABLES:
        base, limit = getattr(cpu, f"{table}_base"), getattr(cpu, f"{table}_limit")
        if not canonical(base):
            yield f"{table}_base", base, "not canonical"
        elif limit > _U16:
            yield f"{table}_limit", limit, f"above {_U16:#x}"
    for name, faults in _FAULTS.items():
        attributes = unfold(getattr(cpu, f"{name}_arbytes"))
        segment = _Segment(name, getattr(cpu, f"{name}_sel"), getattr(cpu, f"{name}_base"), attributes)
        fault = next(faults(segment), None)
        if fault:
            field, why = fault
            yield f"{name}_{field}", getattr(cpu, f"{name}_{field}"), why


_Faults = Iterator[tuple[str, str]]


def _user(segment: _Segment) -> _Faults:
    if not segment.attributes & Attribute.USER:
        yield "arbytes", "a system segment, where code or data belongs"


def _accessed(segment: _Segment) -> _Faults:
    if not segment.attributes & Attribute.ACCESSED:
        yield "arbytes", "not marked as accessed"


def _low(segment: _Segment) -> _Faults:
    if segment.base > _U32:
        yield "base", "above 4 GiB"


def _canonical(segment: _Segment) -> _Faults:
    if not canonical(segment.base):
        yield "base", "not canonical"


def _code(segment: _Segment) -> _Faults:
    if not segment.present:
        yield "arbytes", "not present"
    yield from (*_user(segment), *_accessed(segment), *_low(segment))


def _stack(segment: _Segment) -> _Faults:
    if segment.present:
        yield from _user(segment)
        if segment.attributes & (Attribute.CODE | Attribute.READABLE) != Attribute.READABLE:
            yield "arbytes", "not writable data"
        yield from (*_accessed(segment), *_low(segment))


def _data(base: Callable[[_Segment], _Faults]) -> Callable[[_Segment], _Faults]:
    def faults(segment: _Segment) -> _Faults:
        if segment.present:
            yield from _user(segment)
            if segment.attributes & (Attribute.CODE | Attribute.READABLE) == Attribute.CODE:
                yield "arbytes", "code that cannot be read"
            yield from (*_accessed(segment), *base(segment))

    return faults


def _system(segment: _Segment) -> _Faults:
    if segment.attributes & Attribute.USER:
        yield "arbytes", "code or data, where a system segment belongs"
    if segment.selector & _TABLE_INDICATOR:
        yield "sel", "in the LDT"


def _task(segment: _Segment) -> _Faults:
    if not segment.present:
        yield "arbytes", "not present"
    yield from _system(segment)
    if segment.kind == _TSS_BUSY:
        yield from _canonical(segment)
    elif segment.kind == _TSS16_BUSY:
        yield from _low(segment)
    else:
        yield "arbytes", "not a busy task state segment"


def _ldt(segment: _Segment) -> _Faults:
    if segment.present:
        yield from _system(segment)
        if segment.kind != _LDT:
            yield "arbytes", "not a local descriptor table"
        yield from _canonical(segment)


_FAULTS: dict[str, Callable[[_Segment], _Faults]] = {
    "cs": _code,
    "ds": _data(_low),
    "es": _data(_low),
    "fs": _data(_canonical),
    "gs": _data(_canonical),
    "ss": _stack,
    "tr": _task,
    "ldtr": _ldt,
}
"""In the order in which Xen loads them."""
