"""What Xen has against a call, before it is known where in the stream that is."""

from __future__ import annotations

from migrate.destination.releases import Change, Release
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, Severity, in_range
from streams.values import dataclass


@dataclass(frozen=True, slots=True)
class Objection:
    """Something that Xen has against a call, or takes and holds otherwise.

    Attributes
    ----------
    errno:
        what the call fails with; None where Xen takes it, and the guest comes back otherwise.
    certain:
        false where only the destination host can tell whether the restore fails.
    offset:
        of what it is about, where that is not the record's: in the stream, or in the entries of an HVM context.
    effect, severity, since:
        where they differ from what the rule declares.
    entry:
        number of the entry of an HVM context that it is about, counted from 0.
    """

    rule: str
    errno: str | None
    message: str
    certain: bool = True
    offset: int | None = None
    vcpu: int | None = None
    effect: Effect | None = None
    severity: Severity | None = None
    since: Change | None = None
    entry: int | None = None

    def in_force(self, release: Release) -> bool:
        """Whether a release has it."""
        rule = RULES[self.rule]
        return in_range(release, self.since or rule.since, rule.until)

    @property
    def refuses(self) -> bool:
        """Whether the call fails of it, whatever the host."""
        return self.certain and self.errno is not None

    @property
    def outcome(self) -> Effect:
        """What becomes of the restore."""
        if self.effect is not None:
            return self.effect
        if self.errno is None:
            return RULES[self.rule].effect
        return Effect.HYPERCALL if self.certain else Effect.HOST

    @property
    def fatal(self) -> bool:
        """Whether the restore fails of it, or is one that nobody should let happen."""
        return self.outcome.fatal
