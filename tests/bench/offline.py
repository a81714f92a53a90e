"""How long does an offline check take, and in how much memory, next to the other things one can do with a file?"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from measure import Spread, Usage, interleaved, run
from streamfiles import budget, gib, migrate, stream_file
from tables import MIB, Table

HERE = Path(__file__).parent
SMALL = 16 * MIB
LIMIT = "header walk"  # the least that can be done
CHECK, START_UP = "migrate check", f"migrate check, {SMALL / MIB:.0f} MiB"
# Of a check of a PV guest: a share of the guest's memory, and MiB.
PV_BUDGET = (0.005, 60)


def tables(directory: Path, size: int, rounds: int) -> list[Table]:
    """The HVM table and the PV table, for guests of up to `size` bytes."""
    return [hvm(directory, size, rounds), pv(directory, (size // 4, size), rounds)]


def hvm(directory: Path, size: int, rounds: int) -> Table:
    """An HVM guest, checked and otherwise read; a small one tells what is start-up."""
    file, small = stream_file(directory, "hvm", size), stream_file(directory, "hvm", SMALL)
    incumbent, verifier = _verifier(file)
    beside = f"{incumbent}, {SMALL / MIB:.0f} MiB"
    commands = {
        CHECK: [*migrate(), "check", file, "--quiet"],
        incumbent: [*verifier, file],
        "cat": ["cat", file],
        LIMIT: [sys.executable, str(HERE / "header_walk.py"), file],
        START_UP: [*migrate(), "check", small, "--quiet"],
        beside: [*verifier, small],
    }
    results = interleaved({name: partial(run, command) for name, command in commands.items()}, rounds)
    table = Table(
        f"Offline check of an HVM guest of {gib(size)}, {rounds} interleaved rounds: median (least-most)",
        ("", "wall s", "x faster", "cpu s", "x less cpu", f"cpu x {LIMIT}", "peak MiB"),
        key="offline-hvm",
    )
    for name, runs in results.items():
        pairs = list(zip(results[incumbent], runs, strict=True))
        faster = Spread.of(theirs.wall / ours.wall for theirs, ours in pairs)
        less = Spread.of(theirs.cpu / ours.cpu for theirs, ours in pairs)
        wall, cpu, peak = _spreads(runs)
        limit = Spread.of(ours.cpu / least.cpu for least, ours in zip(results[LIMIT], runs, strict=True))
        numbers = (f"{wall:.3f}", f"{faster:.1f}", f"{cpu:.3f}", f"{less:.1f}", f"{limit:.1f}", f"{peak:.0f}")
        table.rows.append((name, *numbers))
        table.runs[name] = [asdict(run) for run in runs]
    ours = _beyond_start_up(results[CHECK], results[START_UP])
    theirs = _beyond_start_up(results[incumbent], results[beside])
    per_gib = 1000 / ((size - SMALL) / (1 << 30))
    table.notes = [
        f"x: how many times less than {incumbent} takes for the {gib(size)} in the same round",
        f"beyond start-up, cpu: check {ours * per_gib:.1f} ms/GiB, {incumbent} {theirs * per_gib:.1f} ms/GiB, "
        f"{theirs / ours:.0f} times as much",
        "goal: 30 times faster than the verifier, below 40 MiB",
    ]
    return table


def _beyond_start_up(large: list[Usage], small: list[Usage]) -> float:
    """Seconds of processor time that the size of a stream costs."""
    least = 1e-4  # what is smaller drowns in noise
    return max(min(run.cpu for run in large) - min(run.cpu for run in small), least)


def pv(directory: Path, sizes: tuple[int, ...], rounds: int) -> Table:
    """PV guests with 2 % page tables, replayed as a part of the check, and the budget in memory."""
    files = {f"{gib(size)} PV": (size, stream_file(directory, "pv", size)) for size in sizes}
    results = interleaved(
        {name: partial(run, [*migrate(), "check", file, "--quiet"]) for name, (_, file) in files.items()}, rounds
    )
    share, extra = PV_BUDGET
    table = Table(
        f"Offline check of PV guests with 2 % page tables, {rounds} interleaved rounds: median (least-most)",
        ("", "wall s", "cpu s", "peak MiB", "budget MiB", "of budget"),
        key="offline-pv",
        notes=[f"budget: {share:.1%} of the guest and {extra} MiB; goal for 1 GiB: below 2 s"],
    )
    for name, runs in results.items():
        allowed = budget(files[name][0], share, extra) / MIB
        wall, cpu, peak = _spreads(runs)
        table.rows.append(
            (name, f"{wall:.2f}", f"{cpu:.2f}", f"{peak:.0f}", f"{allowed:.0f}", f"{peak.median / allowed:.0%}")
        )
        table.runs[name] = [asdict(run) for run in runs]
    return table


def _spreads(runs: list[Usage]) -> tuple[Spread, Spread, Spread]:
    """Wall and cpu seconds, peak in MiB."""
    return (
        Spread.of(run.wall for run in runs),
        Spread.of(run.cpu for run in runs),
        Spread.of(run.peak / MIB for run in runs),
    )


def _verifier(file: str) -> tuple[str, list[str]]:
    """Xen's own verifier where one is installed that takes this stream, else the stand-in."""
    for script in sorted(Path("/usr/lib").glob("xen-*/bin/verify-stream-v2"), reverse=True):
        # The modules that it needs lie beside it, where no interpreter looks.
        command = ["env", f"PYTHONPATH={script.parents[1] / 'lib/python'}", str(script), "-i"]
        try:
            run([*command, file])
        except (OSError, RuntimeError, subprocess.CalledProcessError):
            continue
        return "verify-stream-v2", command
    return "plain verifier", [sys.executable, str(HERE / "plain_verifier.py")]
