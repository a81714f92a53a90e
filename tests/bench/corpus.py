"""How many streams per second does a corpus run judge: small ones and real ones, with one worker and with more?"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from measure import Spread, interleaved
from tables import Table

from migrate.building.builder import StreamBuilder
from migrate.corpus.cache import Cache, validator
from migrate.corpus.discovery import Case, discover
from migrate.corpus.runner import run
from migrate.corpus.workers import LOCAL, Alone, Dask, Processes, Workers, cores
from streams.compression import DECODED_PIECE
from streams.opening import open_transport
from streams.wire.framing import PAGE_SIZE

SAMPLES = Path(__file__).parents[2] / "sample_streams"
SMALL_STREAMS = 2000
# Guests, each with so many pages of noise.
SMALL_GUESTS = ((StreamBuilder.hvm, 3), (partial(StreamBuilder.pv, 4), 1), (partial(StreamBuilder.pv, 8), 1))
SAMPLE_BYTES = 8 << 20
SEED = 7
GOAL = 1000

Contender = Callable[[], float]


def tables(directory: Path, size: int, rounds: int) -> list[Table]:
    """Rates in one process, and how they grow with the number of workers; `size` is of no account here."""
    small = _small(directory / "corpus")
    samples = discover([str(path) for path in sorted(SAMPLES.glob("x417-pv*.plain.libxc.zst"))]).cases
    return [_small_table(directory, small, rounds), _sample_table(samples, rounds), _scaling(small, rounds)]


def _small(folder: Path) -> tuple[Case, ...]:
    """A third each of HVM, 32-bit and 64-bit PV guests, about 45 kB large; no two have the same bytes."""
    if not folder.exists():
        folder.mkdir()
        noise = random.Random(SEED)
        for number in range(SMALL_STREAMS):
            make, pages = SMALL_GUESTS[number % len(SMALL_GUESTS)]
            builder = make()
            for _ in range(pages):
                builder.new_page(content=noise.randbytes(PAGE_SIZE))
            (folder / f"{number:04}").write_bytes(builder.build())
    return discover([str(folder)]).cases


def _judge(cases: Sequence[Case], workers: Workers, cache: Cache | None = None) -> float:
    """Seconds, start and end of the workers included."""
    started = time.perf_counter()
    with workers:
        results = run(cases, workers.start(), renew=workers.start, window=workers.window, cache=cache)
    assert all(result.answer.error is None for result in results)
    return time.perf_counter() - started


def _small_table(directory: Path, cases: Sequence[Case], rounds: int) -> Table:
    turn = iter(range(rounds + 1))

    def cold() -> float:
        return _judge(cases, Alone(), Cache(str(directory / f"cold{next(turn)}"), validator()))

    warm = Cache(str(directory / "warm"), validator())
    contenders: dict[str, Contender] = {
        "judged": lambda: _judge(cases, Alone()),
        "judged, and kept in the cache": cold,
        "known to the cache": lambda: _judge(cases, Alone(), warm),
        "read and hashed": lambda: _hash(cases, warm),
    }
    results = interleaved(contenders, rounds)
    size = sum(os.path.getsize(case.path) for case in cases) / len(cases)
    table = Table(
        f"{len(cases)} streams of {size / 1000:.0f} kB in one process, {rounds} rounds: median (least-most)",
        ("", "streams/s", "ms per stream"),
        key="corpus-small",
        notes=[f"goal: {GOAL} streams per second and core"],
    )
    _rates(table, results, len(cases))
    return table


def _hash(cases: Sequence[Case], cache: Cache) -> float:
    started = time.perf_counter()
    for case in cases:
        with open(case.path, "rb") as file:
            cache.key(file, (), None)
    return time.perf_counter() - started


def _sample_table(cases: Sequence[Case], rounds: int) -> Table:
    """Saved guests, as zstd keeps them, next to what decompression alone costs."""
    results = interleaved(
        {"decompressed": lambda: _decompress(cases), "judged": lambda: _judge(cases, Alone())}, rounds
    )
    table = Table(
        f"{len(cases)} saved guests of {SAMPLE_BYTES >> 20} MiB, zstd, in one process, {rounds} rounds",
        ("", "streams/s", "ms per stream", "x decompression"),
        key="corpus-samples",
    )
    _rates(table, results, len(cases), "decompressed")
    return table


def _decompress(cases: Sequence[Case]) -> float:
    started = time.perf_counter()
    for case in cases:
        with open_transport(case.path) as transport:
            while transport.give(DECODED_PIECE):
                pass
    return time.perf_counter() - started


def _scaling(cases: Sequence[Case], rounds: int) -> Table:
    numbers = [number for number in (2, 4) if number <= cores()]
    contenders: dict[str, Contender] = {"in process": lambda: _judge(cases, Alone())}
    for number in (1, *numbers):
        contenders[_named(number, "process")] = partial(_with, cases, partial(Processes, number))
    if find_spec("distributed"):
        for number in (1, *numbers):
            contenders[f"dask, {_named(number, 'worker')}"] = partial(_dask, cases, number)
    results = interleaved(contenders, rounds)
    table = Table(
        f"The same {len(cases)} streams with more workers, {rounds} rounds: median (least-most)",
        ("", "streams/s", "ms per stream", "x in process"),
        key="corpus-workers",
        notes=["processes: their start included; dask: on a scheduler of this machine that is there already"],
    )
    _rates(table, results, len(cases), "in process")
    return table


def _with(cases: Sequence[Case], workers: Callable[[], Workers]) -> float:
    return _judge(cases, workers())


def _dask(cases: Sequence[Case], number: int) -> float:
    with Dask(LOCAL, number) as workers:
        run(cases[: workers.window], workers.start(), window=workers.window)  # so that all is imported
        started = time.perf_counter()
        run(cases, workers.start(), window=workers.window)
        return time.perf_counter() - started


def _named(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}{'es' if what.endswith('s') else 's'}"


def _rates(table: Table, results: dict[str, list[float]], streams: int, base: str | None = None) -> None:
    for name, seconds in results.items():
        rate = Spread.of(streams / one for one in seconds)
        each = Spread.of(1000 * one / streams for one in seconds)
        row = [name, f"{rate:.0f}", f"{each:.2f}"]
        if base is not None:
            # A rate grows with workers; a cost is compared with what it cannot be less than.
            inverse = base == "decompressed"
            pairs = zip(results[base], seconds, strict=True)
            row.append(f"{Spread.of(own / its if inverse else its / own for its, own in pairs):.2f}")
        table.rows.append(row)
        table.runs[name] = seconds
