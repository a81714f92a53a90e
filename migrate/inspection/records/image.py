"""How the headers of a libxc image are shown, and records of any guest."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from migrate.guest.cpu_policy import read_policy
from migrate.inspection.logbook import Header, Layer
from migrate.inspection.names import GUEST_TYPES, IMAGE_OPTIONS, TSC_MODES, names_of
from migrate.inspection.records.cursor import Cursor, CutError, Field
from migrate.inspection.records.kind import About, Kind, Kinds, always, flags, listed, numbers, packed, size_of
from streams.counting import count
from streams.pages import PfnWords, type_name
from streams.wire.cpu_features import FEATURES, MSR_NAMES, REGISTERS, Word, msr_features, word_features
from streams.wire.framing import (
    CPUID_LEAF,
    DOMAIN_HEADER,
    IMAGE_HEADER,
    NO_SUBLEAF,
    P2M_ENTRY_SIZE,
    PAGE_DATA_HEADER,
    PAGE_SIZE,
    PFN_WORD_SIZE,
    POLICY_MSR,
    SHARED_INFO_SIZE,
    TSC_INFO,
    CpuidLeaf,
    DomainHeader,
    ImageHeader,
    PageDataHeader,
    PolicyMsr,
    RecordType,
    TscBody,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from migrate.inspection.logbook import Entry

_NANOSECONDS = 10**9

# -- headers and small bodies -----------------------------------------------------------------------


def _image_line(header: ImageHeader) -> str:
    return ", ".join([f"version {header.version}", *names_of(header.options, IMAGE_OPTIONS)])


def _domain_line(header: DomainHeader) -> str:
    kind = GUEST_TYPES.get(header.type, f"type {header.type}")
    shift = header.page_shift
    pages = count(1 << shift, "byte") if shift < 64 else f"2^{shift} bytes"
    return f"{kind} guest, pages of {pages}, saved by Xen {header.xen_major}.{header.xen_minor}"


def _tsc_line(tsc: TscBody) -> str:
    mode = TSC_MODES.get(tsc.mode, "unknown")
    ran = tsc.nsec / _NANOSECONDS
    return f"mode {tsc.mode} ({mode}), {tsc.khz} kHz, ran for {ran:.1f} s, incarnation {tsc.incarnation}"


def pfns(cursor: Cursor) -> Iterator[Field]:
    """A list of pfns to the end of the body."""
    start, number = cursor.offset, cursor.left // P2M_ENTRY_SIZE
    shown = min(number, cursor.most)
    values = struct.unpack(f"<{shown}Q", cursor.take(shown * P2M_ENTRY_SIZE))
    cursor.take((number - shown) * P2M_ENTRY_SIZE)
    yield Field("pfns", start, values, left_out=number - shown)


# -- pages ------------------------------------------------------------------------------------------


def pages_line(lowest: int, highest: int, words: int, types: dict[str, int]) -> str:
    """What some PAGE_DATA records bring together; `types` is how many words there are of each page type."""
    if not words:
        return "no pages"
    kinds = ", ".join(f"{name} {number}" for name, number in types.items())
    where = f"pfn {lowest:#x}" if lowest == highest else f"pfns {lowest:#x}..{highest:#x}"
    return f"{where}, {count(words, 'page')}: {kinds}"


def page_fields(cursor: Cursor, entry: Entry, words: PfnWords) -> Iterator[Field]:
    """The header, and pfns that follow one another with one type, with where their contents lie.

    Parameters
    ----------
    cursor:
        over the header alone.
    """
    try:
        header = cursor.named(PAGE_DATA_HEADER, PageDataHeader)
    except CutError:
        yield from cursor.rest("cut")
        return
    yield from header
    if not len(words):
        if header[0].value:
            yield Field("words", None, None, "there is no room for them")
        return
    first_word = cursor.offset
    data = first_word + len(words) * PFN_WORD_SIZE
    starts = np.flatnonzero(np.diff(words.pfns, prepend=-2) - 1 | np.diff(words.types.astype(np.int64), prepend=-1))
    ends = np.append(starts[1:], len(words))
    ordinals: NDArray[np.int64] = np.cumsum(words.has_data) - words.has_data
    ranges = []
    for start, end in zip(starts[: cursor.most].tolist(), ends.tolist(), strict=False):
        lowest, highest = int(words.pfns[start]), int(words.pfns[end - 1])
        kind = type_name(int(words.types[start]))
        contents = data + int(ordinals[start]) * PAGE_SIZE if words.has_data[start] else None
        where = "no contents" if contents is None else f"contents at {contents:#x}"
        pages = f"pfns {lowest:#x}..{highest:#x}" if lowest != highest else f"pfn {lowest:#x}"
        inside = (
            Field("first_pfn", None, lowest),
            Field("last_pfn", None, highest),
            Field("type", None, kind),
            Field("contents", None, contents),
        )
        meaning = f"{pages}, {count(end - start, 'page')}, {kind}, {where}"
        ranges.append(Field(f"[{start}]", first_word + start * PFN_WORD_SIZE, None, meaning, inside))
    meaning = count(len(words), "pfn word") + ", some with reserved bits set" * words.has_reserved_bits
    yield Field("words", first_word, None, meaning, tuple(ranges), len(starts) - len(ranges))
    room, taken = entry.body + entry.length - data, words.data_pages * PAGE_SIZE
    meaning = count(words.data_pages, "page") + f"; there is room for {count(room, 'byte')}" * (room != taken)
    yield Field("contents", data, None, meaning)


# -- what the guest was promised of its processor ---------------------------------------------------


def _cpuid_line(about: About) -> str:
    policy = read_policy(about.body)
    family, model, stepping = policy.signature
    leaves = count(about.entry.length // CPUID_LEAF.size, "leaf", "leaves")
    return f"{leaves}: {policy.vendor or 'nameless'}, family {family:#x}, model {model:#x}, stepping {stepping:#x}"


def _cpuid_fields(cursor: Cursor) -> Iterator[Field]:
    def one(number: int) -> Field:
        raw = CpuidLeaf._make(CPUID_LEAF.unpack_from(cursor.raw, cursor.at))
        sub = None if raw.subleaf == NO_SUBLEAF else raw.subleaf
        leaf, subleaf, *registers = cursor.named(CPUID_LEAF, CpuidLeaf)
        parts = [leaf, replace(subleaf, meaning="" if sub is not None else "none")]
        for name, register, value in zip(REGISTERS, registers, raw[2:], strict=True):
            word = Word(raw.leaf, sub, name)
            features = " ".join(word_features(word, value)) if word in FEATURES else ""
            parts.append(replace(register, name=name, meaning=features))
        name = f"leaf {raw.leaf:#x}" + (f".{sub:#x}" if sub is not None else "")
        return Field(name, leaf.offset, fields=tuple(parts))

    return cursor.elements(CPUID_LEAF.size, "leaves", one)


def _msr_policy_line(about: About) -> str:
    values = read_policy(b"", about.body).msrs or {}
    return listed([f"{MSR_NAMES.get(index, hex(index))} {value:#x}" for index, value in values.items()]) or "empty"


def _msr_policy_fields(cursor: Cursor) -> Iterator[Field]:
    def one(number: int) -> Field:
        start, raw = cursor.offset, PolicyMsr._make(POLICY_MSR.unpack_from(cursor.raw, cursor.at))
        features = " ".join(msr_features(raw.index, raw.value))
        meaning = f"{MSR_NAMES.get(raw.index, hex(raw.index))} = {raw.value:#x}" + (f": {features}" if features else "")
        return Field(f"[{number}]", start, None, meaning, tuple(cursor.named(POLICY_MSR, PolicyMsr)))

    return cursor.elements(POLICY_MSR.size, "msrs", one)


# ---------------------------------------------------------------------------------------------------

IMAGE: Kinds = {
    (Layer.LIBXC, Header.IMAGE): packed(IMAGE_HEADER, ImageHeader, _image_line, options=flags(IMAGE_OPTIONS)),
    (Layer.LIBXC, Header.DOMAIN): packed(DOMAIN_HEADER, DomainHeader, _domain_line, type=numbers(GUEST_TYPES)),
    # Its fields are made of pfn words: `page_fields`.
    (Layer.LIBXC, RecordType.PAGE_DATA): packed(
        PAGE_DATA_HEADER, PageDataHeader, lambda header: count(header.count, "pfn word")
    ),
    (Layer.LIBXC, RecordType.X86_TSC_INFO): packed(TSC_INFO, TscBody, _tsc_line, mode=numbers(TSC_MODES)),
    (Layer.LIBXC, RecordType.X86_CPUID_POLICY): Kind(_cpuid_line, 64 * SHARED_INFO_SIZE, _cpuid_fields),
    (Layer.LIBXC, RecordType.X86_MSR_POLICY): Kind(_msr_policy_line, SHARED_INFO_SIZE, _msr_policy_fields),
    (Layer.LIBXC, RecordType.STATIC_DATA_END): always("what stays the same is complete"),
    (Layer.LIBXC, RecordType.TOOLSTACK): size_of("what no release wrote"),
    (Layer.LIBXC, RecordType.VERIFY): always("the pages that follow were sent before"),
    (Layer.LIBXC, RecordType.CHECKPOINT): always("all before it is one consistent state"),
    (Layer.LIBXC, RecordType.CHECKPOINT_DIRTY_PFN_LIST): Kind(
        lambda about: count(about.entry.length // P2M_ENTRY_SIZE, "pfn"), fields=pfns
    ),
    (Layer.LIBXC, RecordType.END): always("the image is complete"),
}
