"""What does a check of compressed input cost, next to decoding it?"""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import zstandard
from measure import Spread, interleaved, run
from streamfiles import gib, migrate, stream_file
from tables import MIB, Table

DECODE = "decoding alone"
_DECODING = "import sys; from streams.opening import open_transport; open_transport(sys.argv[1]).skip(1 << 62)"


def tables(directory: Path, size: int, rounds: int) -> list[Table]:
    """A table for a PV guest with 2 % page tables, of `size` bytes, compressed with zstd."""
    plain = Path(stream_file(directory, "pv", size))
    file = str(plain) + ".zst"
    with open(plain, "rb") as source, open(file, "wb") as sink:
        zstandard.ZstdCompressor().copy_stream(source, sink)
    commands = {
        DECODE: [sys.executable, "-c", _DECODING, file],
        **({"zstd -dc": ["zstd", "-dcq", file]} if shutil.which("zstd") else {}),
        "migrate check": [*migrate(), "check", file, "--quiet"],
    }
    results = interleaved({name: partial(run, command) for name, command in commands.items()}, rounds)
    table = Table(
        f"Check of a PV guest of {gib(size)} in zstd, {rounds} interleaved rounds: median (least-most)",
        ("", "wall s", "cpu s", f"cpu x {DECODE}", "peak MiB"),
        key="compressed-pv",
    )
    for name, runs in results.items():
        wall, cpu = Spread.of(one.wall for one in runs), Spread.of(one.cpu for one in runs)
        times = Spread.of(one.cpu / least.cpu for least, one in zip(results[DECODE], runs, strict=True))
        peak = max(one.peak for one in runs) / MIB
        table.rows.append((name, f"{wall:.2f}", f"{cpu:.2f}", f"{times:.2f}", f"{peak:.0f}"))
        table.runs[name] = [asdict(one) for one in runs]
    return [table]
