"""One restore as it goes: what all parts of it share, and how certain its end is."""

from __future__ import annotations

from collections import Counter

from migrate.rules.declaring import Stage
from streams.values import NamedTuple, dataclass, field
from streams.wire.framing import RecordType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from migrate.rules.findings import Collector, Finding
    from migrate.toolstack.config import DomainConfig
    from migrate.toolstack.facts import StreamFacts
    from migrate.toolstack.frame_count import FrameCount
    from migrate.xen.hypercalls import Call
    from streams.records import Place
    from streams.transports import Transport

# Hypercalls that are made while records are read, and differ from what was asked before. A saver causes some forty.
MOST_CALLS = 1 << 14

# Of a list of p2m pages this is what a guest of 2 TiB takes. That of a larger one is a share of the file, which holds
# the guest.
LONGEST_P2M = 8 << 20
P2M_SHARE = 1 << 12

_HARMLESS_IF_REFUSED = frozenset(
    {RecordType.X86_TSC_INFO, RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY, RecordType.VERIFY}
)


@dataclass(slots=True)
class Course:
    """How far the restore has come, and what can be told of its end.

    Attributes
    ----------
    end_offset:
        file offset of the END record; None until it comes.
    broke_off:
        the bytes stop making sense, or stop, before the end.
    end_unknown:
        something was refused that the end depends on: what comes after END cannot be told.
    doubt:
        why no verdict can be given, whatever else is found from here on.
    findings_before_doubt:
        how many findings there were by then: a refusal among them is certain all the same.
    """

    end_offset: int | None = None
    broke_off: bool = False
    end_unknown: bool = False
    doubt: str | None = None
    findings_before_doubt: int = 0

    @property
    def ended(self) -> bool:
        """Whether END has come."""
        return self.end_offset is not None

    @property
    def end_can_be_told(self) -> bool:
        """Whether what libxc does at the end follows from what came."""
        return not self.end_unknown and self.doubt is None

    def in_time(self, finding: Finding) -> bool:
        """Whether the restore meets a finding by END: what a container says of later bytes comes after the replay."""
        if self.end_offset is None:
            return True
        if finding.step == Stage.DEVICE_MODEL:  # which starts when Xen has the guest, wherever its state stands
            return False
        return finding.offset is None or finding.offset <= self.end_offset


class Asked(NamedTuple):
    """A call that was made while records were read, and how many findings there were before it."""

    step: Call
    after: int


@dataclass(slots=True)
class Session:
    """What the parts of one restore hold in common: they report, refuse, ask Xen, or give up.

    Attributes
    ----------
    transport:
        where earlier bytes can be read again from, if at all.
    vcpus:
        the domain's vcpu count; None to believe the stream.
    seen:
        how many records of each type were taken.
    calls:
        what Xen was asked for while records were read, in order.
    calls_again:
        how many more there were that Xen answers as the last one about the same.
    config:
        the configuration that the domain is created from; None where none was read.
    frames:
        counts the frames that the guest needs, where a configuration limits them.
    """

    collector: Collector
    facts: StreamFacts
    transport: Transport | None = None
    vcpus: int | None = None
    course: Course = field(default_factory=Course)
    version: int = 0
    seen: Counter[int] = field(default_factory=Counter)
    calls: list[Asked] = field(default_factory=list)
    calls_again: int = 0
    static_data_end: bool = False
    verifying: bool = False
    met_pages: bool = False
    config: DomainConfig | None = None
    frames: FrameCount | None = None
    _last_asked: dict[object, object] = field(default_factory=dict)

    @property
    def domain_type(self) -> str | None:
        """What a configuration that travels with the stream calls the guest: pv, hvm or pvh."""
        return None if self.config is None else self.config.kind

    @property
    def longest_p2m(self) -> int:
        """Bytes of a list of p2m pages that are read."""
        size = None if self.transport is None else self.transport.size
        return max(LONGEST_P2M, (size or 0) // P2M_SHARE)

    def report(self, rule: str, message: str, place: Place | None = None, **fields: Any) -> Finding:
        """Report a breach of a rule; see `Collector.report`."""
        return self.collector.report(rule, message, place, **fields)

    def refuse(self, rule: str, message: str, place: Place, **fields: Any) -> None:
        """Report a record that libxc refuses; nothing of it is used."""
        self.report(rule, f"{place.name}: {message}", place, **fields)
        self.spoil(place)

    def spoil(self, place: Place) -> None:
        """A record was not used: what the end would do with its contents cannot be told any more."""
        if place.type not in _HARMLESS_IF_REFUSED:
            self.course.end_unknown = True

    def give_up(self, why: str) -> None:
        """The stream cannot be judged from here on; a refusal that came before is certain all the same."""
        course = self.course
        if course.doubt is None:
            course.doubt, course.findings_before_doubt = why, len(self.collector.findings)

    def not_read(self, why: str) -> None:
        """What no saver writes, libxc may take, and would cost more memory than it is worth."""
        self.give_up(why)
        self.course.end_unknown = True

    def ask(self, step: Call) -> None:
        """Ask Xen for something now, unless the last thing asked about the same was the same."""
        about = type(step), step.about
        if about in self._last_asked and self._last_asked[about] == step.request:
            self.calls_again += 1
            return
        if len(self.calls) == MOST_CALLS:
            self.give_up(f"more than {MOST_CALLS} different hypercalls while records are read")
            return
        self._last_asked[about] = step.request
        self.calls.append(Asked(step, len(self.collector.findings)))
