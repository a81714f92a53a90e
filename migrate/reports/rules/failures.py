"""What a log tells of failed restores: as data, with the commands that would confirm it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from migrate.destination.releases import resolve
from migrate.reports.rules.pages import document_head
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect

if TYPE_CHECKING:
    from migrate.rules.messages.known import Sighting
    from migrate.rules.messages.log import Failure, Log

# More rules than that are no answer.
MOST_RULES = 3
STREAM = "STREAM"

# What `check` has to be told for it to come to such a verdict.
_OPTIONS = {
    "REC-52": ("--vcpus", "N"),
    "HVM-02": ("--vcpus", "N"),
}
_OF_HOST = frozenset({"HVM-05", "HYP-30", "HYP-31", "REC-74", "REC-106", "HVM-20"})


def candidates(failure: Failure) -> tuple[str, ...]:
    """Ids of the rules that are named for a failure: the likeliest `MOST_RULES`."""
    return failure.rules[:MOST_RULES]


def confirm_commands(failure: Failure) -> list[tuple[str, ...]]:
    """Command lines that would show whether it is so, if the stream is still there; in them STREAM stands for it."""
    if not failure.rules:
        return []
    rules = candidates(failure)
    options = dict(_OPTIONS[rule] for rule in rules if rule in _OPTIONS)
    if any(RULES[rule].effect is Effect.HOST or rule in _OF_HOST for rule in rules):
        options["--host"] = "HOST"
    words = (word for option in options.items() for word in option)
    check = ("migrate", "check", STREAM, "--target", _target(failure.release), *words)
    look = failure.telling.look if failure.telling else ""
    return [check, *([("migrate", *look.split())] if look else [])]


def _target(release: str | None) -> str:
    """The destination's release as --target takes it; a word in its place where the log does not name one."""
    if release is None:
        return "RELEASE"
    number = re.match(r"\d+\.\d+(?:\.\d+)?", release)
    try:
        return resolve(number[0]).short if number else "RELEASE"
    except ValueError:
        return "RELEASE"


def decides(failure: Failure) -> str:
    """What tells the named rules apart; empty where there is one."""
    return failure.telling.message.decides if failure.telling and len(failure.rules) != 1 else ""


def log_object(log: Log, name: str) -> dict[str, Any]:
    """The JSON object of `migrate explain --log`; the last failure comes first."""
    return {
        **document_head(),
        "log": name,
        "lines": log.lines,
        "recognised": log.recognised,
        "failures": [_failure(failure) for failure in reversed(log.failures)],
        "left_out": log.more,
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "rules": [{"id": id, "slug": RULES[id].slug, "title": RULES[id].title} for id in candidates(failure)],
        "less_likely": list(failure.rules[MOST_RULES:]),
        "decides": decides(failure) or None,
        "confirm": [list(command) for command in confirm_commands(failure)],
        "times": failure.times,
        "xen": failure.release,
        "lines": [_line(sighting) for sighting in failure.sightings],
    }


def _line(sighting: Sighting) -> dict[str, Any]:
    return {
        "line": sighting.line,
        "text": sighting.text,
        "by": sighting.voice.value,
        "role": sighting.role.value,
        "doing": sighting.doing,
        "fields": dict(sighting.facts),
        "rules": list(sighting.rules),
    }
