"""`migrate filter`: in a pipe between sender and receiver."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from migrate.cli import suggestions
from migrate.cli.ending import ExitCode, complain
from migrate.cli.options import placement_option, target_option, vcpus_option
from migrate.cli.output import is_same
from migrate.destination.destination import Destination

if TYPE_CHECKING:
    from migrate.judging.pipe_filter import Filter, FilterResult

STDIN, STDOUT, STDERR = 0, 1, 2
OWN_FAILURE = 4


class _Terminated(BaseException):
    """SIGTERM or SIGINT arrived."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@click.command(
    epilog="Exit code: as of check (0, 1, 2, 3), with --guard 1 where the stream was stopped and 3 where the guard "
    "stood down; 4 the filter itself failed (the stream went on, or with --guard was stopped); 130 and 143 it was "
    "told to end; 141 the receiver closed the pipe."
)
@click.option(
    "--guard", is_flag=True, help="Hold the END record back until the replay has passed; stop a doomed stream."
)
@target_option()
@placement_option
@vcpus_option
@click.option(
    "--select",
    metavar="RULES",
    multiple=True,
    shell_complete=suggestions.several_rules,
    help="Report these rules only, as in check.",
)
@click.option(
    "--ignore",
    metavar="RULES",
    multiple=True,
    shell_complete=suggestions.several_rules,
    help="Do not report these rules.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning"]),
    help="Least severity that makes the exit code 1 (default error). With --guard, findings of the severity named here "
    "also stop the stream; unless it is named, only a refusal does.",
)
@click.option("--report", "report_file", metavar="FILE", type=click.Path(dir_okay=False), help="Write the report here.")
@click.option("--report-fd", metavar="N", type=click.IntRange(min=2), help="Write the report to this descriptor.")
@click.option("--format", "form", type=click.Choice(["json", "jsonl"]), default="json", show_default=True)
@click.option(
    "--stats", "stats_file", metavar="FILE", type=click.Path(dir_okay=False), help="Write figures here, as JSON."
)
@click.option("--progress", is_flag=True, help="Show on stderr where the stream is; SIGUSR1 shows it once.")
@click.option("--quiet", "-q", is_flag=True, help="No findings and no verdict on stderr: only what stopped, or failed.")
@click.pass_context
def filter(
    ctx: click.Context,
    guard: bool,
    target: str,
    placement: str,
    vcpus: int | None,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: str | None,
    report_file: str | None,
    report_fd: int | None,
    form: str,
    stats_file: str | None,
    progress: bool,
    quiet: bool,
) -> None:
    """Pass a migration stream from stdin to stdout, unaltered, and judge it on the way.

    \b
    In a migration: xl migrate -s '' DOM 'migrate filter --guard | ssh HOST xl migrate-receive'
    Example: migrate filter --guard --target 4.20 < guest.libxc > passed.libxc
    """
    from migrate.judging.pipe_filter import Filter, Mode
    from migrate.rules.declaring import Severity
    from migrate.rules.selection import Selection
    from streams.forwarding import ForwardingTransport

    _need_descriptors(report_fd)
    for file in (report_file, stats_file):
        if file is not None and (is_same(file, STDIN) or is_same(file, STDOUT)):
            raise click.UsageError(f"{file} is where the stream comes from or goes to")
    try:
        running = Filter(
            ForwardingTransport(STDIN, STDOUT, hold=guard),
            mode=Mode.GUARD if guard else Mode.OBSERVE,
            destination=Destination(target, placement, vcpus=vcpus),
            selection=Selection(select, ignore),
            fail_on=Severity(fail_on) if fail_on else None,
            tell=_say,
        )
        _need_map(placement)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    code, why = _forward(running, progress)
    # Closed before all that takes time: the receiver need not wait for the report.
    try:
        os.close(STDOUT)
    except OSError as error:  # what a network file system has to say of earlier writes
        _say(f"closing standard output: {error.strerror or error}", error)
        code = ExitCode.FAILED if code is None else code
    outcome = running.outcome(why)
    written = _write_report(outcome, report_file, report_fd, form)
    if stats_file is not None:
        from migrate.judging.report_json import dumps

        written &= _write(stats_file, dumps(asdict(outcome.stats)))
    if not quiet and report_file is None and report_fd is None:
        from migrate.reports.verdict.sentences import plain_lines

        for line in plain_lines(outcome.report, Severity.WARNING):
            _say(line)
    if code is None:
        code = _ending(outcome, fail_on or "error")
    _leave(ctx, code if written or code != ExitCode.FINE else ExitCode.FAILED)


def _need_descriptors(report_fd: int | None) -> None:
    """What is not open now is given to the next file that is opened: the stream must never be written to that."""
    for fd, name, opened in (
        (STDIN, "standard input", sys.stdin),
        (STDOUT, "standard output", sys.stdout),
        (report_fd, f"--report-fd {report_fd}", ...),
    ):
        if fd is not None:
            try:
                os.fstat(fd)
            except OSError:
                opened = None
            if opened is None:
                raise click.UsageError(f"{name} is not open")


def _need_map(placement: str) -> None:
    """Read a map of frames before the stream flows: at its end it is too late to say that there is none."""
    from migrate.destination.placement import FILE_PREFIX, place

    if placement.startswith(FILE_PREFIX):
        from migrate.guest.memory import PvGuest
        from migrate.guest.pages import PageStore

        try:
            place(placement, PvGuest(PageStore(None, rereads=False)))
        except OSError as error:
            raise click.UsageError(f"{placement}: {error.strerror or error}") from error


def _forward(running: Filter, progress: bool) -> tuple[int | None, str | None]:
    """Forward to the end: the exit code and the reason where it comes too early, else None."""
    from streams.forwarding import OutputError
    from streams.transports import TransportError

    try:
        try:
            _take_signals(running)
            with _watching(running, wanted=progress):
                running.forward()
        finally:
            _end_signals()
    except BrokenPipeError:
        return ExitCode.BROKEN_PIPE, "the receiver closed the pipe"
    except (OutputError, TransportError) as error:
        _say(str(error), error)
        return ExitCode.FAILED, str(error)
    except _Terminated as ended:
        return ended.code, f"the filter was told to end ({signal.Signals(ended.code - 128).name})"
    return None, None


def _ending(outcome: FilterResult, fail_on: str) -> int:
    if outcome.failure is not None:
        return OWN_FAILURE
    if outcome.stopped is not None:
        return ExitCode.FOUND
    if outcome.stood_down is not None:
        return ExitCode.UNJUDGED  # the stream has passed whole, whatever is wrong with it
    from migrate.cli.check import ending_of

    return ending_of(outcome.report, fail_on)


def _write_report(outcome: FilterResult, file: str | None, fd: int | None, form: str) -> bool:
    if file is None and fd is None:
        return True
    from migrate.judging.report_json import dumps

    found = outcome.report.to_dict() | {"stopped": outcome.stopped, "stood_down": outcome.stood_down}
    text = dumps(found, indent=2 if form == "json" else None)
    written = True
    if file is not None:
        written &= _write(file, text)
    if fd is not None:
        try:
            with os.fdopen(fd, "w", encoding="utf-8", closefd=False) as output:
                output.write(text + "\n")
        except OSError as error:
            _say(f"report descriptor {fd}: {error.strerror or error}", error)
            written = False
    return written


def _write(path: str, text: str) -> bool:
    try:
        Path(path).write_text(text + "\n", "utf-8")
    except OSError as error:
        _say(f"{path}: {error.strerror or error}", error)
        return False
    return True


def _say(message: str, error: Exception | None = None) -> None:
    # Whoever reads stderr may be gone, or its file system full: that must not disturb the stream.
    with suppress(OSError, ValueError):
        complain(message, error)


def _leave(ctx: click.Context, code: int) -> NoReturn:
    # What is left in a buffer would fail again when Python exits, and change the exit code.
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):
        sys.stderr = None
    sys.stdout = None
    ctx.exit(code)


# -- signals and progress -------------------------------------------------------------------------------


def _take_signals(running: Filter) -> None:
    def end(number: int, frame: FrameType | None) -> None:
        # `timeout` sends its signal twice.
        _end_signals()
        running.interrupt(_Terminated(128 + number))

    signal.signal(signal.SIGUSR1, lambda number, frame: _show_status(running))
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


def _end_signals() -> None:
    """From now on the command ends on its own, and in order."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _show_status(running: Filter) -> None:
    # Past sys.stderr, whose buffer the interrupted code may be in the middle of.
    if sys.stderr is not None:
        with suppress(OSError):
            os.write(STDERR, f"migrate: {_status_line(running)}\n".encode())


def _status_line(running: Filter) -> str:
    status = running.status()
    return (
        f"{status['bytes'] / 2**20:.1f} MiB, {status['rate'] / 2**20:.1f} MiB/s, round {status['round']} "
        f"({status['dirty']} pages), {status['findings']} findings"
    )


class _watching:
    """Show progress on stderr until the end: a bar on a terminal, a line a second elsewhere."""

    def __init__(self, running: Filter, *, wanted: bool) -> None:
        self._running = running
        self._wanted = wanted
        self._live: Any = None

    def __enter__(self) -> None:
        if not self._wanted:
            return
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.live import Live
            from rich.text import Text

            from migrate.reports.verdict.text import console_for

            self._live = Live(
                get_renderable=lambda: Text(_status_line(self._running)),
                console=console_for(sys.stderr),
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()
        else:
            signal.signal(signal.SIGALRM, lambda number, frame: _show_status(self._running))
            signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()
        elif self._wanted:
            signal.setitimer(signal.ITIMER_REAL, 0)
