"""How far a corpus has come, on a terminal: a small table that is drawn anew while streams are judged."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING

from migrate.cli.progress import PATIENCE, REFRESH, wanted
from migrate.corpus.results import Status
from migrate.reports.corpus.sentences import slowest
from migrate.safe import safe

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from migrate.corpus.results import Result

SLOWEST = 3


class LiveTable:
    """Streams done, and the slowest of them.

    Draws only when it is called, and so needs no thread: worker processes may be forked at any time.
    """

    def __init__(self, count: int, quiet: bool) -> None:
        self._count = count
        self._statuses: Counter[Status] = Counter()
        self._slowest: list[Result] = []
        self._started = time.monotonic()
        self._next = self._started + PATIENCE if wanted() and not quiet else float("inf")
        self._live: Live | None = None

    @property
    def done(self) -> int:
        """How many streams are done."""
        return self._statuses.total()

    def add(self, result: Result) -> None:
        """One stream more is done."""
        self._statuses[result.status] += 1
        self._slowest = slowest([*self._slowest, result], SLOWEST)
        self.tick()

    def tick(self) -> None:
        """Draw it again, where it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + REFRESH
        if self._live is None:
            self._live = self._shown()
        self._live.update(self.table(now - self._started), refresh=True)

    def table(self, elapsed: float) -> Table:
        """What is shown after so many seconds."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        done = self.done
        failing = sum(number for status, number in self._statuses.items() if not status.well)
        rate = done / elapsed if elapsed > 0 else 0.0
        left = (self._count - done) / rate if rate else None
        table = Table.grid(padding=(0, 2))
        # A narrow window takes from what is behind the figures.
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column()
        table.add_row(
            "streams", f"{done}/{self._count}", ProgressBar(total=max(self._count, 1), completed=done, width=30)
        )
        table.add_row("failing", Text(str(failing), "bold red" if failing else "green"), "")
        table.add_row("rate", f"{rate:.1f}/s", f"{_clock(elapsed)} gone, {_clock(left)} left")
        for number, result in enumerate(self._slowest):
            name = Text(safe(result.case.path), no_wrap=True, overflow="ellipsis")
            table.add_row("slowest" if number == 0 else "", f"{result.answer.seconds:.2f} s", name)
        return table

    def __enter__(self) -> LiveTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._next = float("inf")
        if self._live is not None:
            self._live.stop()

    def _shown(self) -> Live:
        from rich.live import Live

        from migrate.reports.verdict.text import console_for

        live = Live(
            console=console_for(sys.stderr),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        live.start()
        return live


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
