"""The work on one stream, as it is done in a worker: read once, judged under all that is asked."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrate.corpus.filesystems import PlaceError, local_source
from migrate.corpus.results import Answer

if TYPE_CHECKING:
    from migrate.corpus.cache import Cache
    from migrate.judging.judgement import Judgement


@dataclass(frozen=True, slots=True)
class Task:
    """A stream and what is asked of it: targets, each with a placement. Values of this class are sent to workers."""

    path: str
    vcpus: int | None
    questions: tuple[tuple[str, str], ...]


def examine_all(tasks: Sequence[Task], cache: Cache | None = None) -> list[Answer]:
    """Answers, in the order of the tasks. Raises nothing."""
    return [examine(task, cache) for task in tasks]


def examine(task: Task, cache: Cache | None = None) -> Answer:
    """Read a stream and judge it, unless the cache knows the answer. Raises nothing."""
    from streams.transports import TransportError

    started = time.perf_counter()
    checks: tuple[str, ...] = ()
    error: str | None = None
    cached = False
    try:
        with local_source(task.path) as source:
            key = _key(source, task, cache)
            known = cache.get(key, task.path) if cache and key else None
            cached = known is not None
            checks = _judged(source, task) if known is None else known
            if cache and key and known is None:
                cache.put(key, checks)
    except OSError as fault:
        error = fault.strerror or str(fault) or type(fault).__name__
    except (TransportError, PlaceError) as fault:
        error = str(fault)
    except MemoryError:
        error = "out of memory"
    except Exception as fault:
        error = f"internal error: {type(fault).__name__}: {fault}"
    return Answer(checks, error, time.perf_counter() - started, cached)


def _key(source: str | int, task: Task, cache: Cache | None) -> str | None:
    """The answer's name in the cache; None for what is gone once it has been read."""
    if cache is None or (isinstance(source, str) and not stat.S_ISREG(os.stat(source).st_mode)):
        return None
    with open(source, "rb", closefd=isinstance(source, str)) as file:
        key = cache.key(file, task.questions, task.vcpus)
        if isinstance(source, int):
            file.seek(0)
        return key


def _judged(source: str | int, task: Task) -> tuple[str, ...]:
    from migrate.destination.destination import Destination
    from migrate.judging.check import judge
    from migrate.judging.report_json import dumps
    from migrate.rules.selection import Selection

    questions = [Destination(target, placement, vcpus=task.vcpus) for target, placement in task.questions]
    everything = Selection()

    def told(judgement: Judgement) -> tuple[str, ...]:
        judgement.facts.name = task.path
        return tuple(dumps(judgement.report(one, everything).to_dict()) for one in questions)

    answer: tuple[str, ...] = judge(source, vcpus=task.vcpus, questions=questions, then=told)
    return answer
