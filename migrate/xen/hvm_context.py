"""Xen's walk over an HVM guest's context: which of its faults it meets, in what order, and what it answers.

Up to Xen 4.18 each entry takes effect as it is read. From 4.19 on all of them are checked first, those with a check of
their own by that and the others for running past the end alone; then all are loaded. Every objection is told, in the
order in which Xen would meet them: the first that is certain decides.

What is in the entries is judged by `hvm_cpu`, `hvm_msrs`, `hvm_devices` and `hvm_timers`. Nothing here imports numpy
or construct: a filter in front of an HVM guest stays small.

Source: hvm_load and _hvm_check_entry (`xen/arch/x86/hvm/save.c`), arch_hvm_check and arch_hvm_load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from migrate.destination import releases
from migrate.rules.declaring import Severity
from migrate.xen import hvm_cpu, hvm_devices, hvm_msrs, hvm_timers
from migrate.xen.hvm_entry import HvmDomain, Loading
from migrate.xen.hvm_guest import EMULATED
from migrate.xen.hvm_records import About, expected
from migrate.xen.hvm_xsave import ExtendedStates
from migrate.xen.objection import Objection
from streams.counting import count
from streams.hvm_context import HvmEntry, entries
from streams.values import NamedTuple, replace
from streams.wire.framing import HVM_SAVE_HEADER
from streams.wire.hvm_entries import SAVE_HEADER
from streams.wire.hvm_names import LAST_SAVE_TYPE, PICS, SAVE_MAGIC, SAVE_VERSION, SaveType

CALL = "sethvmcontext"

_CONTENTS: dict[int, Callable[[Loading], Iterator[Objection]]] = {
    SaveType.CPU: hvm_cpu.objections,
    SaveType.PIC: hvm_devices.pic,
    SaveType.LAPIC: hvm_devices.lapic,
    SaveType.PCI_LINK: hvm_devices.pci_link,
    SaveType.PIT: hvm_timers.pit,
    SaveType.HPET: hvm_timers.hpet,
    SaveType.MTRR: hvm_devices.mtrr,
    SaveType.VIRIDIAN_DOMAIN: hvm_devices.viridian_domain,
    SaveType.VIRIDIAN_VCPU: hvm_devices.viridian_vcpu,
    SaveType.VMCE_VCPU: hvm_devices.vmce,
}
"""What Xen looks at in entries, by type; CPU_XSAVE and CPU_MSR need to know what came before them."""


def no_context(domain: HvmDomain) -> Objection:
    """What Xen says where libxc has nothing to hand it."""
    return Objection("ORD-17", "ENODATA" if domain.has(releases.hvm_errnos) else "EPERM", "no HVM_CONTEXT")


def context_objections(body: bytes, domain: HvmDomain) -> Iterator[Objection]:
    """All there is to say about a context, in the order in which Xen would meet it; linear in its length.

    Offsets count from the start of the body. An empty one libxc itself refuses from 4.14 on.
    """
    if not body and domain.has(releases.hvm_context_nonempty):
        return
    if not domain.has(releases.hvm_errnos):
        # Whatever failed, the call's answer was -1.
        yield from (one if one.errno is None else replace(one, errno="EPERM") for one in _objections(body, domain))
    else:
        yield from _objections(body, domain)


def _objections(body: bytes, domain: HvmDomain) -> Iterator[Objection]:
    walk = _Walk(body, domain)
    if walk.two_phases:
        yield from walk.check()
    yield from walk.load()


# -- the chain --------------------------------------------------------------------------------------


def _header(body: bytes) -> Objection | None:
    """arch_hvm_check (arch_hvm_load before 4.19): the entry that has to be the first."""
    first = next(entries(body), None)
    size = SAVE_HEADER.size
    if first is None or first.typecode != SaveType.HEADER:
        what = "there is no entry" if first is None else f"the first entry is {first.name}"
        return Objection("REC-111", "ENODATA", f"{what}; expected HEADER", offset=0, entry=0)
    if first.length != size or first.cut:
        message = f"entry 0, HEADER: {count(first.length, 'byte')}, {len(first.body)} of them there; expected {size}"
        return Objection("REC-111", "ENODATA", message, offset=0, entry=0)
    start = SAVE_HEADER.read(first.body)
    for field, value, wanted in (("magic", start.magic, SAVE_MAGIC), ("version", start.version, SAVE_VERSION)):
        if value != wanted:
            message = f"entry 0, HEADER: {field} {value:#x}; expected {wanted:#x}"
            at = HVM_SAVE_HEADER.size + SAVE_HEADER.offset(field)
            return Objection("REC-111", "EINVAL", message, offset=at, entry=0)
    return None


def _unknown(entry: HvmEntry, number: int) -> Objection | None:
    """An entry of a type that nothing loads; HEADER is read before the walk begins, and only there."""
    if entry.typecode > LAST_SAVE_TYPE:
        message = f"entry {number}: unknown typecode {entry.typecode}; the last one known is {LAST_SAVE_TYPE}"
    elif entry.typecode == SaveType.HEADER and number:
        message = f"entry {number}: a second HEADER, which Xen takes for an unknown type"
    else:
        return None
    return Objection("REC-111", "EINVAL", message, offset=entry.offset, entry=number)


def _no_end(last: HvmEntry | None, number: int, body: bytes) -> Objection | None:
    """Whether the chain stops without END; an entry that is cut has been told of."""
    if last is not None and (last.typecode == SaveType.END or last.cut):
        return None
    return Objection(
        "REC-111",
        "ENODATA",
        f"the context ends after {count(number, 'entry', 'entries')} without END",
        offset=len(body),
    )


def _too_long(one: Loading, errno: str) -> Objection:
    left = len(one.body)
    return one.refused("REC-111", f"{count(one.entry.length, 'byte')}, of which the context has {left}", errno)


# -- one entry --------------------------------------------------------------------------------------


def _problem(one: Loading, *, lacks_devices: bool) -> Objection | None:
    """What an entry's handler has against it before it looks inside: the device, the instance, the length."""
    entry, record = one.entry, one.expected.record
    instance, vcpus = entry.instance, one.domain.vcpus
    if lacks_devices and entry.typecode in EMULATED:
        return one.refused("HVM-15", "a PVH guest has no such device", "ENODEV")
    if record.about is About.PIC and instance >= PICS:
        return one.refused("HVM-02", f"instance {instance}; there are {PICS}", "ENOENT")
    if record.about is About.VCPU and vcpus is not None and instance >= vcpus:
        return one.refused("HVM-02", f"the domain has {vcpus} vcpu{'s' * (vcpus != 1)}")
    if entry.cut and record.says_its_length:
        return _too_long(one, "ENODATA")
    if entry.length not in one.expected.form.lengths:
        message = f"{count(entry.length, 'byte')}; {one.expected.form.bound} in {one.domain.release}"
        return one.refused("HVM-01", message, one.expected.length_errno)
    return _too_long(one, one.expected.length_errno) if entry.cut else None


def _remarks(one: Loading) -> Iterator[Objection]:
    """What Xen passes over in an entry of any type."""
    entry, record = one.entry, one.expected.record
    if entry.instance and record.about is About.DOMAIN:
        what = f"Xen does not look at the instance, {entry.instance}; it saves 0"
        yield one.noted("HVM-24", what, severity=Severity.INFO)
    if not (record.says_its_length or record.was_a_form(entry.length)):
        what = f"{count(entry.length, 'byte')}, which no release writes: Xen reads zeros for what lacks"
        yield one.noted("HVM-24", what, severity=Severity.INFO)


# -- loading ----------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """Which (type, instance) pairs came: a bit each, for a stream may have any number of entries."""

    once: bytearray
    twice: bytearray

    @classmethod
    def none(cls) -> _Seen:
        size = (LAST_SAVE_TYPE + 1) << 13
        return cls(bytearray(size), bytearray(size))

    def again(self, kind: int, instance: int) -> bool:
        """Whether this is the second of its kind; the third is no news."""
        at, bit = kind << 13 | instance >> 3, 1 << (instance & 7)
        if not self.once[at] & bit:
            self.once[at] |= bit
            return False
        if self.twice[at] & bit:
            return False
        self.twice[at] |= bit
        return True


class _Walk:
    """hvm_load over one context."""

    def __init__(self, body: bytes, domain: HvmDomain) -> None:
        self.body = body
        self.domain = domain
        self.two_phases = domain.has(releases.hvm_two_phases)
        self.expected = expected(domain.release)
        self.lacks_devices = domain.emulated is False and domain.has(releases.hvm_devices_checked)
        self.seen = _Seen.none()
        self.strangers: set[int] = set()  # vcpus that the domain does not have
        self.running: set[int] = set()
        self.extended = ExtendedStates()

    def check(self) -> Iterator[Objection]:
        """The first phase: the chain, and what has a check of its own."""
        if problem := _header(self.body):
            yield problem
        last, number = None, 0
        for number, entry in enumerate(entries(self.body), 1):
            last = entry
            if entry.typecode == SaveType.END:
                break
            if problem := _unknown(entry, number - 1):
                yield problem
                return
            one = Loading(entry, number - 1, self.domain, self.expected[entry.typecode])
            if one.expected.checked:
                yield from self._handle(one)
            elif entry.cut and entry.typecode != SaveType.HEADER:
                yield _too_long(one, "ENODATA")
        if problem := _no_end(last, number, self.body):
            yield problem

    def load(self) -> Iterator[Objection]:
        """The second phase, or the only one; what the first has told of is not told again."""
        only = not self.two_phases
        if only and (problem := _header(self.body)):
            yield problem
        last, number = None, 0
        for number, entry in enumerate(entries(self.body), 1):
            last = entry
            if entry.typecode == SaveType.END:
                break
            if problem := _unknown(entry, number - 1):
                if only:
                    yield problem
                return
            one = Loading(entry, number - 1, self.domain, self.expected[entry.typecode])
            if entry.typecode == SaveType.CPU:
                self.running.add(entry.instance)
            if not (entry.typecode == SaveType.HEADER or one.expected.checked or (entry.cut and not only)):
                yield from self._handle(one)
        if only and (problem := _no_end(last, number, self.body)):
            yield problem
        if last is not None and last.typecode == SaveType.END:
            yield from self._at_the_end(last)

    def _handle(self, one: Loading) -> Iterator[Objection]:
        """What an entry's handler says."""
        kind, instance = one.entry.typecode, one.entry.instance
        problem = _problem(one, lacks_devices=self.lacks_devices)
        if problem is None:
            if self.seen.again(kind, 0 if one.expected.record.about is About.DOMAIN else instance):
                yield one.noted("HVM-12", "another one like it: the last one counts")
            yield from _remarks(one)
            contents = _CONTENTS.get(kind)
            if contents:
                yield from contents(one)
            yield from self._together(one)
        elif problem.rule != "HVM-02" or problem.vcpu is None:
            yield problem
        elif instance not in self.strangers:
            # What else there is of the same vcpu is no news.
            self.strangers.add(instance)
            yield problem

    def _together(self, one: Loading) -> Iterator[Objection]:
        """What hangs on other entries of the same vcpu, too."""
        match one.entry.typecode:
            case SaveType.CPU:
                self.extended.cpu(one)
            case SaveType.CPU_XSAVE:
                yield from self.extended.xsave(one)
            case SaveType.CPU_MSR:
                yield from hvm_msrs.objections(one, self.extended.components(one.entry.instance))

    def _at_the_end(self, end: HvmEntry) -> Iterator[Objection]:
        """What nobody checks."""
        yield from self.extended.lost()
        if not self.running:
            message = "no CPU entry at all: the guest comes back without a running vcpu"
            yield Objection("HVM-03", None, message, offset=0)
        elif 0 not in self.running:
            running = ", ".join(map(str, sorted(self.running)[:8]))
            message = f"no CPU entry for vcpu 0: it stays down; running: {running}"
            yield Objection("HVM-03", None, message, offset=0, vcpu=0, severity=Severity.WARNING)
        rest = end.offset + HVM_SAVE_HEADER.size
        if rest < len(self.body):
            message = f"{count(len(self.body) - rest, 'byte follows', 'bytes follow')} END, which nobody reads"
            yield Objection("HVM-13", None, message, offset=rest)
