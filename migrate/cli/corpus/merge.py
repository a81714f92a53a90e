"""`migrate corpus merge`: the results of several runs as those of one."""

from __future__ import annotations

import click

from migrate.cli.command import command
from migrate.cli.corpus.run import EXIT_CODES, complain_of, ending_of, journal_of, output_options, write_outputs
from migrate.cli.ending import ExitCode
from migrate.cli.output import refuse_doubles


@command(epilog=EXIT_CODES + " An interrupted run, or a shard that is not there, counts as not judged.")
@click.argument("files", metavar="RESULTS.jsonl...", nargs=-1, required=True, type=click.Path(dir_okay=False))
@output_options
@click.pass_context
def merge(
    ctx: click.Context, files: tuple[str, ...], junit: str | None, sarif: str | None, markdown: str | None
) -> None:
    """Join what `run --jsonl` wrote, shard by shard, into one summary.

    Neither the streams nor their expectations are needed. Of two results about one stream the later file's counts.
    A file with a damaged line is refused: it may be about a stream that the other files do not have.

    \b
    Example: migrate corpus merge part1.jsonl part2.jsonl --junit guests.xml
    """
    from migrate.corpus.journal import joined
    from migrate.reports.corpus.text import render
    from migrate.reports.verdict.text import console_for

    refuse_doubles({"--junit": junit, "--sarif": sarif, "--markdown": markdown}, {"results": files})
    parts = [journal_of(ctx, file) for file in files]
    if any(part.damaged for part in parts):
        for part in parts:
            complain_of(part)
        ctx.exit(ExitCode.FAILED)
    outcome = joined(parts)
    write_outputs(outcome, junit, sarif, markdown)
    render(outcome, console_for())
    ctx.exit(ending_of(outcome))
