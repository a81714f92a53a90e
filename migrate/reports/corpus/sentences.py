"""What there is to say of a corpus, in sentences, whoever prints them. Nothing here is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from migrate.corpus.expected_verdict import UNJUDGED
from migrate.corpus.results import Status
from migrate.reports.verdict.sentences import outcomes_told
from streams.counting import count

if TYPE_CHECKING:
    from migrate.corpus.expected_verdict import Difference, Observation
    from migrate.corpus.known import Deviation
    from migrate.corpus.results import Comparison, Result, Run

# A word for each status; "known" is for what real Xen disagrees with, as the expectations know.
WORDS = {
    Status.FINE: "known",
    Status.NEW: "new",
    Status.HOST: "host",
    Status.DEVIATES: "deviates",
    Status.UNJUDGED: "unjudged",
    Status.FAILED: "failed",
    Status.FAILS: "fails",
    Status.DIFFERS: "differs",
}
MISSING = "expected, but not there"


def disagrees(comparison: Comparison) -> bool:
    """Whether it says other than real Xen; giving no verdict is not saying anything."""
    return bool(comparison.from_real) and comparison.observation.outcome.verdict != UNJUDGED


def worth_a_word(result: Result) -> bool:
    """Whether there is more to say of a stream than that it is as expected."""
    return result.status is not Status.FINE or any(map(disagrees, result.comparisons))


def asked(comparison: Comparison) -> str:
    """Release and placement, and the host if one is known."""
    return comparison.expectation.asked.where


def difference_line(difference: Difference, by: str = "expected") -> str:
    """One difference."""
    return f"{difference.aspect}: {by} {difference.expected}, found {difference.observed}"


def observed(observation: Observation) -> str:
    """What this validator says."""
    rule = f" ({observation.rule})" if observation.rule else ""
    message = f": {observation.message}" if observation.message else ""
    what = observation.word if observation.damaged else observation.outcome
    return f"{what}{rule}{message}"


def in_a_line(result: Result) -> str:
    """All that is not as expected of a stream, shortly; its error, or its verdict where it is new."""
    if result.answer.error is not None:
        return result.answer.error
    if result.case.entry is None:
        return "; ".join(
            f"{', '.join(filter(None, (o.target, o.placement, o.host)))}: {observed(o)}"
            for o in result.answer.observations
        )
    return "; ".join(f"{asked(one)}: {', '.join(map(difference_line, one.differences))}" for one in result.differing)


def details(result: Result, comparison: Comparison) -> list[str]:
    """Lines about one comparison: what differs, why that may be, what this validator says, and what real Xen did."""
    lines = [difference_line(one) for one in comparison.differences]
    lines += [difference_line(one, "real Xen") for one in comparison.from_real if one not in comparison.differences]
    if comparison.differences:
        lines += [reason(one) for one in result.deviations(comparison)]
    if comparison.observation.message:
        lines.append(f"this validator: {observed(comparison.observation)}")
    measured = comparison.expectation.measured
    if measured is not None:
        lines.append(f"real Xen: {measured.outcome}" + (f": {measured.error}" if measured.error else ""))
        lines += measured.xen_log
    return lines


def reason(deviation: Deviation) -> str:
    """Why a deviation is known."""
    if deviation.expired:
        return f"was known until {deviation.expires}: {deviation.reason}"
    return f"known{f' until {deviation.expires}' if deviation.expires else ''}: {deviation.reason}"


def remarks(run: Run) -> list[str]:
    """What else there is to say of a run: what has not been judged or is not expected, and deviations without use."""
    lines = [f"incomplete: {gap}" for gap in run.gaps]
    lines += run.notes
    lines += [f"no longer needed: {one.file}: {one.stream}: {one.reason}" for one in run.needless]
    lines += [f"matches no stream: {one.file}: {one.stream}: {one.reason}" for one in run.unmatched]
    if verdicts := run.unexpected:
        lines.append(f"nothing is expected of {count(verdicts.total(), 'stream')}: {outcomes_told(verdicts)}")
    return lines


def slowest(results: Sequence[Result], count: int) -> list[Result]:
    """The results that took the longest, the longest first."""
    return sorted(results, key=lambda result: -result.answer.seconds)[:count]
