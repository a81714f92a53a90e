"""What a walk over QEMU's state finds: sections, and what QEMU objects to."""

from __future__ import annotations

from enum import StrEnum

from streams.values import dataclass, field
from streams.wire.qemu import SectionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class FaultKind(StrEnum):
    """What QEMU objects to."""

    MAGIC = "magic"
    VERSION = "version"
    CUT = "cut"
    SECTION_TYPE = "section-type"
    SECTION_NAME = "section-name"
    UNKNOWN_SECTION = "unknown-section"
    SECTION_VERSION = "section-version"
    FOOTER = "footer"
    COMMAND = "command"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the state.

    Attributes
    ----------
    offset:
        of its type byte, in the state.
    type:
        START, PART, END, FULL or COMMAND.
    id, name, instance, version:
        as its header says; PART and END take name, instance and version from the START of the same id.
    data:
        offset of its data.
    length:
        bytes of data, without a footer; None where their end was not found.
    measured:
        whether a description of QEMU's gave the length; else the next header was looked for.
    """

    offset: int
    type: SectionType
    id: int
    name: str
    instance: int
    version: int
    data: int
    length: int | None = None
    measured: bool = False

    @property
    def device(self) -> str:
        """The name without the place of the device: `piix4_pm` of `0000:00:01.3/piix4_pm`."""
        return self.name.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.name!r} {self.instance}"


@dataclass(frozen=True, slots=True)
class Fault:
    """What stops QEMU.

    Attributes
    ----------
    offset:
        in the state.
    errno:
        QEMU's: EINVAL, EIO or ENOTSUP.
    message:
        what is wrong, with what was expected.
    section:
        the one it is in, if it is in one.
    """

    kind: FaultKind
    offset: int
    errno: str
    message: str
    section: Section | None = None


@dataclass(frozen=True, slots=True)
class QemuState:
    """What a state says, as far as it was walked.

    Attributes
    ----------
    version:
        of the format; None where the state ends before it.
    machine:
        from the configuration section, which Xen's QEMU does not write.
    footers:
        whether sections end with a footer, which Xen's QEMU does not write either.
    fault:
        what stops QEMU, None where nothing does.
    doubt:
        the first section whose data are not as long as QEMU 7.2 and 10.0 write them, which they would refuse as well.
        Other versions may write them so.
    end:
        offset behind the last byte that QEMU reads; None where it was not found.
    size:
        length of the state.
    description:
        the JSON at its end, parsed; None without one.
    """

    size: int
    version: int | None = None
    machine: str | None = None
    footers: bool = False
    sections: tuple[Section, ...] = ()
    fault: Fault | None = None
    doubt: Fault | None = None
    end: int | None = None
    description: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def trailing(self) -> int:
        """Bytes behind the end, which QEMU does not read."""
        return 0 if self.end is None else self.size - self.end


@dataclass(frozen=True, slots=True)
class Difference:
    """A section that another QEMU, judged by a state it wrote, would not load."""

    section: Section
    known_version: int | None  # None: it has no such section

    def __str__(self) -> str:
        if self.known_version is None:
            return f"section {self.section} is not there"
        return f"section {self.section} has version {self.section.version}, later than {self.known_version}"


def unknown_to(state: QemuState, other: QemuState) -> list[Difference]:
    """Sections of a state that the QEMU which wrote the other one would refuse, were it to load them."""
    known: dict[tuple[str, int], int] = {}
    for section in other.sections:
        known[section.name, section.instance] = section.version
    return [
        Difference(section, known.get((section.name, section.instance)))
        for section in state.sections
        if section.version > known.get((section.name, section.instance), -1)
    ]
