"""What Xen looks at in the CPU entries of an HVM context: control registers, flags, the pending event, segments.

Sources: hvm_load_cpu_ctxt, hvm_cr4_guest_valid_bits and hvm_efer_valid (`xen/arch/x86/hvm/hvm.c`), vmx_vmcs_restore and
svm_vmcb_restore; for what a debug build asserts hvm_set_segment_register.
"""

from __future__ import annotations

from collections.abc import Iterator

from migrate.destination import releases
from migrate.destination.releases import Change
from migrate.rules.declaring import Effect, Severity
from migrate.xen.hvm_entry import Loading
from migrate.xen.hvm_segments import asserted
from migrate.xen.objection import Objection
from streams.counting import count
from streams.values import NamedTuple
from streams.wire.cpu_features import set_bits
from streams.wire.hvm_cpu import (
    CPU,
    EVENT_TYPE_MASK,
    EVENT_TYPE_SHIFT,
    OLDEST_CPU_SIZE,
    SEGMENTS,
    Cpu,
    CpuFlag,
    EventType,
    PendingEvent,
)
from streams.wire.registers import Cr0, Cr4, Efer

_U16, _U32 = 0xFFFF, 0xFFFF_FFFF
MOST_PHYSICAL_BITS = 52
# Of an IntFlag, ~ knows the defined bits alone: masks are plain numbers.
_FLAGS = int(CpuFlag.FPU_USED)

CR0_DEFINED = int(Cr0.PE | Cr0.MP | Cr0.EM | Cr0.TS | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.NW | Cr0.CD | Cr0.PG)


class Needs(NamedTuple):
    """What a bit of cr4 or EFER takes: any one of these features, and a release that knows the bit."""

    features: tuple[str, ...]
    since: Change = releases.every_release


CR4_NEEDS: dict[int, Needs] = {
    Cr4.VME: Needs(("vme",)),
    Cr4.PVI: Needs(("vme",)),
    Cr4.TSD: Needs(("tsc",)),
    Cr4.DE: Needs(("de",)),
    Cr4.PSE: Needs(("pse",)),
    Cr4.PAE: Needs(("pae",)),
    Cr4.MCE: Needs(("mce", "mca")),
    Cr4.PGE: Needs(("pge",)),
    Cr4.PCE: Needs(()),
    Cr4.OSFXSR: Needs(("fxsr",)),
    Cr4.OSXMMEXCPT: Needs(("sse",)),
    Cr4.UMIP: Needs(("umip",), releases.umip),
    Cr4.VMXE: Needs(("vmx",)),
    Cr4.FSGSBASE: Needs(("fsgsbase",)),
    Cr4.PCIDE: Needs(("pcid",)),
    Cr4.OSXSAVE: Needs(("xsave",)),
    Cr4.SMEP: Needs(("smep",)),
    Cr4.SMAP: Needs(("smap",)),
    Cr4.PKE: Needs(("pku",), releases.pku),
    Cr4.CET: Needs(("cet_ss", "cet_ibt")),
    Cr4.PKS: Needs(("pks",), releases.pks),
    Cr4.LASS: Needs(("lass",), releases.lass),
}
"""Bits of cr4 that some Xen lets a guest have; PCE takes nothing."""

EFER_NEEDS: dict[int, Needs] = {
    Efer.SCE: Needs(("syscall",)),
    Efer.LME: Needs(("lm",)),
    Efer.LMA: Needs(("lm",)),
    Efer.NX: Needs(("nx",)),
    Efer.SVME: Needs(("svm",)),
    Efer.FFXSE: Needs(("ffxsr",)),
    Efer.AIBRSE: Needs(("auto_ibrs",), releases.auto_ibrs),
}

# Features of every processor that an HVM guest can run on: nothing is left to the host where a stream brings no policy.
_EVERYWHERE = frozenset(["vme", "tsc", "de", "pse", "pae", "mce", "mca", "pge", "fxsr", "sse", "syscall", "lm", "nx"])

_DR6_ONES, _DR6_ZEROS = 0xFFFF_0FF0, 1 << 12
_DR7_ZEROS = 1 << 12 | 1 << 14 | 1 << 15
# Reserved bits that are none where the processor has a feature.
_DR6_RTM, _DR6_BUS_LOCK, _DR7_RTM = 1 << 16, 1 << 11, 1 << 11

_EVENT_RESERVED = 0x7FFF_F000
# What AMD's processors cannot inject.
_SOFTWARE_EXCEPTIONS = (EventType.PRIVILEGED_SOFTWARE_EXCEPTION, EventType.SOFTWARE_EXCEPTION)

# arbytes as VMX has them, with the unusable bit, as opposed to SVM's: bits 15..12 set, 11..8 clear.
_VMX_ATTRIBUTES, _SVM_ATTRIBUTES = 0xF000, 0x0F00


def objections(one: Loading) -> Iterator[Objection]:
    """All that is to be said of a CPU entry, in the order in which Xen looks at it."""
    if len(one.body) < _at("cr0"):
        yield one.refused(
            "HVM-04", f"{count(len(one.body), 'byte')}: without a cr0, which Xen takes for 0", at=_at("cr0")
        )
        return
    cpu = _read(one)
    refused = False
    for objection in _refusals(one, cpu):
        refused |= objection.fatal
        yield objection
    if refused:
        return
    yield from _held(one, cpu)
    if one.domain.has(releases.hvm_segments_asserted):
        yield from _asserted(one, cpu)


def _read(one: Loading) -> Cpu:
    """The fields, as Xen lays them out: the oldest form has no TSC_AUX, and all behind it lies 8 bytes earlier.

    In entries of another length than today's the FPU is always in use, whatever there is of the flags.
    """
    body = one.body
    if len(body) == OLDEST_CPU_SIZE:
        gap = CPU.offset("msr_tsc_aux")
        body = body[:gap] + bytes(8) + body[gap:]
    cpu = CPU.read(body)
    return cpu if len(body) == CPU.size else cpu._replace(flags=_FLAGS)


def _at(field: str) -> int:
    return CPU.offset(field)


def _refusals(one: Loading, cpu: Cpu) -> Iterator[Objection]:
    has = one.domain.has

    def impossible(field: str, value: int, why: str) -> Objection:
        return one.refused("HVM-04", f"{field} {value:#x}: {why}", at=_at(field))

    if cpu.pad0 and has(releases.hvm_cpu_flags):
        yield impossible("pad0", cpu.pad0, "reserved, and expected to be 0")
    if cpu.cr0 & ~CR0_DEFINED:
        yield impossible("cr0", cpu.cr0, f"bits outside {CR0_DEFINED:#x}")
    elif not cpu.cr0 & Cr0.ET:
        yield impossible("cr0", cpu.cr0, "without ET, which no processor clears")
    elif cpu.cr0 & (Cr0.PE | Cr0.PG) == Cr0.PG:
        yield impossible("cr0", cpu.cr0, "paging without protected mode")
    yield from _cr4(one, cpu.cr4)
    yield from _efer(one, cpu)
    if has(releases.debug_registers_checked):
        for field, value in (("dr6", cpu.dr6), ("dr7", cpu.dr7)):
            if value > _U32:
                yield impossible(field, value, "wider than 32 bits")
    if has(releases.hvm_cr3_checked):
        bits = one.domain.processor.most.physical_bits
        if cpu.cr3 >> bits:
            rule = "HVM-04" if cpu.cr3 >> MOST_PHYSICAL_BITS else "HVM-05"
            yield one.refused(rule, f"cr3 {cpu.cr3:#x}: wider than the guest's {bits} bits of address", at=_at("cr3"))
    if cpu.flags & ~_FLAGS and has(releases.hvm_cpu_flags):
        yield impossible("flags", cpu.flags, "bits other than bit 0")
    if cpu.msr_tsc_aux > _U32 and has(releases.hvm_widths_checked):
        yield impossible("msr_tsc_aux", cpu.msr_tsc_aux, "wider than 32 bits")
    yield from _event(one, cpu)


# -- cr4 and EFER -----------------------------------------------------------------------------------


def _cr4(one: Loading, cr4: int) -> Iterator[Objection]:
    known = sum(int(bit) for bit, needs in CR4_NEEDS.items() if one.domain.has(needs.since))
    if cr4 & ~known:
        message = f"cr4 {cr4:#x}: bits outside {known:#x}, which {one.domain.release} gives to no guest"
        yield one.refused("HVM-04", message, at=_at("cr4"))
    yield from _by_policy(one, "cr4", cr4 & known, Cr4, CR4_NEEDS)


def _efer(one: Loading, cpu: Cpu) -> Iterator[Objection]:
    has = one.domain.has
    efer = cpu.msr_efer
    known = sum(int(bit) for bit, needs in EFER_NEEDS.items() if has(needs.since))
    lmsle = 0 if has(releases.hvm_lmsle_gone) else int(Efer.LMSLE)
    unknown = efer & ~(known | lmsle)
    if unknown and has(releases.hvm_efer_checked):
        message = f"EFER {efer:#x}: bits outside {known | lmsle:#x}, which {one.domain.release} gives to no guest"
        yield one.refused("HVM-04", message, at=_at("msr_efer"))
    if efer & Efer.LMA and not (efer & Efer.LME and cpu.cr0 & Cr0.PG):
        message = f"EFER {efer:#x} with cr0 {cpu.cr0:#x}: long mode is active without LME or paging"
        yield one.refused("HVM-04", message, at=_at("msr_efer"))
    yield from _by_policy(one, "msr_efer", efer & known, Efer, EFER_NEEDS)


def _by_policy(
    one: Loading, field: str, value: int, names: type[Cr4] | type[Efer], needs: dict[int, Needs]
) -> Iterator[Objection]:
    """HVM-05: what is switched on, and the guest's processor cannot do; up to 4.11 the host's features decide."""
    processor, judged = one.domain.processor, one.domain.has(releases.hvm_by_policy)
    what = "EFER" if names is Efer else "cr4"
    open_to_host = []
    for number in set_bits(value):
        bit = 1 << number
        features = needs[bit].features
        have = [processor.has(feature) if judged else None for feature in features]
        if not features or True in have or (not _EVERYWHERE.isdisjoint(features) and None in have):
            continue
        if None in have:
            open_to_host.append(names(bit).name or "")
            continue
        message = f"{what} {value:#x}: {names(bit).name} takes {' or '.join(features)}, which the guest does not get"
        message += processor.not_offered(*features)
        yield one.refused("HVM-05", message, at=_at(field))
    if open_to_host:
        message = f"{what} {value:#x}: the host has to have {', '.join(open_to_host)}"
        yield one.left_to_host("HVM-05", message, "EINVAL", at=_at(field))


# -- the pending event ------------------------------------------------------------------------------


def _event(one: Loading, cpu: Cpu) -> Iterator[Objection]:
    event = cpu.pending_event
    if not event & PendingEvent.VALID:
        return
    kind = event >> EVENT_TYPE_SHIFT & EVENT_TYPE_MASK
    checked = one.domain.has(releases.hvm_event_checked)
    why = None
    if kind == EventType.RESERVED or kind > EventType.SOFTWARE_EXCEPTION:
        why = f"there is no event of type {kind}"
    elif event & _EVENT_RESERVED:
        why = "reserved bits are set"
    elif checked and event & PendingEvent.HAS_ERROR_CODE and cpu.error_code > _U16:
        why = f"its error code {cpu.error_code:#x} is wider than 16 bits"
    elif checked and kind in _SOFTWARE_EXCEPTIONS:
        intel = one.domain.processor.intel
        message = f"pending event {event:#x} of type {kind}, which processors of AMD cannot inject"
        if intel is False:
            yield one.refused("HVM-04", message, at=_at("pending_event"))
        elif intel is None:
            severity = Severity.INFO if one.domain.from_intel is not False else Severity.WARNING
            yield one.left_to_host("HVM-04", message, "EINVAL", severity=severity, at=_at("pending_event"))
    if why:
        yield one.refused("HVM-04", f"pending event {event:#x}: {why}", at=_at("pending_event"))


# -- what Xen holds otherwise -----------------------------------------------------------------------


def _held(one: Loading, cpu: Cpu) -> Iterator[Objection]:
    """HVM-24 and HVM-25: what it takes, and changes."""
    yield from _debug_registers(one, cpu)
    if not cpu.rflags & _ALWAYS_SET:
        yield one.held("rflags", cpu.rflags, f"{cpu.rflags | _ALWAYS_SET:#x}", at=_at("rflags"))
    for segment in SEGMENTS:
        selector, attributes = getattr(cpu, f"{segment}_sel"), getattr(cpu, f"{segment}_arbytes")
        if selector > _U16:
            yield one.held(f"{segment}_sel", selector, f"{selector & _U16:#x}", at=_at(f"{segment}_sel"))
        folded = unfold(attributes)
        if folded > _U16:
            yield one.held(f"{segment}_arbytes", attributes, f"{folded & _U16:#x}", at=_at(f"{segment}_arbytes"))
    if cpu.error_code and not cpu.pending_event & PendingEvent.VALID:
        yield one.held("error_code", cpu.error_code, "0x0, for no event is pending", at=_at("error_code"))
    if one.domain.has(releases.hvm_cpu_flags):
        yield from _fpu(one, cpu)
    if cpu.cr0 & (Cr0.NW | Cr0.CD) == Cr0.NW and one.domain.processor.intel is not True:
        message = f"cr0 {cpu.cr0:#x}: NW without CD, which processors of AMD do not run: the guest crashes at once"
        intel = one.domain.processor.intel
        effect = Effect.CORRUPT if intel is False else Effect.HOST
        severity = Severity.ERROR if intel is False else Severity.WARNING
        yield one.noted("HVM-28", message, effect=effect, severity=severity, at=_at("cr0"))


# Bit 1 of rflags is always set.
_ALWAYS_SET = 1 << 1


def _debug_registers(one: Loading, cpu: Cpu) -> Iterator[Objection]:
    if not one.domain.has(releases.debug_registers_checked):
        if cpu.dr6 > _U32:
            yield one.held("dr6", cpu.dr6, f"{cpu.dr6 & _U32:#x}", at=_at("dr6"))
        return
    has = one.domain.processor.has
    # Of features that only the host can tell of, nothing is said.
    spared6 = (_DR6_RTM if has("rtm") is not False else 0) | (
        _DR6_BUS_LOCK if has("bus_lock_detect") is not False else 0
    )
    held = (cpu.dr6 | _DR6_ONES & ~spared6) & ~_DR6_ZEROS
    if cpu.dr6 <= _U32 and held != cpu.dr6:
        yield one.held("dr6", cpu.dr6, f"{held:#x}", at=_at("dr6"))
    held = cpu.dr7 & ~(_DR7_ZEROS | (0 if has("rtm") is not False else _DR7_RTM))
    if cpu.dr7 <= _U32 and held != cpu.dr7:
        yield one.held("dr7", cpu.dr7, f"{held:#x}", at=_at("dr7"))


def _fpu(one: Loading, cpu: Cpu) -> Iterator[Objection]:
    """The FPU's state counts where bit 0 of the flags says so."""
    if not cpu.flags & CpuFlag.FPU_USED and any(one.body[: CPU.offset("rax")]):
        message = "the FPU's state is not zero, but the flags say that it is not used: Xen resets it"
        yield one.noted("HVM-24", message, at=_at("flags"))


def unfold(attributes: int) -> int:
    """Attributes of a segment as Xen reads them: VMX's form is brought into SVM's, which it keeps 16 bits of."""
    if attributes & _VMX_ATTRIBUTES and not attributes & _SVM_ATTRIBUTES:
        return attributes & 0xFF | attributes >> 4 & _SVM_ATTRIBUTES
    return attributes


def _asserted(one: Loading, cpu: Cpu) -> Iterator[Objection]:
    """HVM-22: what brings a debug build of Xen down."""
    for field, value, why in asserted(cpu, unfold):
        yield one.noted("HVM-22", f"{field} {value:#x}: {why}", at=_at(field))
