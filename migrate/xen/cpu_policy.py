"""What of the CPU policy that a stream brings the guest gets: Xen takes away in silence what it cannot have.

Nothing is imported here but the standard library: a filter asks, too. Whether Xen takes a policy at all is in
`policy_checks`.

Sources: `x86_cpuid_policy_clear_out_of_range_leaves` (`xen/lib/x86/cpuid.c`), `recalculate_cpuid_policy`
(`xen/arch/x86/cpu-policy.c`), the feature lists of `xen/include/public/arch-x86/cpufeatureset.h`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from migrate.destination import releases
from migrate.destination.host import MAX
from migrate.destination.policy_ranges import LAST_BASIC, last_extended, last_feature_subleaf
from migrate.guest.cpu_policy import (
    BASIC,
    EXTENDED,
    FEATURE_LEAF,
    INTEL,
    OF_THE_HOST,
    PROMISED_ANYWHERE,
    SIZES_LEAF,
    XSTATE_LEAF,
    Policy,
    Registers,
)
from migrate.rules.declaring import GuestKind
from streams.values import NamedTuple
from streams.wire.cpu_features import (
    FEATURES,
    HOME,
    REGISTERS,
    Word,
)
from streams.wire.msrs import Msr
from streams.wire.xstate import XState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.destination.releases import Change, Release


_LAST_WORD = 0xFFFF_FFFF

CPUID_FAULTING = 1 << 31


# -- leaves beyond the maxima ---------------------------------------------------------------------------


def _reached(policy: Policy, leaf: int, subleaf: int | None) -> bool:
    """Whether a leaf lies within a policy's own maxima; one that has none keeps those of the host, which may be any.

    A maximum of all ones wraps around when Xen adds 1 to it, and an extended one outside of 0x8000xxxx counts as none:
    then no leaf is left.
    """
    leaves = policy.leaves
    if leaf >= EXTENDED:
        if (EXTENDED, None) not in leaves:
            return True
        last = policy.leaf(EXTENDED)[0]
        return last >> 16 == EXTENDED >> 16 and leaf <= last
    if leaf > LAST_BASIC:
        return True  # the hypervisor's own
    if (BASIC, None) in leaves:
        last = policy.leaf(BASIC)[0]
        if last == _LAST_WORD or leaf > last:
            return False
    if leaf == FEATURE_LEAF and (FEATURE_LEAF, 0) in leaves:
        last = policy.leaf(FEATURE_LEAF, 0)[0]
        return last != _LAST_WORD and (subleaf or 0) <= last
    return True


def within_its_maxima(policy: Policy) -> Policy:
    """The policy with what lies beyond its own maxima zeroed (x86_cpuid_policy_clear_out_of_range_leaves)."""
    nothing: Registers = (0, 0, 0, 0)
    kept = {key: found if _reached(policy, *key) else nothing for key, found in policy.leaves.items()}
    return Policy(kept, policy.msrs)


# -- what the guest gets --------------------------------------------------------------------------------

# Features that no release offers any guest.
_NOBODY = "cet_ss cet_ibt cet_sss la57 amx_tile amx_bf16 amx_int8 amx_fp16 amx_complex fred kl uintr"
_HVM_ALONE = """
    vme pse pge pse36 smep smap umip pcid pku pks mpx xsaves vmx svm lwp lass auto_ibrs
    ibrs amd_stibp amd_ssbd amd_psfd virt_ssbd ipred_ctrl rrsba_ctrl bhi_ctrl"""
_HAP_ALONE = "pcid pku pks"
_NESTED_ALONE = "vmx svm"

_SINCE: dict[str, Change] = {
    "umip": releases.umip,
    "pks": releases.pks,
    "auto_ibrs": releases.auto_ibrs,
    "lass": releases.lass,
    "ibrs": releases.spec_ctrl_amd,
    "amd_ssbd": releases.spec_ctrl_amd,
    "amd_psfd": releases.spec_ctrl_amd,
    "psfd": releases.spec_ctrl_amd,
    "ipred_ctrl": releases.spec_ctrl_more,
    "rrsba_ctrl": releases.spec_ctrl_more,
    "bhi_ctrl": releases.spec_ctrl_more,
}
_UNTIL: dict[str, Change] = {"lwp": releases.lwp_gone}

# What falls with a feature, and with that in turn: what needs something comes after it.
_DEPENDENTS: dict[str, str] = {
    "pae": "lm nx",
    "tsc": "tsc_deadline rdtscp tsc_adjust itsc",
    "fxsr": "ffxsr sse",
    "sse": "sse2",
    "sse2": "lm",
    "lm": "pcid pku cx16 lahf_lm page1gb",
    "xsave": "xsaveopt xsavec xgetbv1 xsaves avx mpx pku lwp",
    "avx": "fma fma4 f16c avx2 xop",
    "avx2": "avx512f",
    "avx512f": "avx512dq avx512_ifma avx512cd avx512bw avx512vl avx512_vnni avx512_vpopcntdq",
    "ibrs_ibpb": "stibp ssbd psfd ipred_ctrl rrsba_ctrl bhi_ctrl",
    "ibrs": "amd_stibp amd_ssbd amd_psfd",
}

# Components of xcr0, by the feature that has them.
_COMPONENTS: dict[str, int] = {
    "xsave": XState.X87 | XState.SSE,
    "avx": XState.AVX,
    "mpx": XState.BNDREGS | XState.BNDCSR,
    "avx512f": XState.OPMASK | XState.ZMM | XState.HI_ZMM,
    "pku": XState.PKRU,
    "lwp": XState.LWP,
}

MOST_PHYSICAL_BITS = 52


def effective(
    promised: Policy | None,
    kind: GuestKind,
    release: Release,
    *,
    width: int = 8,
    hap: bool = True,
    nested: bool = False,
    host_max: Policy | None = None,
) -> Policy:
    """The most that a guest can have of a policy once Xen has recalculated it.

    What is missing here is missing on every host (or, with `host_max`, on this one); what is there may still be. Of the
    result only the features, `xcr0`, `physical_bits` and PLATFORM_INFO mean anything.

    Parameters
    ----------
    promised:
        the policy of the stream; None where the toolstack makes one. A leaf that the stream leaves out keeps the
        host's default, which may be anything.
    kind:
        PVH guests count as HVM.
    width:
        4 for a 32-bit PV guest.
    hap, nested:
        for HVM: whether it may run on hardware-assisted paging, and nested virtualisation is switched on.
    host_max:
        what the host offers at most (PV Max, HVM Max).
    """
    stream = within_its_maxima(promised or Policy({}))
    have: dict[Word, int] = {word: _bits(stream, word, release) for word in FEATURES}
    if host_max is not None:
        have = {word: bits & (host_max.word(word) | _mask(PROMISED_ANYWHERE, word)) for word, bits in have.items()}
    for word, bits in have.items():
        have[word] = (bits | _mask(OF_THE_HOST, word)) if host_max is None else _of_the_host(bits, word, host_max)
    for feature in _not_for(kind, release, width, hap, nested):
        _clear(have, feature)
    last_leaf = stream.leaf(BASIC)[0] if (BASIC, None) in stream.leaves else LAST_BASIC
    if host_max is not None:
        last_leaf = min(last_leaf, host_max.max_leaves["basic"])
    if last_leaf < XSTATE_LEAF:
        _clear(have, "xsave")
    for feature, dependents in _DEPENDENTS.items():
        if not _has(have, feature):
            for dependent in dependents.split():
                _clear(have, dependent)
    leaves: dict[tuple[int, int | None], list[int]] = {
        (leaf, subleaf): [*stream.leaf(leaf, subleaf)] for leaf, subleaf in stream.leaves
    }
    for word, bits in have.items():
        leaves.setdefault((word.leaf, word.subleaf), [0, 0, 0, 0])[REGISTERS.index(word.register)] = bits
    xcr0 = 0
    for feature, components in _COMPONENTS.items():
        xcr0 |= components if _has(have, feature) else 0
    leaves[XSTATE_LEAF, 0] = [xcr0 & _LAST_WORD, 0, 0, xcr0 >> 32]
    leaves.setdefault((SIZES_LEAF, None), [0, 0, 0, 0])[0] = _physical_bits(stream, have, host_max)
    faulting = (promised.msrs or {}).get(Msr.PLATFORM_INFO, CPUID_FAULTING) if promised else CPUID_FAULTING
    if host_max is not None and kind == GuestKind.PV:  # an HVM guest may have it on any host
        faulting &= (host_max.msrs or {}).get(Msr.PLATFORM_INFO, 0)
    return Policy({key: (r[0], r[1], r[2], r[3]) for key, r in leaves.items()}, {Msr.PLATFORM_INFO: faulting})


class Processor(NamedTuple):
    """What can be told of a guest's processor at its destination.

    Attributes
    ----------
    promised:
        what the stream says of it; no leaves where the toolstack makes its policy.
    most:
        what it can have at most (`effective`).
    intel:
        whether the host is Intel's; None where that is not known.
    offered:
        what its host offers guests of its kind at most; None where that is not known.
    offer:
        what that is called.
    """

    promised: Policy
    most: Policy
    intel: bool | None = None
    offered: Policy | None = None
    offer: str = ""

    @property
    def dbext(self) -> bool | None:
        """Whether the host has AMD's data breakpoint extension; None where that is not known."""
        return None if self.offered is None else self.offered.has("dbext")

    def not_offered(self, *features: str) -> str:
        """The fact of the host, in brackets, that leaves a guest without these features; "" where it is none."""
        lacks = self.offered is not None and not any(map(self.offered.has, features))
        return f" (the {self.offer} policy has no {' or '.join(features)})" if lacks else ""

    def components_not_offered(self, components: int) -> str:
        """In the same way for components of xcr0, as a mask."""
        lacks = self.offered is not None and components & ~self.offered.xcr0
        return f" (the {self.offer} policy has {self.offered.xcr0:#x})" if self.offered and lacks else ""

    def has(self, feature: str) -> bool | None:
        """Whether the guest has a feature: yes, as far as the stream can say; no, for certain; None: the host's to say.

        Raises KeyError for a name that nobody knows.
        """
        if not self.most.has(feature):
            return False
        word, _ = HOME[feature]
        return True if (word.leaf, word.subleaf) in self.promised.leaves else None

    def has_components(self, components: int) -> bool | None:
        """In the same way whether it may enable these components of xcr0."""
        if components & ~self.most.xcr0:
            return False
        needed = [self.has(feature) for feature, bits in _COMPONENTS.items() if components & bits]
        return True if all(needed) else None

    @property
    def faults_on_cpuid(self) -> bool | None:
        """In the same way whether the guest can have CPUID fault."""
        if not (self.most.msrs or {}).get(Msr.PLATFORM_INFO, 0) & CPUID_FAULTING:
            return False
        return True if Msr.PLATFORM_INFO in (self.promised.msrs or {}) else None


def processor(
    promised: Policy | None,
    kind: GuestKind,
    release: Release,
    *,
    width: int = 8,
    hap: bool = True,
    nested: bool = False,
    host_max: Policy | None = None,
    intel: bool | None = None,
) -> Processor:
    """The processor of a guest at its destination; for the parameters see `effective` and `Processor`."""
    most = effective(promised, kind, release, width=width, hap=hap, nested=nested, host_max=host_max)
    if host_max is not None:
        intel = host_max.vendor == INTEL
    return Processor(promised or Policy({}), most, intel, host_max, MAX[kind])


def _bits(stream: Policy, word: Word, release: Release) -> int:
    """A register of features as the policy has it; all ones where it leaves the leaf to the host."""
    if word.leaf == FEATURE_LEAF and (word.subleaf or 0) > last_feature_subleaf(release):
        return 0
    if word.leaf > last_extended(release) or not _reached(stream, word.leaf, word.subleaf):
        return 0
    return stream.word(word) if (word.leaf, word.subleaf) in stream.leaves else _LAST_WORD


def _not_for(kind: GuestKind, release: Release, width: int, hap: bool, nested: bool) -> Iterator[str]:
    """Features that such a guest cannot have."""
    yield from _NOBODY.split()
    if kind == GuestKind.PV:
        yield from _HVM_ALONE.split()
        if width == 4:
            yield "lm"
        if not release.has(releases.tsc_aux):
            yield "rdtscp"
    else:
        if not hap:
            yield from _HAP_ALONE.split()
        if not nested:
            yield from _NESTED_ALONE.split()
    yield from (feature for feature, since in _SINCE.items() if not release.has(since))
    yield from (feature for feature, until in _UNTIL.items() if release.has(until))


def _of_the_host(bits: int, word: Word, host_max: Policy) -> int:
    mask = _mask(OF_THE_HOST, word)
    return bits & ~mask | host_max.word(word) & mask


def _mask(features: Iterable[str], word: Word) -> int:
    """The bits of some features in one register."""
    homes = (HOME[feature] for feature in features)
    return sum(1 << bit for home, bit in homes if home == word)


def _clear(have: dict[Word, int], feature: str) -> None:
    word, bit = HOME[feature]
    have[word] &= ~(1 << bit)


def _has(have: dict[Word, int], feature: str) -> bool:
    word, bit = HOME[feature]
    return bool(have[word] >> bit & 1)


def _physical_bits(stream: Policy, have: dict[Word, int], host_max: Policy | None) -> int:
    """The width of a physical address; a policy that does not say gets the least that its page tables allow."""
    known = (SIZES_LEAF, None) in stream.leaves or not _reached(stream, SIZES_LEAF, None)
    bits = stream.physical_bits if known else MOST_PHYSICAL_BITS
    if host_max is not None:
        bits = min(bits, host_max.physical_bits)
    least = 36 if _has(have, "pae") or _has(have, "pse36") else 32
    return max(min(bits, MOST_PHYSICAL_BITS), least)
