"""Facts of a PV stream for the head of its report."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from migrate.guest.memory import PvGuest
    from migrate.toolstack.facts import StreamFacts


def tell(guest: PvGuest, facts: StreamFacts) -> None:
    """Complete the facts once all records are in."""
    facts.vcpus = len(guest.vcpus)
    facts.extended_cr3 = guest.extended_cr3
    _, levels = guest.pinned()
    counts = Counter(levels.tolist())
    facts.pinned = {f"L{level}": counts.get(level, 0) for level in range(1, guest.levels + 1)}
    facts.cr3 = [
        {"vcpu": index, "pfn": pfn, "mfn": mfn if (mfn := guest.source_mfn(pfn)) >= 0 else None}
        for index, pfn in guest.roots.items()
    ]
