"""What is known of a real host: what `xl info` and `xen-cpuid -p` print there, and what follows from it.

Every answer names the fact that decided it. What the two commands do not tell stays open, and is said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from migrate.destination import host_memory, host_switches, releases
from migrate.destination.answers import Answer, left_open
from migrate.destination.host_memory import Node
from migrate.destination.policy_ranges import Ranges, ranges_of
from migrate.destination.releases import Change, Release
from migrate.guest.cpu_policy import INTEL, Policy
from streams.values import dataclass, field, replace
from streams.wire.cpu_features import HOME, Word
from streams.wire.msrs import Msr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Kind = Literal["pv", "hvm"]
    """What a guest is to Xen; PVH guests are hvm."""

_UNAFFECTED_BY_L1TF = ("AuthenticAMD", "HygonGenuine")
_RDCL_NO = 1 << 0

PV64, PV32 = "xen-3.0-x86_64", "xen-3.0-x86_32p"
_HVM_CAPS = "hvm-3.0-"

NO_XL_INFO = "no `xl info`"
NO_XEN_CPUID = "no `xen-cpuid -p`"

# paging_max_paddr_bits: shadow page tables keep 32 bits of a frame number, nested ones have four levels.
_SHADOW_BITS, _HAP_BITS = 44, 48

HW_CAPS: tuple[Word, ...] = (
    Word(0x1, None, "edx"),
    Word(0x1, None, "ecx"),
    Word(0x8000_0001, None, "edx"),
    Word(0x8000_0001, None, "ecx"),
    Word(0xD, 1, "eax"),
    Word(0x7, 0, "ebx"),
    Word(0x7, 0, "ecx"),
    Word(0x8000_0007, None, "edx"),
)
"""The words of hw_caps, in their order."""
# Bits of leaf 1 that AMD repeats in 0x80000001 edx; Xen keeps them out of hw_caps.
_REPEATED = {Word(0x8000_0001, None, "edx"): 0x0183_F3FF}


class PolicyName(StrEnum):
    """The policies of `xen-cpuid -p`, in their order."""

    RAW = "Raw"
    HOST = "Host"
    PV_MAX = "PV Max"
    HVM_MAX = "HVM Max"
    PV_DEFAULT = "PV Default"
    HVM_DEFAULT = "HVM Default"


MAX: Mapping[str, PolicyName] = {"pv": PolicyName.PV_MAX, "hvm": PolicyName.HVM_MAX}
DEFAULT: dict[Kind, PolicyName] = {"pv": PolicyName.PV_DEFAULT, "hvm": PolicyName.HVM_DEFAULT}


@dataclass(frozen=True, slots=True)
class XenVersion:
    """The parts of xen_version: `extra` holds the point release and whatever a vendor adds."""

    major: int
    minor: int
    extra: str

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}{self.extra}"

    @property
    def release(self) -> Release:
        """The release it is, or leads to: 4.17.7, and 4.21.0 for 4.21-rc2 and 4.21-unstable."""
        point, _ = self._point_and_suffix
        return Release(self.major, self.minor, int(point or 0))

    @property
    def suffix(self) -> str:
        """What follows the point release: -rc2, -pre, -unstable, or a vendor's own."""
        return self._point_and_suffix[1]

    @property
    def unfinished(self) -> bool:
        """Whether it is a development version, before its release."""
        return self.suffix.startswith(("-rc", "-pre", "-unstable", "-dev"))

    @property
    def _point_and_suffix(self) -> tuple[str | None, str]:
        import re

        match = re.fullmatch(r"(?:\.([0-9]{1,4}))?(.*)", self.extra, re.DOTALL)
        return (match[1], match[2]) if match else (None, self.extra)


@dataclass(frozen=True, slots=True)
class Host:
    """What `xl info` and `xen-cpuid -p` say of one host; None for what they were not asked.

    Attributes
    ----------
    total_memory, free_memory:
        in MiB; claims that other new guests have staked are not free.
    hw_caps:
        the words of `HW_CAPS`.
    nodes:
        from `xl info -n`; empty without.
    policies:
        None for a policy that Xen says it does not support; those that were not printed are not in it.
    most_leaves, most_msrs:
        how many entries a policy can have.
    """

    name: str | None = None
    xen: XenVersion | None = None
    xen_caps: tuple[str, ...] | None = None
    virt_caps: tuple[str, ...] | None = None
    total_memory: int | None = None
    free_memory: int | None = None
    nr_cpus: int | None = None
    hw_caps: tuple[int, ...] | None = None
    command_line: str | None = None
    nodes: tuple[Node, ...] = ()
    most_leaves: int | None = None
    most_msrs: int | None = None
    policies: Mapping[PolicyName, Policy | None] = field(default_factory=dict, hash=False, repr=False)
    path: str | None = field(default=None, compare=False, repr=False)  # the file that says so

    @property
    def label(self) -> str:
        """What it is called: by its file, else by its own name."""
        return self.path or self.name or "-"

    @property
    def for_xen(self) -> Host:
        """The same as far as Xen's answers hang on it: without what it is called, and how it fares just now."""
        return replace(self, name=None, path=None, nr_cpus=None, free_memory=None)

    # -- the release ----------------------------------------------------------------------------------

    @property
    def release(self) -> Answer[Release]:
        """Which release of Xen runs there."""
        if self.xen is None:
            return left_open(self._without("xen_version"))
        because = f"xen_version {self.xen}"
        if self.xen.unfinished:
            because += ": a development version, taken for the release it leads to"
        elif self.xen.suffix:
            because += ": a vendor's version, taken for the release it is based on"
        return Answer(self.xen.release, because)

    @property
    def ranges(self) -> Answer[Ranges]:
        """Which entries of a policy Xen stores."""
        if self.most_leaves is None or self.most_msrs is None:
            return left_open(NO_XEN_CPUID)
        because = f"maximum {self.most_leaves} leaves and {self.most_msrs} MSRs"
        known = ranges_of(self.most_leaves, self.most_msrs)
        return left_open(f"{because}: no known release says so") if known is None else Answer(known, because)

    # -- which guests ---------------------------------------------------------------------------------

    @property
    def pv(self) -> Answer[bool]:
        """Whether PV guests can be created."""
        if self.virt_caps is not None and ("pv" in self.virt_caps or self._prints(releases.prints_pv)):
            return self._in_virt_caps("pv")
        return self._in_xen_caps(PV64)

    @property
    def pv32(self) -> Answer[bool]:
        """Whether 32-bit PV guests can be created."""
        if self.pv.value is False:
            return self.pv
        return self._in_xen_caps(PV32)

    @property
    def hvm(self) -> Answer[bool]:
        """Whether HVM and PVH guests can be created."""
        if self.virt_caps is not None:
            return self._in_virt_caps("hvm")
        if self.xen_caps is None:
            return left_open(self._without("virt_caps"))
        found = any(cap.startswith(_HVM_CAPS) for cap in self.xen_caps)
        return Answer(found, f"xen_caps has {'' if found else 'no '}{_HVM_CAPS}…")

    def takes(self, kind: Kind) -> Answer[bool]:
        """Whether guests of a kind can be created."""
        return self.pv if kind == "pv" else self.hvm

    @property
    def hap(self) -> Answer[bool]:
        """Whether HVM guests run on nested page tables."""
        if self.hvm.value is False:
            return self.hvm
        return self._paging("hap")

    @property
    def shadow(self) -> Answer[bool]:
        """Whether Xen has shadow page tables."""
        return self._paging("shadow")

    def _paging(self, word: str) -> Answer[bool]:
        if self.virt_caps is None:
            return left_open(self._without("virt_caps"))
        if {"hap", "shadow"} & set(self.virt_caps) or self._prints(releases.prints_paging):
            return self._in_virt_caps(word)
        return left_open(f"virt_caps says nothing of {word} before Xen 4.13")

    # -- the processor --------------------------------------------------------------------------------

    @property
    def vendor(self) -> Answer[str]:
        """The vendor of the processor, in the twelve characters of leaf 0."""
        for name in PolicyName:
            policy = self.policies.get(name)
            if policy and policy.vendor:
                return Answer(policy.vendor, f"leaf 0 of the {name} policy says {policy.vendor}")
        return left_open(self._without_policy(PolicyName.HOST))

    @property
    def intel(self) -> Answer[bool]:
        """Whether the processor is Intel's, whose machine checks have more capabilities."""
        vendor = self.vendor
        if vendor.open and self._hw_has("svm"):
            return Answer(False, "hw_caps has svm: no processor of Intel")
        return Answer(None if vendor.open else vendor.value == INTEL, vendor.because, vendor.open)

    def max_policy(self, kind: Kind) -> Answer[Policy]:
        """The most that a guest of a kind can be promised: what its policy is compared with, and cut down to.

        Nothing, and no open question, on a host that has no such guests.
        """
        return self._policy(kind, MAX[kind])

    def default_policy(self, kind: Kind) -> Answer[Policy]:
        """What a new guest of a kind is promised where its configuration says nothing."""
        return self._policy(kind, DEFAULT[kind])

    def _policy(self, kind: Kind, name: PolicyName) -> Answer[Policy]:
        takes = self.takes(kind)
        if takes.value is False:
            return Answer(None, takes.because)
        if name not in self.policies:
            return left_open(self._without_policy(name))
        policy = self.policies[name]
        if policy is None:
            return Answer(None, f"Xen does not support the {name} policy")
        if not policy.vendor:
            return Answer(None, f"the {name} policy has no leaf 0: the host has no such guests")
        return Answer(policy, f"the {name} policy")

    def xcr0(self, kind: Kind) -> Answer[int]:
        """The XSAVE components that a guest of a kind can have, as a mask; their sizes are the policy's `places`."""
        policy = self.max_policy(kind)
        if policy.value is None:
            return Answer(None, policy.because, policy.open)
        return Answer(policy.value.xcr0, f"leaf 0xd of {policy.because}")

    def physical_bits(self, kind: Kind) -> Answer[int]:
        """How wide a guest's physical addresses can be, in bits."""
        policy = self.max_policy(kind)
        if policy.value is None:
            return Answer(None, policy.because, policy.open)
        bits, because = policy.value.physical_bits, f"leaf 0x80000008 of {policy.because}"
        if kind == "hvm" and bits:
            if self.hap.open:
                return left_open(self.hap.because) if bits > _SHADOW_BITS else Answer(bits, because)
            limit = _HAP_BITS if self.hap.value else _SHADOW_BITS
            if bits > limit:
                return Answer(limit, f"{because} has {bits}, and {self.hap.because}: {limit}")
        return Answer(bits, because) if bits else Answer(None, f"{because} is not there")

    @property
    def l1tf(self) -> Answer[bool]:
        """Whether PV guests are guarded against L1TF: an unsafe non-present entry switches a guest to shadow paging."""
        said = None if self.command_line is None else host_switches.l1tf_switch(self.command_line)
        if said is not None:
            return said
        vendor = self.vendor
        if vendor.value is None:
            return left_open(vendor.because)
        if vendor.value in _UNAFFECTED_BY_L1TF:
            return Answer(False, vendor.because)
        host = self.policies.get(PolicyName.HOST)
        if host and host.msrs and host.msrs.get(Msr.ARCH_CAPABILITIES, 0) & _RDCL_NO:
            return Answer(False, "the Host policy has rdcl_no")
        return left_open(f"{vendor.because}: whether Xen believes the model affected is not printed")

    @property
    def linear_page_tables(self) -> Answer[bool]:
        """Whether PV guests may have linear page tables."""
        return host_switches.linear_page_tables(self.command_line)

    # -- memory ---------------------------------------------------------------------------------------

    @property
    def memory_above_4g(self) -> Answer[bool]:
        """Whether some of its memory lies above 4 GiB."""
        return host_memory.above_4g(self.total_memory, self.nodes, host_switches.memory_limit(self.command_line))

    def places_high(self, pages: int = 0) -> Answer[bool]:
        """Whether the frames of a new guest of so many pages of 4 KiB lie above 4 GiB."""
        return host_memory.places_high(self.memory_above_4g, self.free_memory, pages)

    def fits(self, pages: int) -> Answer[bool]:
        """Whether so many pages of 4 KiB are free."""
        return host_memory.fits(self.free_memory, pages)

    # -- the rest -------------------------------------------------------------------------------------

    @property
    def switches(self) -> tuple[host_switches.Switch, ...]:
        """Switches of Xen's command line that change an answer."""
        return host_switches.known_switches(self.command_line or "")

    @property
    def doubts(self) -> tuple[str, ...]:
        """What does not go together: `xl info` and `xen-cpuid -p` may be of two hosts, or of two boots."""
        host = self.policies.get(PolicyName.HOST)
        if not (host and self.hw_caps):
            return ()
        words = (
            f"hw_caps says {word} {printed:#010x}, the Host policy {value:#010x}: are both of the same host?"
            for word, printed, value in zip(HW_CAPS, self.hw_caps, map(host.word, HW_CAPS), strict=False)
            if printed != value & ~_REPEATED.get(word, 0)
        )
        return tuple(words)

    def _in_virt_caps(self, word: str) -> Answer[bool]:
        found = word in (self.virt_caps or ())
        return Answer(found, f"virt_caps has {'' if found else 'no '}{word}")

    def _in_xen_caps(self, cap: str) -> Answer[bool]:
        if self.xen_caps is None:
            return left_open(self._without("xen_caps"))
        found = cap in self.xen_caps
        return Answer(found, f"xen_caps has {'' if found else 'no '}{cap}")

    def _prints(self, change: Change) -> bool:
        """Whether this Xen is known to print a word where the host has it."""
        return self.xen is not None and self.xen.release.has(change)

    def _hw_has(self, feature: str) -> bool:
        word, bit = HOME[feature]
        position = HW_CAPS.index(word)
        return self.hw_caps is not None and len(self.hw_caps) > position and bool(self.hw_caps[position] >> bit & 1)

    def _without(self, key: str) -> str:
        """What is missing where a line of `xl info` is."""
        return f"no {key}" if self._has_xl_info else NO_XL_INFO

    def _without_policy(self, name: PolicyName) -> str:
        return f"no {name} policy" if self.policies else NO_XEN_CPUID

    @property
    def _has_xl_info(self) -> bool:
        printed = (self.xen, self.xen_caps, self.virt_caps, self.total_memory, self.free_memory, self.command_line)
        return any(value is not None for value in printed)
