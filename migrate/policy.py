"""CPU policies, as far as a stream alone can tell whether Xen takes them.

Sources: `x86_cpuid_copy_from_buffer` (`xen/lib/x86/cpuid.c`), `x86_msr_copy_from_buffer` (`xen/lib/x86/msr.c`).
Whether a well-formed policy asks for more than the destination has only the destination can tell.
"""

from __future__ import annotations

from streams.wire.framing import CPUID_LEAF, POLICY_MSR

# Leaves that some release stores: basic, the hypervisor's two, extended.
_LEAF_RANGES = ((0x0, 0x1F), (0x4000_0000, 0x4000_0000), (0x4000_0100, 0x4000_0100), (0x8000_0000, 0x8000_0021))
_MSRS = {0xCE: "PLATFORM_INFO", 0x10A: "ARCH_CAPABILITIES"}


def policy_objection(body: bytes, *, cpuid: bool) -> tuple[str, str, int] | None:
    """The first entry that no release of Xen stores: message, errno and offset in the body; None for none."""
    if cpuid:
        for number, (leaf, subleaf, *_) in enumerate(CPUID_LEAF.iter_unpack(body)):
            if not any(first <= leaf <= last for first, last in _LEAF_RANGES):
                return (
                    f"CPUID leaf {leaf:#x} (subleaf {subleaf:#x}) is not one of Xen's",
                    "ERANGE",
                    number * CPUID_LEAF.size,
                )
        return None
    for number, (index, flags, _) in enumerate(POLICY_MSR.iter_unpack(body)):
        if flags:
            return f"MSR {index:#x} has flags {flags:#x}; they must be 0", "EINVAL", number * POLICY_MSR.size
        if index not in _MSRS:
            return f"MSR {index:#x} is not part of a policy", "ERANGE", number * POLICY_MSR.size
    return None
