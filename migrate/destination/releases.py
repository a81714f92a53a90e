"""Which Xen: every behaviour that differs between releases, asked by name.

The class body of `Target` is the table: one line per change, with the release (of each branch) that first
has it. Whoever needs to know asks a target for the name, so no release number is compared anywhere else.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from migrate.rules.declaring import Release, Rule

LONG_RECORD = 128 << 20
SHORT_RECORD = 8 << 20


class Since:
    """A change: true for a release from the first one of its branch that has it.

    `firsts` are the first releases with it, one per branch, ascending. A branch that is not named has it when
    it is newer than the last one named, and otherwise never got it.
    """

    def __init__(self, *firsts: Release, what: str) -> None:
        self.firsts = firsts
        self.what = what
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, target: None, owner: type) -> Since: ...
    @overload
    def __get__(self, target: Target, owner: type) -> bool: ...
    def __get__(self, target: Target | None, owner: type) -> Since | bool:
        return self if target is None else self.holds(target.release)

    def holds(self, release: Release) -> bool:
        """Whether a release has the change."""
        same_branch = [first for first in self.firsts if first[:2] == release[:2]]
        return release >= same_branch[0] if same_branch else release >= self.firsts[-1]


class Until(Since):
    """A behaviour that ended: true for a release until the first one of its branch without it."""

    def holds(self, release: Release) -> bool:
        """Whether a release still has the behaviour."""
        return not super().holds(release)


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """One release of Xen (hypervisor and toolstack together), as the destination of a restore."""

    release: Release

    # -- the image and its records ------------------------------------------------------------------
    colo = Since((4, 7, 0), what="checkpoint dirty pfn lists are known, on the way back only")
    linear_p2m = Since((4, 7, 0), what="the saver understands the linear p2m and trims a repeated tail off max_pfn")
    long_records = Since((4, 10, 0), what="a record may have 128 MiB instead of 8")
    superpages_fail_save = Since((4, 10, 0), what="the saver gives up at once on a superpage in a page table")
    empty_vcpu_records = Since((4, 11, 0), what="vcpu records without content are passed over")
    version_3 = Since((4, 14, 0), what="version 3 images, STATIC_DATA_END and the CPU policy records")
    pv_levels_checked = Since((4, 14, 0), what="PV_INFO of a 32-bit guest has to say 3 levels")
    blob_lengths_checked = Since((4, 14, 0), what="XSAVE needs 16 bytes, MSRS a multiple of 16")
    xsave_multiple_of_16 = Until((4, 14, 0), what="an XSAVE content has to be a multiple of 16 bytes")
    hvm_context_nonempty = Since((4, 14, 0), what="an empty HVM_CONTEXT is refused")
    populates_2m = Since((4, 21, 0), what="memory is populated in 2 MiB runs where 512 aligned pfns come together")
    qemu_traditional = Until((4, 21, 0), what="the traditional device model exists")

    # -- hypercalls ---------------------------------------------------------------------------------
    linear_pt_restricted = Since((4, 10, 0), what="linear page tables are limited to one step, and can be switched off")
    msrs_restored = Since((4, 10, 0), what="the MSRS record reaches the hypervisor as it was sent")
    l1tf = Since((4, 11, 1), (4, 12, 0), what="unsafe non-present entries send the guest into shadow mode")
    tsc_mode_3 = Until((4, 12, 0), what="TSC mode 3 (PVRDTSCP) is accepted")
    vm_assist_mask = Since((4, 12, 3), (4, 13, 1), (4, 14, 0), what="unknown vm_assist bits of vcpu 0 are refused")
    pv32_switch = Since((4, 14, 0), what="the host can be booted without 32-bit PV (pv=no-32)")
    dr_checks = Since((4, 18, 0), what="dr6, dr7 upper halves and breakpoints in Xen's range are refused (64-bit)")
    # Measured: EINVAL on 4.17, ENXIO on 4.20. The release between is not known; 4.18 is this table's choice.
    msr_unlisted_enxio = Since((4, 18, 0), what="an unlisted MSR is ENXIO instead of EINVAL")
    l3_rule = Since((4, 19, 0), what="32-bit guests without the extended cr3 assist keep L3 tables below 4 GiB")
    shared_info_moves_low = Since(
        (4, 19, 5),
        (4, 20, 3),
        (4, 21, 1),
        (4, 22, 0),
        what="a 32-bit guest's shared_info is moved below 4 GiB, which libxc does not notice",
    )
    eflags_vm_refused = Since((4, 22, 0), what="a 32-bit context with eflags.VM is refused")

    @property
    def name(self) -> str:
        """The release as text: 4.20.0."""
        return ".".join(map(str, self.release))

    @property
    def short(self) -> str:
        """The release as people write it: 4.20, 4.20.3."""
        return self.name.removesuffix(".0")

    def __str__(self) -> str:
        return self.name

    @property
    def max_record_length(self) -> int:
        """Longest record body libxc reads, in bytes (REC_LENGTH_MAX)."""
        return LONG_RECORD if self.long_records else SHORT_RECORD

    @property
    def versions(self) -> tuple[int, ...]:
        """Image versions the restorer accepts (libxc: read_headers)."""
        return (2, 3) if self.version_3 else (2,)

    @property
    def max_msrs(self) -> int:
        """How many entries an MSRS record may have (xen: XEN_DOMCTL_set_vcpu_msrs)."""
        return next(count for first, count in _MAX_MSRS if self.release >= first)

    def knows_msr(self, index: int) -> bool:
        """Whether an MSR number is one that set_vcpu_msrs takes at all (host and policy decide on the value)."""
        first = _MSRS.get(index)
        return first is not None and self.release >= first

    @property
    def msr_unlisted_errno(self) -> str:
        """What set_vcpu_msrs answers to an MSR that is not in its list."""
        return "ENXIO" if self.msr_unlisted_enxio else "EINVAL"

    @property
    def l3_variant(self) -> str:
        """Which form of the 4 GiB rule this release has: an id of migrate.rules.extended_cr3.VARIANTS."""
        return "L3V-3" if self.l3_rule else "L3V-2"

    @property
    def changes(self) -> tuple[Since, ...]:
        """What this very release changed, in the order of the table."""
        return tuple(change for change in CHANGES.values() if self.release in change.firsts)

    def enforces(self, rule: Rule) -> bool:
        """Whether this release has a rule, backports to older branches included."""
        change = _BACKPORTED.get(rule.id)
        return change.holds(self.release) if change else rule.in_force(self.release)


CHANGES: dict[str, Since] = {name: change for name, change in vars(Target).items() if isinstance(change, Since)}

# One pair of releases cannot say where these rules hold: they reached several branches.
_BACKPORTED: dict[str, Since] = {
    "REC-29": Target.l1tf,
    "REC-60": Target.vm_assist_mask,
    "HYP-27": Target.shared_info_moves_low,
}

# Newest first. Before 4.10 only the four address masks of AMD, by code of their own.
_MAX_MSRS: tuple[tuple[Release, int], ...] = (((4, 12, 0), 7), ((4, 11, 0), 2), ((4, 10, 0), 1), ((0, 0, 0), 4))

_MSRS: dict[int, Release] = {
    0x0000_0048: (4, 11, 0),  # SPEC_CTRL
    0x0000_0140: (4, 10, 0),  # INTEL_MISC_FEATURES_ENABLES
    0xC000_0103: (4, 12, 0),  # TSC_AUX
    0xC001_1027: (4, 6, 0),  # AMD64_DR0_ADDRESS_MASK, then DR1 to DR3
    0xC001_1019: (4, 6, 0),
    0xC001_101A: (4, 6, 0),
    0xC001_101B: (4, 6, 0),
}

_FIRST_MINOR, _LAST_MINOR = 6, 22
_BRANCHES: frozenset[Release] = frozenset((4, minor, 0) for minor in range(_FIRST_MINOR, _LAST_MINOR + 1))

RELEASES: tuple[Target, ...] = tuple(
    Target(release) for release in sorted(_BRANCHES.union(*(change.firsts for change in CHANGES.values())))
)
"""The .0 releases since migration v2 exists, and those point releases that changed something; ascending."""

NEWEST: Target = RELEASES[-1]

_RELEASE_TEXT = re.compile(r"(?:xen[- ]?)?v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", re.IGNORECASE | re.ASCII)


def resolve(text: str = "newest") -> Target:
    """The release a user named: "4.20" (its .0), "4.20.3", "xen-4.20.3", "v4.20" or "newest".

    A point release that the table does not list behaves as computed; a branch it does not know raises
    ValueError, with a hint at what may have been meant.
    """
    wanted = text.strip()
    if wanted.lower() == "newest":
        return NEWEST
    match = _RELEASE_TEXT.fullmatch(wanted)
    if match:
        major, minor, point = (int(part or 0) for part in match.groups())
        if (major, minor, 0) in _BRANCHES:
            return Target((major, minor, point))
        wanted = f"{major}.{minor}"
    raise ValueError(_unknown(wanted))


def _unknown(wanted: str) -> str:
    branches = [f"{major}.{minor}" for major, minor, _ in sorted(_BRANCHES, reverse=True)]
    close = difflib.get_close_matches(wanted.lower(), ["newest", *branches], n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"unknown Xen release {wanted[:40]!r} (known: {branches[-1]} to {branches[0]}, newest){hint}"
