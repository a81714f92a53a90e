"""The outcome of a corpus for people: what is not as expected, and how far this validator agrees with real Xen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from migrate.corpus.agreement import Share, Tally, agreement, total
from migrate.corpus.expected_verdict import UNJUDGED
from migrate.corpus.results import Status
from migrate.reports.corpus.sentences import MISSING, WORDS, asked, details, disagrees, observed, remarks, worth_a_word
from migrate.safe import safe

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.corpus.results import Comparison, Result, Run

_STYLES = {
    Status.FINE: "cyan",
    Status.NEW: "cyan",
    Status.HOST: "yellow",
    Status.DEVIATES: "yellow",
    Status.UNJUDGED: "bold yellow",
    Status.FAILED: "bold red",
    Status.FAILS: "bold red",
    Status.DIFFERS: "bold red",
}
_WORD_WIDTH = 10
_PLACE_WIDTH = 16
_PLACE_INDENT = " " * 4
_INDENT = " " * (len(_PLACE_INDENT) + _PLACE_WIDTH)


def render(run: Run, console: Console) -> None:
    """Print each stream that is worth a word, then the agreement with real Xen, then the count."""
    for result in run.results:
        if worth_a_word(result):
            _result(result, console)
    for path in run.missing:
        _line(console, "missing", "bold red", path, MISSING)
    tallies = agreement(run.results)
    if tallies:
        console.print(Text("Agreement with real Xen", "bold"))
        console.print(_agreement_table(tallies))
    for remark in remarks(run):
        console.print(Text(safe(remark), "yellow"), soft_wrap=True)
    console.print(Text(run.counts()))


def _result(result: Result, console: Console) -> None:
    word, style, path = WORDS[result.status], _STYLES[result.status], result.case.path
    if result.answer.error is not None:
        _line(console, word, style, path, result.answer.error)
    elif result.case.entry is None:
        for observation in result.answer.observations:
            why = observation.message if observation.outcome.verdict == UNJUDGED else None  # which the word says
            _line(console, word, style, path, why or observed(observation))
    else:
        _line(console, word, style, path)
        for comparison in result.comparisons:
            if comparison.differences or disagrees(comparison):
                _comparison(result, comparison, console)


def _comparison(result: Result, comparison: Comparison, console: Console) -> None:
    for number, line in enumerate(details(result, comparison)):
        head = f"{_PLACE_INDENT}{asked(comparison):<{_PLACE_WIDTH}}" if number == 0 else _INDENT
        console.print(Text(head + safe(line)), soft_wrap=True)


def _line(console: Console, word: str, style: str, path: str, text: str = "") -> None:
    line = Text(f"{word:<{_WORD_WIDTH}}", style)
    line.append(safe(path) + (f": {safe(text)}" if text else ""), "")
    console.print(line, soft_wrap=True)


def _agreement_table(tallies: dict[str, Tally]) -> Table:
    table = Table(box=box.SIMPLE, show_footer=True)
    everything = total(tallies)
    table.add_column("damaged layer", "all")
    for head, cell in zip(_HEADS, _cells(everything), strict=True):
        table.add_column(head, cell, justify="right")
    for layer, tally in tallies.items():
        table.add_row(Text(safe(layer)), *_cells(tally))
    return table


_HEADS = ("streams", "same verdict", "same step", "same errno", "not judged")


def _cells(tally: Tally) -> tuple[str, ...]:
    shares = (tally.verdict_share, tally.step_share, tally.errno_share)
    return (str(tally.streams), *map(_share, shares), str(tally.unjudged or ""))


def _share(share: Share) -> str:
    return f"{share.same}/{share.of}" if share.of else ""
