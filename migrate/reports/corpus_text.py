"""The outcome of a corpus for people: what is not as expected, and how far this validator agrees with real Xen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from migrate.corpus.agreement import Share, Tally, agreement, total
from migrate.corpus.runner import Status
from migrate.reports.safe import safe

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.corpus.outcomes import Difference, Observation
    from migrate.corpus.runner import Comparison, Result

_WORDS = {
    Status.FINE: ("known", "cyan"),
    Status.NEW: ("new", "cyan"),
    Status.HOST: ("host", "yellow"),
    Status.UNJUDGED: ("unjudged", "bold yellow"),
    Status.FAILED: ("failed", "bold red"),
    Status.DIFFERS: ("differs", "bold red"),
}
_WORD_WIDTH = 10
_PLACE_WIDTH = 16
_PLACE_INDENT = " " * 4
_INDENT = " " * (len(_PLACE_INDENT) + _PLACE_WIDTH)


def render(results: Sequence[Result], missing: Sequence[str], console: Console) -> None:
    """Print each stream that is worth a word, then the agreement with real Xen, then the count."""
    for result in results:
        _result(result, console)
    for path in missing:
        _line(console, "missing", "bold red", path, "expected, but not there")
    tallies = agreement(results)
    if tallies:
        console.print(Text("Agreement with real Xen", "bold"))
        console.print(_agreement_table(tallies))
    console.print(Text(_count(results, missing)))


def _result(result: Result, console: Console) -> None:
    status = result.status
    word, style = _WORDS[status]
    if status is Status.FAILED:
        _line(console, word, style, result.case.path, result.answer.error or "")
    elif status is Status.NEW:
        for observation in result.answer.observations:
            _line(console, word, style, result.case.path, _observed(observation))
    elif any(comparison.differences or _disagrees(comparison) for comparison in result.comparisons):
        _line(console, word, style, result.case.path)
        for comparison in result.comparisons:
            _comparison(comparison, console)


def _disagrees(comparison: Comparison) -> bool:
    """Whether it says other than real Xen; giving no verdict is not saying anything."""
    return bool(comparison.from_real) and comparison.observation.outcome.verdict != "unjudged"


def _comparison(comparison: Comparison, console: Console) -> None:
    if not comparison.differences and not _disagrees(comparison):
        return
    lines = [_told(one, "expected") for one in comparison.differences]
    lines += [_told(one, "real Xen") for one in comparison.from_real if one not in comparison.differences]
    if comparison.observation.message:
        lines.append(f"this validator: {_observed(comparison.observation)}")
    measured = comparison.expectation.measured
    if measured is not None:
        lines.append(f"real Xen: {measured.outcome}" + (f": {measured.error}" if measured.error else ""))
        lines += measured.xen_log
    asked = f"{comparison.expectation.target}, {comparison.expectation.placement}"
    for number, line in enumerate(lines):
        head = f"{_PLACE_INDENT}{asked:<{_PLACE_WIDTH}}" if number == 0 else _INDENT
        console.print(Text(head + safe(line)), soft_wrap=True)


def _told(difference: Difference, by: str) -> str:
    return f"{difference.aspect}: {by} {difference.expected}, found {difference.observed}"


def _observed(observation: Observation) -> str:
    rule = f" ({observation.rule})" if observation.rule else ""
    message = f": {observation.message}" if observation.message else ""
    return f"{observation.outcome}{rule}{message}"


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


def _count(results: Sequence[Result], missing: Sequence[str]) -> str:
    statuses = Counter(result.status for result in results)
    expectations = sum(len(result.comparisons) for result in results)
    parts = [f"{statuses[status]} {status.value}" for status in Status if statuses[status]]
    parts += [f"{len(missing)} missing"] if missing else []
    streams = f"{len(results)} stream{'' if len(results) == 1 else 's'}"
    return f"{streams}, {expectations} expectations: {'; '.join(parts)}"
