"""The examples of the project's papers: what each asks a shell to run, and what it says is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from project import ROOT

PAPERS = [ROOT / name for name in ("README.md", "sample_streams/README.md", "tests/bench/README.md")]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^## ", re.MULTILINE)


class Example(NamedTuple):
    """One command of a paper, and the lines that are printed below it there."""

    command: str
    printed: str


def sections(paper: Path) -> dict[str, list[Example]]:
    """The examples by the heading that they stand below, in their order."""
    found = {}
    for section in SECTION.split(paper.read_text())[1:]:
        heading, body = section.split("\n", 1)
        if examples := [example for block in BLOCK.findall(body) for example in _examples(block)]:
            found[heading] = examples
    return found


def _examples(block: str) -> list[Example]:
    return [Example(*(part + "\n").split("\n", 1)) for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]


def run(command: str, directory: Path) -> str:
    """What a shell prints for a command, on 120 columns and without colours; `migrate` is the code under test."""
    home = directory / ".home"
    home.mkdir(exist_ok=True)
    (home / "migrate").write_text(f'#!/bin/sh\nexec {sys.executable} -m migrate "$@"\n')
    (home / "migrate").chmod(0o755)
    surroundings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MIGRATE_")},
        "PATH": f"{home}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
    ran = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env=surroundings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    return ran.stdout.decode()


def says(printed: str, real: str) -> bool:
    """Whether a paper says what is printed: `...` stands for any lines, `…` for anything in one."""
    pattern = ""
    for line in printed.rstrip().split("\n"):
        if line == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += "[^\n]*".join(re.escape(part.rstrip()) for part in line.split("…")) + r"[ ]*\n"
    return re.fullmatch(pattern, real.rstrip() + "\n") is not None or not printed.strip()
