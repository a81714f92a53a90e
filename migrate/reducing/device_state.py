"""What of a device model's state may be zero without QEMU saying anything else to it."""

from __future__ import annotations

from collections.abc import Sequence

from streams.qemu_state import walk
from streams.wire.qemu import HEADER

Range = tuple[int, int]  # offset in the state and length, in bytes

# Of more sections than this, none is tried alone: a guest has some forty.
_MOST_SECTIONS = 256


def private_ranges(state: bytes, size: int) -> list[Range]:
    """Ranges that can all be zero: devices' registers and buffers, which belong to the guest.

    Parameters
    ----------
    state:
        the bytes at hand, from its magic on.
    size:
        its length.
    """
    before = walk(state, size)
    ranges = [(one.data, one.length) for one in before.sections if one.length]
    if before.trailing:
        ranges.append((before.size - before.trailing, before.trailing))
    if not before.sections and len(state) > HEADER.size:
        ranges.append((HEADER.size, len(state) - HEADER.size))
    if walk(_without(state, ranges), size) == before:
        return ranges
    found: list[Range] = []
    for one in ranges if len(ranges) <= _MOST_SECTIONS else ():
        if walk(_without(state, [*found, one]), size) == before:
            found.append(one)
    return found


def _without(state: bytes, ranges: Sequence[Range]) -> bytes:
    blank = bytearray(state)
    for start, length in ranges:
        end = min(start + length, len(blank))
        blank[start:end] = bytes(max(0, end - start))
    return bytes(blank)
