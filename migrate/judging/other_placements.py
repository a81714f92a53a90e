"""The 4 GiB rule before the frames are known: what another placement would do to this guest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from migrate.destination import releases
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, Severity
from migrate.rules.findings import Finding
from streams.counting import count
from streams.pages import LEVEL_MASK
from streams.wire.paging import PAE_L3_LIMIT
from streams.wire.vcpu import CONTEXT
from streams.wire.views import view

if TYPE_CHECKING:
    from collections.abc import Callable

    from migrate.destination.destination import Destination
    from migrate.guest.memory import PvGuest


def _placement_open(destination: Destination) -> bool:
    """Whether nobody knows where the host's frames lie."""
    return destination.host is None or (destination.host.places_high().open and destination.placement_assumed)


def other_placements(
    guest: PvGuest, destination: Destination, refused_with: Callable[[Destination], str | None]
) -> list[Finding]:
    """L3C-1 to L3C-6, and what else would change under another placement.

    Parameters
    ----------
    refused_with:
        the rule by which the guest is refused at a destination; None where it is not.
    """
    extended = guest.extended_cr3
    found: list[Finding] = []

    def tell(rule: str, message: str, pfn: int | None = None, **fields: Any) -> None:
        finding = Finding.of(RULES[rule], message, pfn=pfn, **fields)
        if finding.in_force(destination):
            found.append(finding)

    if guest.width == 8:
        if extended:
            tell("L3C-4", "the 64-bit guest has enabled pae_extended_cr3, which means nothing there")
        return found
    if (
        _placement_open(destination)
        and destination.release.has(releases.shared_info_moves_low)
        and destination.placement != "high"
    ):
        found.append(
            Finding.of(
                RULES["HYP-27"],
                "refused on a host that places the domain's shared_info at or above 4 GiB: Xen moves it, and libxc "
                "maps it where it was",
                effect=Effect.HOST,
                severity=Severity.WARNING,
                left_to_host=True,
            )
        )
    if destination.host is None or destination.host.pv32.open:
        off = destination.release.has(releases.pv32_off_by_default)
        tell(
            "REC-32",
            "the destination must run 32-bit PV guests: "
            + ("Xen is built without them by default (CONFIG_PV32)" if off else "not every host does (pv=32)"),
            severity=None if off else Severity.INFO,
            left_to_host=True,
        )
    by_vcpu = guest.roots
    for index, vcpu in guest.vcpus.items():
        low = int(view(CONTEXT[4], vcpu.basic)["ctrlreg"][3]) & 0xFFF if vcpu.basic else 0
        if low:
            tell("L3C-6", f"vcpu {index}'s cr3 has low bits {low:#x}: they are part of a pfn at or above 0x100000")
    if extended is not False:
        return found
    if guest.type_of(by_vcpu.get(0, -1)) & LEVEL_MASK != 3:
        return found  # cr3 itself is wrong
    pfns, levels = guest.pinned()
    live = set(pfns[levels == 3].tolist()) | set(by_vcpu.values())
    others = sorted(live - {by_vcpu.get(0)})
    mfns = guest.source_mfns()
    high = [p for p in np.flatnonzero(guest.types & LEVEL_MASK == 3).tolist() if mfns[p] >= PAE_L3_LIMIT]
    at_risk = others and _placement_open(destination) and refused_with(destination.but(placement="high")) == "HYP-22"
    if at_risk and refused_with(destination.but(placement="low")) is None:
        names = ", ".join(f"{pfn:#x}" for pfn in others[:8]) + (", …" if len(others) > 8 else "")
        tell(
            "L3C-1",
            f"restores on a host that hands out low frames, refused with ERANGE by Xen 4.19 and later otherwise: "
            f"{len(others)} of {count(len(live), 'live L3 table')} at risk (pfn {names}); vcpu 0's own root is exempt",
            others[0],
            count=len(others),
            left_to_host=True,
        )
    elif live and not others:
        tell("L3C-2", "vcpu 0's root is the only live L3 table: it is taken before the 4 GiB rule applies")
    if high:
        tell(
            "L3C-3",
            f"on the source {count(len(high), 'L3 table')} lay at or above 4 GiB, first pfn {high[0]:#x} "
            f"(mfn {int(mfns[high[0]]):#x}): the source did not enforce the rule",
            high[0],
            count=len(high),
        )
    return found
