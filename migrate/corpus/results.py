"""What became of streams: judged, compared with what is expected, and what all of them make the run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from migrate.corpus.expected_verdict import UNJUDGED, Difference, Observation
from migrate.judging.report import Outcome
from streams.counting import count

if TYPE_CHECKING:
    from migrate.corpus.discovery import Case
    from migrate.corpus.expectations import Expectation
    from migrate.corpus.known import Deviation
    from migrate.judging.report import Report


LEAST_WELCOME = (Outcome.REFUSED, Outcome.UNJUDGED, Outcome.DAMAGED, Outcome.RESTORES)


class Status(Enum):
    """What came of a stream."""

    FINE = "as expected"
    NEW = "new: nothing is expected of it yet"
    HOST = "differs, but depends on the destination host"
    DEVIATES = "differs, as is known"
    UNJUDGED = "not judged"
    FAILED = "could not be tried"
    FAILS = "new, and at or above the threshold of --fail-on"
    DIFFERS = "differs"

    def told_of(self, number: int) -> str:
        """How many streams it came of, in words."""
        words = self.value
        if number != 1:
            words = re.sub(r"\b(differ|depend)s\b", r"\1", words)
        return f"{number} {words}"

    @property
    def well(self) -> bool:
        """Whether the run does not fail of it."""
        return self in (Status.FINE, Status.NEW, Status.HOST, Status.DEVIATES)


@dataclass(frozen=True)
class Answer:
    """What a worker hands back: a report per question, or why there are none.

    Attributes
    ----------
    checks:
        the JSON object of each report, as text: it is passed on more often than it is looked into.
    observations:
        the part of each that is compared with expectations.
    seconds:
        that it took, of wall time.
    cached:
        whether it was known from an earlier run.
    """

    checks: tuple[str, ...] = ()
    observations: tuple[Observation, ...] = ()
    error: str | None = None
    seconds: float = field(default=0.0, compare=False)
    cached: bool = field(default=False, compare=False)

    @property
    def reports(self) -> tuple[Report, ...]:
        """The reports."""
        from migrate.judging.report_json import report_from

        return tuple(map(report_from, self.checks))


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
    def unknown(self) -> tuple[Comparison, ...]:
        """Those of them that are not known to differ."""
        return tuple(one for one in self.differing if all(deviation.expired for deviation in self.deviations(one)))

    @property
    def unjudged_because(self) -> str | None:
        """Why there is no verdict where one was expected, or nothing is; None where all is judged."""
        asked = [one.observation for one in self.unknown] if self.case.entry else self.answer.observations
        reasons = (one.message or "no reason is known" for one in asked if one.outcome.verdict == UNJUDGED)
        return self.answer.error or next(reasons, None)

    @property
    def status(self) -> Status:
        """What came of the stream."""
        if self.answer.error is not None:
            return Status.FAILED
        unjudged = self.unjudged_because is not None
        if self.case.entry is None:
            threshold = self.case.fail_on
            if threshold is not None and any(one.reaches(threshold) for one in self.answer.observations):
                return Status.FAILS
            return Status.UNJUDGED if unjudged else Status.NEW
        if not self.differing:
            return Status.FINE
        if self.case.entry.host_dependent and all(one.expectation.host is None for one in self.differing):
            return Status.UNJUDGED if unjudged else Status.HOST
        if not self.unknown:
            return Status.DEVIATES
        judged = [one for one in self.unknown if one.observation.outcome.verdict != UNJUDGED]
        return Status.DIFFERS if judged else Status.UNJUDGED

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
    unmatched:
        known deviations that speak of no stream.
    notes:
        what else there is to know of it.
    """

    results: Sequence[Result]
    missing: Sequence[str] = ()
    gaps: Sequence[str] = ()
    unmatched: Sequence[Deviation] = ()
    notes: Sequence[str] = ()

    @property
    def differs(self) -> bool:
        """Whether something is not as expected, or not as it may be."""
        return bool(self.missing) or any(result.status in (Status.DIFFERS, Status.FAILS) for result in self.results)

    @property
    def undecided(self) -> bool:
        """Whether something could not be judged, as it was to be."""
        return bool(self.gaps) or any(result.status in (Status.UNJUDGED, Status.FAILED) for result in self.results)

    @property
    def needless(self) -> tuple[Deviation, ...]:
        """Known deviations that speak of streams here, none of which deviates so."""
        known = dict.fromkeys(one for result in self.results for one in result.case.known)
        needed = {one for result in self.results for c in result.differing for one in result.deviations(c)}
        # A stream that was not judged says nothing of them.
        open_ones = {one for result in self.results if result.answer.error is not None for one in result.case.known}
        return tuple(one for one in known if one not in needed and one not in open_ones)

    @property
    def unexpected(self) -> Counter[Outcome]:
        """What becomes of the streams of which nothing is expected, the least welcome answer of each."""
        verdicts: Counter[Outcome] = Counter()
        for result in self.results:
            if result.case.entry is None and result.answer.error is None:
                found = {one.word for one in result.answer.observations}
                verdicts[next(word for word in LEAST_WELCOME if word in found)] += 1
        return verdicts

    def counts(self) -> str:
        """How many streams came out how, in a sentence."""
        statuses = Counter(result.status for result in self.results)
        expectations = sum(len(result.comparisons) for result in self.results)
        parts = [status.told_of(statuses[status]) for status in Status if statuses[status]]
        parts += [f"{len(self.missing)} missing"] if self.missing else []
        streams = count(len(self.results), "stream")
        return f"{streams}, {count(expectations, 'expectation')}: {'; '.join(parts) or 'nothing judged'}"


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
