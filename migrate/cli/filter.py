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

from migrate.cli import Ending, complain
from migrate.cli.options import placement_option, target_option, vcpus_option

if TYPE_CHECKING:
    from migrate.filtering import Filter, Outcome

STDIN, STDOUT = 0, 1
OWN_FAILURE = 4
TERMINATED = 128 + signal.SIGTERM


class _Terminated(BaseException):
    """SIGTERM or SIGINT arrived."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@click.command(
    epilog="Exit code: as of check (0, 1, 2, 3), with --guard 1 where the stream was stopped; 4 the filter itself "
    "failed (the stream went on, or with --guard was stopped); 141 the receiver closed the pipe."
)
@click.option(
    "--guard", is_flag=True, help="Hold the END record back until the replay has passed; stop a doomed stream."
)
@target_option()
@placement_option
@vcpus_option
@click.option("--select", metavar="RULES", multiple=True, help="Report these rules only, as in check.")
@click.option("--ignore", metavar="RULES", multiple=True, help="Do not report these rules.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning"]),
    help="Least severity that makes the exit code 1 (default error); with --guard, that also stops the stream.",
)
@click.option("--report", "report_file", metavar="FILE", type=click.Path(dir_okay=False), help="Write the report here.")
@click.option("--report-fd", metavar="N", type=click.IntRange(min=2), help="Write the report to this descriptor.")
@click.option("--format", "form", type=click.Choice(["json", "jsonl"]), default="json", show_default=True)
@click.option(
    "--stats", "stats_file", metavar="FILE", type=click.Path(dir_okay=False), help="Write figures here, as JSON."
)
@click.option("--progress", is_flag=True, help="Show on stderr where the stream is; SIGUSR1 shows it once.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing on stderr but what goes wrong.")
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

    Example: xl migrate -s '' DOM 'migrate filter --guard | ssh HOST xl migrate-receive'
    """
    from migrate.filtering import Filter, Mode
    from migrate.placement import check_name
    from migrate.rules.catalogue import Severity
    from migrate.selection import Selection
    from migrate.targets import resolve
    from streams.forwarding import ForwardingTransport, OutputError
    from streams.transports import TransportError

    try:
        running = Filter(
            ForwardingTransport(STDIN, STDOUT, hold=guard),
            mode=Mode.GUARD if guard else Mode.OBSERVE,
            target=resolve(target),
            placement=check_name(placement),
            selection=Selection(select, ignore),
            vcpus=vcpus,
            fail_on=Severity(fail_on) if fail_on else None,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    _take_signals(running)
    code: int | None = None
    with _watching(running, wanted=progress):
        try:
            outcome = running.run()
        except BrokenPipeError:
            code, outcome = Ending.BROKEN_PIPE, running.outcome()
        except (OutputError, TransportError) as error:
            complain(str(error), error)
            code, outcome = Ending.FAILED, running.outcome()
        except _Terminated as ended:
            code, outcome = ended.code, running.outcome()
    with suppress(OSError):
        os.close(STDOUT)
    if outcome.stopped or outcome.stood_down or outcome.failure:
        _explain(outcome)
    _write_report(outcome, report_file, report_fd, form)
    if stats_file is not None:
        from migrate.reports.as_json import dumps

        _write(stats_file, dumps(asdict(outcome.stats)))
    if outcome.report is not None and not quiet and report_file is None and report_fd is None:
        from migrate.reports.safe import safe
        from migrate.reports.words import plain_lines

        for line in plain_lines(outcome.report, Severity.WARNING):
            click.echo(f"migrate: {safe(line)}", err=True)
    _leave(ctx, _ending(outcome, fail_on or "error") if code is None else code)


def _ending(outcome: Outcome, fail_on: str) -> int:
    if outcome.failure is not None or outcome.report is None:
        return OWN_FAILURE
    if outcome.stopped is not None:
        return Ending.FOUND
    from migrate.cli.check import ending_of

    return ending_of(outcome.report, fail_on)


def _explain(outcome: Outcome) -> None:
    if outcome.failure is not None:
        complain(f"stopped judging: {type(outcome.failure).__name__}: {outcome.failure}", outcome.failure)
    if outcome.stood_down is not None:
        complain(f"the guard stood down: {outcome.stood_down}")
    if outcome.stopped is not None:
        complain(f"stopped the stream: {outcome.stopped}")


def _write_report(outcome: Outcome, file: str | None, fd: int | None, form: str) -> None:
    if file is None and fd is None:
        return
    from migrate.reports.as_json import dumps

    if outcome.report is not None:
        found = outcome.report.to_dict()
    else:
        found = {"verdict": "unjudged", "reason": f"the filter stopped judging: {outcome.failure}"}
    found |= {"stopped": outcome.stopped, "stood_down": outcome.stood_down}
    text = dumps(found, indent=2 if form == "json" else None)
    if file is not None:
        _write(file, text)
    if fd is not None:
        try:
            with os.fdopen(fd, "w", encoding="utf-8", closefd=False) as output:
                output.write(text + "\n")
        except OSError as error:
            complain(f"report descriptor {fd}: {error.strerror or error}", error)


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text + "\n", "utf-8")
    except OSError as error:
        complain(f"{path}: {error.strerror or error}", error)


def _leave(ctx: click.Context, code: int) -> NoReturn:
    # stdout is closed already: Python must not find that out by flushing it.
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    sys.stdout = None
    ctx.exit(code)


def _take_signals(running: Filter) -> None:
    def tell(number: int, frame: FrameType | None) -> None:
        click.echo(f"migrate: {_status_line(running)}", err=True)

    def end(number: int, frame: FrameType | None) -> None:
        raise _Terminated(128 + number)

    signal.signal(signal.SIGUSR1, tell)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


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
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text

            self._live = Live(
                get_renderable=lambda: Text(_status_line(self._running)),
                console=Console(stderr=True),
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()
        else:
            signal.signal(signal.SIGALRM, lambda *_: click.echo(f"migrate: {_status_line(self._running)}", err=True))
            signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._wanted:
            signal.setitimer(signal.ITIMER_REAL, 0)
