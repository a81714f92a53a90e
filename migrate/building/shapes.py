"""Guests of a given shape, with memory enough to matter: a `StreamBuilder`, filled.

    b = pv_guest(4, pages=2048, vcpus=2, roots=4, table_share=0.02)
    stream = b.build()

For guests of many megabytes see `migrate.building.big_streams`, which never has them in memory.
"""

from __future__ import annotations

import numpy as np

from migrate.building.big_streams import DIRTY_ONE_IN
from migrate.building.builder import FIRST_MFN, StreamBuilder
from migrate.building.hvm_contexts import PC, Hardware
from migrate.building.parts import PTE_RW, TABLE, entry
from streams.counting import count
from streams.wire.framing import PAGE_SHIFT
from streams.wire.paging import ENTRIES, PAE_L2_FIRST_XEN_SLOT, PAE_L3_LIMIT

# How many entries of an L1 map a page.
MAPPED = 64
# Bytes of a data page that are not zero.
CONTENT = 64


def pv_guest(
    width: int = 4,
    *,
    pages: int = 0,
    vcpus: int = 1,
    roots: int = 1,
    table_share: float = 0.0,
    rounds: int = 1,
    extended: bool = False,
    high_roots: bool = False,
    seed: int = 0,
) -> StreamBuilder:
    """A PV guest that any Xen restores, wherever its frames land unless roots are in danger of the 4 GiB rule.

    Parameters
    ----------
    pages:
        how many there are; those of `StreamBuilder.pv` at least, which are all by default.
    table_share:
        page tables as a share of all pages. More than `StreamBuilder.pv` has become L1s, half of them pinned.
    rounds:
        passes over memory; each after the first resends one page in sixteen.
    high_roots:
        whether the source frames of all roots lie at or above 4 GiB.
    seed:
        decides what pages hold and tables map.

    Raises
    ------
    ValueError
        for more tables than the roots can hold.
    """
    b = StreamBuilder.pv(width, vcpus=vcpus, extended=extended, roots=roots)
    rng = np.random.default_rng(seed)
    wanted = max(0, round(pages * table_share) - roots * b.levels)
    room = (PAE_L2_FIRST_XEN_SLOT if width == 4 else ENTRIES) - 1
    if wanted > room * roots:
        raise ValueError(
            f"no room below {count(roots, 'root')} for {wanted} more, only for {room * roots}: ask for more roots"
        )
    data = _fill(b, pages - wanted, rng)
    if wanted and not data:
        raise ValueError(f"no room in {count(pages, 'page')} for {count(wanted, 'page table')} more, and pages to map")
    for number in range(wanted):
        l1 = b.new_table(1, pinned=bool(rng.integers(2)))
        slots = rng.choice(ENTRIES, MAPPED, replace=False)
        b.table(l1)[slots] = [entry(data[int(at)], PTE_RW) for at in rng.integers(0, len(data), MAPPED)]
        turn, which = divmod(number, roots)
        b.table(b.chain(b.roots[which])[-2])[1 + turn] = entry(l1, TABLE)
    if high_roots:
        for root in b.roots:
            b.place(root, PAE_L3_LIMIT + FIRST_MFN + root)
    _resend(b, rounds, rng)
    return b


def hvm_guest(
    *, pages: int = 0, vcpus: int = 1, rounds: int = 1, seed: int = 0, hardware: Hardware = PC
) -> StreamBuilder:
    """An HVM guest with this hardware; other parameters as for `pv_guest`."""
    b = StreamBuilder.hvm(vcpus=vcpus, hardware=hardware)
    rng = np.random.default_rng(seed)
    _fill(b, pages, rng)
    _resend(b, rounds, rng)
    return b


def _fill(b: StreamBuilder, pages: int, rng: np.random.Generator) -> list[int]:
    """Append data pages until there are so many in all; returns their pfns."""
    data = []
    while b.max_pfn + 1 < pages:
        data.append(b.new_page(content=rng.bytes(CONTENT)))
    return data


def _resend(b: StreamBuilder, rounds: int, rng: np.random.Generator) -> None:
    count = b.max_pfn + 1
    for _ in range(1, rounds):
        dirty = rng.choice(count, -(-count // DIRTY_ONE_IN), replace=False)
        b.rounds.append(sorted(dirty.tolist()))


def pages_of(size_bytes: int) -> int:
    """How many pages that much memory is."""
    return size_bytes >> PAGE_SHIFT
