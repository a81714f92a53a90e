"""The libxc records of a builder's guest, as a saver sends them. Source: stream-format section 2.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from migrate.building.parts import Rec, built, page_data
from streams.wire.framing import (
    CPUID_LEAF,
    HVM_PARAM,
    P2M_ENTRY_SIZE,
    P2M_HEADER,
    PARAMS_HEADER,
    POLICY_MSR,
    PV_INFO,
    TSC_INFO,
    CpuidLeaf,
    GuestType,
    PolicyMsr,
    RecordType,
)
from streams.wire.start_info import START_INFO

if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder


def savers_records(b: StreamBuilder) -> list[Rec]:
    """All of them, in their order; start_info is put into its page on the way."""
    pv = b.guest == GuestType.PV
    out = []
    if pv:
        _store_start_info(b)
        out.append(Rec.of(RecordType.X86_PV_INFO, PV_INFO.pack(b.width, b.levels, bytes(6))))
    if b.image["version"] >= 3:
        leaves = b"".join(CPUID_LEAF.pack(*CpuidLeaf(**leaf)) for leaf in b.cpuid_policy)
        msrs = b"".join(POLICY_MSR.pack(*PolicyMsr(**msr)) for msr in b.msr_policy)
        out += [Rec.of(RecordType.X86_CPUID_POLICY, leaves), Rec.of(RecordType.X86_MSR_POLICY, msrs)]
        out.append(Rec.of(RecordType.STATIC_DATA_END))
    if pv:
        listed = np.array(b.p2m_frames, f"<u{P2M_ENTRY_SIZE}").tobytes()
        out.append(Rec.of(RecordType.X86_PV_P2M_FRAMES, P2M_HEADER.pack(0, b.max_pfn) + listed))
    everything = sorted(b.memory)
    for pfns in (everything, *b.rounds):
        out += _pages(b, pfns)
    if b.verify:
        out += [Rec.of(RecordType.VERIFY), *_pages(b, everything)]
    out += _state(b)
    if not b.checkpoints:
        return [*out, Rec.of(RecordType.END)]
    out.append(Rec.of(RecordType.CHECKPOINT))
    for _ in range(1, b.checkpoints):
        out += [*_pages(b, everything), *_state(b), Rec.of(RecordType.CHECKPOINT)]
    return out


def _store_start_info(b: StreamBuilder) -> None:
    data = built(START_INFO[b.width], b.start_info)
    content = b.memory[b.start_info_pfn].content
    if content is not None:
        content[: len(data)] = data


def _pages(b: StreamBuilder, pfns: Sequence[int]) -> list[Rec]:
    return [
        Rec.of(
            RecordType.PAGE_DATA,
            page_data((pfn, b.memory[pfn].type, b.memory[pfn].data()) for pfn in pfns[i : i + b.batch]),
        )
        for i in range(0, len(pfns), b.batch)
    ]


def _state(b: StreamBuilder) -> list[Rec]:
    out = [Rec.of(RecordType.X86_TSC_INFO, TSC_INFO.pack(*b.tsc.values()))]
    if b.guest == GuestType.PV:
        out.append(Rec.of(RecordType.SHARED_INFO, bytes(b.shared_info)))
        return out + [rec for vcpu in b.vcpus for rec in vcpu.records()]
    params = b"".join(HVM_PARAM.pack(*param) for param in b.hvm_params.items())
    out.append(Rec.of(RecordType.HVM_CONTEXT, bytes(b.hvm_context)))
    out.append(Rec.of(RecordType.HVM_PARAMS, PARAMS_HEADER.pack(len(b.hvm_params), 0) + params))
    return out
