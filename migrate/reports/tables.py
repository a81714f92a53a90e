"""Small tables: drawn on a terminal, plain columns elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from migrate.reports.verdict.text import console_for
from migrate.safe import safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rich.console import Console

_NARROW = 100


def print_table(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print rows that have the same keys, the keys as headings; numbers go to the right. By default on stdout."""
    console = console or console_for()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key, value in rows[0].items():
        number = isinstance(value, int)
        # Text may be folded where the window is narrow; numbers and names may not, so their headings are.
        whole = number or not any(" " in str(row[key]) for row in rows)
        heading = safe(key).replace(" ", "\n") if whole and console.width < _NARROW else safe(key)
        table.add_column(heading, justify="right" if number else "left", no_wrap=whole, overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe(str(value))) for value in row.values()))
    console.print(table)
