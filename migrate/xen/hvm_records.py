"""The types of entries of an HVM context, by release: how long each is, what it is about, how Xen answers a wrong one.

Nothing here imports more than the standard library: a filter in front of an HVM guest stays small.

Sources: the load handlers of `xen/arch/x86/hvm`, `_hvm_check_entry` (`save.c`), public `arch-x86/hvm/save.h`.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

from migrate.destination import releases
from migrate.destination.releases import Change, Release
from streams.values import NamedTuple
from streams.wire.hvm_cpu import CPU, CPU_MSR, CPU_MSRS, MTRR, OLDEST_CPU_SIZE, TSC_ADJUST, VMCE_VCPU, XSAVE
from streams.wire.hvm_entries import SAVE_HEADER
from streams.wire.hvm_interrupts import IOAPIC, ISA_IRQ, LAPIC, LAPIC_REGS, PCI_IRQ, PCI_LINK, PIC
from streams.wire.hvm_names import SaveType
from streams.wire.hvm_timers import HPET, PIT, PMTIMER, RTC
from streams.wire.hvm_viridian import VIRIDIAN_DOMAIN, VIRIDIAN_VCPU

_ANY_LENGTH = 1 << 32


class About(Enum):
    """What the instance of an entry counts."""

    DOMAIN = "nothing: Xen does not look at it"
    VCPU = "vcpus"
    PIC = "the two interrupt controllers of a PC"


class Form(NamedTuple):
    """How long an entry may be, from a release on: any of a range, or one of a few lengths."""

    since: Change
    lengths: range | tuple[int, ...]

    @property
    def newest(self) -> int:
        """How long the release writes it; of no use where contents tell."""
        return max(self.lengths[0], self.lengths[-1])

    @property
    def old(self) -> tuple[int, ...]:
        """Lengths that are forms of their own."""
        return self.lengths if isinstance(self.lengths, tuple) else ()

    @property
    def bound(self) -> str:
        """In words: at most 24, expected 1016 or 1024."""
        lengths = self.lengths
        if isinstance(lengths, range) and len(lengths) > 1:
            return f"at least {lengths.start}" if lengths.start else f"at most {lengths.stop - 1}"
        return "expected " + " or ".join(map(str, lengths))


class SaveRecord(NamedTuple):
    """How Xen takes one type of entry.

    Attributes
    ----------
    forms:
        its forms, the newest first.
    about:
        what its instance counts.
    wrong_length:
        what Xen answers to one of another length.
    checked:
        the change with which it is checked before anything is loaded; from there on a wrong length is ENODATA.
    says_its_length:
        whether its contents tell its length, so that running past the end is an error of its own.
    """

    forms: tuple[Form, ...]
    about: About = About.DOMAIN
    wrong_length: str = "EINVAL"
    checked: Change | None = None
    says_its_length: bool = False

    def was_a_form(self, length: int) -> bool:
        """Whether some release writes it that long."""
        return any(
            length == form.newest or (isinstance(form.lengths, tuple) and length in form.lengths) for form in self.forms
        )


def _strict(length: int, since: Change = releases.every_release) -> Form:
    return Form(since, range(length, length + 1))


def _shorter(length: int, since: Change = releases.every_release) -> Form:
    """Xen reads zeros for what a shorter one lacks (hvm_load_entry_zeroextend)."""
    return Form(since, range(length + 1))


def _at_least(length: int) -> Form:
    return Form(releases.every_release, range(length, _ANY_LENGTH))


def _of_domain(form: Form, *older: Form, wrong_length: str = "EINVAL") -> SaveRecord:
    return SaveRecord((form, *older), wrong_length=wrong_length)


def _of_vcpu(*forms: Form, checked: Change | None = None) -> SaveRecord:
    return SaveRecord(forms, About.VCPU, checked=checked)


RECORDS: dict[int, SaveRecord] = {
    SaveType.HEADER: _of_domain(_strict(SAVE_HEADER.size), wrong_length="ENODATA"),
    SaveType.CPU: _of_vcpu(
        _shorter(CPU.size, releases.hvm_cpu_flags),
        Form(releases.every_release, (OLDEST_CPU_SIZE, CPU.offset("flags"))),
    ),
    SaveType.PIC: SaveRecord((_strict(PIC.size),), About.PIC, checked=releases.hvm_two_phases),
    SaveType.IOAPIC: _of_domain(_strict(IOAPIC.size), wrong_length="ENODATA"),
    SaveType.LAPIC: _of_vcpu(
        _shorter(LAPIC.size, releases.hvm_lapic_esr),
        _shorter(LAPIC.offset("pending_esr")),
        checked=releases.hvm_lapic_checked,
    ),
    SaveType.LAPIC_REGS: _of_vcpu(_strict(LAPIC_REGS.size), checked=releases.hvm_lapic_checked),
    SaveType.PCI_IRQ: _of_domain(_strict(PCI_IRQ.size)),
    SaveType.ISA_IRQ: _of_domain(_strict(ISA_IRQ.size)),
    SaveType.PCI_LINK: SaveRecord((_strict(PCI_LINK.size),), checked=releases.hvm_two_phases),
    SaveType.PIT: SaveRecord((_strict(PIT.size),), wrong_length="ENODATA", checked=releases.hvm_two_phases),
    SaveType.RTC: _of_domain(_shorter(RTC.size, releases.hvm_rtc_offset), _strict(RTC.offset("rtc_offset"))),
    SaveType.HPET: _of_domain(_strict(HPET.size)),
    SaveType.PMTIMER: _of_domain(_strict(PMTIMER.size)),
    SaveType.MTRR: _of_vcpu(_strict(MTRR.size)),
    SaveType.VIRIDIAN_DOMAIN: _of_domain(_shorter(VIRIDIAN_DOMAIN.size)),
    SaveType.CPU_XSAVE: SaveRecord((_at_least(XSAVE.size),), About.VCPU, says_its_length=True),
    SaveType.VIRIDIAN_VCPU: _of_vcpu(
        _shorter(VIRIDIAN_VCPU.size, releases.hvm_viridian_synic),
        _shorter(VIRIDIAN_VCPU.offset("simp_msr"), releases.hvm_viridian_assist),
        _strict(VIRIDIAN_VCPU.offset("apic_assist_pending")),
    ),
    SaveType.VMCE_VCPU: SaveRecord(
        (_shorter(VMCE_VCPU.size, releases.lmce), _shorter(VMCE_VCPU.offset("mcg_ext_ctl"))),
        About.VCPU,
        wrong_length="EPERM",
    ),
    SaveType.TSC_ADJUST: _of_vcpu(_strict(TSC_ADJUST.size)),
    SaveType.CPU_MSR: SaveRecord((_at_least(CPU_MSRS.size + CPU_MSR.size),), About.VCPU, says_its_length=True),
}
"""Every type of entry but END, whose length and instance nobody looks at."""


class Expected(NamedTuple):
    """What one release expects of a type.

    Attributes
    ----------
    form:
        how long it may be.
    checked:
        whether it is checked before anything is loaded.
    length_errno:
        what is answered to another length.
    """

    record: SaveRecord
    form: Form
    checked: bool
    length_errno: str


@lru_cache
def expected(release: Release) -> dict[int, Expected]:
    """What a release expects, by type."""
    found = {}
    for kind, record in RECORDS.items():
        form = next(form for form in record.forms if release.has(form.since))
        checked = record.checked is not None and release.has(record.checked)
        found[kind] = Expected(record, form, checked, "ENODATA" if checked else record.wrong_length)
    return found


def saved_lengths(release: Release) -> dict[int, int]:
    """How long the entries are that a release saves, by type, but for those whose contents decide."""
    return {kind: one.form.newest for kind, one in expected(release).items() if not one.record.says_its_length}
