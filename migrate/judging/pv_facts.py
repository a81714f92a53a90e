"""Facts of a PV stream for the head of its report."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from migrate.guest.memory import PvGuest
from migrate.toolstack.pv import PvRestore
from streams.wire.vcpu import CONTEXT, PAE_EXTENDED_CR3, cr3_to_pfn
from streams.wire.views import view

if TYPE_CHECKING:
    from migrate.judging.judgement import Judgement


def pv_guest(judgement: Judgement) -> PvGuest:
    """The reconstructed guest of a PV stream."""
    kind = judgement.restorer.kind
    assert isinstance(kind, PvRestore)
    return kind.guest


def vcpu_count(judgement: Judgement) -> int:
    """The domain's vcpus: as told, else one more than the highest id in the stream."""
    known = judgement.restorer.containers.vcpus
    return known if known is not None else max(pv_guest(judgement).vcpus, default=-1) + 1


def extended_cr3(guest: PvGuest) -> bool | None:
    """Whether vcpu 0 says that the guest has enabled pae_extended_cr3; None where there is no vcpu 0."""
    vcpu0 = guest.vcpus.get(0)
    if vcpu0 is None or vcpu0.basic is None:
        return None
    return bool(int(view(CONTEXT[guest.width], vcpu0.basic)["vm_assist"]) & PAE_EXTENDED_CR3)


def roots(guest: PvGuest) -> dict[int, int]:
    """pfn of the page table under each vcpu's cr3, by vcpu id."""
    return {
        index: cr3_to_pfn(int(view(CONTEXT[guest.width], vcpu.basic)["ctrlreg"][3]), guest.width)
        for index, vcpu in sorted(guest.vcpus.items())
        if vcpu.basic is not None
    }


def fill(judgement: Judgement) -> None:
    """Complete the facts once all records are in."""
    guest, facts = pv_guest(judgement), judgement.facts
    facts.vcpus = len(guest.vcpus)
    facts.extended_cr3 = extended_cr3(guest)
    _, levels = guest.pinned()
    counts = Counter(levels.tolist())
    facts.pinned = {f"L{level}": counts.get(level, 0) for level in range(1, guest.levels + 1)}
    mfns = guest.source_mfns()
    facts.cr3 = [
        {"vcpu": index, "pfn": pfn, "mfn": int(mfns[pfn]) if pfn < len(mfns) and mfns[pfn] >= 0 else None}
        for index, pfn in roots(guest).items()
    ]
