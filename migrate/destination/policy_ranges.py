"""How much of a CPU policy each release has room for: leaves, subleaves, entries."""

from __future__ import annotations

from functools import cache

from migrate.destination import releases
from migrate.destination.releases import RELEASES, Release
from migrate.guest.cpu_policy import EXTENDED, FEATURE_LEAF, XSTATE_LEAF
from streams.values import dataclass

LAST_BASIC = 0xD
_CACHE_LEAF, _TOPOLOGY_LEAF = 0x4, 0xB
# Leaves with subleaves, and the last one that is stored of each; that of leaf 7 is the release's.
LAST_SUBLEAF = {_CACHE_LEAF: 5, _TOPOLOGY_LEAF: 1, XSTATE_LEAF: 62}
HYPERVISOR_LEAVES = frozenset({0x4000_0000, 0x4000_0100})


def last_feature_subleaf(release: Release) -> int:
    """The last subleaf of leaf 7 that a release stores."""
    return 2 if release.has(releases.leaf_7_2) else 1


def last_extended(release: Release) -> int:
    """The last extended leaf that a release stores."""
    return 0x8000_0021 if release.has(releases.leaf_80000021) else 0x8000_001C


def most_leaves(release: Release) -> int:
    """How many leaves a policy may have: the number that `xen-cpuid -p` calls the maximum."""
    with_subleaves = {**LAST_SUBLEAF, FEATURE_LEAF: last_feature_subleaf(release)}
    plain = LAST_BASIC + 1 - len(with_subleaves)
    extended = last_extended(release) - EXTENDED + 1
    return plain + sum(last + 1 for last in with_subleaves.values()) + len(HYPERVISOR_LEAVES) + extended


def most_policy_msrs(release: Release) -> int:
    """How many MSRs a policy may have."""
    return 2 if release.has(releases.arch_caps_known) else 1


@dataclass(frozen=True, slots=True)
class Ranges:
    """What of a policy a Xen stores: beyond, ERANGE or E2BIG.

    `leaf7` is the last subleaf of leaf 7, `extended` the last extended leaf, `leaves` and `msrs` how many entries.
    """

    leaf7: int
    extended: int
    leaves: int
    msrs: int


def ranges_of(leaves: int, msrs: int) -> Ranges | None:
    """What a Xen stores that says so many leaves are the maximum; None where no known release does."""
    known = _by_leaves().get(leaves)
    return None if known is None else Ranges(*known, leaves, msrs)


@cache
def _by_leaves() -> dict[int, tuple[int, int]]:
    sending = [release for release in RELEASES if release.has(releases.version_3)]
    return {most_leaves(release): (last_feature_subleaf(release), last_extended(release)) for release in sending}
