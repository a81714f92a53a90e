"""One CPU policy for several hosts: what a new guest may be promised so that each of them keeps the promise.

A host takes less than it promises: features that its Max policy lacks are taken away from a guest without a word, and
a policy with more leaves than it has is refused. So the features all hosts offer by default are kept, and the numbers
of the last leaves are cut to the smallest; masking features alone does not help where a host compares leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import and_, or_

from migrate.destination.host import HW_CAPS, Host, PolicyName
from migrate.destination.releases import vendor_compared
from migrate.guest.cpu_policy import (
    BASIC,
    EXTENDED,
    FEATURE_LEAF,
    OF_THE_HOST,
    PROMISED_ANYWHERE,
    SIZES_LEAF,
    XSTATE_LEAF,
    Policy,
    Registers,
    component_name,
)
from streams.values import dataclass
from streams.wire.cpu_features import (
    FEATURES,
    HOME,
    REGISTERS,
    Word,
    msr_features,
    set_bits,
    word_features,
)
from streams.wire.msrs import Msr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.destination.host import Kind

FEATURESET: tuple[Word, ...] = (
    *HW_CAPS,
    Word(0x8000_0008, None, "ebx"),
    Word(0x7, 0, "edx"),
    Word(0x7, 1, "eax"),
    Word(0x8000_0021, None, "eax"),
    Word(0x7, 1, "ebx"),
    Word(0x7, 2, "edx"),
    Word(0x7, 1, "ecx"),
    Word(0x7, 1, "edx"),
)
"""The words of a featureset in their order, as far as all releases that have them agree."""
BEYOND_FEATURESET = "MSR 0x10a and leaf 0x80000021 ecx"
"""What newer releases append: not the same in all of them."""
_WORDS = (*FEATURESET, Word(0x8000_0021, None, "ecx"))

# Of MSR 0x10a these bits are warnings: a guest that may come to such a host has to see them everywhere.
_WARNINGS = 1 << 2 | 1 << 19

Place = tuple[int, int | None]
"""A leaf, and its subleaf if it has any."""

# Leaves whose eax says where leaves end: basic ones, the subleaves of leaf 7, extended ones.
_LASTS: tuple[Place, Place, Place] = ((BASIC, None), (FEATURE_LEAF, 0), (EXTENDED, None))
_LAST, _LAST_7, _LAST_EXTENDED = _LASTS
_SIZES: Place = (SIZES_LEAF, None)


class LevellingError(ValueError):
    """There is no policy for these hosts, or too little is known of one."""


@dataclass(frozen=True, slots=True)
class Levelled:
    """The common policy of several hosts, and how a new guest comes by it.

    Attributes
    ----------
    masked:
        bits by register that a host would offer by default, and another could not keep.
    lasts:
        leaf and subleaf to the eax that says where leaves end, as far as a host has more of them.
    physical_bits:
        width of physical addresses where hosts differ; None where they do not.
    notes:
        what no configuration can level.
    """

    kind: Kind
    policy: Policy
    masked: Mapping[Word, int]
    lasts: Mapping[Place, int]
    physical_bits: int | None
    notes: tuple[str, ...]

    @property
    def disabled(self) -> Iterator[str]:
        """Names of the features that are masked."""
        return (name for word, bits in self.masked.items() for name in _feature_names(word, bits))


@dataclass(frozen=True, slots=True)
class _Offer:
    """What one host promises a new guest, and the most it keeps."""

    default: Policy
    most: Policy
    host: Policy | None

    @property
    def policies(self) -> Sequence[Policy]:
        return [policy for policy in (self.default, self.most, self.host) if policy is not None]


def level(hosts: Mapping[str, Host], kind: Kind) -> Levelled:
    """The common policy of hosts, which are given by what they are called.

    Raises
    ------
    LevellingError
        without hosts; for one whose policies are unknown, or that has no such guests; for processors of several
        vendors where a release compares them.
    """
    offers = {name: _offer(name, host, kind) for name, host in hosts.items()}
    if not offers:
        raise LevellingError("no host to level")
    _same_vendor(hosts, offers)
    policy, apart = _common([offer for _, offer in sorted(offers.items())])
    defaults = [offer.default for offer in offers.values()]
    return Levelled(
        kind,
        policy,
        masked=_masked(policy, defaults),
        lasts={
            place: last
            for place, last in ((place, policy.leaf(*place)[0]) for place in _last_places(policy))
            if any(default.leaf(*place)[0] > last for default in defaults)
        },
        physical_bits=policy.physical_bits if _differ(default.physical_bits for default in defaults) else None,
        notes=tuple(_notes(policy, defaults, apart)),
    )


def _offer(name: str, host: Host, kind: Kind) -> _Offer:
    default, most = host.default_policy(kind), host.max_policy(kind)
    if default.value is None or most.value is None:
        raise LevellingError(f"{name}: {(most if default.value else default).because}")
    return _Offer(default.value, most.value, host.policies.get(PolicyName.HOST))


def _same_vendor(hosts: Mapping[str, Host], offers: Mapping[str, _Offer]) -> None:
    vendors = {name: offer.most.vendor for name, offer in offers.items()}
    picky = [name for name, host in hosts.items() if host.xen and host.xen.release.has(vendor_compared)]
    if picky and _differ(vendors.values()):
        named = ", ".join(f"{name} {vendor}" for name, vendor in vendors.items())
        raise LevellingError(f"{named}: {picky[0]} takes no guest of another vendor's processor")


def _differ(values: Iterable[object]) -> bool:
    return len(set(values)) > 1


def _feature_names(word: Word, bits: int) -> Iterator[str]:
    if word in FEATURES:
        return word_features(word, bits)
    return (f"{word}[{bit}]" for bit in set_bits(bits))


# -- the common policy --------------------------------------------------------------------------------


def _common(offers: Sequence[_Offer]) -> tuple[Policy, tuple[int, ...]]:
    """The policy all hosts keep, and the XSAVE components that it lacks because they lie elsewhere on another host."""
    everything = [policy for offer in offers for policy in (offer.default, offer.most)]
    defaults = [offer.default for offer in offers]
    components = reduce(and_, (policy.xcr0 for policy in everything))
    apart = tuple(bit for bit in set_bits(components) if _differ(policy.places.get(bit) for policy in everything))
    for bit in apart:
        components &= ~(1 << bit)
    words = {word: reduce(and_, (policy.word(word) for policy in everything)) for word in _WORDS}
    for name in _needing(apart):
        word, bit = HOME[name]
        words[word] &= ~(1 << bit)
    lasts = _lasts([policy for offer in offers for policy in offer.policies])
    leaves: dict[Place, Registers] = {}
    for place in defaults[0].leaves:
        if all(place in policy.leaves for policy in defaults) and _within(place, lasts, components):
            leaves[place] = _registers(place, words, lasts, components, defaults)
    bits = min(policy.physical_bits for policy in everything)
    if _SIZES in leaves:
        eax, *rest = leaves[_SIZES]
        leaves[_SIZES] = (eax & ~0xFF | bits, rest[0], rest[1], rest[2])
    msrs = _msrs(defaults, everything, arch_caps=bool(words[HOME["arch_caps"][0]] >> HOME["arch_caps"][1] & 1))
    return Policy({place: registers for place, registers in leaves.items() if any(registers)}, msrs), apart


def _registers(
    place: Place,
    words: Mapping[Word, int],
    lasts: Mapping[Place, int],
    components: int,
    defaults: Sequence[Policy],
) -> Registers:
    """One leaf: features, maxima and components as levelled, whatever else where it is the same on all hosts."""
    if place == (XSTATE_LEAF, 0):
        size = defaults[0].xsave_size(components) or 0
        return components & 0xFFFF_FFFF, 0, size if components else 0, components >> 32
    values = [policy.leaf(*place) for policy in defaults]
    same = [0 if _differ(register) else register[0] for register in zip(*values, strict=True)]
    a, b, c, d = (words.get(Word(*place, name), value) for name, value in zip(REGISTERS, same, strict=True))
    if place == _LAST and _differ(policy.vendor for policy in defaults):
        b = c = d = 0
    return lasts.get(place, a), b, c, d


def _lasts(policies: Sequence[Policy]) -> dict[Place, int]:
    """Where leaves end that all of these policies have."""
    lasts = {
        place: min(policy.leaf(*place)[0] for policy in policies)
        for place in ((BASIC, None), _LAST_7, (EXTENDED, None))
    }
    if lasts[_LAST] < FEATURE_LEAF:
        lasts[_LAST_7] = 0
    return lasts


def _within(place: Place, lasts: Mapping[Place, int], components: int) -> bool:
    leaf, subleaf = place
    if leaf == FEATURE_LEAF and (subleaf or 0) > lasts[_LAST_7]:
        return False
    if leaf == XSTATE_LEAF and subleaf is not None and subleaf > 1 and not components >> subleaf & 1:
        return False
    return leaf <= lasts[_LAST if leaf < EXTENDED else _LAST_EXTENDED]


def _needing(components: Iterable[int]) -> Iterator[str]:
    """Features that are of no use without one of these XSAVE components."""
    begins = {3: ("mpx",), 4: ("mpx",), 5: ("avx512",), 6: ("avx512",), 7: ("avx512",), 9: ("pku",), 17: ("amx",)}
    wanted = tuple(start for bit in components for start in begins.get(bit, ()))
    return (name for name in HOME if wanted and name.startswith(wanted))


def _msrs(defaults: Sequence[Policy], everything: Sequence[Policy], *, arch_caps: bool) -> dict[int, int]:
    indices = set.intersection(*(set(policy.msrs or ()) for policy in defaults))
    msrs = {}
    for index in sorted(indices):
        values = [(policy.msrs or {}).get(index, 0) for policy in everything]
        msrs[index] = reduce(and_, values)
        if index == Msr.ARCH_CAPABILITIES:
            warnings = reduce(or_, ((policy.msrs or {})[index] for policy in defaults)) & _WARNINGS
            msrs[index] = msrs[index] & ~_WARNINGS | warnings if arch_caps else 0
    return msrs


# -- what a configuration has to change ---------------------------------------------------------------


def _last_places(policy: Policy) -> Iterator[Place]:
    yield _LAST
    if policy.leaf(BASIC)[0] >= FEATURE_LEAF:
        yield _LAST_7
    yield _LAST_EXTENDED


def _masked(policy: Policy, defaults: Sequence[Policy]) -> dict[Word, int]:
    left_alone = dict.fromkeys(_WORDS, 0)
    for name in (*PROMISED_ANYWHERE, *OF_THE_HOST):
        word, bit = HOME[name]
        left_alone[word] |= 1 << bit
    lasts = _lasts([policy])
    masked = {}
    for word in _WORDS:
        offered = reduce(or_, (default.word(word) for default in defaults))
        bits = offered & ~policy.word(word) & ~left_alone[word]
        if bits and _within((word.leaf, word.subleaf), lasts, policy.xcr0):
            masked[word] = bits
    return masked


def _notes(policy: Policy, defaults: Sequence[Policy], apart: Sequence[int]) -> Iterator[str]:
    if _differ(default.vendor for default in defaults):
        yield "the processors are of different vendors: programs that tell them apart will not notice a migration"
    if apart:
        yield f"{', '.join(map(component_name, apart))}: not at the same place of the XSAVE area everywhere, left out"
    for name in OF_THE_HOST:
        if _differ(default.has(name) for default in defaults):
            yield f"{name} follows the host that the guest runs on, whatever it was promised"
    if policy.has("arch_caps"):
        offered = reduce(or_, ((default.msrs or {}).get(Msr.ARCH_CAPABILITIES, 0) for default in defaults))
        differing = offered & ~reduce(and_, ((d.msrs or {}).get(Msr.ARCH_CAPABILITIES, 0) for d in defaults))
        if differing:
            names = ", ".join(msr_features(Msr.ARCH_CAPABILITIES, differing))
            yield f"MSR 0x10a is not the same everywhere ({names}), and cpuid = [...] cannot set it"
