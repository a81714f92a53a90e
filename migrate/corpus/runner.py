"""Streams through the validator, by whatever executor: each is read once, and the order is that of the cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from enum import Enum
from typing import ParamSpec, TypeVar

from migrate.corpus.discovery import Case
from migrate.corpus.expectations import Expectation
from migrate.corpus.outcomes import UNJUDGED, Difference, Observation, observe

P = ParamSpec("P")
R = TypeVar("R")

# What a stream is asked of which nothing is expected yet: target, placement.
UNEXPECTED = (("newest", "source"),)


class Status(Enum):
    """What came of a stream."""

    FINE = "as expected"
    NEW = "new: nothing is expected of it yet"
    HOST = "differs, but depends on the destination host"
    UNJUDGED = "not judged"
    FAILED = "cannot be judged"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker hands back: an observation per question, or why there are none."""

    observations: tuple[Observation, ...] = ()
    error: str | None = None


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
    def status(self) -> Status:
        """What came of the stream."""
        if self.answer.error is not None:
            return Status.FAILED
        if self.case.entry is None:
            return Status.NEW
        differing = [comparison for comparison in self.comparisons if comparison.differences]
        if not differing:
            return Status.FINE
        if self.case.entry.host_dependent:
            return Status.HOST
        unjudged = all(comparison.observation.outcome.verdict == UNJUDGED for comparison in differing)
        return Status.UNJUDGED if unjudged else Status.DIFFERS


class InProcess(Executor):
    """An executor that does the work at once and where it is: what submits may do it itself."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call the function, and wrap what it returns or raises."""
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def examine(path: str, vcpus: int | None, questions: Sequence[tuple[str, str]]) -> Answer:
    """Read a stream once and judge it under each (target, placement). Runs in a worker; raises nothing."""
    from migrate.checker import Judgement, judge
    from migrate.selection import Selection
    from migrate.targets import resolve
    from streams.transports import TransportError

    def answer(judgement: Judgement) -> tuple[Observation, ...]:
        everything = Selection()
        return tuple(observe(judgement.report(resolve(t), placement, everything)) for t, placement in questions)

    try:
        return Answer(judge(path, vcpus=vcpus, then=answer))
    except OSError as error:
        return Answer(error=error.strerror or str(error))
    except TransportError as error:
        return Answer(error=str(error))
    except Exception as error:
        return Answer(error=f"internal error: {type(error).__name__}: {error}")


def run(cases: Sequence[Case], executor: Executor, done: Callable[[], object] = lambda: None) -> list[Result]:
    """Judge all cases and compare.

    Parameters
    ----------
    executor:
        where the work is done. Functions and values that it is given can be pickled.
    done:
        called once per finished stream, from any thread.

    Returns
    -------
    list of Result
        in the order of the cases, however many workers there are.
    """
    futures: list[Future[Answer]] = []
    try:
        for case in cases:
            future = _submitted(executor, case)
            future.add_done_callback(lambda _: done())
            futures.append(future)
        return [_result(case, _answer(future)) for case, future in zip(cases, futures, strict=True)]
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _submitted(executor: Executor, case: Case) -> Future[Answer]:
    vcpus = case.entry.vcpus if case.entry else None
    try:
        return executor.submit(examine, case.path, vcpus, _questions(case))
    except BrokenExecutor as error:
        future: Future[Answer] = Future()
        future.set_exception(error)
        return future


def _questions(case: Case) -> tuple[tuple[str, str], ...]:
    if case.entry is None:
        return UNEXPECTED
    return tuple((one.target, one.placement) for one in case.entry.expect)


def _answer(future: Future[Answer]) -> Answer:
    try:
        return future.result()
    except BrokenExecutor:
        return Answer(error="the worker process died")


def _result(case: Case, answer: Answer) -> Result:
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
