"""How far a long check has come, on a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.progress import Progress

# Seconds. What ends sooner shows nothing, and does not import rich for it.
PATIENCE = 0.5
REFRESH = 0.1


class ProgressBar:
    """A bar on stderr, which comes up once the work has taken a while; gone when the work is done."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._next = time.monotonic() + PATIENCE
        self._bar: Progress | None = None

    def __call__(self, position: int, size: int | None) -> None:
        """Take note of a position, in bytes of `size` (None where it cannot be known)."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + REFRESH
        bar = self._bar or self._show()
        bar.update(bar.task_ids[0], completed=position, total=size)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _show(self) -> Progress:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        from migrate.reports.verdict.text import console_for
        from migrate.safe import safe

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TimeRemainingColumn(),
            console=console_for(sys.stderr),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bar.add_task(safe(self.name), total=None)
        self._bar.start()
        return self._bar


def wanted() -> bool:
    """Whether there is somebody to see it."""
    return sys.stderr is not None and sys.stderr.isatty()
