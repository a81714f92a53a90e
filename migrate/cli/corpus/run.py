"""`migrate corpus run`, and what its neighbours share with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from migrate.cli.ending import ExitCode, complain

if TYPE_CHECKING:
    from migrate.corpus.cache import Cache
    from migrate.corpus.discovery import Corpus, Shard
    from migrate.corpus.journal import Written
    from migrate.corpus.results import Result, Run
    from migrate.corpus.workers import Workers

EXIT_CODES = (
    "Exit code: 0 all as expected, known to differ, or new; 1 something differs, or a stream is missing; 2 wrong "
    "usage, or a file of expectations or results that cannot be used; 3 nothing differs, but not all could be judged."
)


def _shard(ctx: click.Context, param: click.Parameter, asked: str | None) -> Shard | None:
    if asked is None:
        return None
    from migrate.corpus.discovery import Shard

    index, _, count = asked.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise click.BadParameter(f"{asked!r} is not I/N with I from 1 to N")
    return Shard(int(index), int(count))


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


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--junit`, `--sarif`, `--markdown`."""
    for option, what in (
        ("--markdown", "a comment for a pull request"),
        ("--sarif", "SARIF 2.1.0, a result per difference"),
        ("--junit", "JUnit XML, a test case per stream"),
    ):
        command = click.option(option, metavar="FILE", type=click.Path(dir_okay=False), help=f"Write {what}.")(command)
    return command


@click.command(epilog=EXIT_CODES)
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
@cache_option
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
    no_cache: bool,
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
    from migrate.corpus.journal import Journal
    from migrate.corpus.results import Run
    from migrate.reports.corpus.text import render
    from migrate.reports.verdict.text import console_for

    found = discovered(ctx, paths, known, shard)
    before = journal_of(ctx, resume) if resume else None
    with Journal(jsonl) as journal, LiveTable(len(found.cases), quiet) as live:

        def done(result: Result) -> None:
            journal.add(result)
            live.add(result)

        try:
            results = judged(ctx, found, done, live.tick, jobs=jobs, dask=dask, cache=not no_cache, before=before)
        except KeyboardInterrupt:
            more = f"; --resume {jsonl} goes on from there" if jsonl else ""
            complain(f"interrupted: {live.done} of {len(found.cases)} streams judged{more}")
            raise
        outcome = Run(results, found.missing)
        journal.finish(outcome, shard)
    write_outputs(outcome, junit, sarif, markdown)
    render(outcome, console_for())
    ctx.exit(ending_of(outcome))


def discovered(
    ctx: click.Context, paths: tuple[str, ...], known: tuple[str, ...] = (), shard: Shard | None = None
) -> Corpus:
    """The streams of these paths; wrong usage where there are none."""
    from migrate.corpus.discovery import discover
    from migrate.corpus.filesystems import PlaceError
    from migrate.corpus.toml_reader import ExpectationError

    try:
        found = discover(paths, known=known, shard=shard)
    except FileNotFoundError as error:
        raise click.UsageError(f"no such file or directory: {error}") from None
    except (ExpectationError, PlaceError) as error:
        complain(str(error), error)
        ctx.exit(ExitCode.FAILED)
    if not found.cases and not found.missing and shard is None:
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


def judged(
    ctx: click.Context,
    found: Corpus,
    done: Callable[[Result], object] = lambda result: None,
    tick: Callable[[], object] = lambda: None,
    *,
    jobs: int | None = None,
    dask: str | None = None,
    cache: bool = True,
    before: Written | None = None,
    unexpected: tuple[tuple[str, str], ...] | None = None,
) -> list[Result]:
    """Results in the order of the cases, those of an earlier run taken over."""
    from migrate.corpus.journal import answered
    from migrate.corpus.results import compared
    from migrate.corpus.runner import UNEXPECTED, task_of
    from migrate.corpus.runner import run as run_cases
    from migrate.corpus.workers import WorkersError

    results: dict[str, Result] = {}
    for case in found.cases if before else ():
        assert before is not None
        answer = answered(before, case, task_of(case))
        if answer is not None:
            results[case.path] = compared(case, answer)
            done(results[case.path])
    left = [case for case in found.cases if case.path not in results]
    try:
        with ExitStack() as stack:
            workers = stack.enter_context(_workers(jobs, dask, len(left)))
            fresh = run_cases(
                left,
                workers.start(),
                done,
                renew=workers.start,
                window=workers.window,
                cache=_cache() if cache else None,
                tick=tick,
                unexpected=unexpected or UNEXPECTED,
            )
    except WorkersError as error:
        complain(str(error), error)
        ctx.exit(ExitCode.FAILED)
    results |= {result.case.path: result for result in fresh}
    return [results[case.path] for case in found.cases]


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

        _write(junit, corpus_junit(outcome))
    if sarif is not None:
        from migrate.judging.report_json import dumps
        from migrate.reports.corpus.sarif import corpus_sarif

        _write(sarif, dumps(corpus_sarif(outcome), indent=2) + "\n")
    if markdown is not None:
        from migrate.reports.corpus.markdown import corpus_markdown

        _write(markdown, corpus_markdown(outcome))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def ending_of(outcome: Run) -> ExitCode:
    """The exit code that a run makes."""
    if outcome.differs:
        return ExitCode.FOUND
    return ExitCode.UNJUDGED if outcome.undecided else ExitCode.FINE
