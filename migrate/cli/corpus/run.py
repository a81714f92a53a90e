"""`migrate corpus run`, and what its neighbours share with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from migrate.cli.command import command
from migrate.cli.ending import ExitCode, complain
from migrate.cli.options import host_option
from migrate.cli.output import refuse_doubles, write_document
from migrate.cli.signals import EndedBySignal, orderly_signals
from streams.compression import MAX_EXPANSION
from streams.counting import count
from streams.values import replace

if TYPE_CHECKING:
    from migrate.corpus.cache import Cache
    from migrate.corpus.discovery import Case, Corpus, Shard
    from migrate.corpus.hosts import Asked, HostFile
    from migrate.corpus.journal import Written
    from migrate.corpus.results import Result, Run
    from migrate.corpus.workers import Workers

EXIT_CODES = (
    "Exit code: 0 all as expected, known to differ, or new; 1 something differs, a stream is missing, or a new one "
    "fails by --fail-on; 2 wrong usage, or a list of known deviations or a file of results that cannot be used; 3 "
    "nothing differs, but not all could be judged, or a file of expectations cannot be used; 130, 143, 129 after an "
    "interrupt, TERM and HUP."
)
DAMAGE_NAMED = 10


def _shard(ctx: click.Context, param: click.Parameter, asked: str | None) -> Shard | None:
    if asked is None:
        return None
    from migrate.corpus.discovery import Shard

    index, _, shards = asked.partition("/")
    if not (index.isdecimal() and shards.isdecimal() and 1 <= int(index) <= int(shards)):
        raise click.BadParameter(f"{asked!r} is not I/N with I from 1 to N")
    return Shard(int(index), int(shards))


def jobs_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--jobs`."""
    return click.option(
        "--jobs",
        "-j",
        metavar="N",
        type=click.IntRange(min=1),
        help="Streams judged at a time; by default, one per core.",
    )(command)


def cache_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--no-cache`."""
    return click.option("--no-cache", is_flag=True, help="Judge again what an earlier run has judged.")(command)


def known_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--known`."""
    return click.option(
        "--known",
        metavar="FILE",
        multiple=True,
        type=click.Path(),
        help="A list of known deviations, beside the known.toml of the directories.",
    )(command)


def host_files(names: Sequence[str]) -> list[HostFile]:
    """Host files that an option names. Raises UsageError for files that are none."""
    from migrate.corpus.filesystems import FetchError
    from migrate.corpus.hosts import host_file
    from migrate.destination.host_facts import HostFileError

    try:
        return [host_file(name, name) for name in dict.fromkeys(names)]
    except (HostFileError, FetchError) as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.UsageError(f"{error.filename}: {error.strerror}") from error


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--junit`, `--sarif`, `--markdown`."""
    for option, what in (
        ("--markdown", "a comment for a pull request"),
        ("--sarif", "SARIF 2.1.0, a result per difference"),
        ("--junit", "JUnit XML, a test case per stream"),
    ):
        command = click.option(option, metavar="FILE", type=click.Path(dir_okay=False), help=f"Write {what}.")(command)
    return command


def expansion_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--max-expansion`."""
    return click.option(
        "--max-expansion",
        metavar="N",
        type=click.IntRange(min=0),
        default=MAX_EXPANSION,
        show_default=True,
        help="How many times its length what is compressed, or lies in an archive, may decode to, beyond 4 GiB; 0 for "
        "any.",
    )(command)


@command(epilog=EXIT_CODES)
@click.argument("paths", metavar="PATH|URL...", nargs=-1, required=True, type=click.Path())
@jobs_option
@click.option(
    "--dask",
    metavar="ADDRESS|local",
    shell_complete=lambda ctx, param, word: ["local"] if "local".startswith(word) else [],
    help="Let workers of a dask scheduler do it, which see the streams under the same paths; or start some here.",
)
@click.option("--shard", metavar="I/N", callback=_shard, help="Judge the I-th of N parts only; `merge` joins them.")
@known_option
@host_option(
    ": decides what depends on it for all expectations of its branch that name none, and judges new streams. May be "
    "repeated.",
    dest="hosts",
    whose="was, or would be, asked",
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning"]),
    help="Of streams that nothing is expected of: let those fail that are refused, or have findings of this severity.",
)
@cache_option
@expansion_option
@click.option(
    "--resume",
    metavar="RESULTS.jsonl",
    type=click.Path(dir_okay=False),
    help="Take over what an interrupted run has judged; --jsonl may name the same file.",
)
@click.option(
    "--jsonl", metavar="FILE", type=click.Path(dir_okay=False), help="Write a JSON object per stream, each at once."
)
@output_options
@click.option("--quiet", "-q", is_flag=True, help="No live table.")
@click.pass_context
def run(
    ctx: click.Context,
    paths: tuple[str, ...],
    jobs: int | None,
    dask: str | None,
    shard: Shard | None,
    known: tuple[str, ...],
    hosts: tuple[str, ...],
    fail_on: str | None,
    no_cache: bool,
    max_expansion: int,
    resume: str | None,
    jsonl: str | None,
    junit: str | None,
    sarif: str | None,
    markdown: str | None,
    quiet: bool,
) -> None:
    """Judge streams, and compare with what is expected of them and with what real Xen did.

    PATH is a stream, a directory (with all below it) or a pattern; URL is what fsspec opens, such as
    s3://bucket/corpus or zip://::corpus.zip. What is expected stands beside a stream in NAME.expect.toml, or in one
    expect.toml for all streams of a directory.

    \b
    Example: migrate corpus run guests --junit guests.xml --jsonl guests.jsonl
    """
    from migrate.cli.corpus.live import LiveTable
    from migrate.corpus.discovery import at_hosts
    from migrate.corpus.hosts import asked
    from migrate.corpus.journal import Journal
    from migrate.reports.corpus.text import render
    from migrate.reports.verdict.text import console_for

    # What stands in a settings file is about guests that are to move, not about what was measured.
    at = host_files(hosts) if ctx.get_parameter_source("hosts") is ParameterSource.COMMANDLINE else []
    found = discovered(ctx, paths, known, shard, fail_on)
    found = replace(found, cases=at_hosts(found.cases, at)) if at else found
    outputs = {"--junit": junit, "--sarif": sarif, "--markdown": markdown, "--jsonl": jsonl}
    refuse_doubles(outputs, {"a stream": [case.path for case in found.cases], "known deviations": known})
    if resume is not None:
        refuse_doubles({**outputs, "--jsonl": None}, {"--resume": [resume]})
    with orderly_signals():
        results = _taken_over(ctx, found, resume)
        with Journal(jsonl, results) as journal, LiveTable(len(found.cases), quiet) as live:
            for result in results:
                live.add(result)

            def done(result: Result) -> None:
                results.append(result)
                journal.add(result)
                live.add(result)

            taken = {result.case.number for result in results}
            left = [case for case in found.cases if case.number not in taken]
            try:
                judged(
                    ctx,
                    left,
                    done,
                    live.tick,
                    jobs=jobs,
                    dask=dask,
                    cache=not no_cache,
                    unexpected=tuple(asked(host=host) for host in at),
                    max_expansion=max_expansion,
                )
            except KeyboardInterrupt as ended:
                why = _interrupted(ended, len(results), len(found.cases))
                complain(f"{why}{f'; --resume {jsonl} goes on from there' if jsonl else ''}")
                write_outputs(_outcome(found, results, why), junit, sarif, markdown)
                raise
            outcome = _outcome(found, results)
            journal.finish(outcome, shard)
        write_outputs(outcome, junit, sarif, markdown)
    render(outcome, console_for())
    ctx.exit(ending_of(outcome))


def _taken_over(ctx: click.Context, found: Corpus, resume: str | None) -> list[Result]:
    """What an earlier run has judged of it."""
    if resume is None:
        return []
    from migrate.corpus.journal import answered
    from migrate.corpus.results import compared
    from migrate.corpus.runner import task_of

    before = journal_of(ctx, resume)
    complain_of(before, "; passed over")
    answers = ((case, answered(before, case, task_of(case))) for case in found.cases)
    return [compared(case, answer) for case, answer in answers if answer is not None]


def _interrupted(ended: KeyboardInterrupt, done: int, streams: int) -> str:
    by = f" by {ended.name}" if isinstance(ended, EndedBySignal) else ""
    return f"interrupted{by}: {done} of {count(streams, 'stream')} judged"


def _outcome(found: Corpus, results: list[Result], *gaps: str) -> Run:
    from migrate.corpus.results import Run

    ordered = sorted(results, key=lambda result: result.case.number)
    return Run(ordered, found.missing, (*found.faults, *gaps), found.unmatched)


def discovered(
    ctx: click.Context,
    paths: tuple[str, ...],
    known: tuple[str, ...] = (),
    shard: Shard | None = None,
    fail_on: str | None = None,
) -> Corpus:
    """The streams of these paths; wrong usage where there are none."""
    from migrate.corpus.discovery import discover
    from migrate.corpus.filesystems import FetchError
    from migrate.corpus.toml_reader import ExpectationError
    from migrate.rules.declaring import Severity

    try:
        found = discover(paths, known=known, shard=shard, fail_on=Severity(fail_on) if fail_on else None)
    except FileNotFoundError as error:
        raise click.UsageError(f"no such file or directory: {error}") from None
    except (ExpectationError, FetchError) as error:
        complain(str(error), error)
        ctx.exit(ExitCode.FAILED)
    if not (found.cases or found.missing or found.faults) and shard is None:
        raise click.UsageError("there is no stream in " + ", ".join(paths))
    return found


def journal_of(ctx: click.Context, path: str) -> Written:
    """The results in a file."""
    from migrate.corpus.journal import JournalError, read_journal

    try:
        return read_journal(path)
    except JournalError as error:
        complain(str(error), error)
        ctx.exit(ExitCode.FAILED)


def complain_of(written: Written, more: str = "") -> None:
    """Name the lines of a file of results that are of no use."""
    for complaint in written.damaged[:DAMAGE_NAMED]:
        complain(f"{complaint}{more}")
    if len(written.damaged) > DAMAGE_NAMED:
        rest = count(len(written.damaged) - DAMAGE_NAMED, "more line is", "more lines are")
        complain(f"{written.path}: {rest} of no use{more}")


def judged(
    ctx: click.Context,
    cases: Sequence[Case],
    done: Callable[[Result], object] = lambda result: None,
    tick: Callable[[], object] = lambda: None,
    *,
    jobs: int | None = None,
    dask: str | None = None,
    cache: bool = True,
    unexpected: tuple[Asked, ...] = (),
    max_expansion: int = MAX_EXPANSION,
) -> list[Result]:
    """Results in the order of the cases."""
    from migrate.corpus.runner import UNEXPECTED
    from migrate.corpus.runner import run as run_cases
    from migrate.corpus.workers import WorkersError

    try:
        with _workers(jobs, dask, len(cases)) as workers:
            return run_cases(
                cases,
                workers.start(),
                done,
                renew=workers.start,
                window=workers.window,
                cache=_cache() if cache else None,
                tick=tick,
                unexpected=unexpected or UNEXPECTED,
                max_expansion=max_expansion,
            )
    except WorkersError as error:
        complain(str(error), error)
        ctx.exit(ExitCode.FAILED)


def _cache() -> Cache:
    from migrate.corpus.cache import Cache, default_folder, validator

    cache = Cache(default_folder(), validator())
    cache.tidy()
    return cache


def _workers(jobs: int | None, dask: str | None, streams: int) -> Workers:
    from migrate.corpus.workers import Alone, Dask, Processes, cores

    if dask is not None:
        return Dask(dask, jobs or cores())
    number = min(jobs or cores(), streams)
    return Processes(number) if number > 1 else Alone()


def write_outputs(outcome: Run, junit: str | None, sarif: str | None, markdown: str | None) -> None:
    """Write the documents asked for."""
    if junit is not None:
        from migrate.reports.corpus.junit import corpus_junit

        write_document(junit, corpus_junit(outcome))
    if sarif is not None:
        from migrate.judging.report_json import dumps
        from migrate.reports.corpus.sarif import corpus_sarif

        write_document(sarif, dumps(corpus_sarif(outcome), indent=2) + "\n")
    if markdown is not None:
        from migrate.reports.corpus.markdown import corpus_markdown

        write_document(markdown, corpus_markdown(outcome))


def ending_of(outcome: Run) -> ExitCode:
    """The exit code that a run makes."""
    if outcome.differs:
        return ExitCode.FOUND
    return ExitCode.UNJUDGED if outcome.undecided else ExitCode.FINE
