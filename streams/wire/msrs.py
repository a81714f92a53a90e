"""The model-specific registers that a stream may carry, by number. Standard library alone.

Sources: the processor manuals; which of them go where is Xen's `msr-index.h`, `hvm_save_cpu_msrs` and
`XEN_DOMCTL_get_vcpu_msrs`.
"""

from __future__ import annotations

from enum import IntEnum


class Msr(IntEnum):
    """MSRs of a vcpu or of a CPU policy."""

    SPEC_CTRL = 0x0000_0048
    PLATFORM_INFO = 0x0000_00CE
    ARCH_CAPABILITIES = 0x0000_010A
    INTEL_MISC_FEATURES_ENABLES = 0x0000_0140
    U_CET = 0x0000_06A0
    S_CET = 0x0000_06A2
    PL0_SSP = 0x0000_06A4
    PL1_SSP = 0x0000_06A5
    PL2_SSP = 0x0000_06A6
    PL3_SSP = 0x0000_06A7
    INTERRUPT_SSP_TABLE = 0x0000_06A8
    PKRS = 0x0000_06E1
    BNDCFGS = 0x0000_0D90
    XSS = 0x0000_0DA0
    TSC_AUX = 0xC000_0103
    VIRT_SPEC_CTRL = 0xC001_011F
    AMD64_DR1_ADDRESS_MASK = 0xC001_1019
    AMD64_DR2_ADDRESS_MASK = 0xC001_101A
    AMD64_DR3_ADDRESS_MASK = 0xC001_101B
    AMD64_DR0_ADDRESS_MASK = 0xC001_1027


PV_MSRS = (
    Msr.SPEC_CTRL,
    Msr.INTEL_MISC_FEATURES_ENABLES,
    Msr.TSC_AUX,
    Msr.AMD64_DR1_ADDRESS_MASK,
    Msr.AMD64_DR2_ADDRESS_MASK,
    Msr.AMD64_DR3_ADDRESS_MASK,
    Msr.AMD64_DR0_ADDRESS_MASK,
)
"""Those of an X86_PV_VCPU_MSRS record, in Xen's order."""

POLICY_MSRS = (Msr.PLATFORM_INFO, Msr.ARCH_CAPABILITIES)
"""Those of an X86_MSR_POLICY record."""


def msr_name(index: int) -> str:
    """Name of an MSR, or its number where none is known."""
    return _NAMES.get(index) or hex(index)


_NAMES = {int(msr): msr.name for msr in Msr}
