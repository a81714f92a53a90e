"""The domain configuration that travels with a stream, whoever wrote it.

`config_libxl` reads libxl's JSON and xl's own text, `config_libvirt` XML, `config_xapi` xenopsd's record.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from streams.counting import count
from streams.values import NamedTuple, dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Longer configurations are not read: real ones are some KiB, and a text takes many times its length once it is parsed.
LONGEST_CONFIG = 1 << 20
SLACK_KIB = 1024
"""What libxl lets a domain have beyond its target. Source: `libxl__build_pre`."""
DEFAULT_MAX_KIB = 32 << 10
"""Of a configuration that says nothing. Source: `libxl__domain_build_info_setdefault`."""
TRADITIONAL, QEMU_XEN = "qemu_xen_traditional", "qemu_xen"


class GuestKind(StrEnum):
    """What a configuration calls the guest."""

    PV = "pv"
    HVM = "hvm"
    PVH = "pvh"


class ConfigSource(StrEnum):
    """Whose configuration it is."""

    JSON = "libxl"
    CFG = "xl.cfg"
    XML = "libvirt"
    XENOPSD = "xenopsd"


class Problem(NamedTuple):
    """What is wrong with a configuration.

    Attributes
    ----------
    message:
        what and where.
    by:
        who refuses it: xl, libxl, libvirt or xapi; None where nobody does.
    says:
        the message of whoever refuses, which ends up in the log; None without one.
    """

    message: str
    by: str | None = None
    says: str | None = None


@dataclass(frozen=True, slots=True)
class DomainConfig:
    """What a configuration says; None for what it does not say.

    Attributes
    ----------
    kind:
        the type the domain is created with.
    build_kind:
        the type it is built with, which libxl's JSON keeps apart; elsewhere the same.
    max_vcpus, online_vcpus:
        how many there are, and how many of them are in use.
    target_kib, max_kib:
        memory.
    device_model:
        qemu_xen, qemu_xen_traditional, none …
    video_kib, vga:
        memory of the graphics card, and its kind.
    problems:
        in the order in which they show.
    """

    source: ConfigSource
    kind: GuestKind | None = None
    build_kind: GuestKind | None = None
    name: str | None = None
    max_vcpus: int | None = None
    online_vcpus: int | None = None
    target_kib: int | None = None
    max_kib: int | None = None
    device_model: str | None = None
    bios: str | None = None
    nested: bool | None = None
    viridian: bool | None = None
    hap: bool | None = None
    altp2m: bool | None = None
    tsc_mode: str | None = None
    video_kib: int | None = None
    vga: str | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def refused(self) -> Problem | None:
        """The first problem for which the restore is refused before the stream is read."""
        return next((problem for problem in self.problems if problem.by is not None), None)

    @property
    def nested_allowed(self) -> bool | None:
        """Whether the guest may have guests of its own; None where it is not known: libvirt's driver decides."""
        return bool(self.nested) if self.source in (ConfigSource.JSON, ConfigSource.CFG) else None

    @property
    def vcpus(self) -> int | None:
        """How many vcpus the domain is created with, where that is known."""
        return self.max_vcpus or (1 if self.source is ConfigSource.JSON and self.kind is not None else None)

    @property
    def limit_kib(self) -> int | None:
        """Most memory that libxl lets the guest have while it is restored, where that is known."""
        if self.target_kib is not None:
            return self.target_kib + SLACK_KIB
        if self.source is ConfigSource.JSON and self.kind is not None:
            return (DEFAULT_MAX_KIB if self.max_kib is None else self.max_kib) + SLACK_KIB
        return None if self.max_kib is None else self.max_kib + SLACK_KIB


# Source: Xen's `domain_max_vcpus`, with MAX_VIRT_CPUS and HVM_MAX_VCPUS.
_MOST_VCPUS = {GuestKind.PV: 8192, GuestKind.HVM: 128, GuestKind.PVH: 128}


def too_many_vcpus(kind: GuestKind, vcpus: int | None) -> list[Problem]:
    """The problem with a number of vcpus that no domain of a kind can have, if it is one."""
    most = _MOST_VCPUS[kind]
    if vcpus is None or 0 <= vcpus <= most:
        return []
    message = f"max_vcpus is {vcpus}; a guest of type {kind} has at most {most}"
    return [Problem(message, "libxl", "domain creation fail: Invalid argument")]


class Unusable(Exception):
    """The text is refused as a whole, and why."""


def text_of(raw: bytes) -> str:
    """The text up to its NUL, which is where C ends it."""
    if len(raw) > LONGEST_CONFIG:
        raise Unusable(f"it has {count(len(raw), 'byte')}; at most {LONGEST_CONFIG} are read")
    try:
        return raw.partition(b"\0")[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable(f"byte {error.start} is not UTF-8") from None


class ValueKind(NamedTuple):
    """What a key of a configuration takes.

    Attributes
    ----------
    read:
        what a value of the document means to the toolstack; None where it is of another type and passed over. Raises
        Unusable, without the key's name, where the toolstack's own parser refuses it.
    type:
        Python's type of such a value in the document.
    expects:
        which values there are, in words.
    """

    read: Callable[[object], Any]
    type: type
    expects: str


KINDS = {str(kind): kind for kind in GuestKind}


def integer(text: str | None) -> int | None:
    """A number as C writes it; None for anything else."""
    try:
        return None if text is None else int(text, 0)
    except ValueError:
        return None
