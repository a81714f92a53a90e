"""What does a filter cost a migration, next to a bare pipe and to what people put into pipes today?"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from measure import Spread, Usage, interleaved
from streamfiles import gib, migrate, stream_file
from tables import MIB, Table

LAUNCHER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("launch_pipe.py")))
LARGE_PIPE = 1 << 20
GIB = 1 << 30
SMALL = 16 * MIB
BARE, BARE_LARGE = "bare pipe, default", "bare pipe, 1 MiB"


def tables(directory: Path, size: int, rounds: int) -> list[Table]:
    """A table for an HVM guest and one for a PV guest with 2 % page tables, of `size` bytes each."""
    return [_table(directory, kind, size, rounds) for kind in ("hvm", "pv")]


def _table(directory: Path, kind: str, size: int, rounds: int) -> Table:
    file = stream_file(directory, kind, size)
    stats = directory / "stats.json"
    observe = [*migrate(), "filter", "--quiet", "--stats", str(stats)]
    contenders: dict[str, tuple[int, list[str]]] = {
        BARE: (0, []),
        BARE_LARGE: (LARGE_PIPE, []),
        "cat": (0, ["cat"]),
        **({"pv -q": (0, ["pv", "-q"])} if shutil.which("pv") else {}),
        "migrate filter": (0, observe),
        "migrate filter --guard": (0, [*observe, "--guard"]),
    }
    held: list[float] = []

    def through(name: str) -> Usage:
        pipe_size, command = contenders[name]
        usage = _run(file, pipe_size, command)
        if name.endswith("--guard"):
            held.append(json.loads(stats.read_text())["end_held_seconds"])
        return usage

    results = interleaved({name: partial(through, name) for name in contenders}, rounds)
    length = Path(file).stat().st_size
    table = Table(
        f"Through a pipe: {kind.upper()} guest of {gib(size)}, {rounds} interleaved rounds: median (least-most)",
        ("", "GB/s", "of the 1 MiB pipe", "cpu s/GiB", "peak MiB"),
        key=f"pipe-{kind}",
    )
    for name, runs in results.items():
        rate = Spread.of(length / run.wall / 1e9 for run in runs)
        share = Spread.of(bare.wall / run.wall for bare, run in zip(results[BARE_LARGE], runs, strict=True))
        own = bool(contenders[name][1])
        cpu = f"{Spread.of(run.cpu / (length / GIB) for run in runs):.3f}" if own else ""
        peak = f"{max(run.peak for run in runs) / MIB:.0f}" if own else ""
        table.rows.append((name, f"{rate:.2f}", f"{share:.2f}", cpu, peak))
        table.runs[name] = [asdict(run) for run in runs]
    small = stream_file(directory, kind, SMALL)
    start_up = Spread.of(_run(small, 0, observe).cpu for _ in range(rounds))
    table.notes = [
        f"END held by the guard: {Spread.of(1000 * seconds for seconds in held[1:]):.1f} ms",
        f"of the filter's processor time start-up, as measured with {SMALL / MIB:.0f} MiB: {start_up:.2f} s in all",
    ]
    return table


def _run(file: str, pipe_size: int, command: list[str]) -> Usage:
    launched = subprocess.run(
        [*LAUNCHER, file, str(pipe_size), *command], stdout=subprocess.PIPE, text=True, check=True
    )
    wall, user, system, peak, code = launched.stdout.split()
    if code != "0":
        raise RuntimeError(f"exit code {code} of {' '.join(command)}")
    return Usage(float(wall), float(user), float(system), int(peak) << 10)
