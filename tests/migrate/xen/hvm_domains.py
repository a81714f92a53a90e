"""Domains for contexts to be loaded into, and what is said of a context there."""

from migrate.building.hvm_contexts import hvm_context, pack_entry
from migrate.destination.releases import resolve
from migrate.guest.cpu_policy import Policy
from migrate.xen.cpu_policy import processor
from migrate.xen.hvm_context import context_objections
from migrate.xen.hvm_entry import HvmDomain
from streams.wire.cpu_features import FEATURES, HOME
from streams.wire.framing import HVM_SAVE_HEADER
from streams.wire.hvm_cpu import XSAVE
from streams.wire.hvm_names import SaveType

END = pack_entry(0, b"")
HEADER_SIZE = HVM_SAVE_HEADER.size + 24
MAKES = {
    "GenuineIntel": (0x756E_6547, 0x6C65_746E, 0x4965_6E69),
    "AuthenticAMD": (0x6874_7541, 0x444D_4163, 0x6974_6E65),
}


def policy(*features, vendor="AuthenticAMD", bits=40, faulting=True, layout=None):
    """A policy with these features and no others."""
    words = dict.fromkeys(FEATURES, 0)
    for feature in features:
        word, bit = HOME[feature]
        words[word] |= 1 << bit
    leaves = {}
    for word, value in words.items():
        leaf = leaves.setdefault((word.leaf, word.subleaf), [0, 0, 0, 0])
        leaf[("eax", "ebx", "ecx", "edx").index(word.register)] = value
    b, c, d = (MAKES[vendor][at] for at in (0, 2, 1)) if vendor else (0, 0, 0)
    leaves[0, None] = [0xD, b, d, c]
    leaves[7, 0][0] = 2
    leaves[0x8000_0000, None] = [0x8000_0021, 0, 0, 0]
    leaves.setdefault((0x8000_0008, None), [0, 0, 0, 0])[0] = bits
    leaves |= {(0xD, subleaf): [size, offset, 0, 0] for subleaf, (size, offset) in (layout or {}).items()}
    return Policy({key: tuple(leaf) for key, leaf in leaves.items()}, {0xCE: 1 << 31 if faulting else 0})


ALL = policy(*HOME)
"""All that any processor has: of AMD, with 40 bits of address."""


def domain(release="4.20", promised=ALL, *, intel=None, **known):
    """A domain of a release, for a guest that was promised a policy (None: the stream has none)."""
    target = resolve(release)
    made = processor(promised, "hvm", target, nested=True)
    return HvmDomain(target, made._replace(intel=intel), **known)


def told(body, release="4.20", promised=ALL, **known):
    """All objections to a context."""
    return list(context_objections(bytes(body), domain(release, promised, **known)))


def found(body, release="4.20", promised=ALL, **known):
    """(rule, errno) of all that is to be said of a context."""
    return [(one.rule, one.errno) for one in told(body, release, promised, **known)]


def context(*entries, **options):
    """A sound context, and more entries before its END."""
    return hvm_context(**options)[: -len(END)] + b"".join(entries) + END


def xsave(xcr0, accum, bv=0, area=576, *, tail=b"", **fields):
    """A CPU_XSAVE entry with an area of so many bytes."""
    state = XSAVE.read(b"")._replace(xcr0=xcr0, xcr0_accum=accum, xstate_bv=bv, **fields)
    return pack_entry(SaveType.CPU_XSAVE, XSAVE.pack(state).ljust(24 + area, b"\0") + tail)
