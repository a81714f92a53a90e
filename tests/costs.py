"""What a command costs over an input: processor time, and counts that are nearly the same on any machine."""

from __future__ import annotations

import math
import os
import pkgutil
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from mmap import PAGESIZE, mmap
from pathlib import Path
from typing import Any

import migrate
import streams
from migrate.cli.main import main as run_command

LIMIT = 120  # seconds of processor time for one run


def prepare() -> None:
    """Import all that any command needs, so that no child does."""
    for package in (migrate, streams):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith(("__main__", "pytest_plugin", "strategies")):
                try:
                    import_module(module.name)
                except ImportError:
                    continue  # needs an optional package


def put(made: Any, path: Path) -> Sequence[str]:
    """An input as it stands on a command line, once it is there: a file, a directory, or words."""
    if isinstance(made, str):
        return made.split()
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    for name, content in made.items() if isinstance(made, dict) else (("", made),):
        file = path / name if name else path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return [str(path)]


def words(command: str, given: Sequence[str], out: Path) -> tuple[list[str], str]:
    """The command line of a command, and its standard input."""
    line: list[str] = []
    for word in command.split():
        line += given if word == "IN" else [str(out)] if word == "OUT" else [] if word == "<IN" else [word]
    return line, given[0] if "<IN" in command else os.devnull


def cost(command: str, given: Sequence[str], out: Path, counted: str) -> float | None:
    """What a command costs, run as a process of its own.

    Parameters
    ----------
    command:
        a command line. In it IN stands for the input, OUT for a file to write, <IN for the input as standard input.
    given:
        the input, as `put` returns it.
    counted:
        "seconds" of processor time; "calls" of functions, Python's and C's; "instructions", by valgrind.

    Returns
    -------
    float or None
        None where the command has nothing to do with such an input, infinity where it takes too long.
    """
    out.unlink(missing_ok=True)
    arguments, stdin = words(command, given, out)
    if counted == "instructions":
        return _instructions(arguments, stdin)
    shared = memoryview(mmap(-1, PAGESIZE)).cast("Q")
    child = os.fork()
    if not child:
        code = 70
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
            os.dup2(os.open(stdin, os.O_RDONLY), 0)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            # Where a test runner had its own in their place.
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, mode) for fd, mode in enumerate(("r", "w", "w")))
            sys.argv = ["migrate", *arguments]
            if counted == "calls":
                _count_calls(shared, arguments)
            else:
                run_command(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1, 3):
        return None if code == 2 else math.inf
    return float(shared[0]) if counted == "calls" else usage.ru_utime + usage.ru_stime


def _count_calls(shared: memoryview, arguments: list[str]) -> None:
    """In memory that a process shares with those that it starts, as a filter does."""

    def note(frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            shared[0] += 1

    sys.setprofile(note)
    try:
        run_command(arguments)
    finally:
        sys.setprofile(None)


def _instructions(arguments: list[str], stdin: str) -> float | None:
    tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}"]
    environment = os.environ | {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    with open(stdin, "rb") as given:
        ended = subprocess.run(
            [*tool, sys.executable, "-m", "migrate", *arguments],
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
        )
    if ended.returncode not in (0, 1, 3):
        return None if ended.returncode == 2 else math.inf
    found = re.findall(rb"Collected : (\d+)", ended.stderr)
    return float(max(map(int, found)))
