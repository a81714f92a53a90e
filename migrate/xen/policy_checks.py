"""Whether Xen takes the CPU policy that a stream brings; with the standard library alone.

XEN_DOMCTL_set_cpu_policy reads the leaves, then the MSRs, over the policy that the new domain has by default, and
compares a few numbers with the most that the host could offer. Features are not among them.

Sources: `x86_cpuid_copy_from_buffer` (`xen/lib/x86/cpuid.c`), `x86_msr_copy_from_buffer` (`xen/lib/x86/msr.c`),
`x86_cpu_policies_are_compatible` (`xen/lib/x86/policy.c`).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from migrate.destination import releases
from migrate.destination.host import MAX
from migrate.destination.policy_ranges import (
    HYPERVISOR_LEAVES,
    LAST_BASIC,
    LAST_SUBLEAF,
    last_extended,
    last_feature_subleaf,
    most_leaves,
    most_policy_msrs,
)
from migrate.guest.cpu_policy import BASIC, EXTENDED, FEATURE_LEAF, Policy, read_policy
from migrate.rules.declaring import GuestKind
from migrate.xen.cpu_policy import (
    CPUID_FAULTING,
    within_its_maxima,
)
from streams.counting import count
from streams.values import NamedTuple
from streams.wire.cpu_features import MSR_NAMES
from streams.wire.framing import CPUID_LEAF, NO_SUBLEAF, POLICY_MSR
from streams.wire.msrs import Msr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.destination.releases import Release

NOWHERE = 0xFFFF_FFFF
"""What Xen reports for the leaf, subleaf or MSR that a refusal is not about."""


class Subject(Enum):
    """What a refusal is about."""

    FORM = "the form of the records"
    VENDOR = "the vendor"
    BASIC = "the last basic leaf"
    FEATURES = "the last subleaf of leaf 7"
    EXTENDED = "the last extended leaf"
    FAULTING = "PLATFORM_INFO"


class PolicyObjection(NamedTuple):
    """Why Xen refuses a policy.

    Attributes
    ----------
    errno, message:
        what it answers, and what is wrong.
    subject:
        what is at fault: the form of the records, or which of the things that are compared with the host.
    leaf, subleaf, msr:
        where, as libxc prints it; `NOWHERE` for none.
    cpuid:
        whether it is the record of leaves, not that of MSRs, that is at fault.
    offset:
        of the entry at fault in that record's body.
    certain:
        whether every host refuses; else it depends on the host.
    """

    errno: str
    message: str
    subject: Subject = Subject.FORM
    leaf: int = NOWHERE
    subleaf: int = NOWHERE
    msr: int = NOWHERE
    cpuid: bool = True
    offset: int = 0
    certain: bool = True

    @property
    def position(self) -> str:
        """Where it is wrong, in the words of libxc."""
        return f"leaf {self.leaf:08x}, subleaf {self.subleaf:08x}, msr {self.msr:08x}"


def policy_objections(
    cpuid: bytes | None, msrs: bytes | None, kind: GuestKind, release: Release, host_max: Policy | None = None
) -> Iterator[PolicyObjection]:
    """What Xen has against a policy, in the order of its tests: it stops at the first that is certain.

    Parameters
    ----------
    cpuid, msrs:
        bodies of X86_CPUID_POLICY and X86_MSR_POLICY, of whole entries; None for a record that did not come.
    kind:
        what the new domain is; a PVH guest counts as HVM.
    host_max:
        the most that the host offers a guest of this kind (PV Max, HVM Max of `xen-cpuid -p`). Without it only what
        every host refuses is certain, and objections that some hosts would have come before it.
    """
    refused = _unreadable_leaves(cpuid or b"", release) or _unreadable_msrs(msrs or b"", release)
    if refused is not None:
        yield refused
        return
    for objection in incompatible(read_policy(cpuid or b"", msrs), kind, release, host_max):
        yield _placed(objection, cpuid or b"", msrs or b"")
        if objection.certain:
            return


def _unreadable_leaves(body: bytes, release: Release) -> PolicyObjection | None:
    """x86_cpuid_copy_from_buffer."""
    count, most = len(body) // CPUID_LEAF.size, most_leaves(release)
    if count > most:
        return PolicyObjection("E2BIG", f"{count} CPUID leaves; at most {most}")
    for number, (leaf, subleaf, *_) in enumerate(CPUID_LEAF.iter_unpack(body)):
        if not _stored(leaf, subleaf, release):
            message = f"CPUID leaf {leaf:#x} (subleaf {subleaf:#x}) is not one of Xen's"
            return PolicyObjection("ERANGE", message, leaf=leaf, subleaf=subleaf, offset=number * CPUID_LEAF.size)
    return None


def _stored(leaf: int, subleaf: int, release: Release) -> bool:
    """Whether Xen has a place for a leaf."""
    if leaf == FEATURE_LEAF:
        return subleaf <= last_feature_subleaf(release)
    if leaf in LAST_SUBLEAF:
        return subleaf <= LAST_SUBLEAF[leaf]
    known = leaf <= LAST_BASIC or leaf in HYPERVISOR_LEAVES or EXTENDED <= leaf <= last_extended(release)
    return known and subleaf == NO_SUBLEAF


def _unreadable_msrs(body: bytes, release: Release) -> PolicyObjection | None:
    """x86_msr_copy_from_buffer."""
    asked, most = len(body) // POLICY_MSR.size, most_policy_msrs(release)
    if asked > most:
        return PolicyObjection("E2BIG", f"{count(asked, 'MSR')} in the policy; at most {most}", cpuid=False)
    for number, (index, flags, value) in enumerate(POLICY_MSR.iter_unpack(body)):
        width = _msr_width(index, release)
        if flags:
            errno, message = "EINVAL", f"MSR {index:#x} has flags {flags:#x}; they must be 0"
        elif width is None:
            errno, message = "ERANGE", f"MSR {index:#x} is not part of a policy"
        elif value >> width:
            errno, message = "EOVERFLOW", f"MSR {index:#x} = {value:#x} has more than {width} bits"
        else:
            continue
        return PolicyObjection(errno, message, msr=index, cpuid=False, offset=number * POLICY_MSR.size)
    return None


def _msr_width(index: int, release: Release) -> int | None:
    """Bits that a policy keeps of an MSR; None for one that it does not have."""
    if index == Msr.PLATFORM_INFO:
        return 32
    if index == Msr.ARCH_CAPABILITIES and release.has(releases.arch_caps_known):
        return 64 if release.has(releases.arch_caps_64) else 32
    return None


# What is compared, in this order: its name in `Policy.max_leaves`, leaf and subleaf.
_COMPARED = {
    Subject.BASIC: ("basic", BASIC, NO_SUBLEAF),
    Subject.FEATURES: ("leaf 7", FEATURE_LEAF, 0),
    Subject.EXTENDED: ("extended", EXTENDED, NO_SUBLEAF),
}


class _Limit(NamedTuple):
    """How far a maximum of a policy may go: the least and the most that a host's own may be."""

    least: int
    most: int


def _limits(release: Release, host_max: Policy | None) -> dict[str, _Limit]:
    """The maxima of what a host offers, named as in `Policy.max_leaves`.

    A relaxed maximum is every host's, whatever the policy of another guest there says.
    """
    every_host = _limits_of_any(release)
    if host_max is None:
        return every_host
    known = {name: max(last, every_host[name].least) for name, last in host_max.max_leaves.items()}
    return {name: _Limit(last, last) for name, last in known.items()}


def _limits_of_any(release: Release) -> dict[str, _Limit]:
    feature, extended = last_feature_subleaf(release), last_extended(release)
    subleaf_relaxed = release.has(releases.max_subleaf_relaxed)
    all_relaxed = release.has(releases.max_leaves_relaxed)
    return {
        "basic": _Limit(LAST_BASIC if all_relaxed else 0, LAST_BASIC),
        "leaf 7": _Limit(feature if subleaf_relaxed or all_relaxed else 0, feature),
        "extended": _Limit(extended if all_relaxed else EXTENDED, extended),
    }


def incompatible(
    promised: Policy, kind: GuestKind, release: Release, host_max: Policy | None
) -> Iterator[PolicyObjection]:
    """x86_cpu_policies_are_compatible, in its order, past what is certain; parameters as above."""
    cleared = within_its_maxima(promised)
    if release.has(releases.vendor_compared) and (BASIC, None) in cleared.leaves:
        vendor = cleared.vendor
        if not vendor or host_max is None or vendor != host_max.vendor:
            theirs = f", {host_max.vendor}" if host_max else ""
            message = f"the CPU vendor is {vendor or 'none'}, and has to be the host's{theirs}"
            yield PolicyObjection("EINVAL", message, Subject.VENDOR, BASIC, certain=not vendor or host_max is not None)
    limits = _limits(release, host_max)
    for subject, (name, leaf, subleaf) in _COMPARED.items():
        last, limit = cleared.max_leaves[name], limits[name]
        if subject is Subject.FEATURES and not release.has(releases.max_subleaf_compared):
            continue
        if last > limit.least:
            certain = last > limit.most
            most = ", and may be no larger than the host's"
            if certain:
                most = f"; at most {limit.most:#x}" + (f", as in the {MAX[kind]} policy" if host_max else "")
            yield PolicyObjection(
                "EINVAL", f"{subject.value} is {last:#x}{most}", subject, leaf, subleaf, certain=certain
            )
    extra = (promised.msrs or {}).get(Msr.PLATFORM_INFO, 0)
    offered = CPUID_FAULTING
    if host_max is not None and kind == GuestKind.PV:
        offered = (host_max.msrs or {}).get(Msr.PLATFORM_INFO, 0)
    if extra & ~offered:
        name = MSR_NAMES[Msr.PLATFORM_INFO]
        message = f"MSR {Msr.PLATFORM_INFO:#x} ({name}) = {extra:#x}; the host offers {offered:#x}"
        yield PolicyObjection("EINVAL", message, Subject.FAULTING, msr=Msr.PLATFORM_INFO, cpuid=False)
    elif extra and host_max is None and kind == GuestKind.PV:
        message = f"MSR {Msr.PLATFORM_INFO:#x} = {extra:#x} takes a processor that can make CPUID fault"
        yield PolicyObjection("EINVAL", message, Subject.FAULTING, msr=Msr.PLATFORM_INFO, cpuid=False, certain=False)


def _placed(objection: PolicyObjection, cpuid: bytes, msrs: bytes) -> PolicyObjection:
    """The objection with the offset of the entry that counts: the last one for its leaf or MSR."""
    if objection.cpuid:
        key: tuple[int, ...] = (objection.leaf, objection.subleaf)
        found = [n for n, (leaf, subleaf, *_) in enumerate(CPUID_LEAF.iter_unpack(cpuid)) if (leaf, subleaf) == key]
        return objection._replace(offset=found[-1] * CPUID_LEAF.size if found else 0)
    found = [n for n, (index, *_) in enumerate(POLICY_MSR.iter_unpack(msrs)) if index == objection.msr]
    return objection._replace(offset=found[-1] * POLICY_MSR.size if found else 0)
