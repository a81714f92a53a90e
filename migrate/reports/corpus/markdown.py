"""The outcome of a corpus as Markdown, as a comment under a pull request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate.corpus.results import Status
from migrate.reports.corpus.sentences import MISSING, WORDS, in_a_line, remarks
from migrate.safe import safe
from streams.counting import count

if TYPE_CHECKING:
    from migrate.corpus.results import Run

# GitHub takes 65536 characters; of what is more the number is given.
MOST_ROWS = 50
LONGEST_CELL = 600
_TICKS = re.compile("`+")

# What people look for first.
_ORDER = (Status.DIFFERS, Status.FAILS, Status.UNJUDGED, Status.FAILED, Status.DEVIATES, Status.HOST, Status.NEW)


def corpus_markdown(run: Run) -> str:
    """The text: the result in a heading, what is not as expected as a table, and the count."""
    lines = [f"### Corpus: {_headline(run)}", "", run.counts(), ""]
    rows = [("missing", path, MISSING) for path in run.missing]
    for status in _ORDER:
        rows += [(WORDS[status], r.case.path, in_a_line(r)) for r in run.results if r.status is status]
    if rows:
        lines += ["| | stream | |", "|---|---|---|"]
        lines += [f"| {word} | {_cell(path)} | {_cell(text)} |" for word, path, text in rows[:MOST_ROWS]]
        lines += [""]
    if len(rows) > MOST_ROWS:
        lines += [f"… and {len(rows) - MOST_ROWS} more", ""]
    lines += [f"- {_code(remark)}" for remark in remarks(run)]
    return "\n".join(lines).rstrip() + "\n"


def _headline(run: Run) -> str:
    differing = sum(result.status in (Status.DIFFERS, Status.FAILS) for result in run.results) + len(run.missing)
    if differing:
        return f"{differing} not as expected"
    if run.undecided:
        return "not all could be judged"
    new = run.unexpected.total()
    return f"nothing differs; nothing is expected of {count(new, 'stream')}" if new else "all as expected"


def _cell(text: str) -> str:
    cut = text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"
    return _code(cut).replace("|", "\\|")


def _code(text: str) -> str:
    """Text that is shown as it is: in a code span there is neither markup nor HTML, and nobody is mentioned."""
    text = safe(text)
    fence = "`" * (max(map(len, _TICKS.findall(text)), default=0) + 1)
    return f"{fence} {text} {fence}" if text.startswith("`") or text.endswith("`") else f"{fence}{text}{fence}"
