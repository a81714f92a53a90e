"""Xen's checks of an HVM guest's context: of the chain of its entries, and of what is in them.

Sources: hvm_load and _hvm_check_entry (`xen/arch/x86/hvm/save.c`), hvm_load_cpu_ctxt, hvm_load_cpu_xsave_states and
hvm_load_cpu_msrs (`hvm.c`), lapic_load_hidden (`vlapic.c`), hvm_load_mtrr_msr (`mtrr.c`), vmx_vmcs_restore and
svm_vmcb_restore, validate_xstate. Nothing here imports numpy or construct: a filter in front of an HVM guest stays
small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from migrate.destination import releases
from migrate.destination.releases import Change
from migrate.rules.declaring import Effect, Severity
from streams.hvm_context import HvmEntry, entries
from streams.wire.cpu_features import set_bits
from streams.wire.framing import HVM_SAVE_HEADER
from streams.wire.hvm_names import (
    CPU_CONTROL,
    CPU_OLD_LENGTHS,
    ENTRIES,
    HVM_MSR,
    HVM_MSR_HEADER,
    LAPIC_CONTROL,
    LAST_SAVE_TYPE,
    MTRR_CONTROL,
    PICS,
    SAVE_MAGIC,
    SAVE_START,
    SAVE_VERSION,
    XSAVE_CONTROL,
    XSAVE_WORDS_SIZE,
    CpuControl,
    HvmMsr,
    LapicControl,
    MtrrControl,
    SaveStart,
    SaveType,
    XsaveControl,
)
from streams.wire.xstate import XSAVE_AVX_SIZE, XSAVE_LEGACY_SIZE, XState, valid_xcr0

if TYPE_CHECKING:
    from migrate.guest.cpu_policy import Policy

# The forms of entries are known up to the release before this one; a later one may know longer ones.
FORMS_KNOWN_UNTIL = releases.msr_refusal_enxio
# Since when Xen looks at these; earlier releases may have, too.
WIDTHS_CHECKED_SINCE = releases.hvm_widths_checked

PE, ET, PG = 1 << 0, 1 << 4, 1 << 31
CR0_DEFINED = 0xE005_003F
# No processor has ever defined the others: Xen gives them to no guest, whatever its policy.
CR4_DEFINED = 0x1_1BFF_7FFF
# SCE, LME, LMA, NX, SVME, LMSLE, FFXSE, TCE, MCOMMIT, INTWB, UAIE, AIBRSE.
EFER_DEFINED = 0x0036_FD01
EFER_LME, EFER_LMA = 1 << 8, 1 << 10
FPU_USED = 1 << 0

EVENT_VALID, EVENT_HAS_ERROR = 1 << 31, 1 << 11
EVENT_RESERVED = 0x7FFF_F000
EVENT_TYPES = frozenset({0, 2, 3, 4, 5, 6})

APIC_ENABLE, APIC_X2 = 1 << 11, 1 << 10
MTRRS, MTRR_COUNT = 8, 0xFF

# What a bit of cr4 or EFER needs of the guest's policy; VMX and SVM hang on nested virtualisation besides.
_CR4_NEEDS: dict[int, tuple[str, ...]] = {
    0: ("vme",),
    1: ("vme",),
    2: ("tsc",),
    3: ("de",),
    4: ("pse",),
    5: ("pae",),
    6: ("mce", "mca"),
    7: ("pge",),
    9: ("fxsr",),
    10: ("sse",),
    11: ("umip",),
    13: ("vmx",),
    16: ("fsgsbase",),
    17: ("pcid",),
    18: ("xsave",),
    20: ("smep",),
    21: ("smap",),
    22: ("pku",),
    23: ("cet_ss", "cet_ibt"),
    24: ("pks",),
}
_EFER_NEEDS: dict[int, tuple[str, ...]] = {
    0: ("syscall",),
    8: ("lm",),
    10: ("lm",),
    11: ("nx",),
    12: ("svm",),
    14: ("ffxsr",),
}

# MSRs that some release saves for an HVM vcpu.
_HVM_MSRS = frozenset(
    {
        0x48,  # SPEC_CTRL
        0x140,  # MISC_FEATURES_ENABLES
        0x6A0,  # U_CET
        0x6A2,  # S_CET
        *range(0x6A4, 0x6A9),  # PL0_SSP to INTERRUPT_SSP_TABLE
        0x6E1,  # PKRS
        0xD90,  # BNDCFGS
        0xDA0,  # XSS
        0xC000_0103,  # TSC_AUX
        0xC001_011F,  # VIRT_SPEC_CTRL
        *range(0xC001_1019, 0xC001_101C),  # DR1_ADDRESS_MASK to DR3
        0xC001_1027,  # DR0_ADDRESS_MASK
    }
)


class Objection(NamedTuple):
    """One thing about a context that Xen refuses, or that is worth knowing; `offset` counts from the body's start.

    `effect`, `severity`, `since` and `until` are None where the rule's own hold.
    """

    rule: str
    message: str
    offset: int
    errno: str | None = None
    vcpu: int | None = None
    effect: Effect | None = None
    severity: Severity | None = None
    since: Change | None = None
    until: Change | None = None


def saved_vcpus(body: bytes) -> int:
    """How many vcpus have a CPU entry."""
    return len({entry.instance for entry in entries(body) if entry.typecode == SaveType.CPU})


def context_objections(body: bytes, vcpus: int | None = None, policy: Policy | None = None) -> Iterator[Objection]:
    """All there is to say about a context, in the order in which Xen would meet it.

    Parameters
    ----------
    vcpus:
        how many vcpus the domain has; None if nobody knows.
    policy:
        what the guest was promised of its processor, if the stream says.
    """
    seen: dict[tuple[int, int], int] = {}
    strangers: set[int] = set()
    end = 0
    last: HvmEntry | None = None
    for entry in entries(body):
        problem = _chain(entry, first=last is None)
        if problem:
            yield problem
            return
        last, end = entry, entry.offset + HVM_SAVE_HEADER.size + entry.length
        if entry.typecode in (SaveType.HEADER, SaveType.END):
            continue
        key = entry.typecode, entry.instance
        if seen.get(key) == 1:
            yield Objection("HVM-12", f"{_what(entry)} again: the last one counts", entry.offset)
        seen[key] = seen.get(key, 0) + 1
        if _exists(entry, vcpus):
            yield from _entry(entry, policy)
        elif entry.instance not in strangers:
            # What else there is of the same vcpu is no news.
            strangers.add(entry.instance)
            yield _stranger(entry, vcpus)
    if last is None:
        yield Objection("REC-111", "the first entry is not HEADER", 0, "ENODATA")
    elif last.typecode != SaveType.END:
        yield Objection("REC-111", "the last entry is not END", len(body), "ENODATA")
    else:
        yield from _at_the_end(seen)
        if end < len(body):
            yield Objection("HVM-13", f"{len(body) - end} bytes follow END, which nobody reads", end)


def _chain(entry: HvmEntry, *, first: bool) -> Objection | None:
    """REC-111: where hvm_load cannot go on."""
    at = entry.offset
    if first:
        if entry.typecode != SaveType.HEADER or entry.length != ENTRIES[SaveType.HEADER].length or entry.cut:
            return Objection("REC-111", "the first entry is not HEADER", at, "ENODATA")
        start = SaveStart._make(SAVE_START.unpack_from(entry.body))
        where = at + HVM_SAVE_HEADER.size
        if start.magic != SAVE_MAGIC:
            return Objection("REC-111", f"magic {start.magic:#x}; expected {SAVE_MAGIC:#x}", where, "EINVAL")
        if start.version != SAVE_VERSION:
            return Objection("REC-111", f"version {start.version}; expected {SAVE_VERSION}", where, "EINVAL")
    elif entry.typecode > LAST_SAVE_TYPE:
        return Objection("REC-111", f"unknown typecode {entry.typecode}", at, "EINVAL")
    elif entry.typecode == SaveType.HEADER:
        return Objection("REC-111", "a second HEADER, which Xen takes for an unknown type", at, "EINVAL")
    # Xen stops at END without a look at its length.
    elif entry.cut and entry.typecode != SaveType.END:
        return Objection("REC-111", f"{entry.name} of {entry.length} bytes runs past the end", at, "ENODATA")
    return None


def _what(entry: HvmEntry) -> str:
    known = ENTRIES[entry.typecode]
    return f"{entry.name} of vcpu {entry.instance}" if known.per_vcpu else f"{entry.name} {entry.instance}"


def _exists(entry: HvmEntry, vcpus: int | None) -> bool:
    """Whether the domain has what an entry is about."""
    if entry.typecode == SaveType.PIC:
        return entry.instance < PICS
    return vcpus is None or entry.instance < vcpus or not ENTRIES[entry.typecode].per_vcpu


def _stranger(entry: HvmEntry, vcpus: int | None) -> Objection:
    """HVM-02."""
    if entry.typecode == SaveType.PIC:
        return Objection("HVM-02", f"{_what(entry)}; there are {PICS}", entry.offset, "EINVAL")
    have = "the domain has 1 vcpu" if vcpus == 1 else f"the domain has {vcpus} vcpus"
    return Objection("HVM-02", f"{_what(entry)}; {have}", entry.offset, "EINVAL", entry.instance)


def _entry(entry: HvmEntry, policy: Policy | None) -> Iterator[Objection]:
    """What one entry's own handler has to say."""
    problem = _length(entry)
    if problem:
        yield from problem
        return
    match entry.typecode:
        case SaveType.CPU:
            yield from _cpu(entry, policy)
        case SaveType.CPU_XSAVE:
            yield from _xsave(entry, policy)
        case SaveType.CPU_MSR:
            yield from _msrs(entry)
        case SaveType.LAPIC:
            lapic = LapicControl._make(LAPIC_CONTROL.unpack_from(entry.body.ljust(LAPIC_CONTROL.size, b"\0")))
            if lapic.apic_base & (APIC_ENABLE | APIC_X2) == APIC_X2:
                message = f"APIC base {lapic.apic_base:#x}: x2APIC mode without the APIC enabled"
                yield _objection(entry, "HVM-08", message)
        case SaveType.MTRR:
            count = MtrrControl._make(MTRR_CONTROL.unpack_from(entry.body)).cap & MTRR_COUNT
            if count > MTRRS:
                yield _objection(entry, "HVM-09", f"{count} variable MTRRs; at most {MTRRS}")


def _objection(entry: HvmEntry, rule: str, message: str, errno: str = "EINVAL") -> Objection:
    """An objection to an entry of a vcpu."""
    return Objection(rule, f"vcpu {entry.instance}: {message}", entry.offset, errno, entry.instance)


def _length(entry: HvmEntry) -> tuple[Objection, ...]:
    """HVM-01: _hvm_check_entry, and the same for entries that say themselves how long they are."""
    known = ENTRIES[entry.typecode]
    length = entry.length
    if length == known.length or (known.shorter and length < known.length) or (known.longer and length > known.length):
        return ()
    bound = "at most " if known.shorter else "at least " if known.longer else "expected "
    found = Objection(
        "HVM-01",
        f"{_what(entry)} has {length} bytes; {bound}{known.length}",
        entry.offset,
        "EINVAL",
        entry.instance if known.per_vcpu else None,
    )
    if not known.shorter:
        return (found,)
    # The last field may be one that this release does not know, but its successors do.
    later = found._replace(effect=Effect.HOST, severity=Severity.WARNING, since=FORMS_KNOWN_UNTIL)
    return found._replace(until=FORMS_KNOWN_UNTIL), later


def _cpu(entry: HvmEntry, policy: Policy | None) -> Iterator[Objection]:
    """HVM-04 and HVM-05: hvm_load_cpu_ctxt, and the pending event in vmx_vmcs_restore and svm_vmcb_restore."""
    cpu = CpuControl._make(CPU_CONTROL.unpack_from(entry.body.ljust(CPU_CONTROL.size, b"\0")))
    wrong = []
    if cpu.cr0 & ~CR0_DEFINED or not cpu.cr0 & ET or cpu.cr0 & (PE | PG) == PG:
        wrong.append(f"cr0 {cpu.cr0:#x}")
    if cpu.cr4 & ~CR4_DEFINED:
        wrong.append(f"cr4 {cpu.cr4:#x}")
    long_mode = cpu.efer & EFER_LME and cpu.cr0 & PG
    if cpu.efer & ~EFER_DEFINED or (cpu.efer & EFER_LMA and not long_mode):
        wrong.append(f"EFER {cpu.efer:#x} with cr0 {cpu.cr0:#x}")
    if entry.length == ENTRIES[SaveType.CPU].length and (cpu.flags & ~FPU_USED or cpu.pad):
        wrong.append(f"flags {cpu.flags:#x}, reserved word {cpu.pad:#x}")
    if entry.length > CPU_OLD_LENGTHS[0] and _impossible_event(cpu):
        wrong.append(f"pending event {cpu.pending_event:#x}, error code {cpu.error_code:#x}")
    if wrong:
        yield _objection(entry, "HVM-04", "; ".join(wrong))
        return
    if cpu.cr3 >> 52 or (entry.length > CPU_OLD_LENGTHS[0] and cpu.tsc_aux >> 32):
        message = f"cr3 {cpu.cr3:#x}, TSC_AUX {cpu.tsc_aux:#x}: more bits than there are"
        yield _objection(entry, "HVM-04", message)._replace(since=WIDTHS_CHECKED_SINCE)
    if policy is not None:
        yield from _beyond_policy(entry, cpu, policy)


def _impossible_event(cpu: CpuControl) -> bool:
    event = cpu.pending_event
    if not event & EVENT_VALID:
        return False
    wide_error = event & EVENT_HAS_ERROR and cpu.error_code >> 16
    return bool(event >> 8 & 7 not in EVENT_TYPES or event & EVENT_RESERVED or wide_error)


def _beyond_policy(entry: HvmEntry, cpu: CpuControl, policy: Policy) -> Iterator[Objection]:
    """HVM-05: what is switched on, and not promised."""
    for name, value, needs in (("cr4", cpu.cr4, _CR4_NEEDS), ("EFER", cpu.efer, _EFER_NEEDS)):
        for bit in set_bits(value):
            if bit in needs and not any(policy.has(feature) for feature in needs[bit]):
                message = f"{name} {value:#x} uses {' or '.join(needs[bit])}, which the guest's CPU policy lacks"
                yield _objection(entry, "HVM-05", message)


def _xsave(entry: HvmEntry, policy: Policy | None) -> Iterator[Objection]:
    """HVM-05, HVM-06 and HVM-07: validate_xstate, then the size of the area."""
    state = XsaveControl._make(XSAVE_CONTROL.unpack_from(entry.body))
    xcr0, accum = state.xcr0, state.xcr0_accum
    what = f"xcr0 {xcr0:#x}, xcr0_accum {accum:#x}"
    if state.xstate_bv & ~accum or xcr0 & ~accum or not valid_xcr0(xcr0) or not valid_xcr0(accum):
        message = f"{what}, xstate_bv {state.xstate_bv:#x}: not a state a CPU can have"
        yield _objection(entry, "HVM-06", message)
    elif state.xcomp_bv:
        yield _objection(entry, "HVM-06", f"xcomp_bv {state.xcomp_bv:#x}: compressed", "EOPNOTSUPP")
    elif any(state.reserved):
        yield _objection(entry, "HVM-06", "reserved bytes of the XSAVE header are not zero", "EIO")
    else:
        if policy is not None and accum & ~policy.xcr0:
            yield _objection(entry, "HVM-05", f"{what}; the guest's CPU policy has {policy.xcr0:#x}")
        yield from _xsave_size(entry, accum, what, policy)


def _xsave_size(entry: HvmEntry, accum: int, what: str, policy: Policy | None) -> Iterator[Objection]:
    plain = accum & ~(XState.X87 | XState.SSE)
    everywhere = plain in (0, XState.AVX)
    if everywhere:
        size: int | None = XSAVE_AVX_SIZE if plain else XSAVE_LEGACY_SIZE
    else:
        size = policy.xsave_size(accum) if policy is not None else None
    if size is None:
        return
    expected = XSAVE_WORDS_SIZE + size
    if entry.length < expected:
        errno = "EINVAL"
    elif any(entry.body[expected:]):
        errno = "EOPNOTSUPP"
    else:
        return
    found = _objection(entry, "HVM-07", f"{what}: {entry.length} bytes of XSAVE state; expected {expected}", errno)
    yield found if everywhere else found._replace(effect=Effect.HOST, severity=Severity.WARNING)


def _msrs(entry: HvmEntry) -> Iterator[Objection]:
    """HVM-10 and HVM-11: hvm_load_cpu_msrs."""
    (count,) = HVM_MSR_HEADER.unpack_from(entry.body)
    expected = HVM_MSR_HEADER.size + count * HVM_MSR.size
    if entry.length != expected:
        message = f"{entry.length} bytes of MSRs; {count} of them take {expected}"
        yield _objection(entry, "HVM-10", message, "EOPNOTSUPP")
        return
    unknown: tuple[int, HvmMsr | None] = 0, None
    for msr in map(HvmMsr._make, HVM_MSR.iter_unpack(memoryview(entry.body)[HVM_MSR_HEADER.size :])):
        if msr.reserved:
            message = f"the reserved word of MSR {msr.index:#x} is not zero"
            yield _objection(entry, "HVM-10", message, "EOPNOTSUPP")
            return
        if msr.index not in _HVM_MSRS:
            unknown = unknown[0] + 1, unknown[1] or msr
    count, first = unknown
    if first is not None:
        others = f", and {count - 1} more" if count > 1 else ""
        message = f"MSR {first.index:#x} = {first.value:#x} is none that Xen saves{others}"
        yield _objection(entry, "HVM-11", message, "ENXIO")


def _at_the_end(seen: Iterable[tuple[int, int]]) -> Iterator[Objection]:
    """HVM-03: vcpus without a CPU entry stay down."""
    running = {instance for typecode, instance in seen if typecode == SaveType.CPU}
    if not running:
        yield Objection("HVM-03", "no CPU entry at all: the guest comes back without a running vcpu", 0)
    elif 0 not in running:
        message = f"no CPU entry for vcpu 0: it stays down; running: {', '.join(map(str, sorted(running)[:8]))}"
        yield Objection("HVM-03", message, 0, vcpu=0, severity=Severity.WARNING)
