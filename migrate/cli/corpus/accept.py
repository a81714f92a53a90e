"""`migrate corpus accept`: what this validator says becomes what is expected of it."""

from __future__ import annotations

import click

from migrate.cli import suggestions
from migrate.cli.command import command
from migrate.cli.corpus.run import (
    cache_option,
    discovered,
    expansion_option,
    host_files,
    jobs_option,
    judged,
    known_option,
)
from migrate.cli.ending import ExitCode, complain, echo
from migrate.cli.options import host_option
from migrate.cli.signals import orderly_signals
from migrate.destination.destination import DEFAULT_PLACEMENT
from migrate.destination.placement import NAMES as PLACEMENTS
from streams.counting import count


def _targets(ctx: click.Context, param: click.Parameter, asked: tuple[str, ...]) -> tuple[str, ...]:
    from migrate.destination.releases import resolve

    try:
        return tuple(dict.fromkeys(resolve(one).short for one in asked))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@command(
    epilog="Exit code: 0 written, or nothing to write; 1 there is something to write, and it was not; 2 wrong usage, "
    "or a file that cannot be used; 3 written, but a stream could not be judged."
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@click.option("--yes", is_flag=True, help="Write without asking.")
@click.option("--new-only", is_flag=True, help="Only of streams that nothing is expected of yet.")
@click.option(
    "--target",
    "targets",
    metavar="VERSION",
    multiple=True,
    callback=_targets,
    shell_complete=suggestions.releases(),
    help="For new streams: what they are judged under; may be repeated. By default the newest release, or the host's.",
)
@click.option(
    "--placement",
    "placements",
    multiple=True,
    type=click.Choice(PLACEMENTS),
    help="For new streams: where the frames would lie; may be repeated. By default "
    f"{DEFAULT_PLACEMENT}, or as on the host.",
)
@host_option(
    ", for new streams: decides release and placement where they are not given. May be repeated.", dest="hosts"
)
@jobs_option
@known_option
@cache_option
@expansion_option
@click.pass_context
def accept(
    ctx: click.Context,
    paths: tuple[str, ...],
    yes: bool,
    new_only: bool,
    targets: tuple[str, ...],
    placements: tuple[str, ...],
    hosts: tuple[str, ...],
    jobs: int | None,
    known: tuple[str, ...],
    no_cache: bool,
    max_expansion: int,
) -> None:
    """Judge streams, and write what comes out as what is expected of them.

    Shows what would change, and asks. New expectations go into the directory's expect.toml where there is one, else
    into NAME.expect.toml beside the stream. What real Xen did stays as it is, and so do known deviations and streams
    whose answer depends on the destination host.

    \b
    Example: migrate corpus accept guests --target 4.20 --placement high
    """
    from migrate.corpus.accepting import AcceptError, plan
    from migrate.corpus.hosts import asked
    from migrate.safe import safe

    found = discovered(ctx, paths, known)
    unexpected = tuple(
        asked(target, placement, host)
        for host in (*host_files(hosts),) or (None,)
        for target in targets or [None]
        for placement in dict.fromkeys(placements) or [None]
    )
    with orderly_signals():
        results = judged(
            ctx,
            found.cases,
            jobs=jobs,
            cache=not no_cache,
            unexpected=unexpected,
            max_expansion=max_expansion,
        )
    try:
        planned = plan(results, new_only=new_only)
    except AcceptError as error:
        complain(str(error), error)
        ctx.exit(ExitCode.FAILED)
    for line in planned.diff():
        echo(safe(line))
    for path, why in planned.kept:
        echo(safe(f"kept      {path}: {why}"))
    for fault in found.faults:
        complain(fault)
    unjudged = bool(found.faults) or any(result.unjudged_because for result in results)
    files = count(len(planned.after), "file")
    if not planned.after:
        echo("nothing to write")
    elif yes or _agreed(f"Write {files}, about {count(len(planned.accepted), 'stream')}?"):
        planned.write()
        echo(f"{files} written")
    else:
        echo("nothing written")
        ctx.exit(ExitCode.FOUND)
    ctx.exit(ExitCode.UNJUDGED if unjudged else ExitCode.FINE)


def _agreed(question: str) -> bool:
    try:
        return click.confirm(question)
    except click.Abort:  # nobody is there to answer
        echo("")
        return False
