"""A log, read: its lines, and the failed restores that they tell of.

A log is as long as it is, holds anything, and may still be written to. So it is read in pieces, no more is kept of a
line than a message needs, and of what is found no more than somebody would read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from migrate.rules.messages.declaring import Role, Rules, Voice
from migrate.rules.messages.known import Sighting, recognise

# Longer than any message with what loggers put before it.
LONGEST_LINE = 4096
# More lines of one failure say nothing new.
MOST_LINES = 24
# Failures of several domains whose lines come mixed; more at a time are taken for over.
MOST_OPEN = 8
# More different failures than anybody reads; of older ones it is counted how many they were.
MOST_FAILURES = 100

_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Xen's mark of a line's urgency; in the middle of one, the line before has lost its end.
_MARK = re.compile(r"(?:<G>)?<\d>|<G>")
# libxc gives up at its first complaint, and so do these: a second one is of another restore.
_SINGLE = frozenset({Voice.LIBXC, Voice.LIBXL, Voice.XL, Voice.LIBVIRT, Voice.XENOPSD})


def lines(pieces: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """Lines of a log, numbered from 1, without control sequences.

    Of a line longer than `LONGEST_LINE` bytes only the beginning is given; bytes that are no UTF-8 become U+FFFD.
    """
    number, kept = 1, b""
    for piece in pieces:
        first, *others = piece.split(b"\n")
        kept += first[: LONGEST_LINE - len(kept)]
        for other in others:
            yield from ((number, text) for text in _texts(kept))
            number += 1
            kept = other[:LONGEST_LINE]
    if kept:
        yield from ((number, text) for text in _texts(kept))


def _texts(line: bytes) -> Iterator[str]:
    text = _CONTROL.sub(" ", _SEQUENCE.sub("", line.decode("utf-8", "replace")))
    yield from (part.strip() for part in _MARK.split(text) if part.strip())


@dataclass
class Failure:
    """A restore that failed, by the lines that tell of it.

    Attributes
    ----------
    sightings:
        the first `MOST_LINES` lines that tell of it.
    rules:
        ids of the rules that all these lines allow, the likeliest first; empty where none is to blame.
    telling:
        the line that leaves least to choose from; None where no line names a cause.
    release:
        the destination's Xen, if the log names it.
    times:
        how often it is in the log.
    domain:
        the number of the new domain, if a line has it.
    last:
        the last line that tells of it.
    """

    sightings: list[Sighting] = field(default_factory=list)
    rules: Rules = ()
    telling: Sighting | None = None
    release: str | None = None
    times: int = 1
    domain: str | None = None
    last: int = 0
    _voices: set[Voice] = field(default_factory=set)

    @property
    def kind(self) -> tuple[object, ...]:
        """What two failures have in common that are the same over again."""
        says = (sighting.message.says for sighting in self.sightings if sighting.role is Role.CAUSE)
        return (self.rules, *dict.fromkeys(says))

    def belongs(self, sighting: Sighting) -> bool:
        """Whether a line can be of this failure."""
        domain = sighting.facts.get("domain")
        if None not in (domain, self.domain) and domain != self.domain:
            return False
        if sighting.role is Role.CAUSE and sighting.voice in _SINGLE and sighting.voice in self._voices:
            return False
        if not sighting.rules:
            return sighting.role is Role.CONSEQUENCE or self.telling is None
        if sighting.role is Role.HINT:
            return bool(set(self.rules) & set(sighting.rules))
        return self.telling is None or not self.rules or bool(set(self.rules) & set(sighting.rules))

    def add(self, sighting: Sighting) -> None:
        """Take a line that belongs to it."""
        self.last = sighting.line
        if len(self.sightings) < MOST_LINES:
            self.sightings.append(sighting)
        self.domain = self.domain or sighting.facts.get("domain")
        if sighting.role is Role.CAUSE:
            self._voices.add(sighting.voice)
        if sighting.role is Role.CONSEQUENCE and not sighting.rules:
            return
        if self.telling is None or (sighting.rules and not self.rules):
            self.telling, self.rules = sighting, sighting.rules
        elif sighting.rules:
            fewer, more = sorted((self.rules, sighting.rules), key=len)
            self.rules = tuple(rule for rule in fewer if rule in more)
            if len(sighting.rules) < len(self.telling.rules):
                self.telling = sighting


@dataclass
class Log:
    """What a log tells.

    Attributes
    ----------
    lines:
        how many lines it has.
    recognised:
        how many of them are known messages of a failure.
    failures:
        the different failures, in the order of their last occurrence.
    more:
        how many failures were left out, older than the last `MOST_FAILURES` that differ.
    """

    lines: int = 0
    recognised: int = 0
    failures: list[Failure] = field(default_factory=list)
    more: int = 0


class _Reading:
    """Failures as they are found, line by line."""

    def __init__(self) -> None:
        self.open: list[Failure] = []
        self.found: dict[tuple[object, ...], Failure] = {}
        self.more = 0
        self.hint: Sighting | None = None
        self.release: str | None = None

    def take(self, sighting: Sighting) -> None:
        """Add a line to the failure that it belongs to, or to a new one."""
        if sighting.role is Role.START:
            self.close(0)
            return
        if sighting.role is Role.HINT and not (self.open and self.open[-1].belongs(sighting)):
            self.hint = sighting  # the console is often faster than the toolstack
            return
        failure = self._home(sighting)
        if self.hint and not failure.sightings and set(self.hint.rules) & set(sighting.rules):
            failure.add(self.hint)
            self.hint = None
        failure.release = failure.release or self.release
        failure.add(sighting)

    def _home(self, sighting: Sighting) -> Failure:
        domain = sighting.facts.get("domain")
        for failure in reversed(self.open):
            # Only a domain's number tells that a line is of another failure than the last.
            if failure.belongs(sighting) and (failure is self.open[-1] or failure.domain == domain is not None):
                return failure
        self.close(MOST_OPEN - 1)
        self.open.append(Failure())
        return self.open[-1]

    def close(self, left: int) -> None:
        """Let nothing more be added to all but some failures."""
        while len(self.open) > left:
            failure = self.open.pop(0)
            before = self.found.pop(failure.kind, None)
            failure.times += before.times if before else 0
            self.found[failure.kind] = failure
            if len(self.found) > MOST_FAILURES:
                self.more += self.found.pop(next(iter(self.found))).times


def read(pieces: Iterable[bytes]) -> Log:
    """Read a log, given piece by piece, to its end."""
    log, reading = Log(), _Reading()
    for number, text in lines(pieces):
        log.lines = number
        sighting = recognise(text, number)
        if sighting is not None:
            log.recognised += sighting.role not in (Role.START, Role.FACT)
            if sighting.role is Role.FACT:
                reading.release = sighting.facts.get("release")
            else:
                reading.take(sighting)
    if reading.hint and not (reading.open or reading.found):
        reading.open.append(Failure())
        reading.open[-1].add(reading.hint)
    reading.close(0)
    log.failures = sorted(reading.found.values(), key=lambda failure: failure.last)
    log.more = reading.more
    return log
