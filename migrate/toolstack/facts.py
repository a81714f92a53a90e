"""What a stream is, as its records tell it."""

from __future__ import annotations

from migrate.rules.declaring import GuestKind
from migrate.toolstack.passes import Round
from streams.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@dataclass(slots=True)
class StreamFacts:
    """What the stream is: the "stream" object of the JSON report and the header of the text one."""

    name: str
    container: str = "unknown"
    compression: str | None = None  # what the input was unpacked from
    version: int | None = None
    guest: GuestKind | None = None
    width: int | None = None
    levels: int | None = None
    xen: str | None = None
    vcpus: int | None = None
    max_pfn: int | None = None
    bytes: int = 0
    records: int = 0
    extended_cr3: bool | None = None
    pinned: dict[str, int] | None = None
    cr3: list[dict[str, int | None]] | None = None
    rounds: list[Round] = field(default_factory=list)  # passes over the guest's memory
    checkpoints: int = 0
    converted: bool = False  # by the legacy converter
    pvh: bool | None = None  # of an HVM guest: whether it has no emulated devices; None where nobody knows
    pages: int | None = None  # of an HVM guest: how many have been sent, each counted once
    device_model: str | None = None  # how the device model's state begins
    legacy: dict[str, Any] | None = None  # what a pre-4.6 stream says of itself
