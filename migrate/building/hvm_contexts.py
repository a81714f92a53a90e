"""HVM contexts: the saved hardware of a guest that waits in its kernel, with any of the entries that Xen knows.

    hvm_context(vcpus=2)                                # a PC with two processors
    hvm_context(1, PVH)                                 # a PVH guest: a local APIC alone
    edit(b.hvm_context, SaveType.CPU, cr0=0)            # another cr0 for vcpu 0
    add(b.hvm_context, SaveType.PCI_LINK, bytes(8))     # one more entry, before END

Entries have the form that every release from 4.14 on takes, unless `Hardware.lengths` tells others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from migrate.building.parts import DR6, DR7, EFLAGS, KERNEL_STACK, KERNEL_TEXT, TSC_KHZ
from streams.hvm_context import HvmEntry, decode_context, encode_context
from streams.wire.cpu_features import HOME
from streams.wire.framing import HVM_SAVE_HEADER, NO_SUBLEAF
from streams.wire.hvm_cpu import (
    CPU,
    CPU_MSR,
    CPU_MSRS,
    MTRR,
    MTRR_RANGES,
    TSC_ADJUST,
    VMCE_VCPU,
    XSAVE,
    CpuFlag,
    CpuMsr,
    MtrrCap,
    MtrrDefType,
    MtrrPair,
)
from streams.wire.hvm_entries import LAYOUTS, SAVE_HEADER, SaveHeader
from streams.wire.hvm_interrupts import (
    IOAPIC,
    IOAPIC_PINS,
    ISA_IRQ,
    LAPIC,
    LAPIC_REGS,
    PCI_IRQ,
    PCI_LINK,
    PIC,
    ApicBase,
    PicMode,
    Redirection,
)
from streams.wire.hvm_names import PICS, SAVE_MAGIC, SAVE_VERSION, SaveType, save_name
from streams.wire.hvm_timers import HPET, HPET_TIMERS, PIT, PIT_CHANNELS, PMTIMER, RTC, RtcControl
from streams.wire.hvm_viridian import VIRIDIAN_DOMAIN, VIRIDIAN_VCPU, SyntheticInterrupt
from streams.wire.lapic import LAPIC_REGISTER, LAPIC_REGISTERS
from streams.wire.layouts import Layout
from streams.wire.msrs import Msr
from streams.wire.registers import Cr0, Cr4
from streams.wire.xstate import FXSAVE, XSAVE_AVX_SIZE, XSAVE_LEGACY_SIZE, XState

SIGNATURE = 0x60FB1
"""eax of CPUID leaf 1 on the host that saved the guest."""

_TASK = 0xC030_0000
_FCW, _MXCSR = 0x37F, 0x1F80
_FLAT = 0xFFFF_FFFF
# Attributes of present segments: flat code and data, a busy TSS.
_CODE, _DATA, _TSS = 0xC9B, 0xC93, 0x8B
_TASK_LIMIT, _TABLE_LIMIT = 0x67, 0xFFF

_PAT = 0x0007_0406_0007_0406
_WRITE_BACK = 0x0606_0606_0606_0606
_LAPIC_BASE, _IOAPIC_BASE = 0xFEE0_0000, 0xFEC0_0000
_HPET_CAPABILITY = 0xF4_2400_8086_A201
# Routes of an HPET timer that its interrupts may take: lines 20 to 23.
_HPET_ROUTES = 0xF0_0000 << 32
_LAPIC_RESET = {"version": 0x5_0014, "dfr": 0xFFFF_FFFF, "svr": 0x1FF, "timer_divide": 0xA}
_LVT_MASKED = ("lvt_timer", "lvt_thermal", "lvt_pmc", "lvt_lint0", "lvt_lint1", "lvt_error")

XCR0 = int(XState.X87 | XState.SSE | XState.AVX)
XSAVE_FEATURES = ("xsave", "avx")
VIRIDIAN_FEATURES = 0x5  # the base features and the reference counter, as every release knows them
CPUID_FAULTING = 1 << 31


class Hardware(NamedTuple):
    """What an HVM guest's saver has to write of.

    Attributes
    ----------
    emulated:
        whether the guest has the devices of a PC; a PVH guest has not.
    viridian:
        whether it uses the interface of Hyper-V: VIRIDIAN_DOMAIN and VIRIDIAN_VCPU, param VIRIDIAN.
    xsave:
        whether it uses XSAVE: CPU_XSAVE with AVX, and a CPU policy that promises it.
    msrs:
        whether it has CPUID fault: CPU_MSR, and PLATFORM_INFO in the policy.
    lengths:
        of entries, by type, where they are not those of 4.14: longer ones end in zeros.
    """

    emulated: bool = True
    viridian: bool = False
    xsave: bool = False
    msrs: bool = False
    lengths: Mapping[int, int] = MappingProxyType({})


PC, PVH = Hardware(), Hardware(emulated=False)
EVERYTHING = Hardware(viridian=True, xsave=True, msrs=True)
"""All types of entries that there are."""


def hvm_context(vcpus: int = 1, hardware: Hardware = PC) -> bytes:
    """Body of an HVM_CONTEXT record, its entries in a saver's order."""
    known = {**_LENGTHS, **hardware.lengths}
    parts = []
    for kind, instance, body in _entries(vcpus, hardware):
        length = known.get(kind, len(body))
        parts.append(pack_entry(kind, body[:length].ljust(length, b"\0"), instance))
    return b"".join([*parts, pack_entry(SaveType.END, b"")])


# LAPIC has grown since, and the longer form is refused by releases that do not know it.
_LENGTHS: Mapping[int, int] = {SaveType.LAPIC: LAPIC.offset("pending_esr")}


def pack_entry(kind: int, body: bytes, instance: int = 0) -> bytes:
    """An entry as bytes."""
    return HVM_SAVE_HEADER.pack(kind, instance, len(body)) + body


def add(context: bytearray, kind: int, body: bytes, instance: int = 0) -> None:
    """Put one more entry before the last one (END)."""
    end = decode_context(bytes(context)).entries[-1].offset
    context[end:end] = pack_entry(kind, body, instance)


def drop(context: bytearray, kind: int) -> None:
    """Take out the entries of one type."""
    state = decode_context(bytes(context))
    context[:] = encode_context(replace(state, entries=tuple(e for e in state.entries if e.typecode != kind)))


def edit(context: bytearray, kind: int, instance: int = 0, **fields: Any) -> None:
    """Change fields of an entry, as its layout names them; its length stays.

    Raises
    ------
    LookupError
        where there is no such entry.
    """
    entry = next((e for e in _entries_of(context) if (e.typecode, e.instance) == (kind, instance)), None)
    if entry is None:
        raise LookupError(f"no entry {save_name(kind)} {instance}")
    layout = LAYOUTS[kind]
    packed = layout.pack(layout.read(entry.body)._replace(**fields))[: len(entry.body)]
    start = entry.offset + HVM_SAVE_HEADER.size
    context[start : start + len(packed)] = packed


def resize(context: bytearray, kind: int, length: int, instance: int = 0) -> None:
    """Cut an entry to a length, or fill it up with zeros."""
    parts = [
        pack_entry(e.typecode, e.body[:length].ljust(length, b"\0"), instance)
        if (e.typecode, e.instance) == (kind, instance)
        else pack_entry(e.typecode, e.body, e.instance)
        for e in _entries_of(context)
    ]
    context[:] = b"".join(parts)


def _entries_of(context: bytearray) -> tuple[HvmEntry, ...]:
    return decode_context(bytes(context)).entries


def promise_xsave(leaves: list[dict[str, int]]) -> None:
    """Add to a policy's leaves what a guest that uses XSAVE was promised."""
    for feature in XSAVE_FEATURES:
        word, bit = HOME[feature]
        leaf = next(leaf for leaf in leaves if (leaf["leaf"], leaf["subleaf"]) == (word.leaf, NO_SUBLEAF))
        leaf[word.register[1]] |= 1 << bit
    for subleaf, (a, b) in {0: (XCR0, 0), 2: (XSAVE_AVX_SIZE - XSAVE_LEGACY_SIZE, XSAVE_LEGACY_SIZE)}.items():
        leaves.append({"leaf": 0xD, "subleaf": subleaf, "a": a, "b": b, "c": 0, "d": 0})


# -- entries ----------------------------------------------------------------------------------------


def _entries(vcpus: int, hardware: Hardware) -> Iterator[tuple[int, int, bytes]]:
    """Type, instance and body of all but END, types ascending, each for all vcpus in turn."""

    def of_vcpus(kind: int, body: Any) -> Iterator[tuple[int, int, bytes]]:
        return ((kind, vcpu, body(vcpu)) for vcpu in range(vcpus))

    yield SaveType.HEADER, 0, SAVE_HEADER.pack(SaveHeader(SAVE_MAGIC, SAVE_VERSION, 2**64 - 1, SIGNATURE, TSC_KHZ))
    yield from of_vcpus(SaveType.CPU, _cpu)
    if hardware.emulated:
        yield from ((SaveType.PIC, instance, _pic(instance)) for instance in range(PICS))
        yield SaveType.IOAPIC, 0, _ioapic()
    yield from of_vcpus(SaveType.LAPIC, _lapic)
    yield from of_vcpus(SaveType.LAPIC_REGS, _lapic_registers)
    yield from ((kind, 0, bytes(size)) for kind, size in _LINES.items())
    if hardware.emulated:
        yield from ((kind, 0, body()) for kind, body in _CLOCKS.items())
    yield from of_vcpus(SaveType.MTRR, _mtrr)
    if hardware.viridian:
        yield SaveType.VIRIDIAN_DOMAIN, 0, _filled(VIRIDIAN_DOMAIN, guest_os_id=0x8100_0001_0601_0000)
    if hardware.xsave:
        yield from of_vcpus(SaveType.CPU_XSAVE, _xsave)
    if hardware.viridian:
        yield from of_vcpus(SaveType.VIRIDIAN_VCPU, _viridian_vcpu)
    yield from of_vcpus(SaveType.VMCE_VCPU, lambda vcpu: _filled(VMCE_VCPU, caps=2))
    yield from of_vcpus(SaveType.TSC_ADJUST, lambda vcpu: bytes(TSC_ADJUST.size))
    if hardware.msrs:
        yield from of_vcpus(SaveType.CPU_MSR, _msrs)


def _filled(layout: Layout[Any], **fields: Any) -> bytes:
    """An entry of zeros but for these fields."""
    return layout.pack(layout.read(b"")._replace(**fields))


_LINES = {SaveType.PCI_IRQ: PCI_IRQ.size, SaveType.ISA_IRQ: ISA_IRQ.size, SaveType.PCI_LINK: PCI_LINK.size}


def _cpu(vcpu: int) -> bytes:
    """A vcpu in its kernel, 32 bits wide and without paging."""
    data = ("ds", "es", "ss")
    segments = {f"{name}_limit": _FLAT for name in ("cs", *data)} | {f"{name}_arbytes": _DATA for name in data}
    return _filled(
        CPU,
        fpu_regs=FXSAVE.read(b"")._replace(fcw=_FCW, mxcsr=_MXCSR),
        rip=KERNEL_TEXT[4],
        rsp=KERNEL_STACK[4],
        rflags=EFLAGS,
        cr0=int(Cr0.PE | Cr0.ET | Cr0.NE),
        cr4=int(Cr4.OSFXSR | Cr4.OSXMMEXCPT),
        dr6=DR6,
        dr7=DR7,
        cs_arbytes=_CODE,
        **segments,
        tr_base=_TASK,
        tr_limit=_TASK_LIMIT,
        tr_arbytes=_TSS,
        gdtr_limit=_TABLE_LIMIT,
        idtr_limit=_TABLE_LIMIT,
        tsc=vcpu + 1,
        flags=int(CpuFlag.FPU_USED),
    )


def _pic(instance: int) -> bytes:
    master = int(PicMode.IS_MASTER) if instance == 0 else 0
    return _filled(PIC, imr=0xFF, irq_base=0x20 + 8 * instance, modes=master, elcr=0xC if instance else 0)


def _ioapic() -> bytes:
    masked = int(Redirection.MASKED)
    return _filled(IOAPIC, base_address=_IOAPIC_BASE, id=1, redirtbl=(masked,) * IOAPIC_PINS)


def _lapic(vcpu: int) -> bytes:
    first = ApicBase.BSP if vcpu == 0 else 0
    return _filled(LAPIC, apic_base_msr=_LAPIC_BASE | int(ApicBase.ENABLED | first), timer_divisor=0x80)


def _lapic_registers(vcpu: int) -> bytes:
    page = bytearray(LAPIC_REGS.size)
    masked = int(Redirection.MASKED)
    values = _LAPIC_RESET | dict.fromkeys(_LVT_MASKED, masked) | {"id": 2 * (vcpu & 0x7F) << 24}
    for name, value in values.items():
        LAPIC_REGISTER.pack_into(page, LAPIC_REGISTERS[name], value)
    return bytes(page)


def _pit() -> bytes:
    channel = PIT.read(b"").channels[0]._replace(count=0x1_0000, read_state=3, write_state=3, rw_mode=3, mode=2, gate=1)
    return _filled(PIT, channels=(channel,) * PIT_CHANNELS)


def _rtc() -> bytes:
    registers = bytearray(10) + bytes([0x26, int(RtcControl.HOURS_24), 0, 0x80])
    return _filled(RTC, cmos_data=bytes(registers))


def _hpet() -> bytes:
    timer = HPET.read(b"").timers[0]._replace(config=_HPET_ROUTES, cmp=2**64 - 1)
    return _filled(HPET, capability=_HPET_CAPABILITY, timers=(timer,) * HPET_TIMERS)


def _pmtimer() -> bytes:
    return bytes(PMTIMER.size)


_CLOCKS = {SaveType.PIT: _pit, SaveType.RTC: _rtc, SaveType.HPET: _hpet, SaveType.PMTIMER: _pmtimer}


def _mtrr(vcpu: int) -> bytes:
    """The low 640 KiB are write-back, what is nowhere else is write-back, too; a hole below 4 GiB is not."""
    hole = MtrrPair(0xF000_0000, 0xF_F000_0800)
    return _filled(
        MTRR,
        msr_pat_cr=_PAT,
        msr_mtrr_var=(hole,) * MTRR_RANGES,  # Xen writes the first into all of them
        msr_mtrr_fixed=(_WRITE_BACK, _WRITE_BACK, *(0,) * 9),
        msr_mtrr_cap=int(MtrrCap.FIXED | MtrrCap.WC) | MTRR_RANGES,
        msr_mtrr_def_type=int(MtrrDefType.ENABLED | MtrrDefType.FIXED_ENABLED) | 6,
    )


def _xsave(vcpu: int) -> bytes:
    area = FXSAVE.read(b"")._replace(fcw=_FCW, mxcsr=_MXCSR)
    state = _filled(XSAVE, xfeature_mask=XCR0, xcr0=XCR0, xcr0_accum=XCR0, fxsave=area, xstate_bv=XCR0)
    return state + bytes(XSAVE_AVX_SIZE - XSAVE_LEGACY_SIZE)


def _viridian_vcpu(vcpu: int) -> bytes:
    """No page and no timer is in use."""
    return _filled(VIRIDIAN_VCPU, sint_msr=(int(SyntheticInterrupt.MASKED),) * len(VIRIDIAN_VCPU.read(b"").sint_msr))


def _msrs(vcpu: int) -> bytes:
    """CPUID faulting is on."""
    return CPU_MSRS.pack(CPU_MSRS.read(b"")._replace(count=1)) + CPU_MSR.pack(
        CpuMsr(Msr.INTEL_MISC_FEATURES_ENABLES, 0, 1)
    )
