"""Machine check capabilities that a guest brings, and who takes them; with the standard library alone.

Source: `vmce_restore_vcpu` (`xen/arch/x86/cpu/mcheck/vmce.c`); it serves PV and HVM guests.
"""

from __future__ import annotations

from migrate.destination import releases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.destination.releases import Release

COUNT, CTL_P = 0xFF, 1 << 8
CMCI_P, TES_P, SER_P, LMCE_P = 1 << 10, 1 << 11, 1 << 24, 1 << 27

EVERYWHERE = COUNT | CTL_P
"""The number of banks, which may be any, and their control register."""


def intel_only(release: Release) -> int:
    """Capabilities that hosts with processors of Intel take, and no others."""
    return CMCI_P | TES_P | SER_P | (LMCE_P if release.has(releases.lmce) else 0)


def taken(caps: int, release: Release, intel: bool | None) -> bool | None:
    """Whether a host takes these capabilities; None where that hangs on its make, which is not known (`intel` None)."""
    beyond = caps & ~EVERYWHERE
    if beyond & ~intel_only(release):
        return False
    return intel if beyond else True


def errno(release: Release) -> str:
    """What Xen answers to those that it does not take."""
    return "EINVAL" if release.has(releases.hvm_errnos) else "EPERM"
