"""`migrate corpus`: streams together with what is expected of them."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import click

from migrate.cli import Ending, complain
from migrate.cli.progress import PATIENCE, wanted
from migrate.cli.scrub import scrub
from migrate.cli.shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.progress import Progress

    from migrate.corpus.runner import Result


@click.group()
def corpus() -> None:
    """Work with many streams and what is expected of them."""


corpus.add_command(shrink)
corpus.add_command(scrub)


@corpus.command(
    epilog="Exit code: 0 all as expected, or new; 1 something differs, or a stream is missing; 2 wrong usage, or "
    "an expectation file that cannot be used; 3 nothing differs, but a stream could not be judged."
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--jobs", "-j", metavar="N", type=click.IntRange(min=1), help="Streams judged at a time; by default, one per core."
)
@click.pass_context
def run(ctx: click.Context, paths: tuple[str, ...], jobs: int | None) -> None:
    """Judge streams, and compare with what is expected of them and with what real Xen did.

    PATH is a stream, a directory (with all below it) or a pattern. What is expected stands beside a stream in
    NAME.expect.toml, or in one expect.toml for all streams of a directory.
    """
    from migrate.corpus.discovery import discover
    from migrate.corpus.expectations import ExpectationError
    from migrate.corpus.runner import run as run_cases
    from migrate.reports.corpus_text import render
    from migrate.reports.text import console_for

    try:
        found = discover(paths)
    except FileNotFoundError as error:
        raise click.UsageError(f"no such file or directory: {error}") from None
    except ExpectationError as error:
        complain(str(error), error)
        ctx.exit(Ending.FAILED)
    if not found.cases and not found.missing:
        raise click.UsageError("there is no stream in " + ", ".join(paths))

    with _executor(min(jobs or _cores(), len(found.cases))) as executor, _Bar(len(found.cases)) as bar:
        results = run_cases(found.cases, executor, bar.advance)
    render(results, found.missing, console_for())
    ctx.exit(ending_of(results, found.missing))


def ending_of(results: Sequence[Result], missing: Sequence[str]) -> Ending:
    """The exit code that the results make."""
    from migrate.corpus.runner import Status

    statuses = {result.status for result in results}
    if missing or Status.DIFFERS in statuses:
        return Ending.FOUND
    return Ending.UNJUDGED if statuses & {Status.UNJUDGED, Status.FAILED} else Ending.FINE


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _executor(workers: int) -> Executor:
    if workers <= 1:
        from migrate.corpus.runner import InProcess

        return InProcess()
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(workers, initializer=_leave_interrupts_to_the_parent)


def _leave_interrupts_to_the_parent() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Bar:
    """Streams done, on a terminal.

    Comes up once the work has taken a while, and so after all workers are there: forking with a refreshing
    thread about is asking for trouble.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._done = 0
        self._show_from = time.monotonic() + PATIENCE if wanted() else float("inf")
        self._bar: Progress | None = None
        self._lock = threading.Lock()

    def advance(self) -> None:
        """One stream more is done. May be called from any thread."""
        with self._lock:
            self._done += 1
            if self._bar is None and time.monotonic() >= self._show_from:
                self._bar = self._shown()
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=self._done)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._show_from = float("inf")
            if self._bar is not None:
                self._bar.stop()

    def _shown(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        bar.add_task("streams", total=self._count)
        bar.start()
        return bar
