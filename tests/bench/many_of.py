"""How do the costs of each command grow with what a stream has many of? python tests/bench/many_of.py [COMMAND …]

Each command runs over streams with n, 2 n, 4 n and 8 n of a kind of thing, in processes that have everything imported;
what the command costs on a stream without any is taken off. The exponent is that from 2 n to 8 n: 1 where twice as
many cost twice as much. Where 8 n cost less than can be told from noise there is none.
"""

from __future__ import annotations

import argparse
import math
import os
import pkgutil
import resource
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path

from tables import Table

import migrate
import streams
from migrate.cli.main import main as run_command

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "bounds")]
many = import_module("many")

COMMANDS: dict[str, Sequence[str]] = {
    "check": ["check", "--quiet"],
    "check --verify": ["check", "--quiet", "--verify"],
    "filter": ["filter", "--quiet"],
    "filter --guard": ["filter", "--quiet", "--guard"],
    "trace": ["trace"],
    "show": ["show"],
    "show --all": ["show", "--all"],
    "show --tables": ["show", "--tables"],
    "show --p2m": ["show", "--p2m"],
    "show --map": ["show", "--map"],
    "show --rounds": ["show", "--rounds"],
    "show --vcpu all": ["show", "--vcpu", "all"],
    "show --pfn 2": ["show", "--pfn", "2"],
    "report": ["report", "-o"],
    "extract --raw": ["extract", "--raw"],
    "extract --elf": ["extract", "--elf"],
    "scrub": ["corpus", "scrub", "-o"],
    "corpus run": ["corpus", "run", "--no-cache", "-j", "1"],
    "policy": ["policy"],
    "config": ["config"],
    "verify-stream-v2": ["verify-stream-v2", "-q"],
}
STDIN = {"filter", "filter --guard", "verify-stream-v2"}
OUTPUTS = {"extract --raw", "extract --elf", "scrub", "report"}  # whose last option is that
STEPS = (1, 2, 4, 8)
LEAST = 0.08  # seconds at 8 n; less is lost in noise
LIMIT = 120  # seconds of processor time for one run
BOUND = 1.2


def prepare() -> None:
    """Import all that any command needs, so that no child does."""
    for package in (migrate, streams):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith(("__main__", "pytest_plugin", "strategies")):
                try:
                    import_module(module.name)
                except ImportError:
                    continue  # needs an optional package


def cost(name: str, path: Path, out: Path) -> tuple[float, int]:
    """Processor seconds of a command over a stream, and its peak in bytes."""
    out.unlink(missing_ok=True)
    arguments = [*COMMANDS[name], *([str(out)] if name in OUTPUTS else []), *([] if name in STDIN else [str(path)])]
    child = os.fork()
    if not child:
        code = 70
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
            os.dup2(os.open(path if name in STDIN else os.devnull, os.O_RDONLY), 0)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            sys.argv = ["migrate", *arguments]
            run_command(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1, 3):
        return math.inf, usage.ru_maxrss << 10
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10


def growth(costs: Sequence[float], base: float) -> float | None:
    """The exponent from 2 n to 8 n; None where there is nothing to tell."""
    if math.isinf(costs[-1]):
        return math.inf
    last, second = costs[3] - base, costs[1] - base
    return math.log(last / max(second, last / 64), 4) if last >= LEAST else None


def measure(
    kinds: Iterable[str], commands: Sequence[str], rounds: int, scale: float
) -> Iterable[tuple[str, str, list[float], float | None]]:
    """Every command over every kind, the least of some rounds each."""
    with tempfile.TemporaryDirectory(prefix="migrate-bench-") as directory:
        out = Path(directory, "out")
        for kind in kinds:
            n, build = many.KINDS[kind]
            n = max(8, int(n * scale))
            paths = []
            for step in (0, *STEPS):
                path = Path(directory, f"{step}")
                path.write_bytes(build(max(n * step, 2)))
                paths.append(path)
            for command in commands:
                base, *costs = (min(cost(command, path, out)[0] for _ in range(rounds)) for path in paths)
                yield kind, command, costs, growth(costs, base)


def table(kinds: Sequence[str], commands: Sequence[str], rounds: int, scale: float) -> Table:
    """Exponents, a row for each kind."""
    made = Table(f"Exponents of processor time, {rounds} rounds", ("8 n of", *commands, "n"), key="many")
    found: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    for kind, command, costs, exponent in measure(kinds, commands, rounds, scale):
        found[kind][command] = "-" if exponent is None else f"{exponent:.1f}"
        mark = "!" if exponent is not None and exponent > BOUND else ""
        seconds = " ".join(f"{one:8.3f}" for one in costs)
        print(f"{kind:32} {command:20} {seconds}  {found[kind][command]:>5} {mark}", file=sys.stderr, flush=True)
        made.runs[f"{kind}, {command}"] = {"seconds": costs, "exponent": exponent}
    made.rows = [(kind, *(found[kind][one] for one in commands), str(many.KINDS[kind][0])) for kind in kinds]
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=f"of {', '.join(COMMANDS)}")
    parser.add_argument("--kind", action="append", help="only kinds whose name contains this")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="times each kind's n")
    asked = parser.parse_args()
    if unknown := set(asked.commands) - set(COMMANDS):
        parser.error(f"unknown command {', '.join(sorted(unknown))}")
    kinds = [kind for kind in many.KINDS if not asked.kind or any(part in kind for part in asked.kind)]
    prepare()
    table(kinds, asked.commands or list(COMMANDS), asked.rounds, asked.scale).show()


if __name__ == "__main__":
    main()
