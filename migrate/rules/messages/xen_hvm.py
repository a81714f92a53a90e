"""What Xen prints on its console while an HVM or PVH guest is put together.

Sources: Xen's `arch/x86/hvm/` (`hvm.c`, `save.c`, `mtrr.c`, `irq.c`, `vlapic.c`, `svm/svm.c`, `vmx/vmx.c`),
`arch/x86/cpu/mcheck/vmce.c`, 4.6 to 4.22.
"""

from __future__ import annotations

from typing import Any

from migrate.rules.messages.declaring import Facts, Rules, Says, Voice, message
from streams.wire.hvm_names import LAST_SAVE_TYPE, PICS, SaveType, save_name

# Who it is about, as releases and places in Xen print it before "restore".
_WHOM = ("HVM{domain}.{vcpu} ", "HVM{domain} ", "d{domain}v{vcpu}: HVM ", "")


def _xen(*says: str, **rest: Any) -> Says:
    """A message of Xen; one that begins with "restore" has somebody before it."""
    forms = (whom + form for form in says for whom in (_WHOM if form.startswith("restore") else ("",)))
    return message(Voice.XEN, *forms, **rest)


# No guest has more vcpus than that, in any release.
_MOST_VCPUS = 128
_NOT_A_VCPU = frozenset(SaveType) - {
    *(SaveType.CPU, SaveType.LAPIC, SaveType.LAPIC_REGS, SaveType.MTRR, SaveType.CPU_XSAVE),
    *(SaveType.VIRIDIAN_VCPU, SaveType.VMCE_VCPU, SaveType.TSC_ADJUST, SaveType.CPU_MSR),
}
"""Entries of the domain or of a device: their instance is no vcpu."""

_OF_ENTRY: dict[SaveType, Rules] = {
    SaveType.CPU: ("HVM-04", "HVM-05"),
    SaveType.PIC: ("HVM-16",),
    SaveType.LAPIC: ("HVM-08",),
    SaveType.PCI_LINK: ("HVM-18",),
    SaveType.PIT: ("HVM-17",),
    SaveType.MTRR: ("HVM-09",),
    SaveType.CPU_XSAVE: ("HVM-06", "HVM-05", "HVM-07"),
    SaveType.VIRIDIAN_VCPU: ("HVM-19",),
    SaveType.VMCE_VCPU: ("HVM-20",),
    SaveType.CPU_MSR: ("HVM-11", "HVM-10"),
}
"""What the content of an entry can be refused for."""
_BY_ERRNO: dict[str, frozenset[str]] = {
    "EINVAL": frozenset(
        "HVM-" + n for n in ["01", "02", "04", "05", "06", "07", "08", "09", "16", "17", "18", "19", "20"]
    ),
    "EDOM": frozenset({"HVM-16", "HVM-17", "HVM-11"}),
    "ENXIO": frozenset({"HVM-11"}),
    "EIO": frozenset({"HVM-06"}),
    "EOPNOTSUPP": frozenset({"HVM-06", "HVM-07", "HVM-10"}),
    "ENODEV": frozenset({"HVM-15"}),
    "ENOENT": frozenset({"HVM-02"}),
    "ENODATA": frozenset({"HVM-01", "REC-111"}),
    "EPERM": frozenset({"HVM-01", "HVM-20"}),
}


def _entry(facts: Facts) -> Rules:
    """By the entry that Xen refused: its type, its instance, and the errno where the line has one."""
    kind = _kind(facts)
    of_vcpu = kind not in _NOT_A_VCPU
    instance = facts.number("instance")
    numbered = of_vcpu or kind == SaveType.PIC
    beyond = numbered and instance >= (_MOST_VCPUS if of_vcpu else PICS)
    unknown = ("HVM-02",) if numbered and instance else ()
    if beyond and facts.errno in (None, "EINVAL", "ENOENT"):
        return unknown
    first, *others = (*_OF_ENTRY.get(kind, ()), "HVM-01") if kind is not None else ("HVM-01",)
    # An instance other than 0 is a reason of its own; what else there is stays possible.
    rules = (first, *unknown, *others, "HVM-15", "REC-111")
    if facts.get("phase") == "check" and facts.errno == "EINVAL":
        # What is checked before anything is loaded has ENODATA for its length.
        rules = tuple(rule for rule in rules if rule != "HVM-01")
    allowed = _BY_ERRNO.get(facts.errno or "")
    return rules if allowed is None else tuple(rule for rule in rules if rule in allowed)


def _kind(facts: Facts) -> SaveType | None:
    if "entry" in facts:
        return SaveType.__members__.get(facts["entry"])
    return SaveType(number) if 0 <= (number := facts.number("code")) <= LAST_SAVE_TYPE else None


def _named(facts: Facts) -> dict[str, str]:
    """The name of an entry that the line has by its number."""
    return {"entry": facts.get("entry") or save_name(facts.number("code"))}


def _mismatch(facts: Facts) -> Rules:
    # The first entry has to be the HEADER.
    return ("REC-111",) if facts.number("code") == SaveType.HEADER else ("HVM-01",)


_CHAIN = (
    _xen("restore: bad magic number {magic:hex}", rules=("REC-111",), doing="Xen reads the HEADER of the HVM context"),
    _xen("restore: unsupported version {version}", rules=("REC-111",), doing="Xen reads the HEADER of the HVM context"),
    _xen(
        "restore: save did not end with a null entry",
        rules=("REC-111",),
        doing="Xen goes from entry to entry of the HVM context, and it ends without END",
    ),
    _xen(
        "restore: unknown entry typecode {code}",
        rules=("REC-111",),
        doing="Xen goes from entry to entry of the HVM context, and meets type {code}",
    ),
    _xen(
        "restore: not enough data left to read {length} bytes for type {code} header",
        "restore: not enough data left to read {length} bytes for type {code}",
        rules=lambda facts: ("ORD-17", "REC-111") if facts.number("code") == SaveType.HEADER else ("REC-111", "HVM-01"),
        doing="Xen looks for entry {entry} of the HVM context, and the context ends",
        decides="ORD-17 if there is no HVM_CONTEXT at all.",
        words=_named,
    ),
    _xen(
        "restore: not enough data left to read {length} {_:word} bytes",
        rules=("REC-111", "HVM-01"),
        doing="Xen reads an entry of the HVM context, and the context ends",
    ),
    _xen(
        "restore mismatch: expected {_:word} type {code} length {expected}, saw type {saw} length {length}.",
        "restore mismatch: expected type {code} length {expected}, saw type {saw} length {length}",
        rules=_mismatch,
        doing="Xen reads entry {entry}, type {code} of {expected} bytes, and finds type {saw} of {length} bytes",
        words=_named,
    ),
    _xen(
        "HVM restore d{domain}: failed to {phase:word} {entry:word}:{instance} rc -{error}",
        "restore: failed to load entry {code}/{instance}",
        rules=_entry,
        doing="Xen refuses entry {entry}, instance {instance}",
        decides="A line before this one, if there is one, has the field. Else: a length that this release does not "
        "read "
        "(HVM-01), or the content.",
        words=_named,
    ),
)

_VCPUS = (
    _xen(
        "restore: bad CR4 {value:hex}",
        rules=("HVM-04", "HVM-05"),
        doing="Xen loads a vcpu whose cr4 is {value}",
    ),
    _xen(
        "restore: bad CR{register} {value:hex}",
        rules=("HVM-04",),
        doing="Xen loads a vcpu whose cr{register} is {value}",
    ),
    _xen(
        "restore: bad EFER {value:hex} - {why:gap} without",
        rules=("HVM-05", "HVM-04"),
        doing="Xen loads a vcpu whose EFER is {value}: {why} without the feature",
    ),
    _xen("restore: bad EFER {value:hex}", rules=("HVM-04", "HVM-05"), doing="Xen loads a vcpu whose EFER is {value}"),
    _xen(
        "restore: bad DR6 {_} or DR7 {_}", "restore: bad DR6", rules=("HVM-04",), doing="Xen loads a vcpu's dr6 and dr7"
    ),
    _xen("bad flags value in CPU context: {flags:hex}", rules=("HVM-04",), doing="Xen loads a vcpu, flags {flags}"),
    _xen("restore: bad MSR_TSC_AUX {value:hex}", rules=("HVM-04",), doing="Xen loads a vcpu, TSC_AUX {value}"),
    _xen(
        "Invalid pending event {event:hex}",
        "Invalid CR3 value",
        "svm_vmcb restore failed!",
        "vmx_vmcs restore failed!",
        rules=("HVM-04",),
        doing="Xen loads a vcpu into its processor's form, which does not take a pending event, or cr3",
    ),
    _xen(
        "restore: inconsistent xsave state (feat={features:hex} accum={accum:hex} xcr0={xcr0:hex} bv={bv:hex} err=-",
        rules=lambda facts: ("HVM-06", "HVM-05") if facts.errno == "EINVAL" else ("HVM-06",),
        doing="Xen loads a vcpu's XSAVE state: xcr0 {xcr0}, xcr0_accum {accum}, xstate_bv {bv}; the guest's "
        "features make {features}",
        decides="HVM-05 if xcr0_accum is sound, and more than the guest's features make; else HVM-06.",
    ),
    _xen(
        "restore mismatch: xsave length {length} != {expected}",
        "restore mismatch: xsave length {length} > {expected}",
        "restore mismatch: xsave length {length} < {expected}",
        rules=("HVM-07", "HVM-01"),
        doing="Xen loads a vcpu's XSAVE state, of {length} bytes where {expected} are right",
    ),
    _xen(
        "restore mismatch: MSR length {length} != {expected}",
        rules=("HVM-10",),
        doing="Xen loads a vcpu's MSRs: {length} bytes; as many as it counts take {expected}",
    ),
    _xen("restore mismatch: MSR length {length} < {least}", rules=("HVM-01",), doing="Xen loads a vcpu's MSRs"),
    _xen(
        "HVM d{domain}v{vcpu} load MSR {msr:hex} with value {value:hex} failed",
        "HVM d{domain}v{vcpu} attempted load of unhandled MSR {msr:hex}",
        rules=("HVM-11",),
        doing="Xen loads MSR {msr} of a vcpu",
    ),
    _xen("attempted load of unhandled MSR {msr:hex}", rules=("REC-92",), doing="Xen loads MSR {msr} of a PV vcpu"),
    _xen(
        "HVM restore: dom{domain} has no vcpu{vcpu}",
        "HVM restore: dom{domain} has no vCPU {vcpu}",
        "HVM restore: dom{domain} has no vcpu {vcpu}",
        rules=("HVM-02",),
        doing="Xen loads an entry of vcpu {vcpu}, which the new domain does not have",
    ),
    _xen(
        "HVM restore: unsupported MCA capabilities {caps:hex} for",
        rules=("HVM-20",),
        doing="Xen loads a vcpu's machine check capabilities, {caps}",
    ),
    _xen(
        "too many ({count}) variable range MTRRs",
        rules=("HVM-09",),
        doing="Xen loads a vcpu with {count} variable MTRRs",
    ),
)

_DEVICES = (
    _xen("PCI-ISA link {link} out of range", rules=("HVM-18",), doing="Xen loads the interrupt links of the PCI bus"),
    _xen(
        "failed at arch/x86/hvm/hpet.c",
        "#hpet_set_timer+{_}",
        rules=("HVM-23",),
        doing="A debug build of Xen loads the HPET, and the host goes down",
    ),
    _xen(
        "R hvm_set_segment_register+{_}",
        "(reg->{field:gap} failed at arch/x86/hvm/hvm.c",
        rules=("HVM-22",),
        doing="A debug build of Xen loads a vcpu's segments, and the host goes down",
    ),
    _xen(
        "R update_reference_tsc+{_}",
        "update_reference_tsc+{_}",
        "viridian_synic_deliver_timer_msg+{_}",
        "Bad GMFN {gfn:hex} (MFN",
        rules=("HVM-21",),
        doing="Xen uses a Viridian page of the guest that is not there, and the host may go down",
    ),
)

XEN_HVM: tuple[Says, ...] = (*_VCPUS, *_CHAIN, *_DEVICES)
"""In this order: the first that fits is meant."""
