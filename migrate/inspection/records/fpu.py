"""FPU state and XSAVE areas, field by field: PV and HVM guests' lie alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from migrate.guest.cpu_policy import XSTATE_LEAF, component_name
from migrate.inspection.names import component_names
from migrate.inspection.records.cursor import Cursor, Field
from streams.wire.constructs import construct_of
from streams.wire.cpu_features import set_bits
from streams.wire.layouts import Layout
from streams.wire.xstate import FXSAVE, XSAVE_AVX_SIZE, XSAVE_LEGACY_SIZE, XState

_LEGACY = XState.X87 | XState.SSE
_AVX = XState.AVX.bit_length() - 1
_YMM_HALF = 16
_COMPONENTS = ("xfeature_mask", "xcr0", "xcr0_accum", "xstate_bv")


def fxsave_fields(cursor: Cursor) -> Iterable[Field]:
    """An FXSAVE image."""
    return cursor.parsed(construct_of(FXSAVE)).fields


def components_meaning(value: int) -> str:
    """What a mask of XSAVE components means."""
    return " ".join(component_names(value))


def xsave_fields(cursor: Cursor, layout: Layout[Any]) -> Iterator[Field]:
    """What stands before an XSAVE area's components, by its layout, and behind it the components."""
    inside = {"fxsave": fxsave_fields}
    meanings = dict.fromkeys(_COMPONENTS, components_meaning)
    found = cursor.parsed(construct_of(layout), "xsave", meanings, inside).fields
    yield from found
    values = {field.name: field.value for field in found}
    if "reserved" in values and isinstance(accum := values["xcr0_accum"], int):
        yield from _components(cursor, accum)
    yield from cursor.rest("components")


def _components(cursor: Cursor, accum: int) -> Iterator[Field]:
    """Components behind the XSAVE header, as far as it is known where each lies."""
    area, room = cursor.at - XSAVE_LEGACY_SIZE, cursor.left + XSAVE_LEGACY_SIZE
    for offset, size, bit in sorted((*_position(cursor, bit), bit) for bit in set_bits(accum & ~_LEGACY)):
        gap = area + offset - cursor.at
        if not size or gap < 0 or offset + size > room:
            continue
        if gap:
            yield Field("gap", cursor.offset, cursor.take(gap))
        start, raw = cursor.offset, cursor.take(size)
        halves = [raw[at : at + _YMM_HALF] for at in range(0, size, _YMM_HALF)] if bit == _AVX else []
        parts = (Field(f"[{number}]", start + number * _YMM_HALF, half) for number, half in enumerate(halves))
        yield Field(component_name(bit), start, None if halves else raw, fields=tuple(parts))


def _position(cursor: Cursor, bit: int) -> tuple[int, int]:
    """Offset and size of a component in an area, as the guest's CPU policy says; size 0 where nothing does."""
    if bit == _AVX:  # in the same place on every CPU
        return XSAVE_LEGACY_SIZE, XSAVE_AVX_SIZE - XSAVE_LEGACY_SIZE
    size, offset, *_ = cursor.policy().leaf(XSTATE_LEAF, bit)
    return offset, size
