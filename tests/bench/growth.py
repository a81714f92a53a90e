"""How does the cost of a check grow with the guest, and with its page tables?"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from measure import Spread, interleaved, run
from streamfiles import gib, migrate, stream_file
from tables import MIB, Table

HEADER_WALK = str(Path(__file__).with_name("header_walk.py"))
LEAST = 64 * MIB
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
SHARE = 0.02


def tables(directory: Path, size: int, rounds: int) -> list[Table]:
    """By size for both kinds of guest, from 64 MiB to four times `size`; by share of page tables for one PV guest."""
    sizes = [LEAST]
    while sizes[-1] < 4 * size:
        sizes.append(min(4 * sizes[-1], 4 * size))
    by_share = {f"{share:.0%} tables": stream_file(directory, "pv", size // 4, table_share=share) for share in SHARES}
    made = [_by_size(directory, kind, sizes, rounds) for kind in ("hvm", "pv")]
    title = f"Check of a PV guest of {gib(size // 4)} with more and more page tables"
    return [*made, _table(title, "growth-tables", by_share, rounds)]


def _by_size(directory: Path, kind: str, sizes: Iterable[int], rounds: int) -> Table:
    files = {f"{size / MIB:,.0f} MiB": stream_file(directory, kind, size, table_share=SHARE) for size in sizes}
    with_tables = f" with {SHARE:.0%} page tables" if kind == "pv" else ""
    return _table(f"Check of growing {kind.upper()} guests{with_tables}", f"growth-{kind}", files, rounds)


def _table(title: str, key: str, files: dict[str, str], rounds: int) -> Table:
    contenders = {name: partial(run, [*migrate(), "check", "--quiet", file]) for name, file in files.items()}
    walks = {f"walk {name}": partial(run, [sys.executable, HEADER_WALK, file]) for name, file in files.items()}
    results = interleaved(contenders | walks, rounds)
    table = Table(
        f"{title}, {rounds} interleaved rounds: median (least-most)",
        ("", "wall s", "cpu s", "x cpu of a header walk", "peak MiB"),
        key=key,
    )
    for name in files:
        runs, bare = results[name], results[f"walk {name}"]
        wall, cpu = Spread.of(run.wall for run in runs), Spread.of(run.cpu for run in runs)
        above = Spread.of(run.cpu / walk.cpu for walk, run in zip(bare, runs, strict=True))
        peak = max(run.peak for run in runs) / MIB
        table.rows.append((name, f"{wall:.2f}", f"{cpu:.2f}", f"{above:.1f}", f"{peak:.0f}"))
        table.runs[name] = [asdict(run) for run in runs]
    return table
