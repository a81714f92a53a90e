"""Fuzz one harness with atheris: `python tests/fuzz/run.py HARNESS [--minutes N] [--corpus DIR] [--found DIR]`.

An input that breaks a law is kept in `--found` (one for each place that raised), and fuzzing goes on; what stops the
whole process is only what Python cannot raise: a hang in foreign code, a crash of the interpreter. What is found goes
to `regressions/` (`python tests/fuzz/keep.py FILE NAME`) together with its repair.

Needs the extra `fuzz`. libFuzzer's own limits are a backstop. `limits` interrupts Python code that is too slow or
too greedy, with a traceback; -timeout (far beyond it, for instrumented code is several times slower) catches what
never gets back to Python, and -rss_limit_mb what grows from input to input: the corpus itself, which libFuzzer keeps
in memory, takes some 100 MiB, a leak much more.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from types import ModuleType

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each thread would take address space of its own
HERE = Path(__file__).parent
TIMEOUT_SECONDS = 60
RSS_LIMIT_MIB = 2048
# Of the frames of a traceback these tell one fault from another.
TELLING_FRAMES = 3
# What two messages about the same may differ in.
NUMBERS = re.compile(r"\b(?:0x[0-9a-f]+|\d+)\b")
# How often libFuzzer's own mutations are used instead of those that know records.
PLAIN_ONE_IN = 5


def _import_everything() -> None:
    """What is imported late is imported now, instrumented; the command line and what makes streams stay outside."""
    import importlib
    import pkgutil

    import migrate
    import streams

    outside = ("migrate.cli", "migrate.corpus", "migrate.testing", "migrate.__main__")
    for package in (streams, migrate):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not found.name.startswith(outside):
                importlib.import_module(found.name)


class Finds:
    """Inputs that broke the law, one for each place."""

    def __init__(self, folder: Path, harness: str) -> None:
        self._folder = folder
        self._harness = harness
        self._seen: Counter[tuple[object, ...]] = Counter()

    def take(self, error: Exception, data: bytes) -> None:
        """Keep an input with its traceback, if nothing alike is kept."""
        frames = traceback.extract_tb(error.__traceback__)[-TELLING_FRAMES:]
        where = tuple((Path(frame.filename).name, frame.lineno) for frame in frames)
        said = NUMBERS.sub("", str(error)) if where[-1][0] == "laws.py" else ""
        kind = (type(error).__name__, said, *where)
        self._seen[kind] += 1
        if self._seen[kind] > 1:
            return
        name = f"{self._harness}-{hashlib.sha1(data).hexdigest()[:12]}"
        (self._folder / name).write_bytes(data)
        told = "".join(traceback.format_exception(error))
        (self._folder / f"{name}.txt").write_text(told)
        print(f"FOUND {name} {type(error).__name__}: {error}\n{told}", file=sys.stderr, flush=True)


def fuzz(atheris: ModuleType, name: str, minutes: float, corpus: Path, found: Path) -> None:
    """Fuzz until the time is over."""
    with atheris.instrument_imports(include=["streams", "migrate"]):
        _import_everything()
    from harnesses import HARNESSES
    from mutation import mutate

    harness = HARNESSES[name]
    seeds = [seed for seed in harness.seeds() if len(seed) <= harness.longest]
    for seed in seeds:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    finds = Finds(found, name)

    def one(data: bytes) -> None:
        try:
            harness(data)
        except Exception as error:
            finds.take(error, data)

    def mutator(data: bytes, limit: int, seed: int) -> bytes:
        rng = Random(seed)
        if not rng.randrange(PLAIN_ONE_IN):
            return bytes(atheris.Mutate(data, limit))
        return mutate(data, harness.anatomy, rng, limit, seeds)

    options = {
        "max_total_time": round(minutes * 60),
        "max_len": harness.longest,
        "len_control": 0,
        "timeout": TIMEOUT_SECONDS,
        "rss_limit_mb": RSS_LIMIT_MIB,
        "print_final_stats": 1,
        "reload": 0,
        "entropic_scale_per_exec_time": 1,  # slow inputs are mutated less often
    }
    flags = [f"-{key}={value}" for key, value in options.items()]
    atheris.Setup([sys.argv[0], *flags, f"-artifact_prefix={found}/{name}-", str(corpus)], one, custom_mutator=mutator)
    atheris.Fuzz()


def main() -> None:
    """The command line."""
    sys.path.insert(0, str(HERE))
    import atheris

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("harness", help="a name of harnesses.HARNESSES")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--corpus", type=Path, help="where inputs that reach new code are kept")
    parser.add_argument("--found", type=Path, help="where inputs that break a law are kept")
    asked = parser.parse_args()
    corpus, found = (
        given or Path(tempfile.mkdtemp(prefix=f"fuzz-{asked.harness}-")) for given in (asked.corpus, asked.found)
    )
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    print(f"corpus in {corpus}, what is found in {found}", file=sys.stderr)
    fuzz(atheris, asked.harness, asked.minutes, corpus, found)


if __name__ == "__main__":
    main()
