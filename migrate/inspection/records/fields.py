"""A record's fields, each with its place in the stream: by the layouts, as far as its bytes go."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from migrate.counting import count
from migrate.inspection.logbook import Header, Layer
from migrate.inspection.records.cursor import Cursor, CutError, Explain, Field
from migrate.inspection.records.summary import context_width, xenstore_pairs, xl_config
from migrate.inspection.vcpus import names
from migrate.inspection.vcpus.names import names_of
from migrate.toolstack.config import LONGEST_CONFIG
from streams.hvm_context import entries as context_entries
from streams.pages import PfnWords, type_name
from streams.sexp import SexpError, parse
from streams.wire.cpu_features import FEATURES, MSR_NAMES, REGISTERS, Word, msr_features, word_features
from streams.wire.framing import (
    CPUID_LEAF,
    DOMAIN_HEADER,
    EMULATOR_HEADER,
    HVM_SAVE_HEADER,
    IMAGE_HEADER,
    LIBXL_HEADER,
    NO_SUBLEAF,
    P2M_ENTRY_SIZE,
    P2M_HEADER,
    PAGE_DATA_HEADER,
    PAGE_SIZE,
    PARAMS_HEADER,
    PFN_WORD_SIZE,
    POLICY_MSR,
    PV_INFO,
    TSC_INFO,
    VCPU_HEADER,
    XL_CONFIG_LENGTH,
    XL_HEADER,
    CpuidLeaf,
    DomainHeader,
    EmulatorHeader,
    HvmSaveHeader,
    ImageHeader,
    LibxlHeader,
    LibxlRecordType,
    P2mHeader,
    PageDataHeader,
    ParamsHeader,
    PolicyMsr,
    PvInfoBody,
    RecordType,
    TscBody,
    VcpuHeader,
    XapiBlockId,
    XlHeader,
    padded,
)
from streams.wire.hvm import HVM_PARAM
from streams.wire.hvm_names import param_name
from streams.wire.qemu import device_state
from streams.wire.shared_info import SHARED_INFO
from streams.wire.vcpu import (
    CONTEXT,
    EXTENDED,
    FXSAVE,
    MSR_ENTRY,
    VM_ASSIST_NAMES,
    XSAVE_HEADER,
    XSAVE_WORDS,
    cr3_to_pfn,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from migrate.inspection.logbook import Entry
    from migrate.inspection.reading import Inspection

# Of a longer body only so much is taken apart.
MOST_READ = 16 << 20
_DEEPEST = 16


def fields_of(inspection: Inspection, entry: Entry, *, everything: bool = False) -> list[Field]:
    """All fields of a header, block or record; of a damaged one, those that its bytes hold.

    Parameters
    ----------
    everything:
        all elements of the longest lists, too.
    """
    end = entry.length if entry.type is None or entry.layer is Layer.XAPI else padded(entry.length)
    if entry.is_pages:
        raw = inspection.body(entry, PAGE_DATA_HEADER.size)
        (_, words), *_ = inspection.words([entry])
        return _page_data(Cursor(raw, entry.body, everything), entry, words)
    (raw,) = inspection.read([(entry.body, min(end, MOST_READ))])
    body, padding = raw[: entry.length], raw[entry.length :]
    cursor = Cursor(body, entry.body, everything)
    taking = _TAKERS.get((entry.layer, entry.name if entry.type is None else entry.type))
    found: list[Field] = []
    if taking is not None:
        try:
            taking(cursor, inspection.judgement.facts.width, found)
        except CutError:
            found.append(Field("cut", cursor.place, None, "the bytes end before the next field does"))
    found += cursor.rest("content" if not found else "rest")
    if len(body) < entry.length:
        more = f"{count(entry.length - len(body), 'byte')} more are not taken apart"
        missing = f"the input ends {count(entry.length - len(body), 'byte')} before the end of the record"
        found.append(Field("more", entry.body + len(body), None, more if len(raw) == MOST_READ else missing))
    if any(padding):
        found.append(Field("padding", entry.body + entry.length, padding, "not zero"))
    return found


# -- page data --------------------------------------------------------------------------------------


def _page_data(cursor: Cursor, entry: Entry, words: PfnWords) -> list[Field]:
    """The header, and pfns that follow one another with one type, with where their contents lie."""
    try:
        found = cursor.named(PAGE_DATA_HEADER, PageDataHeader)
    except CutError:
        return cursor.rest("cut")
    if not len(words):
        return found if not found[0].value else [*found, Field("words", None, None, "there is no room for them")]
    first_word = cursor.place
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
        told = f"{pages}, {count(end - start, 'page')}, {kind}, {where}"
        ranges.append(Field(f"[{start}]", first_word + start * PFN_WORD_SIZE, None, told, inside))
    told = count(len(words), "pfn word") + ", some with reserved bits set" * words.has_reserved_bits
    found.append(Field("words", first_word, None, told, tuple(ranges), len(starts) - len(ranges)))
    room, taken = entry.body + entry.length - data, words.data_pages * PAGE_SIZE
    told = count(words.data_pages, "page") + f"; there is room for {count(room, 'byte')}" * (room != taken)
    found.append(Field("contents", data, None, told))
    return found


# -- records by type --------------------------------------------------------------------------------

Taking = Callable[[Cursor, "int | None", list[Field]], None]


def _flags(known: Mapping[int, str]) -> Callable[[Any], str]:
    return lambda value: " ".join(names_of(value, known))


def _frame(width: int) -> Callable[[Any], str]:
    return lambda values: f"cr3 pfn {cr3_to_pfn(values[3], width):#x}"


def _components(value: int) -> str:
    return " ".join(names.component_names(value))


def _packed(layout: struct.Struct, kind: type[Any], told: Explain | None = None) -> Taking:
    """A body that is one packed structure."""

    def take(cursor: Cursor, width: int | None, found: list[Field]) -> None:
        for field in cursor.named(layout, kind):
            explain = (told or {}).get(field.name)
            found.append(replace(field, told=explain(field.value)) if explain else field)

    return take


def _xl(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    config = xl_config(cursor.raw)
    flags = _flags(names.XL_FLAGS)
    for field in cursor.named(XL_HEADER, XlHeader):
        explained = field.name == "mandatory_flags" and isinstance(field.value, int)
        found.append(replace(field, told=flags(field.value)) if explained else field)
    if config is None:
        return
    place = cursor.place
    (length,) = XL_CONFIG_LENGTH.unpack(cursor.take(XL_CONFIG_LENGTH.size))
    found.append(Field("config_length", place, length))
    place, text = cursor.place, cursor.take(min(length, cursor.left))
    if config[1] is None:
        found.append(Field("config", place, text, "not readable as JSON"))
    else:
        found.append(replace(_from_json("config", config[1], cursor.most), offset=place))


def _from_json(name: str, value: Any, most: int, depth: int = 0) -> Field:
    if isinstance(value, dict | list) and depth < _DEEPEST:
        pairs = list(value.items()) if isinstance(value, dict) else [(f"[{i}]", v) for i, v in enumerate(value)]
        inside = tuple(_from_json(str(key), part, most, depth + 1) for key, part in pairs[:most])
        return Field(name, None, fields=inside, left_out=len(pairs) - len(inside))
    plain = isinstance(value, int | str) and not isinstance(value, bool)
    return Field(name, None, value if plain else repr(value)[: 1 << 16])


def _emulator(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    header = cursor.named(EMULATOR_HEADER, EmulatorHeader)
    assert isinstance(header[0].value, int)
    found += [replace(header[0], told=names.EMULATORS.get(header[0].value, "")), header[1]]


def _emulator_context(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    _emulator(cursor, width, found)
    _qemu(cursor, width, found)


def _qemu(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    state, place = device_state(cursor.raw[cursor.at :]), cursor.place
    found.append(Field("state", place, cursor.take(cursor.left), str(state) if state else ""))


def _xenstore(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    _emulator(cursor, width, found)
    for key, value in xenstore_pairs(cursor.raw[cursor.at :], min(cursor.most, cursor.left)):
        place = cursor.place
        taken = min(len(key) + len(value) + 2, cursor.left)
        cursor.at += taken
        found.append(Field(_text(key), place, _text(value)))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _checkpoint_state(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    place = cursor.place
    (state,) = struct.unpack("<I", cursor.take(4))
    found.append(Field("control_id", place, state, names.CHECKPOINT_STATES.get(state, "")))


def _xenops(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    if cursor.left > LONGEST_CONFIG:
        return
    try:
        value = parse(cursor.raw)
    except SexpError as error:
        found.append(Field("record", cursor.place, cursor.take(cursor.left), str(error)))
        return
    found.append(replace(_from_sexp("record", value, cursor.most), offset=cursor.place))
    cursor.at = len(cursor.raw)


def _from_sexp(name: str, value: Any, most: int, depth: int = 0) -> Field:
    if isinstance(value, bytes):
        return Field(name, None, _text(value))
    if depth >= _DEEPEST:
        return Field(name, None, None, count(len(value), "element"))

    def pair(part: Any) -> bool:
        return isinstance(part, list) and len(part) == 2 and isinstance(part[0], bytes)

    inside = tuple(
        _from_sexp(_text(part[0]), part[1], most, depth + 1) if pair(part) else _from_sexp("", part, most, depth + 1)
        for part in value[:most]
    )
    return Field(name, None, fields=inside, left_out=len(value) - len(inside))


def _p2m(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    found += cursor.named(P2M_HEADER, P2mHeader)
    _pfns(cursor, width, found)


def _pfns(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    place, number = cursor.place, cursor.left // P2M_ENTRY_SIZE
    told = min(number, cursor.most)
    pfns = struct.unpack(f"<{told}Q", cursor.take(told * P2M_ENTRY_SIZE))
    cursor.at += (number - told) * P2M_ENTRY_SIZE
    found.append(Field("pfns", place, pfns, left_out=number - told))


def _vcpu(cursor: Cursor, found: list[Field]) -> None:
    found += cursor.named(VCPU_HEADER, VcpuHeader)


def _basic(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    _vcpu(cursor, found)
    try:
        width = context_width(cursor.left, width)
    except ValueError:
        width = width or 8
    told: Explain = {
        "flags": _flags(names.CONTEXT_FLAGS),
        "vm_assist": _flags(VM_ASSIST_NAMES),
        "ctrlreg": _frame(width),
        "user_regs.eflags": lambda value: " ".join(names.eflags_names(value)),
        "user_regs.rflags": lambda value: " ".join(names.eflags_names(value)),
    }
    fpu = CONTEXT[width].subcons[0]
    start = cursor.at
    for field in cursor.parsed(CONTEXT[width], "context", told).fields:
        if field.name == fpu.name and isinstance(field.value, bytes) and len(field.value) == FXSAVE.sizeof():
            inner = Cursor(field.value, cursor.base + start, True).parsed(FXSAVE)
            field = replace(field, value=None, fields=inner.fields)
        found.append(field)


def _extended(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    _vcpu(cursor, found)
    found += cursor.parsed(EXTENDED, "extended").fields


def _xsave(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    _vcpu(cursor, found)
    told = dict.fromkeys(("xcr0", "xcr0_accum", "xstate_bv"), _components)
    whole = cursor.left >= XSAVE_HEADER.sizeof()
    found += cursor.parsed(XSAVE_HEADER if whole else XSAVE_WORDS, "xsave", told).fields
    found += cursor.rest("components")


def _vcpu_msrs(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    _vcpu(cursor, found)
    found += cursor.elements(MSR_ENTRY.sizeof(), "msrs", lambda number: _msr(cursor.parsed(MSR_ENTRY, f"[{number}]")))


def _msr(field: Field) -> Field:
    values = {part.name: part.value for part in field.fields}
    index, value = values.get("index"), values.get("value")
    if not isinstance(index, int) or not isinstance(value, int):
        return field
    return replace(field, told=f"{names.msr_name(index)} = {value:#x}")


def _shared_info(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    if width in SHARED_INFO:
        found += cursor.parsed(SHARED_INFO[width], "shared_info").fields


def _hvm_params(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    found += cursor.named(PARAMS_HEADER, ParamsHeader)

    def one(number: int) -> Field:
        field = cursor.parsed(HVM_PARAM, f"[{number}]")
        index, value = (part.value for part in field.fields)
        assert isinstance(index, int)
        assert isinstance(value, int)
        return replace(field, told=f"{param_name(index)} = {value:#x}")

    found += cursor.elements(HVM_PARAM.sizeof(), "params", one)


def _hvm_context(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    told: Explain = {
        "cr0": _flags(names.CR0),
        "cr4": _flags(names.CR4),
        "rflags": lambda value: " ".join(names.eflags_names(value)),
        "msr_efer": _flags(names.EFER),
        "apic_base_msr": _flags(names.APIC_BASE),
        **dict.fromkeys(("xfeature_mask", "xcr0", "xcr0_accum", "xstate_bv"), _components),
    }
    for number, entry in enumerate(context_entries(cursor.raw)):
        if number >= cursor.most:
            found.append(Field("entries", cursor.place, None, "and more"))
            cursor.at = len(cursor.raw)
            return
        start = cursor.base + entry.offset
        head = Cursor(cursor.raw[entry.offset : entry.offset + HVM_SAVE_HEADER.size], start, True)
        inside = head.named(HVM_SAVE_HEADER, HvmSaveHeader)
        body = Cursor(entry.body, start + HVM_SAVE_HEADER.size, cursor.everything)
        if entry.layout is not None:
            inside += [
                replace(part, fields=tuple(map(_msr, part.fields))) if part.name == "msrs" else part
                for part in body.parsed(entry.layout, entry.name, told).fields
            ]
        inside += body.rest("rest" if entry.layout is not None else "content")
        size = count(entry.length, "byte")
        size += f", of which {len(entry.body)} are there" * entry.cut
        found.append(Field(f"{entry.name} {entry.instance}", start, None, size, tuple(inside)))
        cursor.at = entry.offset + HVM_SAVE_HEADER.size + len(entry.body)


def _cpuid(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    def one(number: int) -> Field:
        leaf, subleaf, *registers = cursor.named(CPUID_LEAF, CpuidLeaf)
        assert isinstance(leaf.value, int)
        assert isinstance(subleaf.value, int)
        sub = None if subleaf.value == NO_SUBLEAF else subleaf.value
        told = [leaf, replace(subleaf, told="" if sub is not None else "none")]
        for name, register in zip(REGISTERS, registers, strict=True):
            word = Word(leaf.value, sub, name)
            assert isinstance(register.value, int)
            features = " ".join(word_features(word, register.value)) if word in FEATURES else ""
            told.append(replace(register, name=name, told=features))
        return Field(
            f"leaf {leaf.value:#x}" + (f".{sub:#x}" if sub is not None else ""), leaf.offset, None, "", tuple(told)
        )

    found += cursor.elements(CPUID_LEAF.size, "leaves", one)


def _msr_policy(cursor: Cursor, width: int | None, found: list[Field]) -> None:
    def one(number: int) -> Field:
        parts = cursor.named(POLICY_MSR, PolicyMsr)
        index, _, value = (part.value for part in parts)
        assert isinstance(index, int)
        assert isinstance(value, int)
        features = " ".join(msr_features(index, value))
        told = f"{MSR_NAMES.get(index, hex(index))} = {value:#x}" + (f": {features}" if features else "")
        return Field(f"[{number}]", parts[0].offset, None, told, tuple(parts))

    found += cursor.elements(POLICY_MSR.size, "msrs", one)


def _number_told(known: Mapping[int, str]) -> Callable[[Any], str]:
    return lambda value: known.get(value, "")


_TAKERS: dict[tuple[Layer, int | str], Taking] = {
    (Layer.XL, Header.XL): _xl,
    (Layer.LIBXL, Header.LIBXL): _packed(LIBXL_HEADER, LibxlHeader, {"options": _flags(names.LIBXL_OPTIONS)}),
    (Layer.LIBXC, Header.IMAGE): _packed(IMAGE_HEADER, ImageHeader, {"options": _flags(names.IMAGE_OPTIONS)}),
    (Layer.LIBXC, Header.DOMAIN): _packed(DOMAIN_HEADER, DomainHeader, {"type": _number_told(names.GUEST_TYPES)}),
    (Layer.LIBXL, LibxlRecordType.EMULATOR_XENSTORE_DATA): _xenstore,
    (Layer.LIBXL, LibxlRecordType.EMULATOR_CONTEXT): _emulator_context,
    (Layer.LIBXL, LibxlRecordType.CHECKPOINT_STATE): _checkpoint_state,
    (Layer.XAPI, XapiBlockId.XENOPS): _xenops,
    (Layer.XAPI, XapiBlockId.QEMU_TRAD): _qemu,
    (Layer.LIBXC, RecordType.X86_PV_INFO): _packed(PV_INFO, PvInfoBody),
    (Layer.LIBXC, RecordType.X86_PV_P2M_FRAMES): _p2m,
    (Layer.LIBXC, RecordType.X86_PV_VCPU_BASIC): _basic,
    (Layer.LIBXC, RecordType.X86_PV_VCPU_EXTENDED): _extended,
    (Layer.LIBXC, RecordType.X86_PV_VCPU_XSAVE): _xsave,
    (Layer.LIBXC, RecordType.X86_PV_VCPU_MSRS): _vcpu_msrs,
    (Layer.LIBXC, RecordType.SHARED_INFO): _shared_info,
    (Layer.LIBXC, RecordType.X86_TSC_INFO): _packed(TSC_INFO, TscBody, {"mode": _number_told(names.TSC_MODES)}),
    (Layer.LIBXC, RecordType.HVM_CONTEXT): _hvm_context,
    (Layer.LIBXC, RecordType.HVM_PARAMS): _hvm_params,
    (Layer.LIBXC, RecordType.CHECKPOINT_DIRTY_PFN_LIST): _pfns,
    (Layer.LIBXC, RecordType.X86_CPUID_POLICY): _cpuid,
    (Layer.LIBXC, RecordType.X86_MSR_POLICY): _msr_policy,
}
"""What takes apart a body; one without is shown as it is."""
