"""What becomes of a restore, in few words: as expected, as observed, and how the two differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from migrate.judging.report import Outcome, outcome_of
from migrate.rules.declaring import Severity, Stage, Verdict
from migrate.safe import well_formed

if TYPE_CHECKING:
    from migrate.judging.report import Report

VERDICTS = tuple(Verdict)
ACCEPT, REFUSE, UNJUDGED = VERDICTS
STEPS = tuple(Stage)


@dataclass(frozen=True, slots=True)
class Difference:
    """One aspect in which what was observed is not what was expected."""

    aspect: str
    expected: str
    observed: str


@dataclass(frozen=True)  # which is pickled several times as fast as one with slots
class ExpectedVerdict:
    """A verdict, and for a refusal where the restore fails; None where nothing is said of it."""

    verdict: str
    step: str | None = None
    call: str | None = None
    vcpu: int | None = None
    errno: str | None = None
    signal: int | None = None

    def differences(self, observed: ExpectedVerdict) -> tuple[Difference, ...]:
        """How an observation differs from this expectation.

        Only what is expected is compared, with one exception: who names the step also names the signal, as
        dying is not another way of saying no.
        """
        if self.verdict != observed.verdict:
            return (_difference("verdict", self.verdict, observed.verdict),)
        if self.verdict != REFUSE:
            return ()
        aspects = {f.name: getattr(self, f.name) for f in fields(self)}
        return tuple(
            _difference(aspect, expected, getattr(observed, aspect))
            for aspect, expected in aspects.items()
            if expected is not None or (aspect == "signal" and self.step is not None)
            if expected != getattr(observed, aspect)
        )

    def __str__(self) -> str:
        where = [f"at step {self.step}" if self.step else None, f"in {self.call}" if self.call else None]
        where += [f"vcpu {self.vcpu}" if self.vcpu is not None else None, self.errno]
        where += [f"signal {self.signal}" if self.signal is not None else None]
        return f"{self.verdict} {', '.join(filter(None, where))}".rstrip()


def _difference(aspect: str, expected: object, observed: object) -> Difference:
    return Difference(aspect, *("none" if value is None else str(value) for value in (expected, observed)))


@dataclass(frozen=True)  # which is pickled several times as fast as one with slots
class Observation:
    """What the validator says of one stream, under one target and placement.

    Attributes
    ----------
    host:
        what the host is called, where it is known.
    message:
        why it is refused, damaged or not judged.
    rules:
        number of findings by rule id, as `serious` counts them.
    worst:
        the worst severity among all findings; None where there are none.
    damaged:
        whether the guest restores, but damaged; rule and message are then of that.
    """

    target: str
    placement: str
    outcome: ExpectedVerdict
    rule: str | None
    message: str | None
    rules: dict[str, int]
    worst: Severity | None = None
    host: str | None = None
    damaged: bool = False

    @property
    def word(self) -> Outcome:
        """The verdict in the words that people see."""
        return outcome_of(self.outcome.verdict, self.damaged)

    def reaches(self, threshold: Severity) -> bool:
        """Whether the stream is refused, or has a finding of at least that severity."""
        return self.outcome.verdict == REFUSE or (self.worst is not None and self.worst.rank >= threshold.rank)


def serious(report: Report) -> dict[str, int]:
    """How often each rule was broken, by id, of the findings that are errors or warnings."""
    counts: Counter[str] = Counter()
    for finding in report.findings:
        if finding.severity.rank >= Severity.WARNING.rank:
            counts[finding.rule.id] += finding.count
    return dict(sorted(counts.items()))


def observe(report: Report) -> Observation:
    """The part of a report that is compared with expectations."""
    failure = report.failure
    if failure is None:
        outcome = ExpectedVerdict(report.verdict)
    else:
        outcome = ExpectedVerdict(
            report.verdict, failure.step, failure.call, failure.vcpu, failure.errno, failure.signal
        )
    damage, message = report.damage, report.reason
    rule = failure.rule if failure else damage.rule.id if damage else None
    host = report.destination.host
    return Observation(
        target=report.target,
        placement=report.placement,
        outcome=outcome,
        rule=rule,
        message=well_formed(message) if message else None,
        rules=serious(report),
        worst=report.worst(),
        host=None if host is None else host.label,
        damaged=report.damaged,
    )


def observation_object(observation: Observation) -> dict[str, Any]:
    """An observation as a JSON object."""
    worst = observation.worst and observation.worst.value
    return {**asdict(observation), "worst": worst}


def observation_from(made: dict[str, Any]) -> Observation:
    """The observation that such an object was made of."""
    worst = made["worst"] and Severity(made["worst"])
    return Observation(**{**made, "outcome": ExpectedVerdict(**made["outcome"]), "worst": worst})
