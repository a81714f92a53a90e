"""How long until a sub-command has done the least it can do, next to an interpreter that does nothing?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from measure import Spread, Usage, interleaved, run
from streamfiles import migrate, stream_file
from tables import MIB, Table

SMALL = 64 * MIB
LIMIT = "python -c pass"
GOAL = 3.2
FIRST_BYTES = 40  # the headers of the image and of the domain, which tell what guest it is


def tables(directory: Path, size: int, rounds: int) -> list[Table]:
    """One table; `size` is of no account here."""
    hvm, pv = stream_file(directory, "hvm", SMALL), stream_file(directory, "pv", SMALL)
    report = str(directory / "report.html")
    commands = {
        LIMIT: [sys.executable, "-c", "pass"],
        "--version": [*migrate(), "--version"],
        "--help": [*migrate(), "--help"],
        "rules": [*migrate(), "rules"],
        "explain": [*migrate(), "explain", "HYP-22"],
        "check, HVM": [*migrate(), "check", "--quiet", hvm],
        "check, PV": [*migrate(), "check", "--quiet", pv],
        "trace, PV": [*migrate(), "trace", "--only", "failed", pv],
        "show, PV": [*migrate(), "show", pv],
        "report, PV": [*migrate(), "report", "--force", "-o", report, pv],
        "corpus run, PV": [*migrate(), "corpus", "run", "--no-cache", "--jobs", "1", pv],
    }
    contenders = {name: partial(run, command) for name, command in commands.items()}
    contenders["filter, until an HVM stream's first byte is through"] = partial(_first_byte, hvm)
    contenders["filter, until a PV stream's first byte is through"] = partial(_first_byte, pv)
    results = interleaved(contenders, rounds)
    table = Table(
        f"Start-up, guests of {SMALL / MIB:.0f} MiB, {rounds} interleaved rounds: median (least-most)",
        ("", "ms", f"x {LIMIT}", "peak MiB"),
        key="startup",
        notes=[f"goal: {GOAL} x {LIMIT} for the first byte of an HVM stream"],
    )
    for name, runs in results.items():
        times = Spread.of(1000 * run.wall for run in runs)
        above = Spread.of(run.wall / bare.wall for bare, run in zip(results[LIMIT], runs, strict=True))
        peak = max(run.peak for run in runs)
        table.rows.append((name, f"{times:.0f}", f"{above:.1f}", f"{peak / MIB:.0f}" if peak else ""))
        table.runs[name] = [asdict(run) for run in runs]
    return [table]


def _first_byte(file: str) -> Usage:
    """A filter whose sender is there at once, until it has passed on the first byte."""
    command = [*migrate(), "filter", "--quiet"]
    with open(file, "rb", buffering=0) as source:
        started = time.perf_counter()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as it:
            assert it.stdin is not None
            assert it.stdout is not None
            it.stdin.write(source.read(FIRST_BYTES))
            it.stdin.flush()
            os.read(it.stdout.fileno(), 1)
            wall = time.perf_counter() - started
            it.kill()
    return Usage(wall, 0, 0, 0)
