"""Would the guest find room on a known host? What is free changes, so that it is a warning, never a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate.destination.host_memory import page_table_pages
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import GuestKind
from migrate.rules.findings import Finding

if TYPE_CHECKING:
    from migrate.destination.host import Host


def short_of_memory(host: Host, kind: GuestKind, pages: int, vcpus: int) -> Finding | None:
    """HYP-32; None where the guest fits in, or nobody can tell.

    Parameters
    ----------
    pages:
        of 4 KiB, that the guest has by the end of the stream.
    """
    beside = page_table_pages(pages, vcpus) if kind == GuestKind.HVM else 0
    fits = host.fits(pages + beside)
    if fits.value is not False:
        return None
    tables = ", with what libxl sets aside for page tables" if beside else ""
    return Finding.of(RULES["HYP-32"], f"{fits.because}{tables}: dom0 has to give memory back first, or ENOMEM follows")
