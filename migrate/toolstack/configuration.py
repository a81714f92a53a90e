"""What the configuration in front of a stream means for it: is it one, and does it go with the guest that comes?

Sources: `xl_vmcontrol.c` (create_domain), `libxl_create.c`, `libxl_dom.c`; for what libxc makes of the guest's type
`xg_sr_restore_x86_pv.c` and `xg_sr_restore_x86_hvm.c`.
"""

from __future__ import annotations

from migrate.rules.declaring import SIGABRT, Effect, GuestKind, Stage
from migrate.toolstack import config
from migrate.toolstack.config import LONGEST_CONFIG, TRADITIONAL, ConfigSource, DomainConfig
from migrate.toolstack.frame_count import FrameCount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.toolstack.session import Session

_CREATED_BY = {ConfigSource.JSON: "libxl", ConfigSource.CFG: "libxl", ConfigSource.XML: "libvirt"}


def read(raw: bytes, source: ConfigSource) -> DomainConfig | None:
    """The configuration in some bytes; None where they are more than any configuration has."""
    if len(raw) > LONGEST_CONFIG:
        return None
    match source:
        case ConfigSource.JSON:
            from migrate.toolstack.config_libxl import read_json

            return read_json(raw)
        case ConfigSource.CFG:
            from migrate.toolstack.config_libxl import read_cfg

            return read_cfg(raw)
        case ConfigSource.XML:
            from migrate.toolstack.config_libvirt import read_xml

            return read_xml(raw)
        case ConfigSource.XENOPSD:
            from migrate.toolstack.config_xapi import read_xenops

            return read_xenops(raw)


class ConfigChecks:
    """Checks of what creates the domain, in the order in which it looks.

    The configuration becomes the session's, and so does its number of vcpus, unless the caller has given one.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def take(self, raw: bytes, source: ConfigSource, offset: int) -> None:
        """CON-37, CON-40 and CON-46: the configuration, which begins at an offset."""
        found = read(raw, source)
        if found is None:
            return
        session = self._session
        session.config = found
        for problem in found.problems:
            said = f": {problem.says}" if problem.says else ""
            rule = "CON-37" if problem.by else "CON-46"
            call = problem.by or _CREATED_BY[source]
            session.report(rule, f"{problem.message}{said}", offset=offset, step=Stage.HEADERS, call=call)
        if found.device_model == TRADITIONAL and found.build_kind == config.GuestKind.HVM:
            self._traditional(found, offset)
        if session.vcpus is None and not found.refused:
            session.vcpus = found.vcpus
        if found.limit_kib is not None:
            session.frames = FrameCount(session.report, found.limit_kib)

    def _traditional(self, found: DomainConfig, offset: int) -> None:
        message = "the device model is qemu-xen-traditional, which Xen 4.21 has removed: "
        dies = found.bios not in (None, "unknown")
        self._session.report(
            "CON-40",
            message + ("libxl dies of an assertion" if dies else "unknown device model version"),
            offset=offset,
            step=Stage.HEADERS,
            call="libxl",
            signal=SIGABRT if dies else None,
            effect=Effect.CRASH if dies else None,
        )

    def image_is(self, guest: GuestKind | None, offset: int) -> None:
        """CON-38: the domain header at an offset says what kind of guest the image holds."""
        found = self._session.config
        if found is None or found.kind is None or guest is None or found.source is ConfigSource.XENOPSD:
            return
        if (found.kind == config.GuestKind.PV) != (guest == GuestKind.PV):
            made = "x86_pv" if found.kind == config.GuestKind.PV else "x86 HVM"
            self._session.report(
                "CON-38",
                f"the configuration's type is {found.kind}: unable to restore x86 {guest.upper()} domain into an "
                f"{made} domain",
                offset=offset,
                step=Stage.HEADERS,
            )
