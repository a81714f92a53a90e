"""Entries of an HVM_CONTEXT about the interface of Hyper-V, which Xen calls Viridian.

Source: Xen's public `arch-x86/hvm/save.h`; for what is in the MSRs, the Hypervisor Top-Level Functional Specification.
"""

from __future__ import annotations

from enum import IntFlag

from streams.values import NamedTuple
from streams.wire.layouts import U8, U64, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated


class ViridianDomain(NamedTuple):
    """VIRIDIAN_DOMAIN (hvm_viridian_domain_context). Older forms end at 16 or 24 bytes."""

    hypercall_gpa: U64
    guest_os_id: U64
    time_ref_count: U64
    reference_tsc: U64


VIRIDIAN_DOMAIN = Layout(ViridianDomain)


class ViridianVcpu(NamedTuple):
    """VIRIDIAN_VCPU (hvm_viridian_vcpu_context). Older forms end at 8 or 16 bytes."""

    vp_assist_msr: U64
    apic_assist_pending: U8
    pad: Annotated[bytes, "7s"]
    simp_msr: U64
    sint_msr: Annotated[tuple[int, ...], 16, "Q"]
    stimer_config_msr: Annotated[tuple[int, ...], 4, "Q"]
    stimer_count_msr: Annotated[tuple[int, ...], 4, "Q"]


VIRIDIAN_VCPU = Layout(ViridianVcpu)

VIRIDIAN_ENABLED = 1 << 0
"""Bit of each Viridian MSR that names a page: the page is in use. Its frame number begins at bit 12."""


class SyntheticInterrupt(IntFlag):
    """Bits of a `sint_msr`; bits 0 to 7 are the vector."""

    MASKED = 1 << 16
    AUTO_EOI = 1 << 17
    POLLING = 1 << 18


class SyntheticTimer(IntFlag):
    """Bits of a `stimer_config_msr`; bits 4 to 11 are the vector in direct mode, bits 16 to 19 the interrupt."""

    ENABLED = 1 << 0
    PERIODIC = 1 << 1
    LAZY = 1 << 2
    AUTO_ENABLE = 1 << 3
    DIRECT = 1 << 12
