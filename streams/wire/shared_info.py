"""The page a PV guest shares with Xen, as a SHARED_INFO record carries it.

Source: Xen's public `xen.h` and `arch-x86/xen*.h` (shared_info). The structure fills only the first part
of the page; the rest belongs to nobody.
"""

from __future__ import annotations

from construct import Array, Bytes, Construct, Int8sl, Int8ul, Int32ul, Int64ul, Struct

VCPU_INFOS = 32

_VCPU_TIME = Struct(
    "version" / Int32ul,
    "version_pad" / Bytes(4),
    "tsc_timestamp" / Int64ul,
    "system_time" / Int64ul,
    "tsc_to_system_mul" / Int32ul,
    "tsc_shift" / Int8sl,
    "flags" / Int8ul,
    "flags_pad" / Bytes(2),
)


def _vcpu_info(word: Construct, arch_size: int) -> Struct:
    return Struct(
        "evtchn_upcall_pending" / Int8ul,
        "evtchn_upcall_mask" / Int8ul,
        "pad" / Bytes(word.sizeof() - 2),
        "evtchn_pending_sel" / word,
        "arch" / Struct("cr2" / word, "pad" / Bytes(arch_size - word.sizeof())),
        "time" / _VCPU_TIME,
    )


def _arch(word: Construct, *last: Construct) -> Struct:
    return Struct(
        "max_pfn" / word,
        "pfn_to_mfn_frame_list_list" / word,
        "nmi_reason" / word,
        "p2m_cr3" / word,
        "p2m_vaddr" / word,
        "p2m_generation" / word,
        *last,
    )


SHARED_INFO: dict[int, Struct] = {
    4: Struct(
        "vcpu_info" / Array(VCPU_INFOS, _vcpu_info(Int32ul, 24)),
        "evtchn_pending" / Array(32, Int32ul),
        "evtchn_mask" / Array(32, Int32ul),
        "wc_version" / Int32ul,
        "wc_sec" / Int32ul,
        "wc_nsec" / Int32ul,
        "arch" / _arch(Int32ul, "wc_sec_hi" / Int32ul),
    ),
    8: Struct(
        "vcpu_info" / Array(VCPU_INFOS, _vcpu_info(Int64ul, 16)),
        "evtchn_pending" / Array(64, Int64ul),
        "evtchn_mask" / Array(64, Int64ul),
        "wc_version" / Int32ul,
        "wc_sec" / Int32ul,
        "wc_nsec" / Int32ul,
        "wc_sec_hi" / Int32ul,
        "arch" / _arch(Int64ul),
    ),
}
"""shared_info by guest width: 2344 bytes at width 4, 3136 at width 8.

`arch.max_pfn` is a count. `arch.pfn_to_mfn_frame_list_list` and `arch.p2m_cr3` hold frames of the source
host; p2m_cr3 is packed as a cr3 is.
"""
