"""The page a PV guest shares with Xen, as a SHARED_INFO record carries it.

Source: Xen's public `xen.h` and `arch-x86/xen*.h` (shared_info). The structure fills only the first part
of the page; the rest belongs to nobody.
"""

from __future__ import annotations

from streams.values import NamedTuple
from streams.wire.layouts import S8, U8, U32, U64, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated, Any

VCPU_INFOS = 32


class VcpuTime(NamedTuple):
    """vcpu_time_info, of either width."""

    version: U32
    version_pad: Annotated[bytes, "4s"]
    tsc_timestamp: U64
    system_time: U64
    tsc_to_system_mul: U32
    tsc_shift: S8
    flags: U8
    flags_pad: Annotated[bytes, "2s"]


class ArchVcpuInfo32(NamedTuple):
    """arch_vcpu_info at width 4."""

    cr2: U32
    pad: Annotated[bytes, "20s"]


class VcpuInfo32(NamedTuple):
    """vcpu_info at width 4."""

    evtchn_upcall_pending: U8
    evtchn_upcall_mask: U8
    pad: Annotated[bytes, "2s"]
    evtchn_pending_sel: U32
    arch: ArchVcpuInfo32
    time: VcpuTime


class ArchSharedInfo32(NamedTuple):
    """arch_shared_info at width 4."""

    max_pfn: U32
    pfn_to_mfn_frame_list_list: U32
    nmi_reason: U32
    p2m_cr3: U32
    p2m_vaddr: U32
    p2m_generation: U32
    wc_sec_hi: U32


class SharedInfo32(NamedTuple):
    """shared_info at width 4."""

    vcpu_info: Annotated[tuple[VcpuInfo32, ...], VCPU_INFOS]
    evtchn_pending: Annotated[tuple[int, ...], 32, "I"]
    evtchn_mask: Annotated[tuple[int, ...], 32, "I"]
    wc_version: U32
    wc_sec: U32
    wc_nsec: U32
    arch: ArchSharedInfo32


class ArchVcpuInfo64(NamedTuple):
    """arch_vcpu_info at width 8."""

    cr2: U64
    pad: Annotated[bytes, "8s"]


class VcpuInfo64(NamedTuple):
    """vcpu_info at width 8."""

    evtchn_upcall_pending: U8
    evtchn_upcall_mask: U8
    pad: Annotated[bytes, "6s"]
    evtchn_pending_sel: U64
    arch: ArchVcpuInfo64
    time: VcpuTime


class ArchSharedInfo64(NamedTuple):
    """arch_shared_info at width 8."""

    max_pfn: U64
    pfn_to_mfn_frame_list_list: U64
    nmi_reason: U64
    p2m_cr3: U64
    p2m_vaddr: U64
    p2m_generation: U64


class SharedInfo64(NamedTuple):
    """shared_info at width 8."""

    vcpu_info: Annotated[tuple[VcpuInfo64, ...], VCPU_INFOS]
    evtchn_pending: Annotated[tuple[int, ...], 64, "Q"]
    evtchn_mask: Annotated[tuple[int, ...], 64, "Q"]
    wc_version: U32
    wc_sec: U32
    wc_nsec: U32
    wc_sec_hi: U32
    arch: ArchSharedInfo64


SHARED_INFO: dict[int, Layout[Any]] = {4: Layout(SharedInfo32), 8: Layout(SharedInfo64)}
"""shared_info by guest width: 2344 bytes at width 4, 3136 at width 8.

`arch.max_pfn` is a count. `arch.pfn_to_mfn_frame_list_list` and `arch.p2m_cr3` hold frames of the source
host; p2m_cr3 is packed as a cr3 is.
"""
