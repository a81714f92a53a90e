"""What libxc asks Xen for, as values: the program that the hypervisor model runs."""

from __future__ import annotations

from streams.values import NamedTuple, dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from typing import ClassVar

    from migrate.guest.stash import Kept
    from migrate.rules.findings import Finding
    from migrate.xen.hvm_guest import HvmGuest
    from streams.records import Place, Record

PIN_BATCH = 1024  # MAX_PIN_BATCH of libxc


class Call:
    """A hypercall, or what takes the place of one; `call` is its name.

    `about` and `request` are for those that may come again and again: what they are about, and what is asked of it.
    """

    __slots__ = ()
    call: ClassVar[str]

    @property
    def about(self) -> object:
        """What is set, where there are several such things."""
        return None

    @property
    def request(self) -> object:
        """What Xen's answer hangs on."""
        return self


@dataclass(frozen=True, slots=True)
class CreateDomain(Call):
    """XEN_DOMCTL_createdomain: what the toolstack does before it reads the stream."""

    call = "domctl createdomain"


# -- while records are read -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetAddressSize(Call):
    """XEN_DOMCTL_set_address_size: the domain becomes one of 32 bits."""

    call = "set_address_size"
    bits: int
    place: Place


@dataclass(frozen=True, slots=True)
class SetCpuPolicy(Call):
    """XEN_DOMCTL_set_cpu_policy with the leaves and MSRs of the last records of each kind; None where none came."""

    call = "set_cpu_policy"
    cpuid: Record | None
    msrs: Record | None


@dataclass(frozen=True, slots=True)
class SetTscInfo(Call):
    """XEN_DOMCTL_settscinfo."""

    call = "settscinfo"
    mode: int
    khz: int
    place: Place

    @property
    def request(self) -> object:
        """The mode alone can be refused."""
        return self.mode


@dataclass(frozen=True, slots=True)
class SetHvmParam(Call):
    """HVMOP_set_param; `offset` is that of the pair in the stream, `index` as it is there."""

    call = "hvm_set_param"
    index: int
    value: int
    place: Place
    offset: int
    guest: HvmGuest = field(compare=False, repr=False)

    @property
    def about(self) -> object:
        """Which parameter."""
        return self.index

    @property
    def request(self) -> object:
        """Its value."""
        return self.value


# -- at END ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusal(Call):
    """A check of libxc's own that fails at this point of the restore."""

    call = "libxc"
    finding: Finding


class VcpuCall(Call):
    """Sets a part of a vcpu's state."""

    __slots__ = ()
    kept: Kept

    @property
    def content(self) -> bytes:
        """The part, as it came."""
        return self.kept.load()


@dataclass(frozen=True, slots=True)
class SetContext(VcpuCall):
    """XEN_DOMCTL_setvcpucontext, the frames in it named by pfn.

    `root` is the page table under cr3, `user_root` the one under cr1 (64-bit), None where libxc refused it;
    `user_mfn` is a cr1 that libxc passes on unconverted.
    """

    call = "setvcpucontext"
    vcpu: int
    kept: Kept
    gdt: tuple[int, ...]
    root: int | None
    user_root: int | None
    user_mfn: int | None
    place: Place


@dataclass(frozen=True, slots=True)
class SetExtended(VcpuCall):
    """XEN_DOMCTL_set_ext_vcpucontext."""

    call = "set_ext_vcpucontext"
    vcpu: int
    kept: Kept
    place: Place


@dataclass(frozen=True, slots=True)
class SetXsave(VcpuCall):
    """XEN_DOMCTL_setvcpuextstate."""

    call = "setvcpuextstate"
    vcpu: int
    kept: Kept
    place: Place


@dataclass(frozen=True, slots=True)
class SetMsrs(VcpuCall):
    """XEN_DOMCTL_set_vcpu_msrs."""

    call = "set_vcpu_msrs"
    vcpu: int
    kept: Kept
    place: Place


class Pin(NamedTuple):
    """One MMUEXT_PIN_Ln_TABLE operation; libxc sends them in batches of `PIN_BATCH`."""

    pfn: int
    level: int

    @property
    def call(self) -> str:
        """The hypercall that the batch is."""
        return "mmuext_op"


@dataclass(frozen=True, slots=True)
class MapP2m(Call):
    """The guest's p2m pages are mapped writable, to be rewritten."""

    call = "mmap"
    frames: array[int]


@dataclass(frozen=True, slots=True)
class SetHvmContext(Call):
    """XEN_DOMCTL_sethvmcontext."""

    call = "sethvmcontext"
    content: bytes | None
    place: Place | None
    guest: HvmGuest = field(compare=False, repr=False)


Step = Call | Pin
