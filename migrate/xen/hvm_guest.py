"""What a stream tells of an HVM guest as a whole, as far as Xen's answers hang on it."""

from __future__ import annotations

from migrate.guest.populated import PopulatedPfns
from streams.hvm_context import entries
from streams.values import dataclass, field
from streams.wire.hvm_names import SaveType

EMULATED: frozenset[int] = frozenset(
    {SaveType.PIC, SaveType.IOAPIC, SaveType.PIT, SaveType.RTC, SaveType.HPET, SaveType.PMTIMER}
)
"""Types of entries that an HVM guest's saver writes, every one, and a PVH guest's never: such devices it has not."""
_KNOWN = frozenset(SaveType)


def saved_vcpus(body: bytes) -> int:
    """How many vcpus have a CPU entry."""
    return len({entry.instance for entry in entries(body) if entry.typecode == SaveType.CPU})


def has_emulated_devices(body: bytes) -> bool | None:
    """Whether the context is an HVM guest's (True) or a PVH guest's; None where it is too short to tell.

    An HVM guest's saver writes all of PIC, IOAPIC, PIT, RTC, HPET and PMTIMER, a PVH guest's none of them: the
    majority of these types decides. Types ascend in a genuine context, so without the majority it is a PVH guest's
    where something comes that would follow them.
    """
    found = {entry.typecode for entry in entries(body)}
    if len(found & EMULATED) * 2 > len(EMULATED):
        return True
    return False if any(kind > max(EMULATED) for kind in found if kind in _KNOWN) else None


@dataclass(slots=True)
class HvmGuest:
    """An HVM or PVH guest, as its stream goes on.

    Attributes
    ----------
    populated:
        the pfns that have a page.
    configured:
        what the domain's configuration calls it: hvm, pvh, or anything else where it is not known.
    nested, hap:
        whether the configuration lets it have guests of its own, and run on hardware-assisted paging; None where that
        is not known.
    devices:
        whether the last HVM_CONTEXT has those of a PC; None where it does not tell. Each call asks, and a context may
        be long: it is looked through once.
    """

    populated: PopulatedPfns = field(default_factory=PopulatedPfns)
    configured: object = None
    nested: bool | None = None
    hap: bool | None = None
    devices: bool | None = None

    @property
    def emulated(self) -> bool | None:
        """Whether it has the devices of a PC: an HVM guest has, a PVH guest has not; None where nobody knows."""
        if self.configured in ("hvm", "pvh"):
            return self.configured == "hvm"
        return self.devices
