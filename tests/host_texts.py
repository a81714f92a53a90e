"""Hosts for tests: real outputs, what `xl info` and `xen-cpuid -p` would print of a host, and hosts of any kind."""

from dataclasses import replace

from hypothesis import strategies as st
from project import ROOT

from migrate.destination.host import HW_CAPS, MAX, Host, PolicyName, XenVersion
from migrate.destination.host_files import parse_host
from migrate.destination.host_memory import Node
from migrate.guest.cpu_policy import Policy
from streams.wire.cpu_features import HOME, REGISTERS
from streams.wire.framing import NO_SUBLEAF

HOSTS = ROOT / "tests" / "data" / "hosts"
AMD = HOSTS / "amd-4.17.txt"
SMALL_AMD = HOSTS / "small-amd-4.17.txt"
INTEL = HOSTS / "intel-4.17.txt"
XL_INFO_N = HOSTS / "amd-4.20-xl-info-n.txt"
XEN_CPUID_P = HOSTS / "amd-4.20-xen-cpuid-p.txt"
XEN_CPUID = HOSTS / "amd-4.17-xen-cpuid.txt"

REAL = {
    "amd 4.17": (AMD,),
    "small amd 4.17": (SMALL_AMD,),
    "intel 4.17": (INTEL,),
    "amd 4.20": (XL_INFO_N, XEN_CPUID_P),
}


def parsed(*texts: str | bytes) -> Host:
    """The host of some texts, each taken for a file."""
    files = [(f"file{number}", text if isinstance(text, bytes) else text.encode()) for number, text in enumerate(texts)]
    return parse_host(files).host


def real(name: str) -> Host:
    return parsed(*(path.read_bytes() for path in REAL[name]))


def info(**values: str) -> str:
    """Lines of `xl info`, the key in 23 columns."""
    return "".join(f"{key:<23}: {value}\n" for key, value in values.items())


def version(text: str) -> str:
    """The four lines on Xen's version: 4.17.7, 4.21-rc2."""
    major, rest = text.split(".", 1)
    digits = len(rest) - len(rest.lstrip("0123456789"))
    minor, extra = rest[:digits], rest[digits:]
    return info(xen_major=major, xen_minor=minor, xen_extra=extra, xen_version=text)


def xl_info(host: Host) -> str:
    """What `xl info`, or `xl info -n` for a host with nodes, prints of a host."""
    lines = ["release                : 6.1.0\n"]
    if host.name is not None:
        lines.insert(0, info(host=host.name))
    if host.nr_cpus is not None:
        lines.append(info(nr_cpus=str(host.nr_cpus)))
    if host.hw_caps is not None:
        lines.append(info(hw_caps=":".join(f"{word:08x}" for word in host.hw_caps)))
    if host.virt_caps is not None:
        lines.append(f"{'virt_caps':<23}:{''.join(f' {word}' for word in host.virt_caps)}\n")
    if host.total_memory is not None:
        lines.append(info(total_memory=str(host.total_memory)))
    if host.free_memory is not None:
        lines.append(info(free_memory=str(host.free_memory)))
    if host.nodes:
        lines.append("numa_info              :\nnode:    memsize    memfree    distances\n")
        lines += [f"{node.number:4}:    {node.size:6}     {node.free:6}      10,20\n" for node in host.nodes]
    if host.xen is not None:
        lines.append(version(str(host.xen)))
    if host.xen_caps is not None:
        lines.append(info(xen_caps="".join(f"{cap} " for cap in host.xen_caps)))
    if host.command_line is not None:
        lines.append(info(xen_commandline=host.command_line))
    return "".join(lines)


def policy_text(name: str, policy: Policy, leaves: int = 60) -> str:
    """What `xen-cpuid -p` prints of one policy: leaves of zeros are left out, and counted."""
    lines = [f"{name} policy: {leaves} leaves, {len(policy.msrs)} MSRs\n CPUID:\n"]
    lines.append("  leaf     subleaf  -> eax      ebx      ecx      edx     \n")
    for (leaf, subleaf), registers in policy.leaves.items():
        values = ":".join(f"{register:08x}" for register in registers)
        lines.append(f"  {leaf:08x}:{NO_SUBLEAF if subleaf is None else subleaf:08x} -> {values}\n")
    lines.append(" MSRs:\n  index    -> value           \n")
    lines += [f"  {index:08x} -> {value:016x}\n" for index, value in policy.msrs.items()]
    return "".join(lines)


def xen_cpuid(host: Host) -> str:
    """What `xen-cpuid -p` prints of a host."""
    lines = []
    if host.most_leaves is not None:
        lines.append(f"Xen reports there are maximum {host.most_leaves} leaves and {host.most_msrs} MSRs\n")
    for name, policy in host.policies.items():
        unsupported = f"{name} policy not supported by Xen\n"
        lines.append(unsupported if policy is None else policy_text(name, policy))
    return "".join(lines)


def without_features(host, kind, *features):
    """A host whose Max policy lacks these."""
    policy = host.policies[MAX[kind]]
    leaves = {place: list(registers) for place, registers in policy.leaves.items()}
    for feature in features:
        word, bit = HOME[feature]
        if (word.leaf, word.subleaf) in leaves:
            leaves[word.leaf, word.subleaf][REGISTERS.index(word.register)] &= ~(1 << bit)
    less = Policy({place: tuple(registers) for place, registers in leaves.items()}, policy.msrs)
    return replace(host, policies={**host.policies, MAX[kind]: less})


# -- hosts of any kind --------------------------------------------------------------------------------

_WORDS = st.integers(0, 2**32 - 1)
_NAMES = st.from_regex(r"\A[a-z][a-z0-9.-]{0,12}[a-z0-9]\Z")
_EXTRAS = st.sampled_from(["", ".0", ".7", "-rc2", "-unstable", ".4-pre", ".5-10.1", ".1_04-lp152"])
_PLACES = st.one_of(
    st.tuples(st.sampled_from([0x0, 0x1, 0x8000_0000, 0x8000_0001, 0x8000_0008]), st.none()),
    st.tuples(st.sampled_from([0x7, 0xD]), st.integers(0, 5)),
)
POLICIES = st.builds(
    Policy,
    st.dictionaries(_PLACES, st.tuples(_WORDS, _WORDS, _WORDS, _WORDS).filter(any), max_size=8),
    st.dictionaries(st.sampled_from([0xCE, 0x10A]), st.integers(0, 2**64 - 1), max_size=2),
)


def _maybe(strategy):
    return st.none() | strategy


def _caps(words):
    return _maybe(st.lists(st.sampled_from(words), unique=True).map(tuple))


@st.composite
def some_hosts(draw):
    """Any host, of which anything may be unknown."""
    bounds = draw(_maybe(st.tuples(st.sampled_from([114, 119, 120, 7]), st.integers(1, 2))))
    nodes = draw(st.dictionaries(st.integers(0, 3), st.tuples(st.integers(1, 9999), st.integers(0, 9999)), max_size=2))
    return Host(
        name=draw(_maybe(_NAMES)),
        xen=draw(_maybe(st.builds(XenVersion, st.integers(4, 5), st.integers(6, 22), _EXTRAS))),
        xen_caps=draw(_caps(["xen-3.0-x86_64", "xen-3.0-x86_32p", "hvm-3.0-x86_32", "hvm-3.0-x86_64"])),
        virt_caps=draw(_caps(["pv", "hvm", "hvm_directio", "pv_directio", "hap", "shadow", "vmtrace", "gnttab-v1"])),
        total_memory=draw(_maybe(st.integers(0, 1 << 24))),
        free_memory=draw(_maybe(st.integers(0, 1 << 24))),
        nr_cpus=draw(_maybe(st.integers(1, 4096))),
        hw_caps=draw(_maybe(st.tuples(*[_WORDS] * len(HW_CAPS)))),
        command_line=draw(_maybe(st.sampled_from(["", "pv=no-32 mem=3G", "console=com1 hap=0", "spec-ctrl=no smt=1"]))),
        nodes=tuple(Node(number, *sizes) for number, sizes in sorted(nodes.items())),
        most_leaves=bounds and bounds[0],
        most_msrs=bounds and bounds[1],
        policies=draw(st.dictionaries(st.sampled_from(list(PolicyName)), _maybe(POLICIES), max_size=3)),
    )
