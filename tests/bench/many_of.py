"""How do the costs of each command grow with what its input has many of? python tests/bench/many_of.py [COMMAND …]

Each command runs over inputs with n, 2 n, 4 n and 8 n of a kind of thing; what it costs with two is taken off. The
exponent is that from 2 n to 8 n: 1 where twice as many cost twice as much. Where 8 n cost less than can be told from
noise there is none. What is counted (--count):

    seconds       of processor time, in processes that have everything imported; noisy where others work as well
    calls         of functions, Python's and C's: the same in every run, but what a function does by itself is not in it
    instructions  by valgrind: nearly the same in every run, 50 times as long; for the few that look suspicious
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tables import Table

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "bounds")]
costs_of, many = import_module("costs"), import_module("many")

# As `costs.cost` takes them.
COMMANDS = (
    "check --quiet IN",
    "check --quiet --verify IN",
    "check --format json IN",
    "filter --quiet <IN",
    "filter --quiet --guard <IN",
    "trace IN",
    "show IN",
    "show --all IN",
    "show --record 1 IN",
    "show --tables IN",
    "show --p2m IN",
    "show --map IN",
    "show --rounds IN",
    "show --vcpu all IN",
    "show --pfn 2 IN",
    "show --walk 0xffffffff80000000 IN",
    "show --config IN",
    "show --against IN IN",
    "report -o OUT IN",
    "extract --raw OUT IN",
    "extract --elf OUT IN",
    "extract --page 2 -o OUT IN",
    "extract --record 1 -o OUT IN",
    "corpus scrub -o OUT IN",
    "corpus shrink --target 4.13 -o OUT IN",
    "corpus run --no-cache -j 1 IN",
    "corpus accept --no-cache -j 1 IN",
    "policy IN",
    "policy --against IN IN",
    "config IN",
    "config --set b_info.max_vcpus=1 -o OUT IN",
    "verify-stream-v2 -q <IN",
    "explain --log IN",
    "synth OUT IN",
)
OTHER_INPUTS = {"explain": many.LOGS, "synth": many.ORDERS}
STEPS = (1, 2, 4, 8)
# At 8 n; less is lost in noise.
LEAST = {"seconds": 0.08, "calls": 2_000, "instructions": 10_000_000}
BOUND = 1.2


def inputs(command: str) -> Mapping[str, tuple[int, Callable[[int], Any]]]:
    """What a command is measured with: kinds of streams, of directories of them, or of whatever else it takes."""
    first = command.split()[0]
    if first in OTHER_INPUTS:
        return OTHER_INPUTS[first]
    several = command.startswith(("check --quiet IN", "corpus run", "corpus accept", "report"))
    return many.KINDS | many.CORPORA if several else many.KINDS


def growth(costs: Sequence[float], base: float, least: float) -> float | None:
    """The exponent from 2 n to 8 n; None where there is nothing to tell."""
    if math.isinf(costs[-1]):
        return math.inf
    last, second = costs[3] - base, costs[1] - base
    return math.log(last / max(second, last / 64), 4) if last >= least else None


def measure(
    kinds: Sequence[str], commands: Sequence[str], rounds: int, scale: float, counted: str
) -> Iterable[tuple[str, str, list[float], float | None]]:
    """Every command over every kind, the least of some rounds each."""
    with tempfile.TemporaryDirectory(prefix="migrate-bench-") as directory:
        out = Path(directory, "out")
        for kind in kinds:
            n, build = next(inputs(command)[kind] for command in commands if kind in inputs(command))
            n = max(8, int(n * scale))
            made = [costs_of.put(build(max(n * step, 2)), Path(directory, f"{step}")) for step in (0, *STEPS)]
            for command in commands:
                if kind not in inputs(command):
                    continue
                found: list[float] = []
                for given in made:
                    one = [costs_of.cost(command, given, out, counted) for _ in range(rounds)]
                    found += [min(value for value in one if value is not None)] if None not in one else []
                if len(found) == len(made):
                    base, *costs = found
                    yield kind, command, costs, growth(costs, base, LEAST[counted])


def table(kinds: Sequence[str], commands: Sequence[str], rounds: int, scale: float, counted: str) -> Table:
    """The two kinds of each command that grow fastest, and among those the ones that cost most."""
    title = f"Exponents of {counted}, {rounds} rounds, {scale:g} n"
    made = Table(title, ("", "exponent", "kind", "exponent", "kind"), key="many")
    found: dict[str, list[tuple[float, float, str]]] = {command: [] for command in commands}
    for kind, command, costs, exponent in measure(kinds, commands, rounds, scale, counted):
        told = "-" if exponent is None else f"{exponent:.2f}"
        mark = "!" if exponent is not None and exponent > BOUND else ""
        numbers = " ".join(f"{one:12.3f}" if counted == "seconds" else f"{one:12.0f}" for one in costs)
        print(f"{kind:32} {command:42} {numbers}  {told:>5} {mark}", file=sys.stderr, flush=True)
        made.runs[f"{kind}, {command}"] = {counted: costs, "exponent": exponent}
        if exponent is not None:
            found[command].append((round(exponent, 1), costs[-1], kind))
    for command, seen in found.items():
        worst = sorted(seen, reverse=True)[:2]
        cells = [cell for exponent, _, kind in worst for cell in (f"{exponent:.1f}", kind)]
        made.rows.append((command, *cells, *[""] * (4 - len(cells))))
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="only commands that begin so")
    parser.add_argument("--kind", action="append", help="only kinds whose name contains this")
    parser.add_argument("--count", choices=sorted(LEAST), default="seconds")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="times each kind's n")
    asked = parser.parse_args()
    commands = [one for one in COMMANDS if not asked.commands or one.startswith(tuple(asked.commands))]
    if not commands:
        parser.error(f"no such command; there are {', '.join(COMMANDS)}")
    known = dict.fromkeys(kind for command in commands for kind in inputs(command))
    kinds = [kind for kind in known if not asked.kind or any(part in kind for part in asked.kind)]
    costs_of.prepare()
    table(kinds, commands, asked.rounds, asked.scale, asked.count).show()


if __name__ == "__main__":
    main()
