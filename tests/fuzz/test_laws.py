"""Every harness's law on its seeds, on some mutations of them, and on all inputs that ever broke one. Without atheris.

`run.py` does the same with atheris, for as long as it is let.
"""

from __future__ import annotations

from functools import cache
from random import Random

import pytest
from harnesses import HARNESSES, mutants
from keep import regressions
from limits import TooSlowError, bounded
from mutation import mutate

FEW, MANY = 20, 50

every_harness = pytest.mark.parametrize("name", HARNESSES)
# Each of their inputs makes a document, or dozens of streams.
COSTLY = ("report", "shrink")
every_law = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in COSTLY else name for name in HARNESSES]
)
SAMPLES = dict(regressions())


@cache
def seeds(name: str) -> tuple[bytes, ...]:
    return tuple(HARNESSES[name].seeds())


@every_law
def test_the_law_holds_of_all_seeds(name: str) -> None:
    for seed in seeds(name):
        HARNESSES[name](seed)


@every_law
@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_the_law_holds_of_some_mutations(name: str, count: int) -> None:
    for mutant in mutants(HARNESSES[name], count):
        HARNESSES[name](mutant)


@every_law
@pytest.mark.parametrize("sample", SAMPLES)
def test_what_once_broke_a_law_breaks_none(sample: str, name: str) -> None:
    HARNESSES[name](SAMPLES[sample])


# -- the tools themselves -----------------------------------------------------------------------------


@every_harness
def test_seeds_are_short_enough_to_be_mutated(name: str) -> None:
    assert seeds(name)
    assert max(map(len, seeds(name))) <= HARNESSES[name].longest


@every_harness
def test_the_pieces_of_a_seed_cover_it(name: str) -> None:
    for seed in seeds(name):
        covered = 0
        for piece in HARNESSES[name].anatomy(seed):
            assert piece.start <= covered
            covered = max(covered, piece.end)
        assert covered == len(seed)


@every_harness
def test_mutations_differ(name: str) -> None:
    harness, rng = HARNESSES[name], Random(1)
    made = {mutate(seed, harness.anatomy, rng, harness.longest, seeds(name)) for seed in seeds(name) for _ in range(5)}
    assert len(made - {*seeds(name)}) > 4 * len(seeds(name)) - 4


@every_harness
def test_mutations_are_no_longer_than_allowed(name: str) -> None:
    harness, rng = HARNESSES[name], Random(2)
    assert all(len(mutate(seed, harness.anatomy, rng, 100, seeds(name))) <= 100 for seed in seeds(name))


def test_too_much_memory_is_an_error_where_it_is_asked_for() -> None:
    with pytest.raises(MemoryError):
        bounded(lambda data: bytearray(1 << 30), b"")
    assert len(bounded(lambda data: bytearray(16 << 20), b"")) == 16 << 20


def test_an_endless_loop_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def loop(data: bytes) -> None:
        while True:
            pass

    monkeypatch.setattr("limits.SECONDS", 0.1)
    with pytest.raises(TooSlowError):
        bounded(loop, b"")
