"""Lines on a console that begin with a head; what does not fit hangs beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.text import Text

from migrate.reports.verdict.text import hanging
from migrate.safe import safe

if TYPE_CHECKING:
    from rich.console import Console

INDENT = "    "


def line_writer(console: Console) -> Callable[[str, str, str], None]:
    """What prints a line of head and body, the body wrapped beside the head on a terminal, in a style for the head."""
    if console.is_terminal:
        return lambda head, body, style: hanging(console, Text(safe(head), style), safe(body))
    # Many thousands of lines may come: the console would take its time for each.
    return lambda head, body, style: print(safe(f"{head}{body}").rstrip(), file=console.file)


def write_line(console: Console, head: str, body: str = "", style: str = "") -> None:
    """One such line."""
    line_writer(console)(head, body, style)
