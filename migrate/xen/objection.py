"""What Xen has against a piece of a guest's state."""

from __future__ import annotations

from typing import NamedTuple

from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, Severity


class Objection(NamedTuple):
    """One thing that Xen refuses, or that is worth knowing.

    Attributes
    ----------
    errno:
        what Xen answers; None where it takes the thing all the same.
    offset:
        where it stands, in bytes from the start of the record's body.
    entry:
        number of the entry of an HVM context, counted from 0; None where it is about no entry.
    vcpu:
        whose state it is, if a vcpu's.
    effect, severity:
        where they are not the rule's own.
    """

    rule: str
    message: str
    errno: str | None = None
    offset: int = 0
    entry: int | None = None
    vcpu: int | None = None
    effect: Effect | None = None
    severity: Severity | None = None

    @property
    def certain(self) -> bool:
        """Whether the restore fails of it, whatever the host."""
        return (self.effect or RULES[self.rule].effect).fatal
