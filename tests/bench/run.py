"""Prints the benchmark tables: python tests/bench/run.py [offline] [pipes] … [--json FILE] [--against FILE].

Needs the package installed, and room for the streams in a temporary directory. Nothing is asserted: ratios
within one run are worth comparing, seconds of two machines are not.

How costs grow with what a stream has many of takes an hour to measure, and is printed by
`python tests/bench/many_of.py` (--count calls, seconds or instructions).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import compressed
import corpus
import growth
import instructions
import offline
import replay
import startup
import throughput
from against import compare
from measure import floor
from tables import MIB, Table, machine

BENCHMARKS = {
    "offline": offline.tables,
    "compressed": compressed.tables,
    "pipes": throughput.tables,
    "replay": replay.tables,
    "corpus": corpus.tables,
    "startup": startup.tables,
    "instructions": instructions.tables,
    "growth": growth.tables,
}
SUFFIXES = {"M": 20, "G": 30}
LEAST = 64 << 20


def size_in_bytes(text: str) -> int:
    """A size such as 512M or 4G."""
    shift = SUFFIXES.get(text[-1:].upper(), 0)
    size = int(text[:-1] if shift else text) << shift
    if size < LEAST:
        raise ValueError(f"at least {LEAST >> 20}M")
    return size


def main() -> None:
    """Run the benchmarks asked for, and print each table when it is done."""
    parser = argparse.ArgumentParser(
        description="Print benchmark tables.",
        epilog="tests/bench/many_of.py prints how the costs of each command grow with what its input has many of.",
    )
    parser.add_argument("benchmarks", nargs="*", metavar="|".join(BENCHMARKS), help="all of them unless named")
    parser.add_argument("--size", type=size_in_bytes, default="4G", help="memory of the largest guest (4G)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers there")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with the numbers in an earlier such file")
    asked = parser.parse_args()
    if unknown := set(asked.benchmarks) - set(BENCHMARKS):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if asked.rounds < 1:
        parser.error("at least one round")

    try:
        before = None if asked.against is None else json.loads(asked.against.read_text())
        compare(before or {"tables": [], "machine": ""}, [])
    except (OSError, ValueError) as error:
        parser.error(f"{asked.against}: {error}")

    where = machine()
    print(where)
    print(f"a measured peak is at least {floor() / MIB:.0f} MiB, that of the process which starts the others")
    done: list[Table] = []
    with tempfile.TemporaryDirectory(prefix="migrate-bench-") as directory:
        for name in dict.fromkeys(asked.benchmarks or BENCHMARKS):
            for table in BENCHMARKS[name](Path(directory), asked.size, asked.rounds):
                table.show()
                done.append(table)
    if before is not None:
        compare(before, done).show()
    if asked.json is not None:
        document = {"machine": where, "tables": [table.to_dict() for table in done]}
        asked.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
