"""What a header, block or record says, in a line."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from migrate.counting import count
from migrate.guest.cpu_policy import read_policy
from migrate.inspection.logbook import Header, Layer
from migrate.inspection.vcpus.names import (
    CHECKPOINT_STATES,
    EMULATORS,
    GUEST_TYPES,
    IMAGE_OPTIONS,
    LIBXL_OPTIONS,
    TSC_MODES,
    component_names,
    msr_name,
    names_of,
)
from migrate.toolstack.config import LONGEST_CONFIG
from streams.hvm_context import entries as context_entries
from streams.sexp import fields, parse
from streams.wire.cpu_features import MSR_NAMES
from streams.wire.framing import (
    CPUID_LEAF,
    DOMAIN_HEADER,
    EMULATOR_HEADER,
    IMAGE_HEADER,
    LIBXL_HEADER,
    P2M_ENTRY_SIZE,
    P2M_HEADER,
    PAGE_DATA_HEADER,
    PARAMS_HEADER,
    PV_INFO,
    RECORD_OPTIONAL,
    SHARED_INFO_SIZE,
    TSC_INFO,
    VCPU_HEADER,
    XL_CONFIG_LENGTH,
    XL_HEADER,
    DomainHeader,
    EmulatorHeader,
    ImageHeader,
    LibxlHeader,
    LibxlRecordType,
    P2mHeader,
    PageDataHeader,
    PvInfoBody,
    RecordType,
    TscBody,
    VcpuHeader,
    XapiBlockId,
    XlHeader,
)
from streams.wire.hvm import HVM_PARAM
from streams.wire.hvm_names import param_name
from streams.wire.qemu import HEAD_SIZE, device_state
from streams.wire.shared_info import SHARED_INFO
from streams.wire.vcpu import CONTEXT, EXTENDED, MSR_ENTRY, XSAVE_WORDS, cr3_to_pfn
from streams.wire.views import dtype_of, view

if TYPE_CHECKING:
    from migrate.inspection.logbook import Entry

# Of a longer body only so much is looked at.
MOST_READ = 1 << 20
_NAMES_TOLD = 12
CUT = "the input ends in it"
_NANOSECONDS = 10**9


@dataclass(frozen=True, slots=True)
class About:
    """A record and the start of its body, for a guest of this word size in bytes (None where unknown)."""

    entry: Entry
    body: bytes
    width: int | None


Say = Callable[[About], str]


def needed(entry: Entry) -> int:
    """How many bytes of a body its meaning takes."""
    return min(entry.length, _SAYS[_key(entry)][0] if _key(entry) in _SAYS else 0)


def meaning(entry: Entry, body: bytes, width: int | None) -> str:
    """What a record says, in a line: not escaped, and text of the stream may be part of it.

    Parameters
    ----------
    body:
        at least the first `needed(entry)` bytes, fewer only where the input ends before.
    width:
        the guest's word size in bytes, 4 or 8; None where the stream does not say.
    """
    known = _SAYS.get(_key(entry))
    if known is None:
        told = _unknown(entry)
    else:
        try:
            told = known[1](About(entry, body, width))
        except (ValueError, struct.error):
            if entry.cut:
                return CUT
            told = f"{count(entry.length, 'byte')} that are not laid out as a {entry.name}"
    return f"{CUT}: {told}" if entry.cut else told


def _key(entry: Entry) -> tuple[Layer, int | str]:
    return entry.layer, entry.name if entry.type is None else entry.type


def _unknown(entry: Entry) -> str:
    if entry.layer is not Layer.LIBXC:
        return "of no known type"
    return f"of no known type, {'optional' if (entry.type or 0) & RECORD_OPTIONAL else 'mandatory'}"


def pages_told(lowest: int, highest: int, words: int, types: dict[str, int]) -> str:
    """What some PAGE_DATA records bring together; `types` is how many words there are of each page type."""
    if not words:
        return "no pages"
    told = ", ".join(f"{name} {number}" for name, number in types.items())
    where = f"pfn {lowest:#x}" if lowest == highest else f"pfns {lowest:#x}..{highest:#x}"
    return f"{where}, {count(words, 'page')}: {told}"


def listed(names: list[str]) -> str:
    """Names with commas, the first dozen of them."""
    return ", ".join(names[:_NAMES_TOLD]) + ", …" * (len(names) > _NAMES_TOLD)


# -- headers and wrappers ---------------------------------------------------------------------------


def xl_config(raw: bytes) -> tuple[int, Any] | None:
    """The domain config in a whole xl header: how many bytes it takes, and what it says (None where unreadable).

    None where there is none. Raises struct.error for less than a header.
    """
    header = XlHeader._make(XL_HEADER.unpack_from(raw))
    optional = raw[XL_HEADER.size :]
    if header.optional_data_len < XL_CONFIG_LENGTH.size or len(optional) < XL_CONFIG_LENGTH.size:
        return None
    (length,) = XL_CONFIG_LENGTH.unpack_from(optional)
    text = optional[XL_CONFIG_LENGTH.size :][:length]
    if len(text) > LONGEST_CONFIG:
        return length, None
    try:
        return length, json.loads(text.rstrip(b"\0").decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return length, None


def _xl(about: About) -> str:
    found = xl_config(about.body)
    if found is None:
        return "no domain config"
    length, config = found
    parts = config if isinstance(config, dict) else {}
    created, built = (part if isinstance(part := parts.get(key), dict) else {} for key in ("c_info", "b_info"))
    told = [f"{str(value)[:80]}" for value in (created.get("name"), created.get("type")) if value is not None]
    vcpus = built.get("max_vcpus")
    told += [count(vcpus, "vcpu")] if isinstance(vcpus, int) else []
    return ", ".join([*told, f"config of {count(length, 'byte')}"])


def _libxl_header(about: About) -> str:
    header = LibxlHeader._make(LIBXL_HEADER.unpack_from(about.body))
    return ", ".join([f"version {header.version}", *names_of(header.options, LIBXL_OPTIONS)])


def _image(about: About) -> str:
    header = ImageHeader._make(IMAGE_HEADER.unpack_from(about.body))
    return ", ".join([f"version {header.version}", *names_of(header.options, IMAGE_OPTIONS)])


def _domain(about: About) -> str:
    header = DomainHeader._make(DOMAIN_HEADER.unpack_from(about.body))
    kind = GUEST_TYPES.get(header.type, f"type {header.type}")
    shift = header.page_shift
    pages = f"{1 << shift} bytes" if shift < 64 else f"2^{shift} bytes"
    return f"{kind} guest, pages of {pages}, saved by Xen {header.xen_major}.{header.xen_minor}"


def _emulator(body: bytes) -> str:
    header = EmulatorHeader._make(EMULATOR_HEADER.unpack_from(body))
    return EMULATORS.get(header.emulator_id, f"emulator {header.emulator_id}")


def xenstore_pairs(data: bytes, most: int) -> list[tuple[bytes, bytes]]:
    """The first keys and values of a device model's xenstore data, each of which ends with a NUL."""
    parts = data.split(b"\0", 2 * most)[: 2 * most]
    return list(zip(parts[::2], parts[1::2], strict=False))


def _xenstore(about: About) -> str:
    return f"{_emulator(about.body)}, {count(about.body.count(0, EMULATOR_HEADER.size) // 2, 'key')}"


def _emulator_context(about: About) -> str:
    state = device_state(about.body[EMULATOR_HEADER.size :])
    return f"{_emulator(about.body)}: {state or 'its state begins as no QEMU writes it'}"


def _checkpoint_state(about: About) -> str:
    (state,) = struct.unpack_from("<I", about.body)
    return CHECKPOINT_STATES.get(state, f"control id {state}")


def _xenops(about: About) -> str:
    if about.entry.length > len(about.body):
        return "xenopsd's own record"
    names = sorted(name.decode("ascii", "replace") for name in fields(parse(about.body)))
    return f"xenopsd's own record: {listed(names)}"


def _qemu(about: About) -> str:
    return str(device_state(about.body) or "its state begins as no QEMU writes it")


# -- records of a libxc image -----------------------------------------------------------------------


def _pages(about: About) -> str:
    return count(PageDataHeader._make(PAGE_DATA_HEADER.unpack_from(about.body)).count, "pfn word")


def _pv_info(about: About) -> str:
    info = PvInfoBody._make(PV_INFO.unpack_from(about.body))
    return f"{info.guest_width * 8}-bit, {count(info.pt_levels, 'level')} of page tables"


def _p2m(about: About) -> str:
    header = P2mHeader._make(P2M_HEADER.unpack_from(about.body))
    pages = (about.entry.length - P2M_HEADER.size) // P2M_ENTRY_SIZE
    return f"p2m of pfns {header.start_pfn:#x}..{header.end_pfn:#x} in {count(pages, 'page')}"


def _vcpu(about: About) -> tuple[str, bytes]:
    header = VcpuHeader._make(VCPU_HEADER.unpack_from(about.body))
    return f"vcpu {header.vcpu_id}", about.body[VCPU_HEADER.size :]


def context_width(size: int, width: int | None) -> int:
    """The word size in bytes of the guest whose context has `size` bytes. Raises ValueError where none has."""
    for known in (width,) if width in CONTEXT else tuple(sorted(CONTEXT, reverse=True)):
        assert known is not None
        if size >= CONTEXT[known].sizeof():
            return known
    raise ValueError(f"{size} bytes are too few for a vcpu's context")


def _basic(about: About) -> str:
    vcpu, content = _vcpu(about)
    width = context_width(len(content), about.width)
    context = view(CONTEXT[width], content)
    name = {4: "eip", 8: "rip"}[width]
    root = cr3_to_pfn(int(context["ctrlreg"][3]), width)
    return f"{vcpu}: {name} {int(context['user_regs'][name]):#x}, cr3 pfn {root:#x}"


def _extended(about: About) -> str:
    vcpu, content = _vcpu(about)
    fields = view(EXTENDED, content[: EXTENDED.sizeof()].ljust(EXTENDED.sizeof(), b"\0"))
    sysenter, caps = int(fields["sysenter_callback_eip"]), int(fields["mcg_cap"])
    return f"{vcpu}: {count(len(content), 'byte')}, sysenter to {sysenter:#x}, mcg_cap {caps:#x}"


def _xsave(about: About) -> str:
    vcpu, content = _vcpu(about)
    accum = int(view(XSAVE_WORDS, content)["xcr0_accum"])
    if not accum:
        return f"{vcpu}: no state"
    size = about.entry.length - VCPU_HEADER.size
    return f"{vcpu}: {count(size, 'byte')} of {' '.join(component_names(accum))}"


def _msrs(about: About) -> str:
    vcpu, content = _vcpu(about)
    entries = np.frombuffer(content, dtype_of(MSR_ENTRY), len(content) // MSR_ENTRY.sizeof())
    number = (about.entry.length - VCPU_HEADER.size) // MSR_ENTRY.sizeof()
    return f"{vcpu}: {count(number, 'MSR')}: {listed([msr_name(int(index)) for index in entries['index']])}"


def _shared_info(about: About) -> str:
    if about.width not in SHARED_INFO:
        return "the page shared with Xen"
    info = view(SHARED_INFO[about.width], about.body)
    pending = sum(int(word).bit_count() for word in info["evtchn_pending"])
    return f"p2m of {int(info['arch']['max_pfn']):#x} pfns, {count(pending, 'event channel')} pending"


def _tsc(about: About) -> str:
    tsc = TscBody._make(TSC_INFO.unpack_from(about.body))
    mode = TSC_MODES.get(tsc.mode, "unknown")
    ran = tsc.nsec / _NANOSECONDS
    return f"mode {tsc.mode} ({mode}), {tsc.khz} kHz, ran for {ran:.1f} s, incarnation {tsc.incarnation}"


def _hvm_context(about: About) -> str:
    found = Counter(entry.name for entry in context_entries(about.body))
    told = listed([name if number == 1 else f"{name} x{number}" for name, number in found.items()])
    least = "at least " * (len(about.body) < about.entry.length)
    return f"{least}{count(found.total(), 'entry', 'entries')}: {told}"


def _hvm_params(about: About) -> str:
    start, size = PARAMS_HEADER.size, HVM_PARAM.sizeof()
    if len(about.body) < start:
        raise ValueError
    pairs = np.frombuffer(about.body, dtype_of(HVM_PARAM), (len(about.body) - start) // size, start)
    number = (about.entry.length - start) // size
    return f"{count(number, 'parameter')}: {listed([param_name(int(index)) for index in pairs['index']])}"


def _cpuid(about: About) -> str:
    policy = read_policy(about.body)
    family, model, stepping = policy.signature
    number = about.entry.length // CPUID_LEAF.size
    leaves = count(number, "leaf", "leaves")
    return f"{leaves}: {policy.vendor or 'nameless'}, family {family:#x}, model {model:#x}, stepping {stepping:#x}"


def _msr_policy(about: About) -> str:
    values = read_policy(b"", about.body).msrs or {}
    return listed([f"{MSR_NAMES.get(index, hex(index))} {value:#x}" for index, value in values.items()]) or "empty"


def _size_of(what: str) -> Say:
    return lambda about: f"{count(about.entry.length, 'byte')} of {what}"


def _always(told: str) -> Say:
    return lambda about: told


_SAYS: dict[tuple[Layer, int | str], tuple[int, Say]] = {
    (Layer.XL, Header.XL): (MOST_READ, _xl),
    (Layer.LIBXL, Header.LIBXL): (LIBXL_HEADER.size, _libxl_header),
    (Layer.LIBXC, Header.IMAGE): (IMAGE_HEADER.size, _image),
    (Layer.LIBXC, Header.DOMAIN): (DOMAIN_HEADER.size, _domain),
    (Layer.LIBXL, LibxlRecordType.END): (0, _always("the libxl stream is complete")),
    (Layer.LIBXL, LibxlRecordType.LIBXC_CONTEXT): (0, _always("the libxc image follows")),
    (Layer.LIBXL, LibxlRecordType.EMULATOR_XENSTORE_DATA): (MOST_READ, _xenstore),
    (Layer.LIBXL, LibxlRecordType.EMULATOR_CONTEXT): (EMULATOR_HEADER.size + HEAD_SIZE, _emulator_context),
    (Layer.LIBXL, LibxlRecordType.CHECKPOINT_END): (0, _always("libxl's part of a checkpoint is complete")),
    (Layer.LIBXL, LibxlRecordType.CHECKPOINT_STATE): (4, _checkpoint_state),
    (Layer.XAPI, XapiBlockId.XENOPS): (LONGEST_CONFIG, _xenops),
    (Layer.XAPI, XapiBlockId.LIBXC): (0, _always("the libxc image follows")),
    (Layer.XAPI, XapiBlockId.LIBXC_LEGACY): (0, _always("a pre-4.6 image follows")),
    (Layer.XAPI, XapiBlockId.LIBXL): (0, _size_of("a libxl stream, which nobody reads")),
    (Layer.XAPI, XapiBlockId.QEMU_TRAD): (HEAD_SIZE, _qemu),
    (Layer.XAPI, XapiBlockId.QEMU_XEN): (0, _size_of("a device model's state, which nobody reads")),
    (Layer.XAPI, XapiBlockId.DEMU): (0, _size_of("demu's state")),
    (Layer.XAPI, XapiBlockId.VARSTORED): (0, _size_of("varstored's state")),
    (Layer.XAPI, XapiBlockId.SWTPM0): (0, _size_of("swtpm's state")),
    (Layer.XAPI, XapiBlockId.SWTPM): (0, _size_of("swtpm's state")),
    (Layer.XAPI, XapiBlockId.END_OF_IMAGE): (0, _always("the suspend image is complete")),
    (Layer.LIBXC, RecordType.END): (0, _always("the image is complete")),
    (Layer.LIBXC, RecordType.PAGE_DATA): (PAGE_DATA_HEADER.size, _pages),
    (Layer.LIBXC, RecordType.X86_PV_INFO): (PV_INFO.size, _pv_info),
    (Layer.LIBXC, RecordType.X86_PV_P2M_FRAMES): (P2M_HEADER.size, _p2m),
    (Layer.LIBXC, RecordType.X86_PV_VCPU_BASIC): (2 * SHARED_INFO_SIZE, _basic),
    (Layer.LIBXC, RecordType.X86_PV_VCPU_EXTENDED): (SHARED_INFO_SIZE, _extended),
    (Layer.LIBXC, RecordType.X86_PV_VCPU_XSAVE): (SHARED_INFO_SIZE, _xsave),
    (Layer.LIBXC, RecordType.X86_PV_VCPU_MSRS): (SHARED_INFO_SIZE, _msrs),
    (Layer.LIBXC, RecordType.SHARED_INFO): (SHARED_INFO_SIZE, _shared_info),
    (Layer.LIBXC, RecordType.X86_TSC_INFO): (TSC_INFO.size, _tsc),
    (Layer.LIBXC, RecordType.HVM_CONTEXT): (MOST_READ, _hvm_context),
    (Layer.LIBXC, RecordType.HVM_PARAMS): (SHARED_INFO_SIZE, _hvm_params),
    (Layer.LIBXC, RecordType.TOOLSTACK): (0, _size_of("what no release wrote")),
    (Layer.LIBXC, RecordType.VERIFY): (0, _always("the pages that follow were sent before")),
    (Layer.LIBXC, RecordType.CHECKPOINT): (0, _always("all before it is one consistent state")),
    (Layer.LIBXC, RecordType.CHECKPOINT_DIRTY_PFN_LIST): (
        0,
        lambda about: count(about.entry.length // P2M_ENTRY_SIZE, "pfn"),
    ),
    (Layer.LIBXC, RecordType.STATIC_DATA_END): (0, _always("what stays the same is complete")),
    (Layer.LIBXC, RecordType.X86_CPUID_POLICY): (64 * SHARED_INFO_SIZE, _cpuid),
    (Layer.LIBXC, RecordType.X86_MSR_POLICY): (SHARED_INFO_SIZE, _msr_policy),
}
"""How many bytes of a body are needed, and what says the meaning."""
