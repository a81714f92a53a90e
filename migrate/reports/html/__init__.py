"""The report as one HTML document that needs nothing else: no network, no script to read it, no colour to tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from migrate.reports.html.document import render
from migrate.reports.html.explanations import explanations
from migrate.reports.html.section import Section, lost_section, section
from migrate.rules.catalogue import RULES


def write(sections: Sequence[Section], out: IO[bytes]) -> int:
    """Write the document that some sections make; returns its size in bytes."""
    told = explanations(frozenset[str]().union(*(one.rules for one in sections)))
    size = 0
    for piece in render(sections, told, len(RULES) - len(told)):
        size += out.write(piece.encode())
    return size


__all__ = ["Section", "lost_section", "section", "write"]
