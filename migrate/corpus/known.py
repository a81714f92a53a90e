"""Deviations that are known: where this validator is not as expected, why, and how long that may stay so.

`known.toml` in a directory holds for the streams there and below; `--known FILE` names another.

    [[known]]
    stream = "oracle/pv32.*"    # pattern of the path's end
    target = "4.20"             # all targets and placements, where these are left out
    placement = "high"
    aspects = ["step"]          # all aspects, where this is left out
    reason = "…"
    expires = 2027-03-01        # the last day; from the next on the difference fails the run again
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from migrate.corpus.filesystems import Files, files_of
from migrate.corpus.toml_reader import Table, read_table
from migrate.destination.placement import NAMES as PLACEMENTS
from migrate.destination.releases import resolve

if TYPE_CHECKING:
    from migrate.corpus.expected_verdict import Difference

KNOWN_NAME = "known.toml"
ASPECTS = ("verdict", "step", "call", "vcpu", "errno", "signal", "rules")


@dataclass(frozen=True, slots=True)
class Deviation:
    """One known deviation; None where it holds whatever that is.

    Attributes
    ----------
    expired:
        whether its last day was over when it was read.
    """

    file: str
    stream: str
    reason: str
    target: str | None = None
    placement: str | None = None
    aspects: tuple[str, ...] | None = None
    expires: date | None = None
    expired: bool = False

    def concerns(self, path: str) -> bool:
        """Whether it speaks of a stream, by the path that it has in its file system."""
        return PurePosixPath(path).match(self.stream)

    def covers(self, target: str, placement: str, differences: Iterable[Difference]) -> bool:
        """Whether all these differences under a target and placement are what it speaks of."""
        if self.target not in (None, target) or self.placement not in (None, placement):
            return False
        return self.aspects is None or all(difference.aspect in self.aspects for difference in differences)


def load_known(named: str, today: date) -> tuple[Deviation, ...]:
    """Read a list of known deviations, of a path or URL.

    Raises
    ------
    ExpectationError
        for a file that cannot be read, or is not as it should be.
    FetchError
        for a URL that cannot be opened.
    """
    files = files_of(named)
    return known_in(files, files.start, today)


def known_in(files: Files, path: str, today: date) -> tuple[Deviation, ...]:
    """The same of a file that was found in a file system."""
    table = read_table(files, path)
    found = tuple(_deviation(table.file, one, today) for one in table.tables("known"))
    table.done()
    return found


def _deviation(file: str, table: Table, today: date) -> Deviation:
    target = None
    if table.has("target"):
        try:
            target = resolve(table.text("target")).short
        except ValueError as error:
            raise table.error("target", str(error)) from None
    expires: date | None = table.take("expires", date, None)
    deviation = Deviation(
        file=file,
        stream=table.text("stream"),
        reason=table.text("reason"),
        target=target,
        placement=table.word("placement", PLACEMENTS) if table.has("placement") else None,
        aspects=_aspects(table),
        expires=expires,
        expired=expires is not None and today > expires,
    )
    for key in ("stream", "reason"):
        if not getattr(deviation, key).strip():
            raise table.error(key, "empty")
    table.done()
    return deviation


def _aspects(table: Table) -> tuple[str, ...] | None:
    words: list[object] | None = table.take("aspects", list, None)
    if words is None:
        return None
    for word in words:
        if word not in ASPECTS:
            raise table.error("aspects", f"expected some of {', '.join(ASPECTS)}, found {word!r}")
    return tuple(str(word) for word in words)
