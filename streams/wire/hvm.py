"""What an HVM guest's stream carries beside its pages: the names of its params and of its saved state.

Sources: Xen's public `hvm/params.h` and `arch-x86/hvm/save.h`. The frame around every entry of an
HVM_CONTEXT body is `framing.HVM_SAVE_HEADER`.
"""

from __future__ import annotations

from construct import Int32ul, Int64ul, Struct

HVM_PARAM = Struct("index" / Int64ul, "value" / Int64ul)
"""One pair of an HVM_PARAMS body, after `framing.PARAMS_HEADER`."""


SAVE_HEADER = Struct(
    "magic" / Int32ul,
    "version" / Int32ul,
    "changeset" / Int64ul,
    "cpuid" / Int32ul,
    "gtsc_khz" / Int32ul,
)
"""Body of the HEADER entry (hvm_save_header): always the first, always instance 0."""
