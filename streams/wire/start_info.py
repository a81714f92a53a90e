"""The page a PV guest was booted with, found in the stream through vcpu 0's edx or rdx.

Source: Xen's public `xen.h` (start_info). Only the store and console frames mean anything on arrival: they
are pfns, since the guest converts them before it suspends.
"""

from __future__ import annotations

from streams.values import NamedTuple
from streams.wire.layouts import U32, U64, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Annotated, Any

MAGIC_PREFIX = b"xen-3.0-"
"""How `magic` begins; the guest's architecture follows."""


class StartInfo32(NamedTuple):
    """start_info at width 4."""

    magic: Annotated[bytes, "32s"]
    nr_pages: U32
    shared_info: U32
    flags: U32
    store_mfn: U32
    store_evtchn: U32
    console_mfn: U32
    console_evtchn: U32
    pt_base: U32
    nr_pt_frames: U32
    mfn_list: U32
    mod_start: U32
    mod_len: U32
    cmd_line: Annotated[bytes, "1024s"]
    first_p2m_pfn: U32
    nr_p2m_frames: U32


class StartInfo64(NamedTuple):
    """start_info at width 8."""

    magic: Annotated[bytes, "32s"]
    nr_pages: U64
    shared_info: U64
    flags: U32
    flags_pad: Annotated[bytes, "4s"]
    store_mfn: U64
    store_evtchn: U32
    store_evtchn_pad: Annotated[bytes, "4s"]
    console_mfn: U64
    console_evtchn: U32
    console_evtchn_pad: Annotated[bytes, "4s"]
    pt_base: U64
    nr_pt_frames: U64
    mfn_list: U64
    mod_start: U64
    mod_len: U64
    cmd_line: Annotated[bytes, "1024s"]
    first_p2m_pfn: U64
    nr_p2m_frames: U64


START_INFO: dict[int, Layout[Any]] = {4: Layout(StartInfo32), 8: Layout(StartInfo64)}
"""start_info by guest width: 1112 bytes at width 4, 1168 at width 8. The console is that of a domU."""
