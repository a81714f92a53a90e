"""What Xen looks at in the entries of an HVM context about interrupts, memory types, machine checks and Viridian.

IOAPIC, LAPIC_REGS, PCI_IRQ, ISA_IRQ and TSC_ADJUST entries it takes as they are.

Sources: vpic_check (`xen/arch/x86/hvm/vpic.c`), lapic_check_hidden and lapic_load_hidden (`vlapic.c`), irq_check_link
and irq_load_link (`irq.c`), hvm_load_mtrr_msr (`mtrr.c`), vmce_load_vcpu_ctxt (`cpu/mcheck/vmce.c`),
viridian_load_domain_ctxt and viridian_load_vcpu_ctxt (`viridian/viridian.c`).
"""

from __future__ import annotations

from collections.abc import Iterator

from migrate.destination import releases
from migrate.rules.declaring import Effect, Severity
from migrate.xen.hvm_entry import Loading
from migrate.xen.machine_checks import taken
from migrate.xen.objection import Objection
from streams.counting import count
from streams.wire.framing import PAGE_SHIFT
from streams.wire.hvm_cpu import MTRR, MTRR_PAIR_VALID, MTRR_RANGES, MTRR_TYPES, PAT_TYPES, VMCE_VCPU, Mtrr
from streams.wire.hvm_interrupts import LAPIC, PCI_LINK, PIC, ApicBase, PicMode
from streams.wire.hvm_viridian import VIRIDIAN_DOMAIN, VIRIDIAN_ENABLED, VIRIDIAN_VCPU

_INIT_STATE = 0xF
# Lines of each PIC that may be triggered by level; the others belong to the timer, the keyboard, the clock and the FPU.
_LEVEL_LINES = (0xFC, 0xDE)
_LINES = 16

_MTRR_COUNT = 0xFF
_DEF_TYPE_BITS = 0xCFF
_BASE_RESERVED, _MASK_RESERVED = 0xF00, MTRR_PAIR_VALID - 1
_DEFAULT_PAT = 0x0007_0406_0007_0406


def pic(one: Loading) -> Iterator[Objection]:
    """HVM-16, from 4.19 on."""
    if not one.domain.has(releases.hvm_two_phases):
        return
    state, number = PIC.read(one.body), one.entry.instance
    master = bool(state.modes & PicMode.IS_MASTER)
    level = _LEVEL_LINES[number]
    if state.int_output > 1:
        message = f"int_output {state.int_output:#x}; at most 1"
        yield one.refused("HVM-16", message, "EDOM", at=PIC.offset("int_output"))
    if master != (number == 0):
        message = f"modes {state.modes:#x}: {'' if master else 'not '}the master, which instance 0 is"
        yield one.refused("HVM-16", message, at=PIC.offset("modes"))
    if state.int_output and state.init_state_and_priority & _INIT_STATE:
        message = f"int_output {state.int_output:#x} in init state {state.init_state_and_priority & _INIT_STATE}"
        yield one.refused("HVM-16", f"{message}; it must be 0 there", at=PIC.offset("init_state_and_priority"))
    if state.elcr & ~level:
        message = f"elcr {state.elcr:#x}: lines outside {level:#x} are not by level"
        yield one.refused("HVM-16", message, at=PIC.offset("elcr"))


def lapic(one: Loading) -> Iterator[Objection]:
    """HVM-08."""
    base = LAPIC.read(one.body).apic_base_msr
    if base & (ApicBase.ENABLED | ApicBase.X2APIC) == ApicBase.X2APIC:
        message = f"APIC base {base:#x}: x2APIC mode without the APIC enabled"
        yield one.refused("HVM-08", message, at=LAPIC.offset("apic_base_msr"))


def pci_link(one: Loading) -> Iterator[Objection]:
    """HVM-18."""
    state = PCI_LINK.read(one.body)
    if any(state.pad) and one.domain.has(releases.hvm_two_phases):
        yield one.refused("HVM-18", f"padding {state.pad.hex()}; expected zeros", at=PCI_LINK.offset("pad"))
    for number, route in enumerate(state.route):
        if route >= _LINES:
            message = f"link {number} goes to line {route}; at most {_LINES - 1}"
            yield one.refused("HVM-18", message, at=PCI_LINK.offset("route", number))


# -- memory types -----------------------------------------------------------------------------------


def mtrr(one: Loading) -> Iterator[Objection]:
    """HVM-09, and HVM-24 for what Xen drops."""
    state = MTRR.read(one.body)
    ranges = state.msr_mtrr_cap & _MTRR_COUNT
    if ranges > MTRR_RANGES and one.domain.has(releases.hvm_widths_checked):
        message = f"MTRRcap {state.msr_mtrr_cap:#x} counts {count(ranges, 'variable range')}; at most {MTRR_RANGES}"
        yield one.refused("HVM-09", message, at=MTRR.offset("msr_mtrr_cap"))
    pat = state.msr_pat_cr
    if any(kind not in PAT_TYPES for kind in pat.to_bytes(8, "little")):
        yield one.held("msr_pat_cr", pat, f"{_DEFAULT_PAT:#x}", at=MTRR.offset("msr_pat_cr"))
    for number, value in enumerate(state.msr_mtrr_fixed):
        if any(kind not in MTRR_TYPES for kind in value.to_bytes(8, "little")):
            at = MTRR.offset("msr_mtrr_fixed", number)
            yield one.held(f"msr_mtrr_fixed[{number}]", value, "0x0", at=at)
    yield from _variable(one, state, min(ranges, MTRR_RANGES))
    kind = state.msr_mtrr_def_type
    if kind & 0xFF not in MTRR_TYPES or kind & ~_DEF_TYPE_BITS:
        yield one.held("msr_mtrr_def_type", kind, "0x0", at=MTRR.offset("msr_mtrr_def_type"))


def _variable(one: Loading, state: Mtrr, ranges: int) -> Iterator[Objection]:
    """Variable ranges. Xen's savers write range 0 into all eight: as it is in all of them, it is told of once."""
    beyond = -1 << one.domain.processor.most.physical_bits
    first = state.msr_mtrr_var[0]
    for number, pair in enumerate(state.msr_mtrr_var):
        if number and pair == first:
            continue
        if number >= ranges:
            if pair.base or pair.mask:
                message = f"variable range {number} is set, and MTRRcap counts {ranges}: Xen leaves it out"
                yield one.noted("HVM-24", message, at=MTRR.offset("msr_mtrr_var", number))
            continue
        if pair.base & 0xFF not in MTRR_TYPES or pair.base & (_BASE_RESERVED | beyond):
            at = MTRR.offset("msr_mtrr_var", number, "base")
            yield one.held(f"msr_mtrr_var[{number}].base", pair.base, "0x0", at=at)
        if pair.mask & (_MASK_RESERVED | beyond):
            at = MTRR.offset("msr_mtrr_var", number, "mask")
            yield one.held(f"msr_mtrr_var[{number}].mask", pair.mask, "0x0", at=at)


# -- machine checks ---------------------------------------------------------------------------------


def vmce(one: Loading) -> Iterator[Objection]:
    """HVM-20."""
    caps = VMCE_VCPU.read(one.body).caps
    answer = taken(caps, one.domain.release, one.domain.processor.intel)
    if answer is False:
        yield one.refused("HVM-20", f"machine check capabilities {caps:#x}: bits that Xen does not take there", at=0)
    elif answer is None:
        severity = Severity.WARNING if one.domain.from_intel is False else Severity.INFO
        message = f"machine check capabilities {caps:#x}, which hosts of Intel alone take"
        yield one.left_to_host("HVM-20", message, "EINVAL", severity=severity, at=0)


# -- Viridian ---------------------------------------------------------------------------------------


def viridian_domain(one: Loading) -> Iterator[Objection]:
    """HVM-21 and HVM-26."""
    state = VIRIDIAN_DOMAIN.read(one.body)
    if one.domain.viridian is False:
        yield from _unread(one)
    else:
        yield from _fatal_page(one, "reference_tsc", state.reference_tsc, "as the guest is unpaused")


def viridian_vcpu(one: Loading) -> Iterator[Objection]:
    """HVM-19, HVM-21 and HVM-26."""
    state = VIRIDIAN_VCPU.read(one.body)
    if any(state.pad) and one.domain.has(releases.hvm_viridian_assist):
        yield one.refused("HVM-19", f"padding {state.pad.hex()}; expected zeros", at=VIRIDIAN_VCPU.offset("pad"))
    if one.domain.viridian is False:
        yield from _unread(one)
    else:
        when = "as soon as a synthetic timer of the guest fires"
        yield from _fatal_page(one, "simp_msr", state.simp_msr, when)


def _unread(one: Loading) -> Iterator[Objection]:
    """HVM-26: without param VIRIDIAN Xen passes over the contents, which is no loss where they are zeros."""
    message = "Xen passes over it, for no HVM param VIRIDIAN turns the interface on"
    if any(one.body):
        yield one.noted("HVM-26", message)
    else:
        yield one.noted("HVM-26", message, effect=Effect.TOLERATED, severity=Severity.WARNING)


def _fatal_page(one: Loading, field: str, value: int, when: str) -> Iterator[Objection]:
    """HVM-21: a page in use that the guest does not have, which Xen writes to all the same."""
    domain = one.domain
    pfn = value >> PAGE_SHIFT
    if not (domain.has(releases.hvm_viridian_synic) and value & VIRIDIAN_ENABLED and domain.viridian):
        return
    if domain.has(releases.viridian_pages_survived) or domain.has_frame is None or domain.has_frame(pfn):
        return
    layout = VIRIDIAN_DOMAIN if field == "reference_tsc" else VIRIDIAN_VCPU
    message = f"{field} {value:#x} names pfn {pfn:#x}, which the guest does not have: the host dies {when}"
    yield one.noted("HVM-21", message, at=layout.offset(field))
