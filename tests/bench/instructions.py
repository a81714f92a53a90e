"""How many instructions does a command take? They are mostly its start-up."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from tables import Table

from migrate.building.shapes import hvm_guest
from streams.opening import open_transport

sys.path.insert(0, str(Path(__file__).parents[1]))
counted, project = import_module("counted"), import_module("project")

SAMPLE = "x417-pvh.plain.libxc.zst"
PAGES = 4096


def tables(directory: Path, size: int, rounds: int) -> list[Table]:
    """One table, of one run: they are the same in every run. `size` and `rounds` are of no account here."""
    table = Table("Instructions, in millions", ("", "M", "x python -c pass"), key="instructions")
    if counted.VALGRIND is None:
        table.notes.append("valgrind is not here, which counts them")
        return [table]
    few, many = directory / "few.libxc", directory / "many.libxc"
    few.write_bytes(hvm_guest(pages=PAGES).build())
    with open_transport(project.SAMPLES / SAMPLE) as sample:
        many.write_bytes(sample.give(1 << 30))
    count = counted.Counter(directory)
    rows = {
        "python -c pass": count.nothing(),
        "python -c 'import click'": count.python("import click"),
        "migrate --version": count.command("--version"),
        "migrate --help": count.command("--help"),
        "migrate check, 11 records": count.command("check", str(few)),
        "migrate check, 1,027 records": count.command("check", str(many)),
        "migrate verify-stream-v2 -q, 11 records": count.command("verify-stream-v2", "-q", "-i", str(few)),
        "migrate verify-stream-v2 -q, 1,027 records": count.command("verify-stream-v2", "-q", "-i", str(many)),
        "migrate filter, until an HVM stream's first byte is through": count.first_byte(str(few)),
    }
    bare = rows["python -c pass"]
    table.rows += [(name, f"{millions:.0f}", f"{millions / bare:.1f}") for name, millions in rows.items()]
    table.runs = {name: [millions / 1e3] for name, millions in rows.items()}
    return [table]
