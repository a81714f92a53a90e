"""Keep an input as a regression sample, compressed: `python tests/fuzz/keep.py FILE NAME`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import zstandard

REGRESSIONS = Path(__file__).parent / "regressions"
SUFFIX = ".zst"


def keep(source: Path, name: str) -> Path:
    """Put an input among the regression samples; returns where it is."""
    kept = REGRESSIONS / (name + SUFFIX)
    kept.write_bytes(zstandard.ZstdCompressor(level=19).compress(source.read_bytes()))
    return kept


def regressions() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every sample."""
    for path in sorted(REGRESSIONS.glob("*" + SUFFIX)):
        yield path.name.removesuffix(SUFFIX), zstandard.decompress(path.read_bytes())


if __name__ == "__main__":
    print(keep(Path(sys.argv[1]), sys.argv[2]))
