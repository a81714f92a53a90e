"""One entry of an HVM context on its way into a domain, and that domain: what the checks of its contents are given."""

from __future__ import annotations

from collections.abc import Callable

from migrate.guest.cpu_policy import INTEL
from migrate.rules.declaring import Severity
from migrate.xen.hvm_records import About, Expected
from migrate.xen.objection import Objection
from streams.values import NamedTuple
from streams.wire.framing import HVM_SAVE_HEADER
from streams.wire.hvm_names import save_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from migrate.destination.releases import Change, Release
    from migrate.guest.cpu_policy import Policy
    from migrate.xen.cpu_policy import Processor
    from streams.hvm_context import HvmEntry


class HvmDomain(NamedTuple):
    """The domain that a context is loaded into; None for what nobody knows.

    Attributes
    ----------
    release:
        the Xen that loads it.
    processor:
        what the guest has of its processor there, and whose make the host's is.
    host:
        the most that the host offers an HVM guest.
    vcpus:
        how many there are.
    emulated:
        whether it has the devices of a PC (HVM), or a local APIC alone (PVH).
    viridian:
        whether the interface of Hyper-V is on.
    has_frame:
        whether the guest has a page at a pfn.
    """

    release: Release
    processor: Processor
    host: Policy | None = None
    vcpus: int | None = None
    emulated: bool | None = None
    viridian: bool | None = None
    has_frame: Callable[[int], bool] | None = None

    def has(self, change: Change) -> bool:
        """Whether its Xen has a change."""
        return self.release.has(change)

    @property
    def from_intel(self) -> bool | None:
        """Whether the guest was promised a processor of Intel; None where the stream does not say."""
        vendor = self.processor.promised.vendor
        return vendor == INTEL if vendor else None


class Loading(NamedTuple):
    """An entry, its number in the context, the domain that it goes to, and what that expects of its type."""

    entry: HvmEntry
    number: int
    domain: HvmDomain
    expected: Expected

    @property
    def body(self) -> bytes:
        """Its content, as far as it is there."""
        return self.entry.body

    @property
    def vcpu(self) -> int | None:
        """The vcpu whose state it is, if a vcpu's."""
        return self.entry.instance if self.expected.record.about is About.VCPU else None

    @property
    def what(self) -> str:
        """In words: entry 4, LAPIC of vcpu 0."""
        vcpu = self.vcpu
        whose = f" of vcpu {vcpu}" if vcpu is not None else f" {self.entry.instance}" if self.entry.instance else ""
        return f"entry {self.number}, {save_name(self.entry.typecode)}{whose}"

    def refused(
        self, rule: str, message: str, errno: str = "EINVAL", *, at: int | None = None, **more: Any
    ) -> Objection:
        """An objection that fails the call; `at` is the offset in the body of what is wrong, None for the entry."""
        return self._objection(rule, message, errno, at, **more)

    def noted(self, rule: str, message: str, *, at: int | None = None, **more: Any) -> Objection:
        """Something that Xen takes, and that is worth knowing."""
        return self._objection(rule, message, None, at, **more)

    def left_to_host(
        self, rule: str, message: str, errno: str, *, severity: Severity = Severity.INFO, at: int | None = None
    ) -> Objection:
        """Something that one host refuses, and another takes."""
        return self._objection(rule, message, errno, at, certain=False, severity=severity)

    def held(self, field: str, sent: int, held: str, *, at: int | None = None, **more: Any) -> Objection:
        """A field that Xen holds otherwise than it was sent."""
        return self._objection("HVM-24", f"{field} {sent:#x}: Xen holds {held}", None, at, **more)

    def _objection(self, rule: str, message: str, errno: str | None, at: int | None, **more: Any) -> Objection:
        # A field that a short entry lacks is where the entry ends.
        offset = self.entry.offset + (0 if at is None else HVM_SAVE_HEADER.size + min(at, len(self.body)))
        return Objection(
            rule, errno, f"{self.what}: {message}", offset=offset, vcpu=self.vcpu, entry=self.number, **more
        )
