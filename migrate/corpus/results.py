"""What became of streams: judged, compared with what is expected, and what all of them make the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from migrate.corpus.expected_verdict import UNJUDGED, Difference, Observation, observe
from migrate.counting import count

if TYPE_CHECKING:
    from migrate.corpus.discovery import Case
    from migrate.corpus.expectations import Expectation
    from migrate.corpus.known import Deviation
    from migrate.judging.report import Report


class Status(Enum):
    """What came of a stream."""

    FINE = "as expected"
    NEW = "new: nothing is expected of it yet"
    HOST = "differs, but depends on the destination host"
    DEVIATES = "differs, as is known"
    UNJUDGED = "not judged"
    FAILED = "cannot be judged"
    DIFFERS = "differs"

    @property
    def well(self) -> bool:
        """Whether the run does not fail of it."""
        return self not in (Status.UNJUDGED, Status.FAILED, Status.DIFFERS)


@dataclass(frozen=True)
class Answer:
    """What a worker hands back: a report per question, or why there are none.

    Attributes
    ----------
    checks:
        the JSON object of each report, as text: it is passed on more often than it is looked into.
    seconds:
        that it took, of wall time.
    cached:
        whether it was known from an earlier run.
    """

    checks: tuple[str, ...] = ()
    error: str | None = None
    seconds: float = field(default=0.0, compare=False)
    cached: bool = field(default=False, compare=False)

    @property
    def reports(self) -> tuple[Report, ...]:
        """The reports. Raises ValueError for what is none."""
        from migrate.judging.report_json import report_from

        return tuple(map(report_from, self.checks))

    @cached_property
    def observations(self) -> tuple[Observation, ...]:
        """The part of each report that is compared with expectations."""
        return tuple(map(observe, self.reports))


@dataclass(frozen=True, slots=True)
class Comparison:
    """An expectation, what was observed, and how they differ; the measurement's own differences beside it."""

    expectation: Expectation
    observation: Observation
    differences: tuple[Difference, ...]
    from_real: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One stream's outcome."""

    case: Case
    answer: Answer
    comparisons: tuple[Comparison, ...]

    @property
    def differing(self) -> tuple[Comparison, ...]:
        """The comparisons in which something differs from what is expected."""
        return tuple(comparison for comparison in self.comparisons if comparison.differences)

    @property
    def status(self) -> Status:
        """What came of the stream."""
        if self.answer.error is not None:
            return Status.FAILED
        if self.case.entry is None:
            return Status.NEW
        differing = self.differing
        if not differing:
            return Status.FINE
        if self.case.entry.host_dependent:
            return Status.HOST
        if all(any(not one.expired for one in self.deviations(comparison)) for comparison in differing):
            return Status.DEVIATES
        unjudged = all(comparison.observation.outcome.verdict == UNJUDGED for comparison in differing)
        return Status.UNJUDGED if unjudged else Status.DIFFERS

    def deviations(self, comparison: Comparison) -> tuple[Deviation, ...]:
        """The known deviations that cover what differs there, expired ones included."""
        asked = comparison.expectation
        covering = (one for one in self.case.known if one.covers(asked.target, asked.placement, comparison.differences))
        return tuple(covering)


@dataclass(frozen=True, slots=True)
class Run:
    """All streams of a run.

    Attributes
    ----------
    results:
        in the order of the streams.
    missing:
        streams that are expected, but not there.
    gaps:
        why this is not all that was to be judged; empty for a run that came to its end.
    """

    results: Sequence[Result]
    missing: Sequence[str] = ()
    gaps: Sequence[str] = ()

    @property
    def differs(self) -> bool:
        """Whether something is not as expected."""
        return bool(self.missing) or any(result.status is Status.DIFFERS for result in self.results)

    @property
    def undecided(self) -> bool:
        """Whether something could not be judged that was expected to be."""
        return bool(self.gaps) or any(result.status in (Status.UNJUDGED, Status.FAILED) for result in self.results)

    @property
    def needless(self) -> tuple[Deviation, ...]:
        """Known deviations that speak of streams here, none of which deviates so."""
        spoken = dict.fromkeys(one for result in self.results for one in result.case.known)
        needed = {one for result in self.results for c in result.differing for one in result.deviations(c)}
        # A stream that was not judged says nothing of them.
        open_ones = {one for result in self.results if result.answer.error is not None for one in result.case.known}
        return tuple(one for one in spoken if one not in needed and one not in open_ones)

    def counts(self) -> str:
        """How many streams came out how, in a sentence."""
        statuses = Counter(result.status for result in self.results)
        expectations = sum(len(result.comparisons) for result in self.results)
        parts = [f"{statuses[status]} {status.value}" for status in Status if statuses[status]]
        parts += [f"{len(self.missing)} missing"] if self.missing else []
        streams = count(len(self.results), "stream")
        return f"{streams}, {expectations} expectations: {'; '.join(parts) or 'nothing judged'}"


def compared(case: Case, answer: Answer) -> Result:
    """A stream's outcome, from what a worker said. Raises ValueError where that is no answer to the questions."""
    if case.entry is None or answer.error is not None:
        return Result(case, answer, ())
    pairs = zip(case.entry.expect, answer.observations, strict=True)
    return Result(case, answer, tuple(_comparison(*pair) for pair in pairs))


def _comparison(expectation: Expectation, observation: Observation) -> Comparison:
    measured = expectation.measured
    return Comparison(
        expectation,
        observation,
        expectation.compare(observation),
        measured.outcome.differences(observation.outcome) if measured else (),
    )
