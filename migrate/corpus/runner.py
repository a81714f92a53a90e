"""Streams through the validator, by whatever executor: the order is that of the cases, and every one gets an answer.

Each is read once, in a worker, and judged under all that is asked. Of concurrent.futures' executors nothing is asked
but `submit`. One that breaks, as a pool of processes does when a worker dies, is replaced; the streams that were in
work are then tried alone, so that only the culprit is lost.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from migrate.corpus.cache import Cache
from migrate.corpus.discovery import Case
from migrate.corpus.expected_verdict import observe
from migrate.corpus.fetching import descriptor
from migrate.corpus.filesystems import FetchError
from migrate.corpus.hosts import Asked
from migrate.corpus.results import Answer, Result, compared
from migrate.destination.destination import DEFAULT_PLACEMENT
from streams.compression import MAX_EXPANSION

if TYPE_CHECKING:
    from migrate.judging.judgement import Judgement
    from migrate.judging.report import Report

P = ParamSpec("P")
R = TypeVar("R")

# What a stream is asked of which nothing is expected yet.
UNEXPECTED = (Asked("newest", DEFAULT_PLACEMENT),)
# Seconds between two looks at the clock.
TICK = 0.25
# Streams are handed out together while they have not more bytes than this, and are not more than that.
BATCH_BYTES = 1 << 20
BATCH_STREAMS = 16
# With fewer batches per place in the window, the last ones would leave workers idle.
BATCHES_PER_PLACE = 8
# A file may have so many times the bytes that lie on the disk, and some more, to be read as a whole for the cache.
HOLES, HOLES_FREE, BLOCK = 16, 16 << 20, 512
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
    unexpected: Sequence[Asked] = UNEXPECTED,
    max_expansion: int = MAX_EXPANSION,
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
        what a stream is asked of which nothing is expected.
    max_expansion:
        as for `migrate.check`, and for what lies in a compressed archive.

    Returns
    -------
    list of Result
        in the order of the cases, however many workers there are.
    """
    work = _Work(cases, done, cache, tuple(unexpected), max_expansion)
    work.run(executor, renew, window, tick)
    return [work.results[index] for index in range(len(cases))]


class _Work:
    """Cases, and what is known of them so far."""

    def __init__(
        self,
        cases: Sequence[Case],
        done: Callable[[Result], object],
        cache: Cache | None,
        unexpected: tuple[Asked, ...],
        max_expansion: int,
    ) -> None:
        self.cases = cases
        self.results: dict[int, Result] = {}
        self._done = done
        self._cache = cache
        self._unexpected = unexpected
        self._max_expansion = max_expansion

    def run(
        self, executor: Executor, renew: Callable[[int], Executor] | None, window: int, tick: Callable[[], object]
    ) -> None:
        for index, case in enumerate(self.cases):
            if case.fault is not None:
                self._settle(index, Answer(error=case.fault))
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
        tasks = [task_of(self.cases[index], self._unexpected, self._max_expansion) for index in batch]
        try:
            return executor.submit(examine_all, tasks, self._cache)
        except BrokenExecutor as error:
            future: Future[list[Answer]] = Future()
            future.set_exception(error)
            return future


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
        if case.fault is not None:
            continue
        size = BATCH_BYTES if case.file.size is None else case.file.size
        if not batches or len(batches[-1]) >= most or size > room:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(index)
        room -= size
    return batches


# -- in a worker ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """A stream and what is asked of it. Values of this class are sent to workers.

    Attributes
    ----------
    name:
        what the stream is called.
    path, url, packed:
        as in `Case`, `File` and `descriptor`.
    """

    name: str
    vcpus: int | None
    questions: tuple[Asked, ...]
    path: str
    url: str | None = None
    packed: int | None = None
    max_expansion: int = MAX_EXPANSION


def task_of(case: Case, unexpected: tuple[Asked, ...] = UNEXPECTED, max_expansion: int = MAX_EXPANSION) -> Task:
    """What a worker is asked about a case."""
    vcpus, questions = None, unexpected
    if case.entry is not None:
        vcpus, questions = case.entry.vcpus, tuple(one.asked for one in case.entry.expect)
    return Task(case.path, vcpus, questions, case.file.path, case.url, case.file.packed, max_expansion)


def examine_all(tasks: Sequence[Task], cache: Cache | None = None) -> list[Answer]:
    """Answers, in the order of the tasks. Raises nothing."""
    return [examine(task, cache) for task in tasks]


def examine(task: Task, cache: Cache | None = None) -> Answer:
    """Read a stream and judge it, unless the cache knows the answer. Raises nothing."""
    from migrate.destination.host_facts import HostFileError
    from streams.transports import TransportError

    started = time.perf_counter()
    try:
        answer = _answer(task, cache)
    except OSError as fault:
        answer = Answer(error=fault.strerror or str(fault) or type(fault).__name__)
    except (TransportError, FetchError, HostFileError) as fault:
        answer = Answer(error=str(fault))
    except MemoryError:
        answer = Answer(error="out of memory")
    except Exception as fault:
        answer = Answer(error=f"internal error: {type(fault).__name__}: {fault}")
    seconds = time.perf_counter() - started
    return Answer(answer.checks, answer.observations, answer.error, seconds, answer.cached)


def _answer(task: Task, cache: Cache | None) -> Answer:
    with descriptor(task.path, task.url, packed=task.packed, max_expansion=task.max_expansion) as fd:
        before = os.fstat(fd)
        key = None
        if cache is not None and _is_worth_hashing(before):
            with open(fd, "rb", closefd=False) as file:
                key = cache.key(file, task.questions, task.vcpus)
            os.lseek(fd, 0, os.SEEK_SET)
            if (known := cache.get(key, task.name)) is not None:
                return known
        answer = _judged(fd, task)
        if stat.S_ISREG(before.st_mode) and _state(before) != _state(os.fstat(fd)):
            return Answer(error="the file was changed while it was read")
        if cache is not None and key is not None:
            cache.put(key, task.name, answer)
        return answer


def _state(known: os.stat_result) -> tuple[int, int]:
    return known.st_size, known.st_mtime_ns


def _is_worth_hashing(known: os.stat_result) -> bool:
    """Whether it is a file that is still there once it has been read, and no huge one with next to nothing in it."""
    return stat.S_ISREG(known.st_mode) and known.st_size <= HOLES * (known.st_blocks * BLOCK) + HOLES_FREE


def _judged(fd: int, task: Task) -> Answer:
    from migrate.judging.check import judge
    from migrate.judging.report_json import dumps
    from migrate.rules.selection import Selection

    questions = [asked.destination(task.vcpus) for asked in task.questions]

    def reported(judgement: Judgement) -> list[Report]:
        judgement.facts.name = task.name
        return [judgement.report(one, Selection()) for one in questions]

    reports: list[Report] = judge(
        fd, vcpus=task.vcpus, questions=questions, max_expansion=task.max_expansion, then=reported
    )
    return Answer(tuple(dumps(report.to_dict()) for report in reports), tuple(map(observe, reports)))
