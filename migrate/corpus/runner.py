"""Streams through the validator, by whatever executor: the order is that of the cases, and every one gets an answer.

Of concurrent.futures' executors nothing is asked but `submit`. One that breaks, as a pool of processes does when a
worker dies, is replaced; the streams that were in work are then tried alone, so that only the culprit is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import ParamSpec, TypeVar

from migrate.corpus.cache import Cache
from migrate.corpus.discovery import Case
from migrate.corpus.examining import Task, examine_all
from migrate.corpus.results import Answer, Comparison, Result, Status, compared

P = ParamSpec("P")
R = TypeVar("R")

# What a stream is asked of which nothing is expected yet: target, placement.
UNEXPECTED = (("newest", "source"),)
# Seconds between two looks at the clock.
TICK = 0.25
# Streams are handed out together while they have not more bytes than this, and are not more than that.
BATCH_BYTES = 1 << 20
BATCH_STREAMS = 16
# With fewer batches per place in the window, the last ones would leave workers idle.
BATCHES_PER_PLACE = 8
DIED = "the worker process died: killed, out of memory, or crashed"

Batch = list[int]


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


def run(
    cases: Sequence[Case],
    executor: Executor,
    done: Callable[[Result], object] = lambda result: None,
    *,
    renew: Callable[[int], Executor] | None = None,
    window: int = 1,
    cache: Cache | None = None,
    tick: Callable[[], object] = lambda: None,
    unexpected: Sequence[tuple[str, str]] = UNEXPECTED,
) -> list[Result]:
    """Judge all cases and compare.

    Parameters
    ----------
    executor:
        where the work is done. Functions and values that it is given can be pickled.
    done:
        called with each result as soon as it is there, in the thread of the caller.
    renew:
        makes another executor with so many workers, 0 for as many as the first had; asked for once one has
        broken. Without it all that is left then counts as lost. Who makes executors also ends them.
    window:
        calls that are handed out at a time.
    cache:
        answers of earlier runs.
    tick:
        called now and then while nothing else happens.
    unexpected:
        targets and placements that a stream is asked about of which nothing is expected.

    Returns
    -------
    list of Result
        in the order of the cases, however many workers there are.
    """
    work = _Work(cases, done, cache, tuple(unexpected))
    work.run(executor, renew, window, tick)
    return [work.results[index] for index in range(len(cases))]


class _Work:
    """Cases, and what is known of them so far."""

    def __init__(
        self,
        cases: Sequence[Case],
        done: Callable[[Result], object],
        cache: Cache | None,
        unexpected: tuple[tuple[str, str], ...],
    ) -> None:
        self.cases = cases
        self.results: dict[int, Result] = {}
        self._done = done
        self._cache = cache
        self._unexpected = unexpected

    def run(
        self, executor: Executor, renew: Callable[[int], Executor] | None, window: int, tick: Callable[[], object]
    ) -> None:
        queue = deque(_batches(self.cases, window))
        running: dict[Future[list[Answer]], Batch] = {}
        try:
            while queue or running:
                while queue and len(running) < window:
                    batch = queue.popleft()
                    running[self._submitted(executor, batch)] = batch
                finished, _ = wait(running, TICK, FIRST_COMPLETED)
                suspects, alone = self._taken({future: running.pop(future) for future in finished})
                queue.extendleft([index] for index in reversed(alone))
                if suspects:
                    more, alone = self._taken(running)  # the others are broken as well, or come to an end
                    running.clear()
                    queue.extendleft([index] for index in reversed(alone))
                    self._tried_alone(sorted(suspects + more), renew)
                    if renew is not None:
                        executor = renew(0)
                tick()
        except BaseException:
            for future in running:
                future.cancel()
            raise

    def _tried_alone(self, suspects: Batch, renew: Callable[[int], Executor] | None) -> None:
        """One after another in a worker of their own; who breaks it again is the culprit."""
        executor: Executor | None = None
        for index in suspects:
            executor = executor or (renew(1) if renew else None)
            broken = executor is None
            if executor is not None:
                again, failed = self._taken({self._submitted(executor, [index]): [index]})
                broken = bool(again or failed)
            if broken:
                self._settle(index, Answer(error=DIED))
                executor = None

    def _taken(self, futures: dict[Future[list[Answer]], Batch]) -> tuple[Batch, Batch]:
        """Settle what these calls answer, waiting for it.

        Returns the streams in whose company an executor broke, and those to be tried again one by one: of a batch
        that failed as a whole.
        """
        suspects: Batch = []
        alone: Batch = []
        for future, batch in sorted(futures.items(), key=lambda item: item[1]):
            try:
                answers = future.result()
            except BrokenExecutor:
                suspects += batch
            except Exception as error:
                if len(batch) > 1:
                    alone += batch
                else:
                    self._settle(batch[0], Answer(error=_lost(error)))
            else:
                for index, answer in zip(batch, answers, strict=True):
                    self._settle(index, answer)
        return suspects, alone

    def _settle(self, index: int, answer: Answer) -> None:
        result = compared(self.cases[index], answer)
        self.results[index] = result
        self._done(result)

    def _submitted(self, executor: Executor, batch: Batch) -> Future[list[Answer]]:
        tasks = [task_of(self.cases[index], self._unexpected) for index in batch]
        try:
            return executor.submit(examine_all, tasks, self._cache)
        except BrokenExecutor as error:
            future: Future[list[Answer]] = Future()
            future.set_exception(error)
            return future


def task_of(case: Case, unexpected: tuple[tuple[str, str], ...] = UNEXPECTED) -> Task:
    """What a worker is told of a case."""
    if case.entry is None:
        return Task(case.path, None, unexpected)
    return Task(case.path, case.entry.vcpus, tuple((one.target, one.placement) for one in case.entry.expect))


def _lost(error: Exception) -> str:
    # Schedulers of their own tell that a worker died in their own way.
    died = type(error).__name__ == "KilledWorker"
    return DIED if died else f"the worker failed: {type(error).__name__}: {error}"


def _batches(cases: Sequence[Case], window: int) -> list[Batch]:
    """Neighbours that are handed out together: small streams, and not so many that workers would go idle."""
    most = min(BATCH_STREAMS, len(cases) // (window * BATCHES_PER_PLACE))
    batches: list[Batch] = []
    room = 0
    for index, case in enumerate(cases):
        size = BATCH_BYTES if case.size is None else case.size
        if not batches or len(batches[-1]) >= most or size > room:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(index)
        room -= size
    return batches


__all__ = ["UNEXPECTED", "Answer", "Comparison", "InProcess", "Result", "Status", "run", "task_of"]
