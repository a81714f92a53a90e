"""How a rule is declared, and the table of all that are.

A rule is one decorated function: its docstring is the text of `migrate explain`, its body builds the
smallest stream that breaks it and nothing else. The check itself stands where the state is, and names
the rule by its id.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum

from streams.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder
    from migrate.destination.releases import Change, Release

# Signals that kill the toolstack's process.
SIGABRT = 6
SIGSEGV = 11

_HEADING = r"(?m)^(What|Why|Repair|Source): "
_SENTENCE = r"(?<=[a-z)`])[.;] "

Violation = Callable[["StreamBuilder"], None]


class Severity(StrEnum):
    """How much a finding matters: error (the restore fails, or comes back corrupt), warning, info."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """Larger is worse."""
        return {"info": 0, "warning": 1, "error": 2}[self.value]


class Effect(StrEnum):
    """What real software does with a stream that breaks the rule."""

    REFUSED = "refused"
    HYPERCALL = "hypercall"
    CRASH = "crash"
    CORRUPT = "corrupt"
    TOLERATED = "tolerated"
    HOST = "host"
    HOST_DIES = "host_dies"
    DEBUG_HOST_DIES = "debug_host_dies"
    SPEC = "spec"

    @property
    def meaning(self) -> str:
        """What happens, in a few words."""
        return _MEANINGS[self]

    @property
    def fatal(self) -> bool:
        """Whether the restore fails, or nobody should live to see it succeed."""
        return self in (Effect.REFUSED, Effect.HYPERCALL, Effect.CRASH, Effect.HOST_DIES)

    @property
    def harms_host(self) -> bool:
        """Whether more than this guest is at stake: no host should get to see such a stream."""
        return self in (Effect.HOST_DIES, Effect.DEBUG_HOST_DIES)


_MEANINGS = {
    Effect.REFUSED: "the toolstack refuses the stream",
    Effect.HYPERCALL: "a hypercall fails, and with it the restore",
    Effect.CRASH: "the toolstack's process dies",
    Effect.CORRUPT: "restores, but the guest's state is wrong",
    Effect.TOLERATED: "restores; harmless or well defined",
    Effect.HOST: "depends on the destination host",
    Effect.HOST_DIES: "restores, and brings the whole host down",
    Effect.DEBUG_HOST_DIES: "restores; a host with a debug build of Xen goes down",
    Effect.SPEC: "restores; only the specification or Xen's verifier objects",
}


class Stage(StrEnum):
    """How far the restore has come: the new domain, headers, records, at END contexts, pins and the p2m.

    The device model comes last.
    """

    CREATE = "create"
    HEADERS = "headers"
    RECORD = "record"
    CONTEXT = "context"
    PIN = "pin"
    P2M = "p2m"
    DEVICE_MODEL = "device-model"


class Verdict(StrEnum):
    """Would the guest be restored?"""

    ACCEPT = "accept"
    REFUSE = "refuse"
    UNJUDGED = "unjudged"


class GuestKind(StrEnum):
    """The kind of guest of a libxc image; PVH guests are saved as HVM."""

    PV = "pv"
    HVM = "hvm"


class Layer(Enum):
    """The group of a rule, which is also the prefix of its id."""

    CON = "containers"
    HDR = "headers"
    FRM = "framing"
    REC = "record contents"
    ORD = "order and multiplicity"
    XRC = "across records, at END"
    HVM = "HVM context"
    HYP = "hypervisor replay"
    L3C = "the 4 GiB rule"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: identity, what it does to a restore, who enforces it and from which release to which."""

    id: str
    slug: str
    effect: Effect
    severity: Severity
    enforced_by: str
    since: Change | None
    until: Change | None
    errno: str | None
    doc: str  # the docstring as it stands in the source
    violation: Violation | None

    def __repr__(self) -> str:
        return f"<Rule {self.id} {self.slug}>"

    @property
    def title(self) -> str:
        """What is wrong, in a line."""
        return self.doc.strip().partition("\n")[0].strip().rstrip(".")

    @property
    def text(self) -> str:
        """The explanation, below the title."""
        from inspect import cleandoc

        return cleandoc(self.doc).partition("\n")[2].strip()

    @property
    def sections(self) -> dict[str, str]:
        """The parts of the explanation: What, Why, Repair, Source.

        Lines are joined; an empty line starts a new paragraph, and is left between two.
        """
        import re

        _, *parts = re.split(_HEADING, self.text)
        return {
            heading: "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
            for heading, text in zip(parts[::2], parts[1::2], strict=True)
        }

    @property
    def repair(self) -> str:
        """What to do about a breach, in a sentence without its full stop; "" where nothing is said of that."""
        import re

        text = self.sections.get("Repair", "").partition("\n\n")[0]
        return re.split(_SENTENCE, text, maxsplit=1)[0].rstrip(".")

    @property
    def layer(self) -> Layer:
        """The group it belongs to."""
        return Layer[self.id.partition("-")[0]]

    def in_force(self, release: Release) -> bool:
        """Whether a release has this rule: it has the change `since`, and not yet `until`."""
        return in_range(release, self.since, self.until)


def in_range(release: Release, since: Change | None, until: Change | None) -> bool:
    """Whether a release has one change (None: all releases do), and not yet another (None: none has)."""
    return (since is None or release.has(since)) and (until is None or not release.has(until))


RULES: dict[str, Rule] = {}

_SEVERITY = {
    Effect.REFUSED: Severity.ERROR,
    Effect.HYPERCALL: Severity.ERROR,
    Effect.CRASH: Severity.ERROR,
    Effect.CORRUPT: Severity.ERROR,
    Effect.TOLERATED: Severity.INFO,
    Effect.HOST: Severity.WARNING,
    Effect.HOST_DIES: Severity.ERROR,
    Effect.DEBUG_HOST_DIES: Severity.ERROR,
    Effect.SPEC: Severity.WARNING,
}


def rule(
    id: str,
    slug: str,
    effect: Effect,
    enforced_by: str,
    *,
    errno: str | None = None,
    severity: Severity | None = None,
    since: Change | None = None,
    until: Change | None = None,
    violation: bool = True,
) -> Callable[[Violation], Rule]:
    """Declare a rule.

    The first line of the docstring is its title, the rest its explanation. `violation=False` marks a rule
    whose breach no stream of ours can show (the function's body is then just the docstring).
    """

    def declare(build: Violation) -> Rule:
        if id in RULES:
            raise ValueError(f"rule {id} is declared twice")
        RULES[id] = Rule(
            id=id,
            slug=slug,
            effect=effect,
            severity=severity or _SEVERITY[effect],
            enforced_by=enforced_by,
            since=since,
            until=until,
            errno=errno,
            doc=build.__doc__ or "",
            violation=build if violation else None,
        )
        return RULES[id]

    return declare
