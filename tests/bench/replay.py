"""How many page tables per second does the replay validate, and what does it hold meanwhile?

    python tests/bench/replay.py STREAM RUNS OUT

replays one PV stream RUNS times in this process and writes the times to OUT; `tables` runs that as a process
of its own, whose peak is that of reading the stream and replaying it.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from measure import Spread, Usage, interleaved, run
from streamfiles import budget, gib, stream_file
from tables import MIB, Table

from migrate.destination.destination import Destination

SHARES = (0.05, 0.20)
RUNS = 5
GOAL = 50_000
BUDGET = (0.005, 80)
SEED = 20


def tables(directory: Path, size: int, rounds: int) -> list[Table]:
    """Guests of a quarter of `size` bytes, with few and with many page tables."""
    size //= 4
    files = {
        f"{share:.0%} tables": stream_file(directory, "pv", size, table_share=share, seed=SEED) for share in SHARES
    }
    results = interleaved(
        {name: partial(_replayed, file, directory / "times.json") for name, file in files.items()}, rounds
    )
    share, extra = BUDGET
    allowed = budget(size, share, extra) / MIB
    table = Table(
        f"Replay of random 64-bit page table trees, guest of {gib(size)}, {rounds} interleaved processes "
        f"of {RUNS} replays: median (least-most)",
        ("", "tables", "tables/s wall", "tables/s cpu", "first replay s", "peak MiB", "budget MiB", "of budget"),
        key="replay",
        notes=[f"goal: {GOAL} tables/s; budget: {share:.1%} of the guest and {extra} MiB"],
    )
    for name, processes in results.items():
        replays = [replay for _, replayed in processes for replay in replayed["replays"]]
        count = processes[0][1]["tables"]
        peak = Spread.of(usage.peak / MIB for usage, _ in processes)
        table.rows.append(
            (
                name,
                str(count),
                f"{Spread.of(count / replay['wall'] for replay in replays):.0f}",
                f"{Spread.of(count / replay['cpu'] for replay in replays):.0f}",
                f"{Spread.of(replayed['replays'][0]['wall'] for _, replayed in processes):.2f}",
                f"{peak:.0f}",
                f"{allowed:.0f}",
                f"{peak.median / allowed:.0%}",
            )
        )
        table.runs[name] = [asdict(usage) | replayed for usage, replayed in processes]
    return [table]


def _replayed(file: str, out: Path) -> tuple[Usage, Any]:
    usage = run([sys.executable, __file__, file, str(RUNS), str(out)])
    return usage, json.loads(out.read_text())


def _replay(file: str, runs: int) -> dict[str, Any]:
    """Replay a stream: tables validated, and seconds of each run."""
    from migrate.judging.check import judge
    from migrate.judging.judgement import Judgement
    from migrate.xen.held_types import FrameType

    destination = Destination()
    tables = (FrameType.L1, FrameType.L2, FrameType.L3, FrameType.L4, FrameType.L2X)

    def repeatedly(judgement: Judgement) -> dict[str, Any]:
        replays, count = [], 0
        for _ in range(runs):
            wall, cpu = time.perf_counter(), time.process_time()
            trace = judgement.replay(destination, exact=True)
            replays.append({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu})
            if trace is None or trace.hypervisor is None or any(outcome.finding for outcome in trace.answers):
                raise SystemExit(f"{file}: the replay does not pass, so its time means nothing")
            count = sum(int((trace.hypervisor.types == kind).sum()) for kind in tables)
        return {"tables": count, "replays": replays}

    result: dict[str, Any] = judge(file, then=repeatedly)
    return result


if __name__ == "__main__":
    stream, runs, out = sys.argv[1:]
    Path(out).write_text(json.dumps(_replay(stream, int(runs))))
