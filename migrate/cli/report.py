"""`migrate report`: a document about streams, for a browser."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from migrate.cli.check import ending_of, reason_of
from migrate.cli.command import command
from migrate.cli.ending import ExitCode, complain, echo, internal_error
from migrate.cli.hosts_after_streams import HostsAfterStreams
from migrate.cli.options import (
    BADNESS,
    STDIN,
    Question,
    destination_options,
    need_no_host,
    offset_option,
    source_of,
    streams_of,
)
from migrate.cli.output import STDOUT
from migrate.cli.report_files import ReportFiles, report_files

if TYPE_CHECKING:
    from migrate.inspection.reading import Inspection
    from migrate.reports.html.section import Section


@command(
    cls=HostsAfterStreams,
    epilog="Exit code: that of 'migrate check' for the same streams, with the report written: 0 none is refused; 1 one "
    "is, or has errors; 2 one cannot be read; 3 not judged; the worst counts. With --exit-zero 0 in place of 1 and 3. "
    "Where no stream can be read, for wrong usage, and where it cannot be written there is no report: 2.",
)
@click.argument(
    "streams", metavar="STREAM...", nargs=-1, required=True, type=click.Path(allow_dash=True, readable=False)
)
@click.option(
    "--output",
    "-o",
    metavar="FILE|DIR",
    required=True,
    type=click.Path(allow_dash=True),
    help="The document to write; '-' is standard output. A folder, or a name that ends with '/', gets a page for each "
    "stream and an index.html: for many streams.",
)
@destination_options(many_hosts=True)
@offset_option
@click.option("--force", is_flag=True, help="Overwrite files.")
@click.option("--exit-zero", is_flag=True, help="A report about a refused guest is a success.")
@click.option("--quiet", "-q", is_flag=True, help="No progress, and nothing on standard output.")
@click.pass_context
def report(
    ctx: click.Context,
    streams: tuple[str, ...],
    output: str,
    question: Question,
    offset: int,
    force: bool,
    exit_zero: bool,
    quiet: bool,
) -> None:
    """Write a report about streams as an HTML document that needs nothing else.

    STREAM is a file, or a directory with all streams in it and below.

    It has the verdict and the findings of each, maps of the guest's memory, its page tables with what led to a
    failure, the hypercalls of the restore, the vcpus' registers, all records, and what the rules say. Of several hosts
    it says which would take the guest; all else is about the first. Files that are new are their owner's alone.

    \b
    Example: migrate report guest.xl --target 4.20 --placement high -o report.html
    """
    if streams.count(STDIN) > 1:
        raise click.UsageError("standard input can be read only once")
    need_no_host(streams, question)
    streams = streams_of(streams)

    from migrate.cli import progress
    from migrate.inspection.reading import inspect
    from migrate.reports.html.section import lost_section, section
    from streams.transports import TransportError

    watched = not quiet and progress.wanted()
    worst = ExitCode.FINE
    with report_files(output, streams, force=force) as files:
        for number, name in enumerate(streams, 1):

            def then(inspection: Inspection, name: str = name, number: int = number) -> tuple[Section, ExitCode]:
                inspection.report.stream.name = name
                asked = [inspection.report, *map(inspection.report_for, question.destinations[1:])]
                page = section(inspection, name, number, asked if question.several_hosts else ())
                endings = [question.of_pool(one, ending_of(one, "error")) for one in asked]
                return page, question.together(endings)

            try:
                with progress.ProgressBar(name) if watched else nullcontext() as bar:
                    page, ending = inspect(
                        source_of(name),
                        question.destination,
                        offset=offset,
                        progress=bar,
                        then=then,
                    )
            except (OSError, TransportError) as error:
                complain(f"{name}: {reason_of(error, name)}", error)
                page, ending = lost_section(name, reason_of(error, name), number), ExitCode.FAILED
            except ValueError as error:
                raise click.UsageError(str(error)) from error
            except Exception as error:
                internal_error(error, f"{name}: ")
                reason = f"internal error: {type(error).__name__}"
                page, ending = lost_section(name, reason, number), ExitCode.FAILED
            files.add(page)
            worst = max(worst, ending, key=BADNESS.index)
        if all(page.lost for page in files.sections):
            ctx.exit(ExitCode.FAILED)
        written = files.finish()
    if output != STDOUT and not quiet:
        echo(_done(output, written, files))
    ctx.exit(ExitCode.FINE if exit_zero and worst is not ExitCode.FAILED else worst)


def _done(output: str, written: str, files: ReportFiles) -> str:
    from migrate.reports.html.states import headline
    from migrate.safe import safe

    return safe(f"{output}: {written}; {headline(page.state for page in files.sections)}")
