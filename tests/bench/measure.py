"""What did a whole process cost, and how much do several runs differ?"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

LAUNCHER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")))
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

    Raises
    ------
    RuntimeError
        if the command does not end with 0: its time would be that of something else.
    """
    launched = subprocess.run([*LAUNCHER, *command], stdout=subprocess.PIPE, text=True, check=True)
    wall, user, system, peak, code = launched.stdout.split()
    if code != "0":
        raise RuntimeError(f"exit code {code} of {' '.join(command)}")
    return Usage(float(wall), float(user), float(system), int(peak) << 10)


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
