"""The passes of a live migration over the guest's memory, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from migrate.inspection.memory.resent import live
from migrate.reports.inspection.lines import write_line
from migrate.reports.tables import print_table
from migrate.reports.verdict.sentences import live_sentences

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.inspection.reading import Inspection


def render_rounds(inspection: Inspection, console: Console) -> None:
    """Print the passes over the guest's memory as a table, and what they add up to in sentences."""
    found = live(inspection)
    if not found.passes:
        write_line(console, "no page of the guest's memory is in the stream")
        return
    rows = [
        {
            "pass": number,
            "kind": done.round.kind,
            "pages": done.round.pages,
            "bytes": done.round.bytes,
            "types": ", ".join(f"{name} {pages}" for name, pages in done.types.items()),
        }
        for number, done in enumerate(found.passes)
    ]
    print_table(rows, console)
    console.print()
    for sentence in live_sentences(found):
        write_line(console, "", sentence)


def rounds_object(inspection: Inspection) -> dict[str, Any]:
    """The same as a JSON object."""
    found = live(inspection)
    return {
        "passes": [{**asdict(done.round), "types": done.types} for done in found.passes],
        "times_sent": {str(times): pages for times, pages in found.times_sent.items()},
        "put_off": found.put_off.tolist(),
        "never_came": found.never_came.tolist(),
        "too_sparse": found.too_sparse,
    }
