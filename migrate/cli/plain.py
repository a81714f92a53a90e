"""Plain command lines, which run without click: with its import a check would take half as many instructions again."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from migrate.cli.ending import Exit, UsageError, make_printable, orderly_end
from migrate.cli.settings import settings
from migrate.cli.start import COMPLETE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.cli.declaring import Declared, Line


def plain(name: str, *args: str) -> tuple[Declared, Line | None]:
    """A command of `WITHOUT_CLICK`, and what its line says; None for one that click has to read."""
    module = name.replace("-", "_")
    command: Declared = getattr(import_module(f"migrate.cli.{module}"), module)
    if COMPLETE in os.environ:
        return command, None
    return command, command.plain(args, settings)


def outcome(command: Declared, line: Line) -> int | None:
    """Run a command: its exit code, or None where it is asked what it cannot do, and click has to say so."""
    try:
        return command(line)
    except Exit as end:
        return end.code
    except UsageError as error:
        command.refused(error)
        return None


def run_plainly(name: str, *args: str) -> None:
    """Run a command of `WITHOUT_CLICK` and exit; returns where that is left to click."""
    try:
        with orderly_end():
            command, line = plain(name, *args)
            if line is None:
                return
            make_printable()
            code = outcome(command, line)
    except Exit as end:
        code = end.code
    if code is not None:
        sys.exit(code)
