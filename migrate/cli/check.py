"""`migrate check`: would these guests come back?"""

from __future__ import annotations

from contextlib import nullcontext

from migrate.cli import suggestions
from migrate.cli.check_outputs import MORE_FORMATS, Wanted, output_for
from migrate.cli.declaring import Choice, IntRange, Path, argument, declared, option, without_click
from migrate.cli.ending import ExitCode, UsageError, complain, internal_error
from migrate.cli.options import (
    BADNESS,
    STDIN,
    Question,
    destination_options,
    format_option,
    need_no_host,
    offset_option,
    source_of,
    streams_of,
)
from streams.compression import MAX_EXPANSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.judging.report import Report


def _rules(asked: tuple[str, ...]) -> tuple[str, ...]:
    from migrate.rules.selection import resolve_rules

    return resolve_rules(asked)


def ending_of(report: Report, fail_on: str) -> ExitCode:
    """The exit code that one stream makes, with the threshold "error" or "warning"."""
    from migrate.rules.declaring import Severity, Verdict

    worst = report.worst()
    if report.verdict == Verdict.REFUSE or (worst is not None and worst.rank >= Severity(fail_on).rank):
        return ExitCode.FOUND
    return ExitCode.FINE if report.verdict == Verdict.ACCEPT else ExitCode.UNJUDGED


@declared(
    cls="migrate.cli.hosts_after_streams:HostsAfterStreams",
    epilog="Exit code: 0 nothing at or above the threshold; 1 a stream is refused, or has findings at or above "
    "it; 2 wrong usage, or a stream that cannot be read; 3 not judged. With several streams each is judged "
    "whatever becomes of the others, and the worst counts: 2, then 1, then 3, then 0.",
)
@argument("streams", metavar="STREAM...", nargs=-1, required=True, type=Path(allow_dash=True, readable=False))
@destination_options(all_too=True, many_hosts=True)
@option(
    "--select",
    metavar="RULES",
    multiple=True,
    parse=_rules,
    absent=(),
    shell_complete=suggestions.several_rules,
    help="Report these rules only: ids, beginnings of ids (HYP, HYP-2) or slugs; with commas, or repeated.",
)
@option(
    "--ignore",
    metavar="RULES",
    multiple=True,
    parse=_rules,
    absent=(),
    shell_complete=suggestions.several_rules,
    help="Do not report these rules.",
)
@option(
    "--verify",
    is_flag=True,
    help="Compare the pages of a VERIFY phase with those sent before it. Every page is read.",
)
@offset_option
@option(
    "--max-expansion",
    metavar="N",
    type=IntRange(min=0),
    default=MAX_EXPANSION,
    show_default=True,
    help="How many times its length a compressed stream may decode to, beyond 4 GiB; 0 for any.",
)
@option(
    "--fail-on",
    type=Choice(["error", "warning"]),
    default="error",
    show_default=True,
    help="Least severity that makes the exit code 1.",
)
@format_option(
    *MORE_FORMATS,
    help="json: an object; an array of them if more than one path, release or host, or a directory, is asked about. "
    "jsonl: always an object per line. A stream that cannot be read is an object with its name and an error. sarif, "
    "junit: one document. github: annotations for a workflow. markdown: a table, for several hosts.",
)
@option("--quiet", "-q", is_flag=True, help="No progress; as text, verdict lines only, and none for what exits with 0.")
@option("--verbose", "-v", is_flag=True, help="As text: tell each finding by itself, and all facts.")
@option(
    "--concise",
    is_flag=True,
    help="As text: a line per finding, FILE:OFFSET: RULE severity: message; offset 0x0 where it names no byte of the "
    "stream, as of what Xen finds in the guest's memory once all has come. Of several destinations each line "
    "names its own.",
)
@option("--statistics", is_flag=True, help="As text: only how often each rule is broken, over all streams.")
@without_click
def check(
    streams: tuple[str, ...],
    question: Question,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    verify: bool,
    offset: int,
    max_expansion: int,
    fail_on: str,
    form: str,
    quiet: bool,
    verbose: bool,
    concise: bool,
    statistics: bool,
) -> ExitCode:
    """Judge streams: would the receiver restore the guest, and if not, what is the reason?

    STREAM is a file that holds a migration stream, or a directory of such, with all below it; "-" is standard input.

    \b
    Example: migrate check guest.xl --target 4.20 --placement high
    """
    if streams.count(STDIN) > 1:
        raise UsageError("standard input can be read only once")

    from migrate.cli import progress
    from migrate.judging.across_releases import compare
    from migrate.judging.check import survey
    from streams.transports import TransportError

    ways = {"--quiet": quiet, "--verbose": verbose, "--concise": concise, "--statistics": statistics}
    chosen = [name for name, is_set in ways.items() if is_set]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} are different ways to tell it: choose one")
    if form != "text" and (verbose or concise or statistics):
        raise UsageError(f"{chosen[0]} is about --format text")
    need_no_host(streams, question)
    named, streams = streams, streams_of(streams)
    several = len(named) * len(question.destinations) > 1 or streams != named
    output = output_for(form, question, Wanted.of(ways), several=several, fail_on=fail_on)
    watched = not quiet and progress.wanted()
    worst = ExitCode.FINE
    for name in streams:
        try:
            with progress.ProgressBar(name) if watched else nullcontext() as bar:
                ask = compare if question.every_release and output.compares else survey
                answer = ask(
                    source_of(name),
                    question.destinations,
                    verify=verify,
                    offset=offset,
                    max_expansion=max_expansion,
                    select=select,
                    ignore=ignore,
                    progress=bar,
                )
        except (OSError, TransportError) as error:
            complain(f"{name}: {reason_of(error, name)}", error)
            output.lost(name, reason_of(error, name))
            ending = ExitCode.FAILED
        except ValueError as error:
            raise UsageError(str(error)) from error
        except Exception as error:
            internal_error(error, f"{name}: ")
            output.lost(name, f"internal error: {type(error).__name__}")
            ending = ExitCode.FAILED
        else:
            reports = answer if isinstance(answer, list) else answer.reports
            endings = []
            for report in reports:
                report.stream.name = name
                endings.append(question.of_pool(report, ending_of(report, fail_on)))
                output.show(report, endings[-1])
            output.answered(reports)
            ending = question.together(endings)
            if not isinstance(answer, list):
                output.compare(answer)
        worst = max(worst, ending, key=BADNESS.index)
    output.close()
    return worst


def reason_of(error: Exception, name: str) -> str:
    """Why a stream of that name cannot be read."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    # Something other than the stream may be what cannot be read: a map of frames.
    return error.strerror if error.filename in (None, name) else f"{error.filename}: {error.strerror}"
