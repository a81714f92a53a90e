"""CPU policies: what a stream promises its guest, and as far as it can tell whether Xen takes that.

Sources: `x86_cpuid_copy_from_buffer` (`xen/lib/x86/cpuid.c`), `x86_msr_copy_from_buffer` (`xen/lib/x86/msr.c`),
`x86_cpu_policies_are_compatible` (`xen/lib/x86/policy.c`). Whether a well-formed policy asks for more than the
destination has only the destination can tell, or a policy that was made there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streams.values import dataclass, field
from streams.wire.cpu_features import (
    FEATURES,
    HOME,
    REGISTERS,
    Word,
    msr_features,
    set_bits,
    word_features,
)
from streams.wire.framing import CPUID_LEAF, NO_SUBLEAF, POLICY_MSR
from streams.wire.xstate import XSAVE_LEGACY_SIZE, XState

BASIC, FEATURE_LEAF, XSTATE_LEAF, EXTENDED = 0x0, 0x7, 0xD, 0x8000_0000
SIZES_LEAF = 0x8000_0008
# x87 and SSE have their place by definition; leaf 0xd speaks of those that follow.
_FIRST_PLACED = 2
_BRAND = (0x8000_0002, 0x8000_0003, 0x8000_0004)

INTEL = "GenuineIntel"
PROMISED_ANYWHERE = ("htt", "x2apic", "cmp_legacy")
"""Features that Xen lets a guest keep whatever the host has: they describe the topology and Xen's own APIC."""
OF_THE_HOST = ("fdp_excptn_only", "zero_fcs_fds")
"""Features that follow the host that a guest runs on, whatever it was promised."""

Registers = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a guest sees of its processor.

    Attributes
    ----------
    leaves:
        (leaf, subleaf) to eax, ebx, ecx, edx; the subleaf is None where the leaf has none.
    msrs:
        index to value; None where nothing is known of any.
    """

    leaves: Mapping[tuple[int, int | None], Registers]
    msrs: Mapping[int, int] | None = field(default=None)

    def leaf(self, leaf: int, subleaf: int | None = None) -> Registers:
        """The four registers; zeros for a leaf that the policy does not have."""
        found = self.leaves.get((leaf, subleaf))
        if found is None and subleaf in (None, 0):
            # Not every source distinguishes a leaf without subleaves from the first one.
            found = self.leaves.get((leaf, 0 if subleaf is None else None))
        return found or (0, 0, 0, 0)

    def word(self, word: Word) -> int:
        """One register."""
        return self.leaf(word.leaf, word.subleaf)[REGISTERS.index(word.register)]

    def has(self, feature: str) -> bool:
        """Whether a feature is promised, by its name. Raises KeyError for a name that nobody knows."""
        word, bit = HOME[feature]
        return bool(self.word(word) >> bit & 1)

    @property
    def vendor(self) -> str:
        """The vendor's twelve characters: GenuineIntel, AuthenticAMD."""
        _, b, c, d = self.leaf(BASIC)
        return _text(b, d, c)

    @property
    def brand(self) -> str:
        """The name that the processor gives itself; empty where it has none."""
        return " ".join(_text(*(register for leaf in _BRAND for register in self.leaf(leaf))).split())

    @property
    def signature(self) -> tuple[int, int, int]:
        """Family, model and stepping."""
        eax = self.leaf(0x1)[0]
        family, model = eax >> 8 & 0xF, eax >> 4 & 0xF
        if family in (0x6, 0xF):
            model |= eax >> 12 & 0xF0
        if family == 0xF:
            family += eax >> 20 & 0xFF
        return family, model, eax & 0xF

    @property
    def max_leaves(self) -> dict[str, int]:
        """The last basic and extended leaf, and the last subleaf of leaf 7."""
        return {
            "basic": self.leaf(BASIC)[0],
            "leaf 7": self.leaf(FEATURE_LEAF, 0)[0],
            "extended": self.leaf(EXTENDED)[0],
        }

    @property
    def xcr0(self) -> int:
        """Components that the guest may enable."""
        eax, _, _, edx = self.leaf(XSTATE_LEAF, 0)
        return edx << 32 | eax

    @property
    def physical_bits(self) -> int:
        """Width of a physical address in bits (maxphysaddr); 0 where leaf 0x80000008 does not tell."""
        return self.leaf(SIZES_LEAF)[0] & 0xFF

    @property
    def places(self) -> dict[int, tuple[int, int]]:
        """Where components beyond x87 and SSE lie in an uncompressed XSAVE area: bit to size and offset in bytes."""
        found = ((bit, self.leaf(XSTATE_LEAF, bit)) for bit in set_bits(self.xcr0) if bit >= _FIRST_PLACED)
        return {bit: (size, offset) for bit, (size, offset, *_) in found if size}

    def xsave_size(self, components: int) -> int | None:
        """Bytes of an uncompressed XSAVE area with these components; None where leaf 0xd does not tell."""
        size = XSAVE_LEGACY_SIZE
        for bit in set_bits(components & ~(XState.X87 | XState.SSE)):
            length, offset, *_ = self.leaf(XSTATE_LEAF, bit)
            if not length:
                return None
            size = max(size, offset + length)
        return size

    def features_by_word(self) -> Iterator[tuple[Word, tuple[str, ...]]]:
        """Names of the promised features, register by register, empty ones left out."""
        for word in FEATURES:
            names = tuple(word_features(word, self.word(word)))
            if names:
                yield word, names

    @property
    def features(self) -> frozenset[str]:
        """All promised features by name."""
        return frozenset(name for _, names in self.features_by_word() for name in names)

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the XSAVE components."""
        return tuple(component_name(bit) for bit in set_bits(self.xcr0))

    def msr_features(self, index: int) -> tuple[str, ...]:
        """Names of what is set in one MSR."""
        return tuple(msr_features(index, (self.msrs or {}).get(index, 0)))


def component_name(bit: int) -> str:
    """Name of an XSAVE component by its number, or xcr0[n]."""
    names = {component.bit_length() - 1: component.name or "" for component in XState}
    return names.get(bit, f"xcr0[{bit}]").lower()


def read_policy(cpuid: bytes = b"", msr: bytes | None = None) -> Policy:
    """The policy in the bodies of X86_CPUID_POLICY and X86_MSR_POLICY; bytes that make no whole entry are left out."""
    entries = CPUID_LEAF.iter_unpack(cpuid[: len(cpuid) - len(cpuid) % CPUID_LEAF.size])
    leaves = {(leaf, None if sub == NO_SUBLEAF else sub): (a, b, c, d) for leaf, sub, a, b, c, d in entries}
    if msr is None:
        return Policy(leaves)
    values = POLICY_MSR.iter_unpack(msr[: len(msr) - len(msr) % POLICY_MSR.size])
    return Policy(leaves, {index: value for index, _, value in values})


def _text(*registers: int) -> str:
    """Characters that registers spell, up to the first NUL."""
    raw = b"".join(register.to_bytes(4, "little") for register in registers)
    return raw.split(b"\0")[0].decode("latin-1").strip()
