"""What did a whole process cost, and how much do several runs differ?"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Usage:
    """One process from start to end: wall, user and sys seconds, peak resident bytes."""

    wall: float
    user: float
    sys: float
    peak: int

    @property
    def cpu(self) -> float:
        """Seconds of processor time, user and sys."""
        return self.user + self.sys


def run(command: Sequence[str]) -> Usage:
    """Run a command as a process of its own, its standard output thrown away.

    The kernel counts a new program's peak from what its parent held when it started it, so the measuring
    process has to stay smaller than all it measures: nothing here imports numpy (`floor` tells).

    Raises
    ------
    RuntimeError
        if the command does not end with 0: its time would be that of something else.
    """
    started = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)  # of this child and no other
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode} of {' '.join(command)}")
    return Usage(wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss << 10)


def floor() -> int:
    """Least peak, in bytes, that a process started from here can have."""
    return run(["true"]).peak


def interleaved(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run all contenders in turn, A B A B, so that what disturbs one disturbs the others too.

    A first round, which finds caches cold, is not counted.
    """
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, contender in contenders.items():
            result = contender()
            if turn:
                results[name].append(result)
    return results


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of some runs, and how far they lie apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value."""
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.least:{spec}}-{self.most:{spec}})"
