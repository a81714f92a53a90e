"""What Xen looks at in the CPU_MSR entries of an HVM context: which MSRs it loads, and which values.

Sources: hvm_load_cpu_msrs (`xen/arch/x86/hvm/hvm.c`), guest_wrmsr (`msr.c`); up to 4.12 vmx_load_msr and svm_load_msr.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from migrate.destination import releases
from migrate.destination.releases import Change
from migrate.rules.declaring import Severity
from migrate.xen.guest_msrs import address_mask_allowed, misc_features_allowed, spec_ctrl_allowed
from migrate.xen.hvm_entry import HvmDomain, Loading
from migrate.xen.hvm_segments import canonical
from migrate.xen.objection import Objection
from streams.counting import count
from streams.values import NamedTuple
from streams.wire.hvm_cpu import CPU_MSR, CPU_MSRS, CpuMsr
from streams.wire.msrs import Msr, msr_name
from streams.wire.xstate import XState

_U32 = 0xFFFF_FFFF
_BNDCFGS_RESERVED, _BNDCFGS_ENABLE = 0xFFC, 1 << 0
_MPX = XState.BNDREGS | XState.BNDCSR

Answer = bool | None
"""Whether Xen loads a value: yes, no, or (None) the host decides."""


def _spec_ctrl(value: int, domain: HvmDomain, components: int) -> Answer:
    return spec_ctrl_allowed(value, domain.processor, domain.release)


def _misc_features(value: int, domain: HvmDomain, components: int) -> Answer:
    return misc_features_allowed(value, domain.processor, domain.release)


def _pkrs(value: int, domain: HvmDomain, components: int) -> Answer:
    return False if value > _U32 else domain.processor.has("pks")


def _bndcfgs(value: int, domain: HvmDomain, components: int) -> Answer:
    if not canonical(value) or value & _BNDCFGS_RESERVED:
        return False
    if not domain.has(releases.hvm_msrs_by_policy):
        return None if value else True
    if value & _BNDCFGS_ENABLE and not components & _MPX:
        return False
    return domain.processor.has("mpx")


def _xss(value: int, domain: HvmDomain, components: int) -> Answer:
    if not domain.has(releases.hvm_msrs_by_policy):
        return None if domain.processor.intel is not False else False
    return False if value else domain.processor.has("xsaves")


def _virt_spec_ctrl(value: int, domain: HvmDomain, components: int) -> Answer:
    return domain.processor.has("virt_ssbd")


def _address_mask(value: int, domain: HvmDomain, components: int) -> Answer:
    return address_mask_allowed(value, domain.processor, domain.release)


class _Loaded(NamedTuple):
    since: Change
    takes: Callable[[int, HvmDomain, int], Answer]


_LOADED: dict[int, _Loaded] = {
    Msr.SPEC_CTRL: _Loaded(releases.spec_ctrl, _spec_ctrl),
    Msr.INTEL_MISC_FEATURES_ENABLES: _Loaded(releases.misc_features, _misc_features),
    Msr.PKRS: _Loaded(releases.pks, _pkrs),
    Msr.BNDCFGS: _Loaded(releases.every_release, _bndcfgs),
    Msr.XSS: _Loaded(releases.hvm_xss, _xss),
    Msr.VIRT_SPEC_CTRL: _Loaded(releases.virt_spec_ctrl, _virt_spec_ctrl),
    Msr.AMD64_DR0_ADDRESS_MASK: _Loaded(releases.every_release, _address_mask),
    Msr.AMD64_DR1_ADDRESS_MASK: _Loaded(releases.every_release, _address_mask),
    Msr.AMD64_DR2_ADDRESS_MASK: _Loaded(releases.every_release, _address_mask),
    Msr.AMD64_DR3_ADDRESS_MASK: _Loaded(releases.every_release, _address_mask),
}
"""The MSRs that Xen loads, since when, and whether it takes a value."""

_ADDRESS_MASKS = frozenset(msr for msr, loaded in _LOADED.items() if loaded.takes is _address_mask)


def objections(one: Loading, components: int) -> Iterator[Objection]:
    """What is to be said of a CPU_MSR entry, up to the first MSR that is refused.

    Parameters
    ----------
    components:
        xcr0_accum of the vcpu, as far as entries came before this one.
    """
    number = CPU_MSRS.read(one.body).count
    expected = CPU_MSRS.size + number * CPU_MSR.size
    if one.entry.length != expected:
        message = f"{count(one.entry.length, 'byte')}; a count of {number} takes {expected}"
        yield one.refused("HVM-10", message, "EOPNOTSUPP", at=CPU_MSRS.offset("count"))
        return
    listed = memoryview(one.body)[CPU_MSRS.size :]
    reserved = CPU_MSR.offset("reserved")
    starts = range(0, len(listed), CPU_MSR.size)
    for start in starts:
        if any(listed[start + reserved : start + CPU_MSR.offset("value")]):
            msr = CPU_MSR.read(listed[start:])
            message = f"{msr_name(msr.index)}: its reserved word is {msr.reserved:#x}; expected 0"
            yield one.refused("HVM-10", message, "EOPNOTSUPP", at=CPU_MSRS.size + start + reserved)
            return
    for start in starts:
        objection = _loaded(one, CPU_MSR.read(listed[start:]), CPU_MSRS.size + start, components)
        if objection:
            yield objection
            if objection.fatal:
                return


def _loaded(one: Loading, msr: CpuMsr, at: int, components: int) -> Objection | None:
    domain = one.domain
    what = f"{msr_name(msr.index)} = {msr.value:#x}"
    loaded = _LOADED.get(msr.index)
    if loaded is None or not domain.has(loaded.since):
        return one.refused("HVM-11", f"{what}: {domain.release} does not load this MSR", "ENXIO", at=at)
    answer = loaded.takes(msr.value, domain, components)
    if answer is False:
        too_wide = msr.index in _ADDRESS_MASKS and msr.value > _U32
        errno = "EDOM" if too_wide and not domain.has(releases.address_masks_by_policy) else "ENXIO"
        return one.refused("HVM-11", f"{what}: the guest may not have this", errno, at=at)
    if answer is None:
        return one.left_to_host("HVM-11", f"{what}: the host decides", "ENXIO", severity=Severity.INFO, at=at)
    return None
