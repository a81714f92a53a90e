"""The streams that are measured, and the command that is: files made by the synthesiser and read once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PIECE = 1 << 20


def stream_file(directory: Path, kind: str, size: int, *, table_share: float = 0.02, seed: int = 0) -> str:
    """Path of a warm stream of a guest with `size` bytes of memory; its zero pages are holes of the file."""
    path = directory / f"{kind}-{size}-{table_share}-{seed}.libxc"
    if not path.exists():
        command = [sys.executable, "-m", "migrate.building.big_streams", str(path), "--sparse", "--kind", kind]
        command += ["--size", str(size), "--table-share", str(table_share), "--seed", str(seed)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    _warm(path)
    return str(path)


def _warm(path: Path) -> None:
    """Have the whole file in the page cache."""
    buffer = bytearray(PIECE)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def budget(size: int, share: float, mebibytes: int) -> int:
    """A memory budget in bytes: a share of the guest's memory, and a constant."""
    return int(size * share) + (mebibytes << 20)


def gib(size: int) -> str:
    """A size, for a title."""
    return f"{size / (1 << 30):g} GiB"


def migrate() -> list[str]:
    """The installed command that belongs to this interpreter."""
    script = Path(sys.executable).with_name("migrate")
    return [os.fspath(script)] if script.exists() else [sys.executable, "-m", "migrate"]
