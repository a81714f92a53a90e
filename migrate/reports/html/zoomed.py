"""The pages around the one that stops a restore, one by one, however large the guest is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from migrate.guest.memory import SENT
from migrate.inspection.memory.pagemap import NEVER_SENT, kind_name
from migrate.reports.html.memory_picture import Look, look_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from migrate.inspection.reading import Inspection

BEFORE, PAGES = 7, 16


class Page(NamedTuple):
    """A page: what it is, and its machine frame under the placement; None for one that has none or nobody knows."""

    pfn: int
    look: Look
    kind: str
    mfn: int | None
    failing: bool


@dataclass(frozen=True, slots=True)
class Zoomed:
    """Some pages around one, in the order of their pfns."""

    pfn: int
    pages: list[Page]


def zoomed(inspection: Inspection, chain: Sequence[tuple[int, int | None]]) -> Zoomed | None:
    """The pages around the last one of a chain that leads to a failure.

    None for an HVM guest, and where nothing fails that has a page of the guest's memory.
    """
    guest, placement = inspection.guest, inspection.placement
    if guest is None or placement is None or not chain:
        return None
    pfn = chain[-1][0]
    first = max(0, pfn - BEFORE)
    some = slice(first, min(first + PAGES, max(guest.max_pfn, pfn) + 1))
    kinds = [
        kind if state & SENT else NEVER_SENT
        for kind, state in zip(guest.types[some].tolist(), guest.state[some].tolist(), strict=True)
    ]
    if pfn - first >= len(kinds):
        return None
    failing = {pfn for pfn, _ in chain}
    mfns = [placement.mfn(pfn) for pfn in range(first, first + len(kinds))]
    return Zoomed(
        pfn,
        [
            Page(at, look_of(kind), kind_name(kind), mfn if mfn >= 0 else None, at in failing)
            for at, (kind, mfn) in enumerate(zip(kinds, mfns, strict=True), first)
        ],
    )
