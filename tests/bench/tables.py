"""What a benchmark hands back: a table for people, and the numbers behind it for programs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MIB = 1 << 20


@dataclass(slots=True)
class Table:
    """Rows of text under a title; `runs` holds what was measured, by row and run, as seconds or as usages."""

    title: str
    columns: Sequence[str]
    key: str = field(kw_only=True)  # the same in every run, whatever the size
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    runs: dict[str, Any] = field(default_factory=dict)

    def show(self) -> None:
        """Print it, numbers to the right."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        print(f"\n{self.title}\n")
        for row in (self.columns, ["-" * width for width in widths], *self.rows):
            first, *others = map(str.rjust, row, widths)
            print("  " + "  ".join([first.strip().ljust(widths[0]), *others]))
        for note in self.notes:
            print(f"  {note}")

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)


def machine() -> str:
    """Where these numbers come from."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"{model}, {os.cpu_count()} cores, load {load}; {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, numpy {importlib.metadata.version('numpy')}"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
