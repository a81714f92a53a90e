"""What a command costs in instructions, which a busy machine leaves alone: as valgrind's callgrind counts them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from project import ROOT

VALGRIND = shutil.which("valgrind")
_MILLION = 1e6
_COMMAND = "import sys; sys.argv[0] = 'migrate'; from migrate.cli.start import main; main()"
# All in one process, which ends where the judge would begin: what was there of an HVM guest's stream has gone on.
_EARLY = f"""
import os, sys

class Ending:
    def find_spec(self, name, path=None, target=None):
        if name == "migrate.judging":
            os._exit(0)

sys.meta_path.insert(0, Ending())
os.fork = lambda: 0
{_COMMAND}
"""


class Counter:
    """Counts in a directory where it has compiled modules to itself.

    Attributes
    ----------
    printed:
        what was on standard output last.
    """

    printed = b""

    def __init__(self, directory: Path) -> None:
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": "0",
            "PYTHONPYCACHEPREFIX": str(directory / "compiled"),
        }

    def python(self, code: str, *words: str, source: str = os.devnull) -> float:
        """Millions of instructions of an interpreter that runs some code, its modules being compiled already.

        Parameters
        ----------
        source:
            the file that is standard input.
        """
        assert VALGRIND is not None
        command = [sys.executable, "-c", code, *words]
        captured = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        counting = [VALGRIND, "--tool=callgrind", "--callgrind-out-file=/dev/null", *command]
        for run in (command, counting):
            with open(source, "rb") as stdin:
                done = subprocess.run(run, env=self._environment, stdin=stdin, **captured, check=False)
        self.printed = done.stdout
        (line,) = (line for line in done.stderr.decode().splitlines() if "Collected" in line)
        return int(line.split(":")[1]) / _MILLION

    def nothing(self) -> float:
        """Those of an interpreter that does nothing."""
        return self.python("pass")

    def command(self, *words: str) -> float:
        """Those of a command."""
        return self.python(_COMMAND, *words)

    def first_byte(self, stream: str) -> float:
        """Those of a filter until the first bytes of a stream have gone on. Raises RuntimeError if none have."""
        millions = self.python(_EARLY, "filter", "--quiet", source=stream)
        if not self.printed:
            raise RuntimeError(f"nothing of {stream} goes on before the judge is there")
        return millions
