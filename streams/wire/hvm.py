"""The entries of an HVM_CONTEXT, as declared in `hvm_entries`, as construct declarations.

Any content builds back as it was read.
"""

from __future__ import annotations

from construct import Array, GreedyBytes, Struct

from streams.wire import hvm_entries
from streams.wire.constructs import construct_of
from streams.wire.hvm_cpu import CPU, CPU_MSR, CPU_MSRS, NOT_IN_OLDEST_CPU, OLDEST_CPU_SIZE, XSAVE
from streams.wire.hvm_names import SaveType

LAYOUTS: dict[int, Struct] = {kind: construct_of(layout) for kind, layout in hvm_entries.LAYOUTS.items()} | {
    SaveType.CPU_XSAVE: Struct(*construct_of(XSAVE).subcons, "components" / GreedyBytes),
    SaveType.CPU_MSR: Struct(
        *construct_of(CPU_MSRS).subcons,
        "msrs" / Array(lambda this: this.count, construct_of(CPU_MSR)),
        "excess" / GreedyBytes,
    ),
}
"""Body of every type of entry in its newest form."""

OLD_CPU: dict[int, Struct] = {
    OLDEST_CPU_SIZE: construct_of(CPU, *NOT_IN_OLDEST_CPU),
    CPU.offset("flags"): construct_of(CPU, "flags", "pad0"),
}
"""CPU entries by length, where that tells of an older form."""
