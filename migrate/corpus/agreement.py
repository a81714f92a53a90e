"""How often this validator says what real Xen did, by the layer that was damaged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import NamedTuple

from migrate.corpus.expected_verdict import REFUSE, UNJUDGED
from migrate.corpus.results import Comparison, Result

UNDAMAGED = "none"


class Share(NamedTuple):
    """So many of so many are the same."""

    same: int
    of: int


@dataclass(slots=True)
class Tally:
    """Counts over the expectations that real Xen stands behind.

    A verdict is compared unless this validator gives none; a step or an errno only where both refuse and
    real Xen's is known.
    """

    streams: int = 0
    verdicts: int = 0
    same_verdicts: int = 0
    steps: int = 0
    same_steps: int = 0
    errnos: int = 0
    same_errnos: int = 0
    unjudged: int = 0

    def add(self, comparison: Comparison) -> None:
        """Take one comparison into account."""
        if comparison.expectation.measured is None:
            return
        real, ours = comparison.expectation.measured.outcome, comparison.observation.outcome
        if ours.verdict == UNJUDGED:
            self.unjudged += 1
            return
        self.verdicts += 1
        self.same_verdicts += ours.verdict == real.verdict
        if ours.verdict == real.verdict == REFUSE:
            self.steps += real.step is not None
            self.same_steps += real.step is not None and real.step == ours.step
            self.errnos += real.errno is not None
            self.same_errnos += real.errno is not None and real.errno == ours.errno

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def verdict_share(self) -> Share:
        """Same verdicts."""
        return Share(self.same_verdicts, self.verdicts)

    @property
    def step_share(self) -> Share:
        """Same failing steps."""
        return Share(self.same_steps, self.steps)

    @property
    def errno_share(self) -> Share:
        """Same errnos."""
        return Share(self.same_errnos, self.errnos)


def agreement(results: Iterable[Result]) -> dict[str, Tally]:
    """Tallies by layer of damage, sorted by name, the undamaged first; only streams that real Xen was given."""
    tallies: dict[str, Tally] = {}
    for result in results:
        if result.case.entry is None or not any(c.expectation.measured for c in result.comparisons):
            continue
        tally = tallies.setdefault(str(result.case.entry.provenance.get("layer", UNDAMAGED)), Tally())
        tally.streams += 1
        for comparison in result.comparisons:
            tally.add(comparison)
    return dict(sorted(tallies.items(), key=lambda item: (item[0] != UNDAMAGED, item[0])))


def total(tallies: dict[str, Tally]) -> Tally:
    """All layers together."""
    return sum(tallies.values(), Tally())
