"""How many frames a guest needs, against those that libxl lets its domain have.

libxc asks Xen for a frame when a pfn first comes that needs one (`populate_pfns` of `xg_sr_restore.c`).
"""

from __future__ import annotations

from collections.abc import Callable

from streams.counting import count
from streams.wire.framing import PAGE_SHIFT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.rules.findings import Finding
    from streams.records import Place

_KIB_PER_PAGE = (1 << PAGE_SHIFT) >> 10


class FrameCount:
    """Counts, and reports the record that goes beyond the limit (CON-39).

    Attributes
    ----------
    limit:
        pages that the domain may have.
    counting:
        whether the limit is still ahead.
    """

    def __init__(self, report: Callable[..., Finding], limit_kib: int) -> None:
        self._report = report
        self._limit_kib = limit_kib
        self._frames = 0
        self.limit = limit_kib // _KIB_PER_PAGE
        self.counting = True

    @property
    def left(self) -> int:
        """How many more it may have."""
        return self.limit - self._frames

    def add(self, fresh: int, place: Place) -> None:
        """So many pfns of a record get a frame that had none."""
        self._frames += fresh
        if self.counting and self._frames > self.limit:
            self.counting = False
            self._report(
                "CON-39",
                f"{place.name}: the guest needs {count(self._frames, 'frame')} by now, and its "
                f"configuration lets it have "
                f"{self.limit} ({self._limit_kib} KiB of memory, libxl's slack included)",
                place,
                call="populate_physmap",
                errno="EBUSY",
            )
