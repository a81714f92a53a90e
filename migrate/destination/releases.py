"""Which Xen: every behaviour that differs between releases, asked by name.

The table below is the only place where release numbers stand: a check asks `release.has(change)`, a rule names the
change from which on it holds. Read at every release tag of Xen from 4.6.0 to 4.22.0.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache, lru_cache

from streams.values import NamedTuple, dataclass


class Release(NamedTuple):
    """One release of Xen (hypervisor and toolstack together)."""

    major: int
    minor: int
    point: int = 0

    def has(self, change: Change) -> bool:
        """Whether this release has a change."""
        return change.holds(self)

    @property
    def name(self) -> str:
        """As text: 4.20.0."""
        return ".".join(map(str, self))

    @property
    def short(self) -> str:
        """As people write it: 4.20, 4.20.3."""
        return self.name.removesuffix(".0")

    def __str__(self) -> str:
        return self.name

    @property
    def branch(self) -> tuple[int, int]:
        """Major and minor: what the point releases of a stable branch have in common."""
        return self[:2]

    @property
    def branch_name(self) -> str:
        """The branch as text: 4.20."""
        return f"{self.major}.{self.minor}"

    # -- what several changes add up to -------------------------------------------------------------

    @property
    def versions(self) -> tuple[int, ...]:
        """Image versions the restorer accepts (libxc: read_headers)."""
        return (2, 3) if self.has(version_3) else (2,)

    @property
    def l3_rule(self) -> str:
        """Which form of the 4 GiB rule it has: an id of `migrate.rules.extended_cr3.L3_RULES`."""
        return "L3V-3" if self.has(l3_below_4g) else "L3V-2"

    def supposing(self, change: Change) -> Release:
        """What this release would be if it had a change that it has not, or had not one that it has."""
        return _Supposed.made(self, change)

    @property
    def changes(self) -> tuple[Change, ...]:
        """What this very release changed, in the order of the table."""
        return tuple(change for change in CHANGES.values() if self in change.firsts or self in change.lasts)


@cache
def _releases(text: str) -> tuple[Release, ...]:
    return tuple(Release(*map(int, name.split("."))) for name in text.split())


# Asked again and again, for every entry of a context and for every host of a pool.
@lru_cache(maxsize=1 << 14)
def _reached(text: str, release: Release) -> bool:
    """Whether a release comes, in its branch, at or after the first of some that has a thing."""
    releases = _releases(text)
    same_branch = [first for first in releases if first.branch == release.branch]
    return release >= (same_branch[0] if same_branch else releases[-1])


@dataclass(frozen=True, slots=True)
class Change:
    """Something that one release does and another does not.

    Attributes
    ----------
    what:
        the behaviour, in a line.
    since:
        the releases that first have it, one per branch, ascending and with a blank between. A branch that is not named
        has it if it is newer than the last one named, and else never got it.
    until:
        in the same way, the releases that do not have it any more; empty for none.
    """

    what: str
    since: str
    until: str = ""

    @property
    def firsts(self) -> tuple[Release, ...]:
        """The first releases with it."""
        return _releases(self.since)

    @property
    def lasts(self) -> tuple[Release, ...]:
        """The first releases without it again."""
        return _releases(self.until)

    @property
    def backports(self) -> tuple[Release, ...]:
        """The first releases with it in older branches."""
        return self.firsts[:-1]

    @property
    def spans(self) -> str:
        """The known releases that have it, in runs."""
        return spans(tuple(filter(self.holds, RELEASES)))

    @property
    def name(self) -> str:
        """What the table calls it."""
        return next(name for name, change in CHANGES.items() if change is self)

    def holds(self, release: Release) -> bool:
        """Whether a release behaves so."""
        return _reached(self.since, release) and not (self.until and _reached(self.until, release))


class _Supposed(Release):
    """A release that never was: another one with a change turned round."""

    turned: Change

    @classmethod
    def made(cls, release: Release, change: Change) -> _Supposed:
        supposed = cls(*release)
        supposed.turned = change
        return supposed

    def has(self, change: Change) -> bool:
        return change.holds(self) != (change is self.turned)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Supposed) and tuple(self) == tuple(other) and self.turned is other.turned

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((tuple(self), id(self.turned)))


every_release = Change("migration streams of version 2 are read at all", "4.6.0")

# -- the image and its records --------------------------------------------------------------------------

colo = Change("checkpoint dirty pfn lists are known, on the way back only", "4.7.0")
long_records = Change("a record may have 128 MiB instead of 8", "4.10.0")
empty_vcpu_records_skipped = Change("vcpu records without content are passed over", "4.11.0")
version_3 = Change("version 3 images, STATIC_DATA_END and the CPU policy records", "4.14.0")
blob_lengths_checked = Change(
    "XSAVE needs 16 bytes, MSRS a multiple of 16, PV_INFO of a 32-bit guest 3 levels", "4.12.3 4.13.1 4.14.0"
)
vm_assist_mask = Change("unknown vm_assist bits of vcpu 0 are refused", "4.12.3 4.13.1 4.14.0")
params_length_exact = Change(
    "HVM_PARAMS has exactly the length of its entries, and may have none", "4.6.6 4.7.3 4.8.2 4.9.0"
)
hvm_context_nonempty = Change("libxc refuses an empty HVM_CONTEXT", "4.14.0")
emulator_needs_device_model = Change("libxl takes EMULATOR_* records for a guest with a device model only", "4.7.0")
emulator_needs_hvm = Change("libxl takes EMULATOR_* records for a guest of type HVM only", "4.10.0")
qemu_traditional_gone = Change("the traditional device model is gone", "4.21.0")

# -- CPU policies ---------------------------------------------------------------------------------------

leaf_7_2 = Change("CPUID leaf 7 has a subleaf 2", "4.14.5 4.15.3 4.16.1 4.17.0")
leaf_80000021 = Change("CPUID leaves reach 0x80000021 instead of 0x8000001c", "4.14.5 4.15.3 4.16.0")
arch_caps_known = Change("a policy may have MSR_ARCH_CAPABILITIES", "4.14.1 4.15.0")
arch_caps_64 = Change("MSR_ARCH_CAPABILITIES may have 64 bits instead of 32", "4.14.6 4.15.5 4.16.5 4.17.2 4.18.0")
max_subleaf_compared = Change("the largest subleaf of leaf 7 may not exceed the host's", "4.15.0")
max_subleaf_relaxed = Change("the largest subleaf of leaf 7 may be 2 on every host", "4.17.5 4.18.3 4.19.0")
max_leaves_relaxed = Change("the largest leaves may be 0xd and 0x80000021 on every host", "4.18.4 4.19.1 4.20.0")
vendor_compared = Change("the policy's vendor has to be the host's", "4.22.0")

umip = Change("a guest may have UMIP", "4.10.0")
lwp_gone = Change("no guest may have Lightweight Profiling any more", "4.13.0")
pks = Change("an HVM guest may have PKS", "4.18.0")
auto_ibrs = Change("an HVM guest may have Automatic IBRS", "4.18.0")
lass = Change("an HVM guest may have LASS", "4.22.0")

# -- what `xl info` prints ------------------------------------------------------------------------------

prints_pv = Change("virt_caps names pv where PV guests can run", "4.12.0")
prints_paging = Change("virt_caps names hap and shadow", "4.13.0")

# -- PV guests ------------------------------------------------------------------------------------------

linear_pt_restricted = Change(
    "linear page tables are limited to one step, and can be switched off", "4.7.4 4.8.3 4.9.1 4.10.0"
)
msrs_restored = Change("the MSRS record reaches the hypervisor as it was sent", "4.7.5 4.8.4 4.9.2 4.10.0")
msr_refusal_enxio = Change("an MSR that set_vcpu_msrs refuses is ENXIO instead of EINVAL", "4.20.0")
xsave_size_exact = Change("an XSAVE area has exactly the size of its components", "4.7.1 4.8.0")
xcr0_without_hvm_bits = Change("xcr0_accum may not have what no PV guest can: MPX, PKU, LWP", "4.8.5", until="4.9.0")
amx_pair_checked = Change("both components of AMX are on, or none", "4.19.0")
xcr0_by_policy = Change("xcr0_accum is held against the guest's policy", "4.9.3 4.10.2 4.11.1 4.12.0")
l1tf = Change("unsafe non-present entries send the guest into shadow mode", "4.8.5 4.9.3 4.10.2 4.11.1 4.12.0")
tsc_mode_3_refused = Change("TSC mode 3 (PVRDTSCP) is refused", "4.12.0")
pv32_switch = Change("the host can be booted without 32-bit PV (pv=no-32)", "4.14.0")
pv32_off_by_default = Change("32-bit PV is not built by default", "4.16.0")
debug_registers_checked = Change("dr6, dr7 upper halves and breakpoints in Xen's range are refused (64-bit)", "4.18.0")
l3_below_4g = Change("32-bit guests without the extended cr3 assist keep L3 tables below 4 GiB", "4.19.0")
shared_info_moves_low = Change(
    "a 32-bit guest's shared_info is moved below 4 GiB, which libxc does not notice", "4.19.5 4.20.3 4.21.1 4.22.0"
)
eflags_vm_refused = Change("a 32-bit context with eflags.VM is refused", "4.21.1 4.22.0")
r8_to_r15_lost = Change("the registers r8 to r15 of a 64-bit guest are not restored", "4.21.0", until="4.21.2 4.22.0")
shadow_paging_off = Change("shadow paging is not built by default", "4.22.0")

# -- MSRs that a vcpu may bring, and their values ---------------------------------------------------------

misc_features_judged = Change("MSR_MISC_FEATURES_ENABLES is held against the guest's policy", "4.10.0")
misc_features = Change("MSR_MISC_FEATURES_ENABLES is restored", "4.8.4 4.9.2 4.10.0")
spec_ctrl = Change("MSR_SPEC_CTRL is restored", "4.7.5 4.8.4 4.9.2 4.10.1 4.11.0")
spec_ctrl_ssbd = Change("MSR_SPEC_CTRL may have SSBD", "4.8.5 4.9.4 4.10.2 4.11.1 4.12.0")
spec_ctrl_amd = Change("MSR_SPEC_CTRL may have PSFD, and AMD's IBRS allows it", "4.14.5 4.15.3 4.16.1 4.17.0")
spec_ctrl_more = Change("MSR_SPEC_CTRL may have the bits of IPRED, RRSBA and BHI", "4.15.6 4.16.6 4.17.4 4.18.2 4.19.0")
tsc_aux = Change("a PV guest may have RDTSCP, and MSR_TSC_AUX is restored", "4.12.0")
address_masks_by_policy = Change("AMD's debug address masks are held against the guest's policy", "4.12.0")
one_msr = Change("a PV vcpu may bring an MSR besides AMD's four address masks", "4.10.0")
two_msrs = Change("a PV vcpu may bring two MSRs besides AMD's four address masks", "4.10.1")
seven_msrs = Change("a PV vcpu may bring seven MSRs besides AMD's four address masks", "4.12.0")
seven_msrs_in_all = Change(
    "a PV vcpu may bring seven MSRs, AMD's four address masks among them", "4.18.4 4.19.1 4.20.0"
)

# -- HVM guests -----------------------------------------------------------------------------------------

hvm_errnos = Change(
    "sethvmcontext, and whoever else loads machine check capabilities, answers what failed instead of EPERM",
    "4.13.4 4.14.3 4.15.1 4.16.0",
)
hvm_two_phases = Change("a context is checked as a whole before any of it is loaded; PIC, PIT, PCI_LINK too", "4.19.0")
hvm_lapic_checked = Change("LAPIC and LAPIC_REGS are among what is checked before loading", "4.20.0")
hvm_devices_checked = Change("a guest may lack emulated devices, and state of those is ENODEV", "4.7.0")

hvm_cpu_flags = Change("CPU entries have flags, and may be shorter", "4.7.0")
hvm_viridian_assist = Change("Viridian's APIC assist page, and TLB flushes by hypercall", "4.7.0")
hvm_viridian_synic = Change("Viridian's synthetic interrupts and timers", "4.13.0")
hvm_rtc_offset = Change("RTC entries have the clock's offset, and may be shorter", "4.14.0")
hvm_lapic_esr = Change("LAPIC entries have the pending error status", "4.18.5 4.19.2 4.20.1 4.21.0")

hvm_widths_checked = Change("TSC_AUX of an HVM vcpu has 32 bits, and it has 8 variable MTRRs at most", "4.12.0")
hvm_cr3_checked = Change("cr3 of an HVM vcpu is no wider than a physical address", "4.14.0")
hvm_by_policy = Change("cr4 and EFER of an HVM vcpu are held against the guest's policy", "4.9.4 4.10.3 4.11.2 4.12.0")
hvm_efer_checked = Change("unknown bits of an HVM vcpu's EFER are refused", "4.8.5 4.9.3 4.10.2 4.11.1 4.12.0")
hvm_lmsle_gone = Change("EFER of an HVM vcpu may not have LMSLE", "4.12.0")
hvm_event_checked = Change("events that AMD cannot inject, and error codes wider than 16 bits, are refused", "4.9.0")
hvm_xsave_checked = Change("the header of an HVM vcpu's XSAVE area is checked", "4.7.0")
pku = Change("an HVM guest may have protection keys", "4.7.0")
hvm_xss = Change("MSR_IA32_XSS of an HVM guest is restored", "4.7.0")
hvm_msrs_by_policy = Change("BNDCFGS and XSS of an HVM vcpu are held against the guest's policy", "4.13.0")
virt_spec_ctrl = Change("MSR_VIRT_SPEC_CTRL is restored", "4.17.0")

hvm_segments_asserted = Change("a debug build of Xen asserts that segments are as processors have them", "4.9.0")
hvm_hpet_asserted = Change("a debug build of Xen asserts that a running HPET timer has a route", "4.12.0")
viridian_pages_survived = Change(
    "a Viridian page that is not there does not bring the host down (XSA-472)", "4.17.6 4.18.6 4.19.4 4.20.2"
)

param_x87_fip_width = Change("HVM param 36, X87_FIP_WIDTH", "4.6.3")
param_vm86_tss_sized = Change("HVM param 37, VM86_TSS_SIZED, and VM86_TSS lies below 4 GiB", "4.9.0")
viridian_crash_control = Change("Viridian's crash control", "4.9.0")
viridian_many_vcpus = Change("Viridian's masks of many vcpus, and CPU hotplug", "4.15.0")
triple_fault_soft_reset = Change("a triple fault may be a soft reset", "4.7.0")
altp2m_modes = Change("HVM param ALTP2M has four modes instead of two", "4.9.0")
dm_domain_self = Change("HVM param DM_DOMAIN may only say that it is the domain itself", "4.11.0")
params_denied = Change("HVM params that nobody may set are EPERM, and ioreq pages are set once", "4.12.0")
params_allowed = Change("only listed HVM params may be set, others are EINVAL; libxc drops PAE_ENABLED", "4.14.0")
nested_at_creation = Change("nested virtualisation is chosen when a domain is made, not by a param", "4.15.0")
altp2m_at_creation = Change("altp2m is chosen when a domain is made, not by a param", "4.19.0")

lmce = Change("a guest may have local machine checks (LMCE)", "4.10.0")

CHANGES: dict[str, Change] = {name: change for name, change in list(globals().items()) if isinstance(change, Change)}
"""The table, by name."""

_POINTS: dict[int, int] = {
    **{6: 7, 7: 7, 8: 6, 9: 5, 10: 5, 11: 5, 12: 5, 13: 6, 14: 7, 15: 8, 16: 8, 17: 8, 18: 7, 19: 7},
    **{20: 5, 21: 3, 22: 1},
}

RELEASES: tuple[Release, ...] = tuple(
    Release(4, minor, point) for minor, points in _POINTS.items() for point in range(points) if (minor, point) != (6, 2)
)
"""All releases since migration v2 exists, ascending. There is no 4.6.2."""

NEWEST: Release = RELEASES[-1]


@cache
def _alike() -> dict[tuple[bool, ...], list[Release]]:
    """Releases by what they have; most commands ask about one alone."""
    alike: dict[tuple[bool, ...], list[Release]] = {}
    for release in RELEASES:
        alike.setdefault(tuple(map(release.has, CHANGES.values())), []).append(release)
    return alike


def distinct() -> tuple[Release, ...]:
    """Of releases that the table does not tell apart, the first; ascending."""
    return tuple(sorted(alike[0] for alike in _alike().values()))


def like(release: Release) -> tuple[Release, ...]:
    """The known releases that behave as this one does, as far as the table tells; ascending."""
    return tuple(_alike().get(tuple(map(release.has, CHANGES.values())), ()))


def spans(chosen: Collection[Release]) -> str:
    """Releases as people write many of them: 4.14.0–4.14.4, 4.15.0–4.15.2, 4.20.0."""
    runs: list[list[Release]] = []
    previous = None
    for release in RELEASES:
        if release in chosen:
            if previous is None:
                runs.append([])
            runs[-1].append(release)
        previous = release if release in chosen else None
    return ", ".join(f"{run[0]}–{run[-1]}" if run[1:] else str(run[0]) for run in runs)


def differences(one: Release, other: Release) -> tuple[Change, ...]:
    """The changes that one of two releases has and the other has not."""
    return tuple(change for change in CHANGES.values() if one.has(change) != other.has(change))


BRANCHES: frozenset[tuple[int, int]] = frozenset(release.branch for release in RELEASES)
_BRANCH_NAMES = [release.short for release in RELEASES if release.point == 0]

_RELEASE_TEXT = r"(?ia)(?:xen[- ]?)?v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?"


def resolve(text: str = "newest") -> Release:
    """The release a user named: "4.20" (its .0), "4.20.3", "xen-4.20.3", "v4.20" or "newest".

    A point release beyond the last known one of an older branch behaves as that; a branch that is not known raises
    ValueError with a hint at what may have been meant, and a release newer than all one that names the newest.
    """
    wanted = text.strip()
    if wanted.lower() == "newest":
        return NEWEST
    import re

    match = re.fullmatch(_RELEASE_TEXT, wanted)
    if match is None:
        from difflib import get_close_matches

        raise ValueError(_unknown(wanted, get_close_matches(wanted.lower(), ["newest", *_BRANCH_NAMES], 1, 0.5)))
    release = Release(*(int(part or 0) for part in match.groups()))
    if release > NEWEST:
        raise ValueError(f"Xen {release.short} is newer than any that is known here: the newest is {NEWEST}")
    if release.branch not in BRANCHES:
        nearest = min(BRANCHES, key=lambda branch: abs(branch[1] - release.minor))
        raise ValueError(_unknown(wanted, [f"{nearest[0]}.{nearest[1]}"]))
    return release


def _unknown(wanted: str, close: Sequence[str]) -> str:
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"unknown Xen release {wanted[:40]!r} (known: {_BRANCH_NAMES[0]} to {_BRANCH_NAMES[-1]}, newest){hint}"
