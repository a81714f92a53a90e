"""The law of record order and multiplicity, as one table.

Sources: the record handlers of libxc's restore (`xg_sr_restore.c`, `xg_sr_restore_x86_pv.c`,
`xg_sr_restore_x86_hvm.c`, `xg_sr_common_x86.c`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto

from streams.wire.framing import RecordType

STATIC_DATA_END = RecordType.STATIC_DATA_END
PV_INFO = RecordType.X86_PV_INFO
P2M_FRAMES = RecordType.X86_PV_P2M_FRAMES


class Guests(Flag):
    """Which guests a record belongs to."""

    PV = auto()
    HVM = auto()
    ANY = PV | HVM
    NONE = 0


@dataclass(frozen=True, slots=True)
class Law:
    """What libxc's restore demands of one record type.

    `after` holds (record, rule) pairs: the record must have been seen, or the rule is broken; in the order in
    which libxc looks. `once` is the rule that a second record of the type breaks, `stray` the one that any
    record of the type breaks where it does not belong.
    """

    guests: Guests
    after: tuple[tuple[RecordType, str], ...] = ()
    once: str | None = None
    stray: str = "FRM-11"


LAW: dict[RecordType, Law] = {
    RecordType.END: Law(Guests.ANY),
    RecordType.X86_PV_INFO: Law(Guests.PV, once="ORD-01"),
    RecordType.X86_CPUID_POLICY: Law(Guests.ANY),
    RecordType.X86_MSR_POLICY: Law(Guests.ANY),
    RecordType.STATIC_DATA_END: Law(Guests.ANY, once="ORD-06"),
    RecordType.X86_PV_P2M_FRAMES: Law(Guests.PV, after=((STATIC_DATA_END, "ORD-04"), (PV_INFO, "ORD-02"))),
    RecordType.PAGE_DATA: Law(Guests.ANY, after=((STATIC_DATA_END, "ORD-04"), (P2M_FRAMES, "ORD-03"))),
    RecordType.X86_TSC_INFO: Law(Guests.ANY),
    RecordType.SHARED_INFO: Law(Guests.PV, after=((PV_INFO, "ORD-02"),)),
    RecordType.X86_PV_VCPU_BASIC: Law(Guests.PV),
    RecordType.X86_PV_VCPU_EXTENDED: Law(Guests.PV),
    RecordType.X86_PV_VCPU_XSAVE: Law(Guests.PV),
    RecordType.X86_PV_VCPU_MSRS: Law(Guests.PV),
    RecordType.HVM_CONTEXT: Law(Guests.HVM),
    RecordType.HVM_PARAMS: Law(Guests.HVM),
    RecordType.VERIFY: Law(Guests.ANY),
    RecordType.CHECKPOINT: Law(Guests.ANY),
    RecordType.TOOLSTACK: Law(Guests.NONE, stray="FRM-12"),
    RecordType.CHECKPOINT_DIRTY_PFN_LIST: Law(Guests.NONE, stray="FRM-13"),
}

# A version 2 image has no STATIC_DATA_END: libxc infers it when the first of these arrives.
INFERS_STATIC_DATA_END = frozenset({RecordType.X86_PV_P2M_FRAMES, RecordType.PAGE_DATA})
