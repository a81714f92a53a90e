"""What libxc asks Xen for at END, as values: the program that the hypervisor model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from migrate.rules.findings import Finding
    from streams.records import Place

PIN_BATCH = 1024  # MAX_PIN_BATCH of libxc


@dataclass(frozen=True, slots=True)
class CallMade:
    """A hypercall made while a record was read; it fails if there is a finding."""

    call: str
    detail: str
    place: Place
    finding: Finding | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A check of libxc's own that fails at this point of the restore."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class SetContext:
    """XEN_DOMCTL_setvcpucontext, the frames in it named by pfn.

    `root` is the page table under cr3, `user_root` the one under cr1 (64-bit), None where libxc refused it;
    `user_mfn` is a cr1 that libxc passes on unconverted.
    """

    vcpu: int
    content: bytes
    gdt: tuple[int, ...]
    root: int | None
    user_root: int | None
    user_mfn: int | None
    place: Place


@dataclass(frozen=True, slots=True)
class SetExtended:
    """XEN_DOMCTL_set_ext_vcpucontext."""

    vcpu: int
    content: bytes
    place: Place


@dataclass(frozen=True, slots=True)
class SetXsave:
    """XEN_DOMCTL_setvcpuextstate."""

    vcpu: int
    content: bytes
    place: Place


@dataclass(frozen=True, slots=True)
class SetMsrs:
    """XEN_DOMCTL_set_vcpu_msrs."""

    vcpu: int
    content: bytes
    place: Place


class Pin(NamedTuple):
    """One MMUEXT_PIN_Ln_TABLE operation; libxc sends them in batches of `PIN_BATCH`."""

    pfn: int
    level: int


@dataclass(frozen=True, slots=True)
class MapP2m:
    """The guest's p2m pages are mapped writable, to be rewritten."""

    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SetHvmContext:
    """XEN_DOMCTL_sethvmcontext."""

    content: bytes | None
    place: Place | None


Step = CallMade | Refusal | SetContext | SetExtended | SetXsave | SetMsrs | Pin | MapP2m | SetHvmContext
