"""Pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_SPECIAL = re.compile(r"([\\`*_<>\[\]|#&~])")
_CODE = re.compile(r"(`[^`]+`)")


def escaped(text: str) -> str:
    """Text in which only `code` keeps its meaning."""
    return "".join(part if i % 2 else _SPECIAL.sub(r"\\\1", part) for i, part in enumerate(_CODE.split(text)))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table; nothing in the cells is escaped."""
    for row in (headings, ["---"] * len(headings), *rows):
        yield f"| {' | '.join(row)} |"
