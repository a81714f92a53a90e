"""libxc's checks of the image header and the domain header.

Sources: `read_headers` (`xg_sr_restore.c`), `x86_pv_setup`, `x86_hvm_setup`.
"""

from __future__ import annotations

from migrate.destination import releases
from migrate.destination.releases import Release
from migrate.rules.declaring import Effect, GuestKind, Stage
from streams.wire.framing import PAGE_SHIFT, DomainHeader, GuestType, ImageHeader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from migrate.toolstack.session import Session

_KINDS = {GuestType.PV: GuestKind.PV, GuestType.HVM: GuestKind.HVM}


def image_header(session: Session, header: ImageHeader, offset: int) -> None:
    """HDR-04 to HDR-07; what makes a header unreadable the decoder has told of."""
    session.version = session.facts.version = header.version
    if header.version == 3:
        message = "version 3, which restorers know from 4.14 on"
        _report(session, "HDR-04", message, offset + 12, until=releases.version_3)
    if header.options >> 1:
        _report(session, "HDR-06", f"reserved option bits are set: 0x{header.options:04x}", offset + 16)
    if header.reserved1 or header.reserved2:
        _report(session, "HDR-07", "reserved fields of the image header are not zero", offset + 18)


def domain_header(session: Session, header: DomainHeader, offset: int) -> GuestKind | None:
    """HDR-09 to HDR-13: the kind of guest, None for one that there is not."""
    facts = session.facts
    facts.converted = header.xen_major == 0
    facts.xen = None if facts.converted else f"{header.xen_major}.{header.xen_minor}"
    saver = Release(header.xen_major, header.xen_minor)
    if saver.branch > releases.NEWEST.branch:
        message = f"saved by Xen {facts.xen}; the newest known here is {releases.NEWEST.branch_name}"
        _report(session, "HDR-12", message, offset + 8)
    if not facts.converted and (session.version == 3) != saver.has(releases.version_3):
        _report(session, "HDR-13", f"a version {session.version} image from Xen {facts.xen}", offset + 8)
    if header.reserved:
        _report(session, "HDR-11", f"the reserved field is 0x{header.reserved:04x}", offset + 6)
    # A shift by more than 31 is taken modulo 32 by the x86 that libxc runs on.
    if header.page_shift % 32 != PAGE_SHIFT:
        _report(session, "HDR-10", f"page shift {header.page_shift}; expected {PAGE_SHIFT}", offset + 4)
    elif header.page_shift != PAGE_SHIFT:
        message = f"page shift {header.page_shift}, which only x86 shifts make {PAGE_SHIFT}"
        _report(session, "HDR-10", message, offset + 4, effect=Effect.SPEC)
    facts.guest = _KINDS.get(header.type)  # type: ignore[call-overload]
    if facts.guest is None:
        _report(session, "HDR-09", f"domain type {header.type}; expected 1 (PV) or 2 (HVM)", offset)
        session.course.end_unknown = True
    return facts.guest


def _report(session: Session, rule: str, message: str, offset: int, **fields: Any) -> None:
    session.report(rule, message, offset=offset, step=Stage.HEADERS, **fields)
