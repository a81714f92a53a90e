"""How much memory a host has, where it lies, and whether a guest finds room.

Only the sum of a host's RAM is printed, not its memory map. The map decides whether a frame can lie above 4 GiB: the
last stretch below is kept for devices, so that RAM moves up even on a host with less than 4 GiB of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from migrate.destination.answers import Answer, left_open
from streams.values import NamedTuple

_MIB = 1 << 20
PAGES_PER_MIB = 256
FOUR_GIB = 4 << 30
# The interrupt controllers and the firmware, from 0xfec00000 on, are never RAM.
_MOST_BELOW = 0xFEC0_0000 // _MIB
# PCs keep at most the last GiB for devices while their RAM fits below it: measured with 2999 MiB.
_ALL_BELOW = 3072
_FOUR_GIB_MIB = FOUR_GIB // _MIB


class Node(NamedTuple):
    """A NUMA node as `xl info -n` prints it.

    Attributes
    ----------
    size:
        MiB from its first to its last page of RAM, holes included: 7168 on a host with 6143 MiB.
    free:
        MiB.
    """

    number: int
    size: int
    free: int


def above_4g(total: int | None, nodes: Sequence[Node], limit: int | None) -> Answer[bool]:
    """Whether a host has RAM above 4 GiB.

    Parameters
    ----------
    total:
        total_memory, in MiB.
    nodes:
        those of numa_info, none where it was not printed.
    limit:
        the address in bytes that `mem=` on Xen's command line lets RAM end at; None without.
    """
    if limit is not None and limit <= FOUR_GIB:
        return Answer(False, f"mem= on Xen's command line ends the memory at {limit // _MIB} MiB")
    if total is not None and total > _MOST_BELOW:
        return Answer(True, f"total_memory {total} MiB is more than fits below 4 GiB")
    span = sum(node.size for node in nodes)
    if span > _FOUR_GIB_MIB:
        return Answer(True, f"numa_info spans {span} MiB")
    if len(nodes) == 1:
        return Answer(False, f"numa_info ends at {span} MiB")
    if total is None:
        return left_open("no total_memory")
    if total <= _ALL_BELOW:
        return Answer(False, f"total_memory {total} MiB: a PC places that much below 4 GiB")
    return left_open(
        f"total_memory {total} MiB: room kept for devices may have moved some of it above 4 GiB (`xl info -n` tells)"
    )


def places_high(above: Answer[bool], free: int | None, pages: int) -> Answer[bool]:
    """Whether a new guest's frames lie above 4 GiB: Xen hands such memory out first.

    Parameters
    ----------
    above:
        the answer of `above_4g`.
    free:
        free_memory, in MiB. What is free may lie below 4 GiB as far as it fits there, as dom0 got its memory first.
    pages:
        pages of 4 KiB that the guest needs.
    """
    if not above.value:
        return above
    if free is None:
        return left_open(f"{above.because}, and no free_memory")
    certain = free - _MOST_BELOW
    if certain <= 0:
        return left_open(f"free_memory {free} MiB: all of it may lie below 4 GiB")
    if pages > certain * PAGES_PER_MIB:
        return left_open(
            f"the guest needs {_mib(pages)} MiB; no more than {certain} MiB are certain to be free above 4 GiB"
        )
    return Answer(True, f"{above.because}, and what is free above 4 GiB is handed out first")


def fits(free: int | None, pages: int) -> Answer[bool]:
    """Whether free_memory (in MiB, rounded down by xl) holds so many pages of 4 KiB."""
    if free is None:
        return left_open("no free_memory")
    because = f"free_memory {free} MiB, and {_mib(pages)} MiB are needed"
    if pages <= free * PAGES_PER_MIB:
        return Answer(True, because)
    if pages < (free + 1) * PAGES_PER_MIB:
        return left_open(f"{because}: too close to tell")
    return Answer(False, because)


def page_table_pages(pages: int, vcpus: int) -> int:
    """Pages that libxl sets aside for an HVM guest's page tables, nested ones or shadows.

    Source: `libxl__get_required_shadow_memory`: 1 MiB per vcpu, and two pages per MiB of the guest.
    """
    return PAGES_PER_MIB * vcpus + 2 * (pages // PAGES_PER_MIB)


def _mib(pages: int) -> int:
    return -(-pages // PAGES_PER_MIB)
