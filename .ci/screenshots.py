"""Makes the picture of README.md from real runs: python .ci/screenshots.py (needs the package installed)."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from migrate import check
from migrate.reports.verdict import text

HERE = Path(__file__).parents[1]
SAMPLE = "sample_streams/x417-pv32.plain.libxc.zst"
QUESTION = {"target": "4.20", "placement": "high"}
COLUMNS = 100


def check_picture(console: Console) -> None:
    """A guest that its next host would refuse."""
    report = check(HERE / SAMPLE, **QUESTION, select=["HYP-22"])
    report.stream.name = SAMPLE
    text.render(report, console)


PICTURES: dict[str, tuple[str, Callable[[Console], None]]] = {
    "check.svg": (f"migrate check {SAMPLE} --target 4.20 --placement high --select HYP-22", check_picture),
}


def svg(name: str) -> str:
    """One picture: what a terminal of COLUMNS columns would show."""
    command, draw = PICTURES[name]
    file = io.StringIO()
    console = Console(
        file=file, record=True, width=COLUMNS, force_terminal=True, highlight=False, markup=False, emoji=False
    )
    draw(console)
    made = console.export_svg(title=command, unique_id=name.removesuffix(".svg"))
    # No web fonts: a picture loads nothing.
    return re.sub(r"\s*@font-face \{.*?\}", "", made, flags=re.DOTALL)


if __name__ == "__main__":
    for name in PICTURES:
        (HERE / ".readme" / name).write_text(svg(name))
