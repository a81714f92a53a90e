"""The page a PV guest was booted with, found in the stream through vcpu 0's edx or rdx.

Source: Xen's public `xen.h` (start_info). Only the store and console frames mean anything on arrival: they
are pfns, since the guest converts them before it suspends.
"""

from __future__ import annotations

from construct import Bytes, Construct, Int32ul, Int64ul, Struct

MAGIC_PREFIX = b"xen-3.0-"
"""How `magic` begins; the guest's architecture follows."""

MAGIC_SIZE = 32
CMD_LINE_SIZE = 1024


def _boot_fields(word: Construct) -> tuple[Construct, ...]:
    return (
        "pt_base" / word,
        "nr_pt_frames" / word,
        "mfn_list" / word,
        "mod_start" / word,
        "mod_len" / word,
        "cmd_line" / Bytes(CMD_LINE_SIZE),
        "first_p2m_pfn" / word,
        "nr_p2m_frames" / word,
    )


START_INFO: dict[int, Struct] = {
    4: Struct(
        "magic" / Bytes(MAGIC_SIZE),
        "nr_pages" / Int32ul,
        "shared_info" / Int32ul,
        "flags" / Int32ul,
        "store_mfn" / Int32ul,
        "store_evtchn" / Int32ul,
        "console_mfn" / Int32ul,
        "console_evtchn" / Int32ul,
        *_boot_fields(Int32ul),
    ),
    8: Struct(
        "magic" / Bytes(MAGIC_SIZE),
        "nr_pages" / Int64ul,
        "shared_info" / Int64ul,
        "flags" / Int32ul,
        "flags_pad" / Bytes(4),
        "store_mfn" / Int64ul,
        "store_evtchn" / Int32ul,
        "store_evtchn_pad" / Bytes(4),
        "console_mfn" / Int64ul,
        "console_evtchn" / Int32ul,
        "console_evtchn_pad" / Bytes(4),
        *_boot_fields(Int64ul),
    ),
}
"""start_info by guest width: 1112 bytes at width 4, 1168 at width 8. The console is that of a domU."""
