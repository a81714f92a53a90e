"""What a reader is told has become of a stream, in a word and in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from streams.counting import count

if TYPE_CHECKING:
    from migrate.judging.report import Report


class State(StrEnum):
    """What became of a stream, the worst first: an outcome, or that it could not be read."""

    REFUSED = "refused"
    LOST = "lost"
    DAMAGED = "damaged"
    UNJUDGED = "unjudged"
    RESTORES = "restores"


class Words(NamedTuple):
    """A state as a character, as the head of a page, and after the number of streams of which it holds."""

    sign: str
    head: str
    one: str
    many: str


WORDS = {
    State.REFUSED: Words("✗", "Refused", "refused", "refused"),
    State.LOST: Words("?", "Not readable", "not readable", "not readable"),
    State.DAMAGED: Words("!", "Restores, but damaged", "damaged", "damaged"),
    State.UNJUDGED: Words("?", "Not judged", "not judged", "not judged"),
    State.RESTORES: Words("✓", "Restores", "restores", "restore"),
}


def state_of(report: Report) -> State:
    """What became of a stream that could be read."""
    return State[report.outcome.name]


def headline(states: Iterable[State]) -> str:
    """How many streams there are of each: "8 refused, 1 damaged, 16 restore"."""
    numbers = Counter(states)
    return ", ".join(count(numbers[state], *WORDS[state][2:]) for state in State if numbers[state])
