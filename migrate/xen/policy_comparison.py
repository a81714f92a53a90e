"""What one policy lacks of another, and which of it a release refuses: the rest is silently taken from the guest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from migrate.guest.cpu_policy import PROMISED_ANYWHERE, Policy, component_name
from migrate.xen.cpu_policy import within_its_maxima
from migrate.xen.policy_checks import Subject, incompatible, policy_objections
from streams.values import dataclass
from streams.wire.cpu_features import MSR_NAMES, Word, msr_features, set_bits, word_features
from streams.wire.framing import CPUID_LEAF, NO_SUBLEAF, POLICY_MSR
from streams.wire.msrs import Msr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.destination.releases import Release
    from migrate.rules.declaring import GuestKind

_MAXIMA = {"basic": Subject.BASIC, "leaf 7": Subject.FEATURES, "extended": Subject.EXTENDED}


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that one policy promises and another does not.

    `kind` is form, vendor, leaves, feature, xcr0 or msr. `refused`: the release refuses such a policy; what else is
    lacking it silently takes away.
    """

    kind: str
    name: str
    where: str
    refused: bool = False


def unreadable(promised: Policy, kind: GuestKind, release: Release) -> Iterator[Lack]:
    """What of a policy a release has no room for, whatever the host offers: it reads no further than the first."""
    for objection in policy_objections(*_bodies(promised), kind, release, promised):
        yield Lack("form", objection.position, f"{objection.message}: {objection.errno}", refused=True)


def lacking(promised: Policy, other: Policy, kind: GuestKind, release: Release) -> Iterator[Lack]:
    """What `other` lacks of all that is promised, in the order of the leaves.

    Parameters
    ----------
    promised:
        the policy of a stream.
    other:
        one that the destination gave to a guest, or the most that it offers.
    kind, release:
        of the guest, and of the destination.
    """
    yield from _lacks(promised, other, _refused(promised, other, kind, release))


def beyond(
    promised: Policy, common: Policy, kind: GuestKind, hosts: Iterable[tuple[Release, Policy]]
) -> Iterator[Lack]:
    """What a guest was promised beyond the common policy of several hosts; refused is what one of them refuses.

    Parameters
    ----------
    hosts:
        the release of each, and the most that it offers a guest of the kind.
    """
    refused = (_refused(promised, most, kind, release) for release, most in hosts)
    yield from _lacks(promised, common, frozenset[Subject]().union(*refused))


def features_lost(promised: Policy, host_max: Policy) -> Iterator[tuple[str, Word]]:
    """Names and registers of the promised features that are taken away where no more than `host_max` is offered."""
    for word, names in within_its_maxima(promised).features_by_word():
        have = set(word_features(word, host_max.word(word)))
        yield from ((name, word) for name in names if name not in have and name not in PROMISED_ANYWHERE)


def _refused(promised: Policy, other: Policy, kind: GuestKind, release: Release) -> frozenset[Subject]:
    objections = incompatible(promised, kind, release, other)
    return frozenset(objection.subject for objection in objections if objection.certain)


def _lacks(promised: Policy, other: Policy, refused: frozenset[Subject]) -> Iterator[Lack]:
    if promised.vendor != other.vendor:
        yield Lack("vendor", promised.vendor, f"the other is {other.vendor or 'nameless'}", Subject.VENDOR in refused)
    theirs = other.max_leaves
    for name, last in promised.max_leaves.items():
        if last > theirs[name]:
            where = f"the other ends at {theirs[name]:#x}"
            yield Lack("leaves", f"{name} to {last:#x}", where, _MAXIMA[name] in refused)
    yield from (Lack("feature", name, str(word)) for name, word in features_lost(promised, other))
    for bit in set_bits(promised.xcr0 & ~other.xcr0):
        yield Lack("xcr0", component_name(bit), f"xcr0 bit {bit}")
    if promised.msrs is None or other.msrs is None:
        return
    for index in promised.msrs:
        missing = promised.msrs[index] & ~other.msrs.get(index, 0)
        where = MSR_NAMES.get(index, hex(index))
        stops = index == Msr.PLATFORM_INFO and Subject.FAULTING in refused
        yield from (Lack("msr", name, where, stops) for name in msr_features(index, missing))


def _bodies(policy: Policy) -> tuple[bytes, bytes]:
    """The bodies of the two records that carry a policy."""
    leaves = (
        CPUID_LEAF.pack(leaf, NO_SUBLEAF if subleaf is None else subleaf, *registers)
        for (leaf, subleaf), registers in policy.leaves.items()
    )
    return b"".join(leaves), b"".join(POLICY_MSR.pack(index, 0, value) for index, value in (policy.msrs or {}).items())
