"""The same stream on both sides of a release that changed what becomes of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from asking import check

from migrate.building.builder import StreamBuilder
from migrate.building.parts import PTE_RO, entry
from migrate.judging.report import Report
from migrate.rules.declaring import Severity
from streams.wire.framing import NO_SUBLEAF, PV_INFO, VCPU_HEADER, RecordType
from streams.wire.msrs import Msr
from streams.wire.paging import RW
from streams.wire.vcpu import MSR_ENTRY, VcpuMsr

Edit = Callable[[StreamBuilder], None]


@dataclass(frozen=True)
class Case:
    """A stream, and by release the rule by which it is refused (None: it is not), with errno and step."""

    name: str
    edit: Edit
    expected: dict[str, str | None]
    width: int = 8
    version: int = 2
    placement: str = "low"
    says: dict[str, str] = field(default_factory=dict)  # by release that takes it: a rule that is told of, above info


def refused(rule: str | None, *targets: str) -> dict[str, str | None]:
    return dict.fromkeys(targets, rule)


def _blob(kind: RecordType, size: int) -> Edit:
    return lambda b: b.insert(kind, VCPU_HEADER.pack(0, 0) + bytes(size), before=RecordType.END)


def _msrs(*indices: int, more: int = 0) -> Edit:
    def edit(b: StreamBuilder) -> None:
        entries = (MSR_ENTRY.pack(VcpuMsr(index, 0, 1)) for index in indices)
        b.vcpus[0].msrs = bytearray(b"".join(entries) + bytes(more))

    return edit


def _pv_info(width: int, levels: int) -> Edit:
    def edit(b: StreamBuilder) -> None:
        b.record(RecordType.X86_PV_INFO).body[:] = PV_INFO.pack(width, levels, bytes(6))

    return edit


def _tsc_mode_3(b: StreamBuilder) -> None:
    b.tsc["mode"] = 3


def _vm_assist(b: StreamBuilder) -> None:
    b.vcpus[0].basic.vm_assist |= 1 << 20


def _eflags_vm(b: StreamBuilder) -> None:
    b.vcpus[0].basic.user_regs.eflags |= 1 << 17


def _dr7(b: StreamBuilder) -> None:
    b.vcpus[0].basic.debugreg[7] |= 1 << 32


def _mcg_caps(b: StreamBuilder) -> None:
    b.vcpus[0].extended.mcg_cap = 1 << 40


def _leftover(b: StreamBuilder) -> None:
    b.table(b.chain(b.roots[0])[-1])[100] = entry(b.store_pfn, RW)


def _superpage_leftover(b: StreamBuilder) -> None:
    b.table(b.chain(b.roots[0])[-2])[100] = 1 << 7


def _linear_chain(b: StreamBuilder) -> None:
    """Three L2 tables, of which each maps the one before."""
    l3 = b.chain(b.roots[0])[1]
    tables = [b.new_table(2) for _ in range(3)]
    for slot, table in enumerate(tables, 1):
        b.table(l3)[slot] = entry(table, 0x67)
    for before, table in pairwise(tables):
        b.table(table)[5] = entry(before, PTE_RO)


def _leaf(leaf: int, subleaf: int = NO_SUBLEAF, a: int = 0) -> Edit:
    return lambda b: b.cpuid_policy.append({"leaf": leaf, "subleaf": subleaf, "a": a, "b": 0, "c": 0, "d": 0})


def _policy_msr(index: int, value: int) -> Edit:
    return lambda b: b.msr_policy.append({"index": index, "flags": 0, "value": value})


def _many_leaves(b: StreamBuilder) -> None:
    b.cpuid_policy += b.cpuid_policy[1:2] * (118 - len(b.cpuid_policy))


def _nothing(b: StreamBuilder) -> None:
    pass


BLOBS = (
    RecordType.X86_PV_VCPU_BASIC,
    RecordType.X86_PV_VCPU_EXTENDED,
    RecordType.X86_PV_VCPU_XSAVE,
    RecordType.X86_PV_VCPU_MSRS,
)
# Where the stricter checks of libxc begin, from each side.
LAX = ("4.6.0", "4.11.4", "4.12.2", "4.13.0")
STRICT = ("4.12.3", "4.13.1", "4.14.0", "4.22.0")

CASES = [
    *(
        Case(
            f"empty {kind.name}",
            _blob(kind, 0),
            refused("REC-51", "4.6.0", "4.6.6", "4.7.6", "4.8.5", "4.9.4", "4.10.4")
            | refused(None, "4.11.0", "4.13.0", "4.20.0"),
        )
        for kind in BLOBS
    ),
    Case(
        "XSAVE of 600 bytes",
        _blob(RecordType.X86_PV_VCPU_XSAVE, 600),
        refused("REC-55", *LAX) | refused("REC-81", *STRICT),
    ),
    Case("XSAVE of 8 bytes", _blob(RecordType.X86_PV_VCPU_XSAVE, 8), refused("REC-55", *LAX, *STRICT)),
    Case("XSAVE of 16 zeros", _blob(RecordType.X86_PV_VCPU_XSAVE, 16), refused(None, *LAX, *STRICT)),
    Case(
        "MSRS of an entry and a half",
        _msrs(0x10, more=8),
        refused("REC-90", "4.6.0", "4.9.1")
        | refused("REC-92", "4.9.2", "4.11.4", "4.12.2", "4.13.0")
        | refused("REC-56", *STRICT),
    ),
    Case(
        "an MSR that is not listed",
        _msrs(0x10),
        refused(None, "4.6.6", "4.7.4", "4.8.3", "4.9.1")
        | refused("REC-92", "4.7.5", "4.8.4", "4.9.2", "4.10.0", "4.19.6", "4.20.0", "4.22.0"),
        says=dict.fromkeys(("4.6.6", "4.7.4", "4.8.3", "4.9.1"), "REC-93"),
    ),
    Case(
        "TSC_AUX",
        _msrs(Msr.TSC_AUX),
        refused("REC-92", "4.11.4") | refused(None, "4.12.0", "4.20.0"),
        says={"4.12.0": "REC-92", "4.20.0": "REC-92"},
    ),
    Case(
        "eight MSRs",
        _msrs(*[Msr.INTEL_MISC_FEATURES_ENABLES] * 8),
        refused(None, "4.12.0", "4.18.3", "4.19.0") | refused("REC-90", "4.11.4", "4.18.4", "4.19.1", "4.20.0"),
    ),
    Case("width 4 with 4 levels", _pv_info(4, 4), refused(None, *LAX) | refused("REC-31", *STRICT), width=4),
    Case("width 8 with 3 levels", _pv_info(8, 3), refused("REC-31", *LAX, *STRICT)),
    Case(
        "TSC mode 3",
        _tsc_mode_3,
        refused(None, "4.6.0", "4.11.4") | refused("REC-102", "4.12.0", "4.22.0"),
    ),
    Case("unknown vm_assist", _vm_assist, refused(None, *LAX) | refused("REC-60", *STRICT)),
    Case("dr7", _dr7, refused(None, "4.17.7") | refused("REC-63", "4.18.0", "4.20.0")),
    Case(
        "eflags.VM",
        _eflags_vm,
        refused(None, "4.17.0", "4.20.4", "4.21.0") | refused("REC-66", "4.21.1", "4.21.2", "4.22.0"),
        width=4,
    ),
    Case("machine check capabilities", _mcg_caps, refused("REC-74", "4.13.3", "4.13.4", "4.20.0")),
    Case(
        "a chain of linear tables",
        _linear_chain,
        refused(None, "4.6.6", "4.7.3", "4.8.2", "4.9.0")
        | refused("HYP-17", "4.7.4", "4.8.3", "4.9.1", "4.10.0", "4.20.0"),
    ),
    Case(
        "a policy with subleaf 2 of leaf 7",
        _leaf(7, 2),
        refused("REC-106", "4.14.0", "4.14.4", "4.15.0", "4.15.2", "4.16.0")
        | refused(None, "4.14.5", "4.15.3", "4.16.1", "4.17.0", "4.22.0"),
        version=3,
    ),
    Case(
        "a policy with leaf 0x80000021",
        _leaf(0x8000_0021),
        refused("REC-106", "4.14.4", "4.15.2") | refused(None, "4.14.5", "4.15.3", "4.16.0", "4.22.0"),
        version=3,
    ),
    Case(
        "a policy of 118 leaves",
        _many_leaves,
        refused("REC-106", "4.14.4", "4.15.2") | refused(None, "4.14.5", "4.15.3", "4.16.0", "4.22.0"),
        version=3,
    ),
    Case(
        "a policy with ARCH_CAPABILITIES",
        _policy_msr(0x10A, 1),
        refused("REC-106", "4.14.0") | refused(None, "4.14.1", "4.15.0", "4.22.0"),
        version=3,
    ),
    Case(
        "a policy with wide ARCH_CAPABILITIES",
        _policy_msr(0x10A, 1 << 40),
        refused("REC-106", "4.14.5", "4.15.4", "4.16.4", "4.17.1")
        | refused(None, "4.14.6", "4.15.5", "4.16.5", "4.17.2", "4.18.0"),
        version=3,
    ),
    Case(
        "a policy whose leaf 7 goes to subleaf 3",
        _leaf(7, 0, 3),
        refused(None, "4.14.6") | refused("REC-106", "4.15.0", "4.17.7", "4.20.0"),
        version=3,
    ),
    Case(
        "a policy whose leaf 0 wraps",
        lambda b: b.cpuid_policy[0].update(a=0xFFFF_FFFF),
        refused(None, "4.17.7", "4.21.2") | refused("REC-106", "4.22.0"),
        version=3,
    ),
    Case(
        "the registers r8 to r15",
        _nothing,
        refused(None, "4.20.4", "4.21.0", "4.21.1", "4.21.2", "4.22.0"),
        says={"4.21.0": "HYP-28", "4.21.1": "HYP-28"},
    ),
    Case(
        "a 32-bit guest",
        _nothing,
        refused(None, "4.13.5", "4.15.7", "4.16.0", "4.18.6"),
        width=4,
        says={"4.16.0": "REC-32", "4.18.6": "REC-32"},
    ),
    Case(
        "shared_info above 4 GiB",
        _nothing,
        refused(None, "4.18.6", "4.19.4", "4.20.2", "4.21.0")
        | refused("HYP-27", "4.19.5", "4.20.3", "4.21.1", "4.22.0"),
        width=4,
        placement="high",
        says={"4.18.6": "REC-32", "4.19.4": "REC-32", "4.20.2": "REC-32", "4.21.0": "REC-32"},
    ),
]


def built(case: Case) -> bytes:
    b = StreamBuilder.pv(case.width)
    if case.version == 2:
        b.image["version"], b.domain["xen_minor"] = 2, 13
    b.vcpus[0].basic.user_regs[("r8", "ebx")[case.width == 4]] = 1
    case.edit(b)
    return b.build()


def loud(report: Report) -> set[str]:
    return {finding.rule.id for finding in report.findings if finding.severity is not Severity.INFO}


@pytest.mark.parametrize(
    ("case", "target"),
    [pytest.param(case, target, id=f"{case.name}-{target}") for case in CASES for target in case.expected],
)
def test_what_becomes_of_a_stream(case, target):
    report = check(built(case), target=target, placement=case.placement)
    rule = case.expected[target]
    assert (report.verdict, report.failure and report.failure.rule) == ("refuse" if rule else "accept", rule)
    if rule is None:
        assert loud(report) & set(case.says.values()) == ({case.says[target]} if target in case.says else set())


ERRNOS = [
    ("a policy with ARCH_CAPABILITIES", {"4.14.0": "E2BIG"}),  # it has PLATFORM_INFO, too
    ("a policy with wide ARCH_CAPABILITIES", {"4.14.5": "EOVERFLOW"}),
    ("a policy of 118 leaves", {"4.14.4": "E2BIG"}),
    ("a policy whose leaf 7 goes to subleaf 3", {"4.15.0": "EINVAL"}),
    ("an MSR that is not listed", {"4.19.6": "EINVAL", "4.20.0": "ENXIO"}),
    ("machine check capabilities", {"4.13.3": "EPERM", "4.13.4": "EINVAL", "4.20.0": "EINVAL"}),
]


@pytest.mark.parametrize(
    ("name", "target", "errno"), [(name, target, errno) for name, by in ERRNOS for target, errno in by.items()]
)
def test_the_errno_changes_with_the_release(name, target, errno):
    case = next(case for case in CASES if case.name == name)
    failure = check(built(case), target=target).failure
    assert failure is not None
    assert (failure.errno, failure.step) == (errno, "record" if case.version == 3 else "context")


@pytest.mark.parametrize(("target", "word"), [("4.17.7", "last basic leaf"), ("4.21.2", None), ("4.22.0", "vendor")])
def test_what_a_policy_asks_of_the_host_is_told_as_info(target, word):
    b = StreamBuilder.pv(8)
    told = [finding for finding in check(b.build(), target=target).findings if finding.rule.id == "REC-113"]
    assert [finding.severity for finding in told] == ([Severity.INFO] if word else [])
    assert all((word in finding.message and "GenuineIntel" in finding.message) or word != "vendor" for finding in told)


@pytest.mark.parametrize("edit", [_leftover, _superpage_leftover])
@pytest.mark.parametrize(
    ("target", "word"),
    [
        *((name, None) for name in ("4.7.6", "4.8.4", "4.9.2", "4.10.1", "4.11.0")),
        *(
            (name, "may switch the guest to shadow paging")
            for name in ("4.8.5", "4.9.3", "4.10.2", "4.11.1", "4.12.0", "4.21.2")
        ),
        ("4.22.0", "crashes the guest"),
    ],
)
def test_leftovers_of_page_tables_are_told_of_where_xen_looks_at_them(edit, target, word):
    b = StreamBuilder.pv(8)
    b.image["version"], b.domain["xen_minor"] = 2, 13
    edit(b)
    told = [finding.message for finding in check(b.build(), target=target).findings if finding.rule.id == "REC-29"]
    assert len(told) == (word is not None)
    assert all(f"a host that guards against L1TF {word}" in message for message in told)
    assert all("is not present and names a frame: " in message for message in told)


def test_a_guest_of_4_21_whose_high_registers_are_all_empty_was_damaged_there():
    b = StreamBuilder.pv(8, vcpus=2)
    b.domain["xen_minor"] = 21
    for vcpu in b.vcpus:
        for number in range(8, 16):
            vcpu.basic.user_regs[f"r{number}"] = 0
    stream = b.build()
    assert "HYP-29" in loud(check(stream, target="4.21.2"))
    b = StreamBuilder.pv(8, vcpus=2)
    b.domain["xen_minor"] = 21
    b.vcpus[1].basic.user_regs.r15 = 7
    assert "HYP-29" not in loud(check(b.build(), target="4.21.2"))


@pytest.mark.parametrize(("minor", "told"), [(22, False), (23, True)])
def test_a_stream_of_a_xen_newer_than_the_rules_is_told_of(minor, told):
    b = StreamBuilder.pv(8)
    b.domain["xen_minor"] = minor
    report = check(b.build())
    newer = [finding for finding in report.findings if finding.rule.id == "HDR-12"]
    assert (report.verdict, bool(newer)) == ("accept", told)
    assert all("4.23" in finding.message and finding.severity is Severity.INFO for finding in newer)
