"""What a stream tells of an HVM guest as a whole, as far as Xen's answers hang on it."""

from __future__ import annotations

from migrate.guest.populated import PopulatedPfns
from migrate.xen.hvm_context import has_emulated_devices
from streams.values import dataclass, field


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
    context:
        the last HVM_CONTEXT.
    """

    populated: PopulatedPfns = field(default_factory=PopulatedPfns)
    configured: object = None
    nested: bool | None = None
    hap: bool | None = None
    context: bytes | None = None

    @property
    def emulated(self) -> bool | None:
        """Whether it has the devices of a PC: an HVM guest has, a PVH guest has not; None where nobody knows."""
        if self.configured in ("hvm", "pvh"):
            return self.configured == "hvm"
        return None if self.context is None else has_emulated_devices(self.context)
