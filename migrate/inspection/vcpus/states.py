"""The vcpus of a stream, and the state of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from migrate.inspection.names import number_ranges
from migrate.inspection.reading import NotInStream
from migrate.inspection.vcpus.hvm import hvm_entries, hvm_state
from migrate.inspection.vcpus.pv import MOST_READ, pv_records, pv_state
from migrate.inspection.vcpus.registers import VcpuState

if TYPE_CHECKING:
    from migrate.inspection.reading import Inspection

_VCPUS_AT_ONCE = 64


def vcpu_ids(inspection: Inspection) -> list[int]:
    """The vcpus that the stream has records or entries of, ascending."""
    return sorted(pv_records(inspection).keys() | hvm_entries(inspection)[1].keys())


def vcpu_states(inspection: Inspection, vcpus: Sequence[int]) -> Iterator[VcpuState]:
    """The states of several vcpus, in the order asked for, from one reading; made as they are asked for.

    Raises
    ------
    NotInStream
        for a vcpu that the stream has nothing of, before anything else.
    """
    records = pv_records(inspection)
    context, found = (None, {}) if records.keys() >= set(vcpus) else hvm_entries(inspection)
    missing = next((vcpu for vcpu in vcpus if vcpu not in records and vcpu not in found), None)
    if missing is not None:
        known = sorted(records.keys() | found.keys())
        has = f"it has vcpus {number_ranges(known)}" if known else "it has no vcpu"
        raise NotInStream(f"the stream has nothing of vcpu {missing}; {has}")
    for start in range(0, len(vcpus), _VCPUS_AT_ONCE):
        some = vcpus[start : start + _VCPUS_AT_ONCE]
        wanted = [entry for vcpu in some for entry in records.get(vcpu, {}).values()]
        bodies = iter(inspection.read((entry.body, min(entry.length, MOST_READ)) for entry in wanted))
        for vcpu in some:
            if vcpu in records:
                own = records[vcpu]
                yield pv_state(inspection, vcpu, own, {kind: next(bodies) for kind in own})
            else:
                assert context is not None
                yield hvm_state(vcpu, context, found[vcpu])
