"""Where findings are gathered, and floods of them folded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from migrate.destination.destination import Destination
from migrate.destination.releases import Change
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, Rule, Severity, Stage, in_range
from streams.records import Place
from streams.values import NamedTuple, dataclass, field, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Link(NamedTuple):
    """One table (or other frame) of a chain that leads to a refusal.

    Attributes
    ----------
    type:
        what Xen holds the frame as: L1 to L4, segment descriptors, writable …
    slot:
        the entry that leads on; None for the last.
    writable:
        whether the entry that led here maps it writable.
    """

    type: str
    pfn: int
    slot: int | None = None
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth telling about a stream, with the place it is about."""

    rule: Rule
    message: str
    severity: Severity
    effect: Effect
    offset: int | None = None
    record: int | None = None
    record_type: str | None = None
    pfn: int | None = None
    mfn: int | None = None
    vcpu: int | None = None
    slot: int | None = None
    errno: str | None = None
    count: int = 1  # how many alike it stands for
    step: Stage = Stage.RECORD
    call: str = "libxc"  # the hypercall, or whose own check it is
    signal: int | None = None  # which kills the toolstack's process
    since: Change | None = None  # where the rule's own range does not tell it
    until: Change | None = None
    placement: str | None = None  # the only placement under which it holds
    on_host: str | None = None  # the answer of a `Host`: it does not hold where that is no
    chain: tuple[Link, ...] = ()  # the tables that led there
    left_to_host: bool = False  # the restore may fail of it: what is known of the host does not tell

    @classmethod
    def of(
        cls,
        rule: Rule,
        message: str,
        place: Place | None = None,
        *,
        offset: int | None = None,
        effect: Effect | None = None,
        severity: Severity | None = None,
        **fields: Any,
    ) -> Finding:
        """A breach of a rule.

        Parameters
        ----------
        place:
            the record it is about; `offset` is by default the record's.
        effect, severity:
            where this breach differs from what is declared.
        fields:
            those of a finding's others that are known.
        """
        if effect is not None and severity is None and effect.fatal != rule.effect.fatal:
            severity = Severity.ERROR if effect.fatal else rule.severity
        return cls(
            rule=rule,
            message=message,
            severity=severity or rule.severity,
            effect=effect or rule.effect,
            offset=place.offset if offset is None and place else offset,
            record=place.index if place else None,
            record_type=place.name if place else None,
            **fields,
        )

    def __repr__(self) -> str:
        return f"<Finding {self.rule.id} {self.severity}: {self.message}>"

    def in_force(self, destination: Destination) -> bool:
        """Whether a release behaves so with this placement, and on that host."""
        if self.placement not in (None, destination.placement):
            return False
        if self.on_host and destination.host and getattr(destination.host, self.on_host).value is False:
            return False
        if self.since is None and self.until is None:
            return self.rule.in_force(destination.release)
        return in_range(destination.release, self.since, self.until)

    @property
    def fatal(self) -> bool:
        """Whether the restore fails of it."""
        return self.effect.fatal


@dataclass(frozen=True, slots=True)
class Failure:
    """The first thing that stops the restore."""

    rule: str
    step: Stage
    call: str  # the hypercall, or "libxc" (libxl, xl) for the toolstack's own checks
    message: str
    vcpu: int | None = None
    pfn: int | None = None
    errno: str | None = None
    signal: int | None = None
    finding: Finding | None = field(default=None, compare=False, repr=False)  # that says so


# Rule, effect, severity, first release, first release without it, placement.
_Kind = tuple[str, Effect, Severity, Change | None, Change | None, str | None]

# So many findings of one rule are told one by one; later ones are counted in the last.
TOLD_PER_RULE = 12


class Collector:
    """Takes findings in the order in which the restore would meet what they are about.

    Attributes
    ----------
    settle:
        judges what has come and was put off; done before anything later is told, and before findings are looked at.
    """

    def __init__(self) -> None:
        self.settle: Callable[[], None] = lambda: None
        self._findings: list[Finding] = []
        self._told: dict[_Kind, int] = {}
        self._last: dict[_Kind, int] = {}  # where the last told finding of a kind stands
        self._more: dict[_Kind, int] = {}  # how many came after it

    @property
    def findings(self) -> list[Finding]:
        """What has been told so far; later findings of a flood are in the count of the last."""
        self.settle()
        return self.told

    @property
    def told(self) -> list[Finding]:
        """The same, but what was put off may be missing."""
        for kind, count in self._more.items():
            last = self._last[kind]
            self._findings[last] = replace(self._findings[last], count=self._findings[last].count + count)
        self._more.clear()
        return self._findings

    @contextmanager
    def trial(self) -> Iterator[list[Finding]]:
        """Within, findings go to the list given instead."""
        self.settle()
        kept = self._findings, self._told, self._last, self._more
        self._findings, self._told, self._last, self._more = [], {}, {}, {}
        try:
            yield self._findings
        finally:
            self._findings, self._told, self._last, self._more = kept

    def report(self, rule: str, message: str, place: Place | None = None, **fields: Any) -> Finding:
        """Report a breach of the rule with this id; for the rest see `Finding.of`."""
        finding = Finding.of(RULES[rule], message, place, **fields)
        self.add(finding)
        return finding

    def add(self, finding: Finding) -> None:
        """Add a finding, or count it where its like has been told often enough.

        Alike are findings of one rule that hold under the same releases and placements and weigh the same: a
        fatal one must not vanish in a flood of harmless ones.
        """
        self.settle()
        kind = (finding.rule.id, finding.effect, finding.severity, finding.since, finding.until, finding.placement)
        before = self._told.get(kind, 0)
        if before < TOLD_PER_RULE:
            self._told[kind] = before + 1
            self._last[kind] = len(self._findings)
            self._findings.append(finding)
        else:
            self._more[kind] = self._more.get(kind, 0) + finding.count
