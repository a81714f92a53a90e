"""What a log tells of failed restores: for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from migrate.reports.rules.commands import explain_command
from migrate.reports.rules.failures import MOST_RULES, candidates, confirm_commands, decides
from migrate.reports.verdict.text import hanging
from migrate.rules.catalogue import RULES
from migrate.rules.messages.declaring import Role
from migrate.safe import safe
from streams.counting import count

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.rules.messages.known import Sighting
    from migrate.rules.messages.log import Failure, Log

_WIDTH = 100
_KEY_WIDTH = 10
_LONGEST = 300  # characters of a line of the log
# Failures that are told in full; of a log of years nobody reads all.
_MOST_TOLD = 12


def render_log(log: Log, name: str, console: Console) -> None:
    """Print all failures of a log, the last one first."""
    failures = list(reversed(log.failures))
    failed = (
        "1 restore that failed" if len(failures) == 1 else f"{len(failures)} kinds of failed restores, the last first"
    )
    hanging(
        console, Text(), f"{safe(name)}: {failed}; {count(log.recognised, 'message')} in {count(log.lines, 'line')}"
    )
    for failure in failures[:_MOST_TOLD]:
        console.print()
        _render(failure, console)
    left = len(failures[_MOST_TOLD:]) + log.more
    if left:
        console.print()
        hanging(console, Text(), f"{left} more before these: --format json has them", width=_WIDTH)


def render_message(log: Log, console: Console) -> None:
    """Print what a message means that was given by itself."""
    for number, failure in enumerate(log.failures):
        if number:
            console.print()
        _render(failure, console)


def _render(failure: Failure, console: Console) -> None:
    named = [RULES[id] for id in candidates(failure)]
    for rule in named:
        hanging(console, Text(f"{rule.id:<{_KEY_WIDTH}}", "bold"), f"{rule.title} ({rule.slug})", width=_WIDTH)
    if not failure.rules:
        known = failure.telling is not None
        none = "No rule: nothing is said against the stream." if known else "No line here names the cause."
        hanging(console, Text(), none, "bold", width=_WIDTH)
    if failure.times > 1:
        _fact(console, "times", f"{failure.times}; these are the lines of the last time")
    for sighting in failure.sightings:
        _line(sighting, console, matters=sighting.role is Role.CAUSE or failure.telling is None)
    if text := decides(failure):
        _fact(console, "decides", text)
    if less_likely := failure.rules[MOST_RULES:]:
        _fact(console, "also", f"{count(len(less_likely), 'that is', 'that are')} less likely; --format json has them")
    if len(named) == 1 and named[0].repair:
        _fact(console, "repair", f"{named[0].repair}.")
    for key, command in zip(("confirm", ""), confirm_commands(failure), strict=False):
        _fact(console, key, " ".join(command), "cyan")
    if named:
        _fact(console, "more", " ".join(explain_command(named[0])), "cyan")


def _line(sighting: Sighting, console: Console, *, matters: bool) -> None:
    """Print a line of the log, and what was going on if that matters."""
    text = safe(sighting.text)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    _fact(console, f"line {sighting.line}", text, "dim")
    if matters:
        errno = f": {sighting.facts.errno}" if sighting.facts.errno else ""
        _fact(console, "", safe(f"{sighting.doing}{errno}."))


def _fact(console: Console, key: str, value: str, style: str = "") -> None:
    hanging(console, Text(f"{key:<{_KEY_WIDTH}}", "bold"), value, style, width=_WIDTH)
