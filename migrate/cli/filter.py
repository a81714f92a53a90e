"""`migrate filter`: in a pipe between sender and receiver."""

from __future__ import annotations

import signal
import sys
from contextlib import nullcontext

from migrate.cli import suggestions
from migrate.cli.declaring import Choice, FloatRange, IntRange, Path, declared, option, without_click
from migrate.cli.ending import Exit, ExitCode, UsageError
from migrate.cli.options import Question, destination_options, format_option, size_in_bytes
from migrate.cli.piping.ends import STDIN, STDOUT, Ends, need_open, need_standard_ends
from migrate.cli.piping.messages import Messages, Silent
from migrate.cli.piping.results import Result, refuse_doubles
from migrate.cli.piping.signals import Ending, Terminated
from migrate.cli.piping.understudy import Stage, accompanied, volunteer
from migrate.cli.piping.watching import StatusLine, Watch, bytes_to_come, show
from migrate.destination.placement import FILE_PREFIX
from streams.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from migrate.cli.piping.hop import Address
    from migrate.destination.destination import Destination
    from migrate.judging.pipe_filter import Filter, FilterResult
    from streams.forwarding import ForwardingTransport

# Seconds that who reads standard error may take once the stream is through.
PATIENCE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a filter is asked for."""

    guard: bool
    destination: Destination
    select: tuple[str, ...]
    ignore: tuple[str, ...]
    fail_on: str | None
    report: str | None
    report_fd: int | None
    form: str
    stats: str | None
    progress: bool
    interval: float
    name: str
    size: int
    rate_limit: int
    listen: Address | None
    connect: Address | None
    quiet: bool
    wrong_setting: str

    @property
    def surely_possible(self) -> bool:
        """Whether it is known, before the judge is there, that it can be asked this."""
        return not (self.select or self.ignore or self.destination.placement.startswith(FILE_PREFIX))


def _address(asked: str) -> Address:
    from migrate.cli.piping.hop import parse

    return parse(asked)


def _listening(asked: str) -> Address:
    from migrate.cli.piping.hop import parse

    return parse(asked, any_port=True)


@declared(
    epilog="Exit code: as of check (0, 1, 2, 3), with --guard 1 where the stream was stopped and 3 where the guard "
    "stood down; 4 the judge was lost: it failed, was killed, or came to no end (the stream went on "
    "unjudged, or with --guard was stopped); 141 the receiver closed the pipe; 128 and the signal's number where TERM, "
    "INT, HUP, QUIT, ALRM or USR2 told it to end: then the receiver sees the end, and of a guarded stream no END. "
    "A setting that is wrong, in the environment or in a file, stops nothing: the stream passes unjudged, and the code "
    "is 3. What to tell libvirt, what xapi has a place for, and what the guard can stop there: the project's "
    "SECURITY.md.",
    forbearing=True,
)
@option("--guard", is_flag=True, help="Hold the END record back until the replay has passed; stop a doomed stream.")
@destination_options()
@option(
    "--select",
    metavar="RULES",
    multiple=True,
    shell_complete=suggestions.several_rules,
    help="Report these rules only, as in check.",
)
@option(
    "--ignore",
    metavar="RULES",
    multiple=True,
    shell_complete=suggestions.several_rules,
    help="Do not report these rules.",
)
@option(
    "--fail-on",
    type=Choice(["error", "warning"]),
    help="Least severity that makes the exit code 1 (default error). With --guard, findings of the severity named here "
    "also stop the stream, up to its END; unless it is named, only a refusal does, and what the destination host may "
    "go down for.",
)
@option(
    "--report",
    metavar="FILE",
    type=Path(dir_okay=False, allow_dash=True),
    help="Write the report here; - is standard error, for the stream has standard output.",
)
@option("--report-fd", metavar="N", type=IntRange(min=2), help="Write the report to this descriptor.")
@format_option(default="json", help="How the report is written. json: one document. jsonl: the same on one line.")
@option(
    "--stats",
    metavar="FILE",
    type=Path(dir_okay=False, allow_dash=True),
    help="Write figures here, as JSON; - is standard error.",
)
@option("--progress", is_flag=True, help="Show on stderr where the stream is; SIGUSR1 shows it once.")
@option(
    "--interval",
    metavar="SECONDS",
    type=FloatRange(min=0.1, max=86400),
    default=1.0,
    show_default=True,
    help="How often --progress shows it.",
)
@option("--name", metavar="NAME", default="", help="What to call the stream there.")
@option(
    "--size",
    metavar="SIZE",
    parse=size_in_bytes,
    absent=0,
    help="How many bytes will come, for per cent and the time that is left; known of a file.",
)
@option(
    "--rate-limit",
    "-L",
    metavar="RATE",
    parse=size_in_bytes,
    absent=0,
    help="Pass on so many bytes a second: 40M; 0 is no limit.",
)
@option(
    "--listen",
    metavar="HOST:PORT",
    parse=_listening,
    help="Take the stream from the first TCP connection to this address, in the place of standard input.",
)
@option(
    "--connect",
    metavar="HOST:PORT",
    parse=_address,
    help="Send the stream to this address. It goes one way: what the receiver sends back is read, and dropped.",
)
@option("--quiet", "-q", is_flag=True, help="No findings and no verdict on stderr: only what stopped, or failed.")
@without_click
def filter(question: Question, **asked: Any) -> int:
    """Pass a migration stream from stdin to stdout, unaltered, and judge it on the way.

    \b
    In a migration: xl migrate -s '' DOM 'migrate filter --guard | ssh HOST xl migrate-receive'
    For libvirt, on the source: migrate filter --guard --listen 127.0.0.1:49152 --connect HOST:49152
    Example: migrate filter --guard --target 4.20 < guest.libxc > passed.libxc
    """
    from streams.forwarding import ForwardingTransport
    from streams.pace import Pace

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    options = Options(destination=question.destination, **asked)
    need_standard_ends(source=options.listen is None, sink=options.connect is None)
    written = _results(options)
    messages = Messages(None if options.connect else STDOUT)
    ends = _ends(options, messages)
    pace = Pace(options.rate_limit) if options.rate_limit else None
    transport = ForwardingTransport(ends.source, ends.sink, hold=options.guard, pace=pace)
    return accompanied(lambda stage: _judge(options, transport, stage, written, messages), transport, ends, messages)


def _results(options: Options) -> dict[str, Result]:
    """The files that are asked for, by what is to stand in them."""
    named = {"report": options.report, "stats": options.stats}
    written = {what: Result(f"--{what}", path) for what, path in named.items() if path is not None}
    if options.report_fd is not None:
        need_open(options.report_fd, f"--report-fd {options.report_fd}")
        written["report_fd"] = Result("--report-fd", str(options.report_fd), options.report_fd)
    stream = {"where the stream comes from": STDIN} if options.listen is None else {}
    stream |= {"where the stream goes": STDOUT} if options.connect is None else {}
    refuse_doubles(list(written.values()), stream)
    return written


def _ends(options: Options, messages: Messages) -> Ends:
    if options.listen is None and options.connect is None:
        return Ends()
    from migrate.cli.piping.hop import accepted, called

    _asked(options)  # whoever connects shall not find that out
    source, sink = STDIN, STDOUT
    what = ""
    try:
        if options.listen is not None:
            what = f"listening on {options.listen}"
            source = accepted(options.listen, messages.say)
        if options.connect is not None:
            what = f"connecting to {options.connect}"
            sink = called(options.connect)
    except OSError as error:
        messages.say(f"{what}: {error.strerror or error}", error)
        raise Exit(ExitCode.FAILED) from None
    return Ends(source, sink, connected=options.connect is not None)


def _asked(options: Options) -> dict[str, Any]:
    """What is asked of the judge. Raises UsageError."""
    from migrate.judging.pipe_filter import Mode
    from migrate.rules.declaring import Severity
    from migrate.rules.selection import Selection

    try:
        asked = {
            "mode": Mode.GUARD if options.guard else Mode.OBSERVE,
            "destination": options.destination,
            "selection": Selection(options.select, options.ignore),
            "fail_on": Severity(options.fail_on) if options.fail_on else None,
        }
        _need_map(options.destination.placement)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return asked


def _need_map(placement: str) -> None:
    """Read a map of frames before the stream flows: at its end it is too late to say that there is none."""
    from migrate.destination.placement import place

    if placement.startswith(FILE_PREFIX):
        from migrate.guest.memory import PvGuest
        from migrate.guest.pages import PageStore

        try:
            place(placement, PvGuest(PageStore(None, rereads=False)))
        except OSError as error:
            raise UsageError(f"{placement}: {error.strerror or error}") from error


# -- in the process that judges -------------------------------------------------------------------------


def _judge(
    options: Options, transport: ForwardingTransport, stage: Stage, written: dict[str, Result], messages: Messages
) -> int:
    """Pass the stream on and judge it; the exit code."""
    sys.stderr = Silent(messages)
    trouble = None
    if not options.guard:
        volunteer()
        if options.surely_possible:
            with stage.resting():
                trouble = _send_early(transport)
    try:
        from migrate.judging.pipe_filter import Filter

        running = Filter(transport, tell=messages.say, unjudged_because=options.wrong_setting, **_asked(options))
    except UsageError:
        raise
    except BaseException as error:
        messages.say(f"the judge cannot begin: {type(error).__name__}", error)
        raise
    stage.ready()
    line = StatusLine(running.status, options.name, options.size or bytes_to_come(transport.source))
    ending = Ending(running.interrupt, lambda: show(line, messages))
    try:
        with Watch(line, options.interval, messages) if options.progress else nullcontext():
            code, why = _forward(running, messages, trouble)
        ending.through()
        messages.patience = PATIENCE
        # Before all that takes time: the receiver need not wait for the report.
        closed = True
        try:
            stage.hang_up()
        except OSError as error:  # what a network file system has to say of earlier writes
            messages.say(f"closing the output: {error.strerror or error}", error)
            closed = False
        code = _tell(running.outcome(why), code, options, written, messages, ending)
        if not closed and code in (ExitCode.FINE, ExitCode.FOUND, ExitCode.UNJUDGED):
            code = ExitCode.FAILED
        messages.close()
        with ending.waiting():
            stage.settle()
    except Terminated as ended:
        return ended.code
    return code


def _send_early(transport: ForwardingTransport) -> Exception | None:
    """Pass on what need not wait for the judge; what stands in the way of forwarding any more, if anything does."""
    from migrate.cli.piping.early import send_early
    from streams.conduit import OutputError
    from streams.transports import TransportError

    try:
        send_early(transport)
    except (BrokenPipeError, OutputError, TransportError) as error:
        return error
    return None


def _forward(running: Filter, messages: Messages, trouble: Exception | None) -> tuple[int | None, str | None]:
    """Forward to the end: the exit code and the reason where it comes too early, else None."""
    from streams.conduit import OutputError
    from streams.transports import TransportError

    try:
        if trouble is not None:
            raise trouble
        running.forward()
    except BrokenPipeError:
        return ExitCode.BROKEN_PIPE, "the receiver closed the pipe"
    except (OutputError, TransportError) as error:
        messages.say(str(error), error)
        return ExitCode.FAILED, str(error)
    except Terminated as ended:
        return ended.code, f"the filter was told to end ({ended.name})"
    return None, None


def _tell(
    outcome: FilterResult,
    code: int | None,
    options: Options,
    written: dict[str, Result],
    messages: Messages,
    ending: Ending,
) -> int:
    """Say and write what has been found; the exit code, where there is none yet."""
    texts = {}
    if "report" in written or "report_fd" in written:
        texts["report"] = texts["report_fd"] = _report_text(outcome, options.form)
    elif not options.quiet:
        from migrate.reports.verdict.sentences import plain_lines
        from migrate.rules.declaring import Severity

        for line in plain_lines(outcome.report, Severity.WARNING):
            messages.say(line)
    if "stats" in written:
        from dataclasses import asdict

        from migrate.judging.report_json import dumps

        texts["stats"] = dumps(asdict(outcome.stats))
    whole = True
    for what, result in written.items():
        try:
            result.write(texts[what] + "\n", ending.waiting)
        except OSError as error:
            messages.say(f"{result.path}: {error.strerror or error}", error)
            whole = False
    if code is None:
        code = _ending(outcome, options.fail_on or "error")
    return code if whole or code != ExitCode.FINE else ExitCode.FAILED


def _report_text(outcome: FilterResult, form: str) -> str:
    """The report in one of the formats, without the end of its last line."""
    if form == "text":
        from migrate.safe import safe

        stopped = {"stopped": outcome.stopped, "stood down": outcome.stood_down}
        return "\n".join([str(outcome.report), *(safe(f"{what}: {why}") for what, why in stopped.items() if why)])
    from migrate.judging.report_json import dumps

    found = outcome.report.to_dict() | {"stopped": outcome.stopped, "stood_down": outcome.stood_down}
    return dumps(found, indent=2 if form == "json" else None)


def _ending(outcome: FilterResult, fail_on: str) -> int:
    if outcome.failure is not None:
        return ExitCode.JUDGE_LOST
    if outcome.stopped is not None:
        return ExitCode.FOUND
    if outcome.stood_down is not None:
        return ExitCode.UNJUDGED  # the stream has passed whole, whatever is wrong with it
    from migrate.cli.check import ending_of

    return ending_of(outcome.report, fail_on)
