"""`migrate extract`: a guest's memory, or a part of a stream, as a file."""

from __future__ import annotations

import os
import stat
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from migrate.cli.command import command
from migrate.cli.declaring import option
from migrate.cli.ending import ExitCode, complain
from migrate.cli.options import offset_option, record_option, source_of, whole_number
from migrate.cli.output import STDOUT, stream_output
from streams.counting import count

if TYPE_CHECKING:
    from migrate.extraction.extract import Extracted
    from migrate.inspection.reading import Inspection


@command(
    epilog="Exit code: 0 the whole of it is written; 1 it is written, and stderr says what is missing; 2 wrong usage, "
    "unreadable input, nothing to extract, or a file that cannot be written; 3 a kind of stream that is not read."
)
@click.argument("stream", metavar="STREAM", type=click.Path(allow_dash=True, readable=False))
@click.option("--raw", metavar="OUT", type=click.Path(dir_okay=False), help="Memory as a raw image.")
@click.option("--elf", metavar="OUT", type=click.Path(dir_okay=False), help="A core as of xl dump-core, for crash(8).")
@option("--page", metavar="PFN", parse=whole_number, help="The contents of one page.")
@record_option("The body of one record, or a header")
@offset_option
@click.option(
    "-o",
    "--output",
    "out",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Where a page or a body goes; standard output by default.",
)
@click.option("--force", is_flag=True, help="Overwrite a file.")
@click.pass_context
def extract(
    ctx: click.Context,
    stream: str,
    raw: str | None,
    elf: str | None,
    page: int | None,
    record: str | None,
    offset: int,
    out: str | None,
    force: bool,
) -> None:
    """Write a guest's memory to a file, or one page of it, or the body of one record.

    Memory is what the receiver would have: the newest contents of every page, without a VERIFY phase; of a
    checkpointed stream as at its last complete checkpoint. A page that was sent, and later only announced, keeps what
    was sent. Of a stream that breaks off all that came is written, and stderr says what is missing.

    --raw: the page of pfn P lies at offset P * 4096. Pages of zeros, and those that never came, are holes. Page
    tables are as in the stream, with pfns in their entries, so that addresses are offsets.

    --elf: pages, vcpus and the shared info page in the format of `xl dump-core`. A PV guest's page tables and
    contexts get back the machine frames they had on the host that saved it, from the guest's own p2m; a frame that
    is not in it becomes all ones.

    \b
    Example: migrate extract guest.xl --elf guest.core
    """
    from streams.transports import TransportError

    wanted = [
        name for name, value in (("raw", raw), ("elf", elf), ("page", page), ("record", record)) if value is not None
    ]
    if not wanted:
        raise click.UsageError("say what to extract: --raw, --elf, --page or --record")
    if len(wanted) > 1:
        raise click.UsageError(f"{' and '.join(f'--{name}' for name in wanted)} are different extracts: choose one")
    image = raw or elf
    if image is not None and out is not None:
        raise click.UsageError(f"--{wanted[0]} names the file itself: -o is for --page and --record")
    if image == STDOUT:
        raise click.UsageError(f"--{wanted[0]} needs a file: its pages are not written in order")
    try:
        if image is not None:
            ending = _memory(stream, wanted[0], image, offset=offset, force=force)
        else:
            ending = _part(stream, page, record, out or STDOUT, offset=offset, force=force)
    except TransportError as error:
        complain(f"{stream}: {error}", error)
        ending = ExitCode.FAILED
    except OSError as error:
        if error.filename != stream:
            raise
        complain(f"{stream}: {error.strerror}", error)
        ending = ExitCode.FAILED
    ctx.exit(ending)


def _memory(stream: str, form: str, out: str, *, offset: int, force: bool) -> ExitCode:
    from migrate.cli import progress
    from migrate.extraction.extract import Form, NothingError
    from migrate.extraction.extract import extract as write_memory

    if os.path.exists(out) and not stat.S_ISREG(os.stat(out).st_mode):
        raise click.UsageError(f"{out} is no regular file: pages are not written in order")
    try:
        with (
            stream_output(out, force=force, sources=[stream]) as file,
            progress.ProgressBar(stream) if progress.wanted() else nullcontext() as bar,
        ):
            written = write_memory(source_of(stream), file.fileno(), Form(form), bar, offset=offset)
    except NothingError as error:
        complain(f"{stream}: {error}", error)
        return ExitCode.FAILED if error.readable else ExitCode.UNJUDGED
    _tell(written, out)
    return ExitCode.FOUND if written.missing else ExitCode.FINE


def _tell(written: Extracted, out: str) -> None:
    """On stderr: what was written, and what is not in it."""
    from migrate.safe import safe
    from streams.counting import count

    line = f"{out}: {count(written.pages, 'page')}, {count(written.holes, 'hole')}, {count(written.size, 'byte')}"
    if written.frames is not None:
        line += f"; {count(written.frames.contexts, 'vcpu')}"
        if written.frames.translated or written.frames.unknown:
            line += (
                f"; machine frames in {count(written.frames.translated, 'page table entry', 'page table entries')}, "
                f"{written.frames.unknown} without one"
            )
    click.echo(safe(line), err=True)
    for remark in written.remarks:
        complain(f"{out}: {remark}")
    for reason in written.missing:
        complain(f"{out}: not all is there: {reason}")


def _part(stream: str, page: int | None, record: str | None, out: str, *, offset: int, force: bool) -> ExitCode:
    """Write one page, or the body of one record."""
    from migrate.extraction.extract import NothingError, record_body
    from migrate.extraction.extract import page as one_page
    from migrate.inspection.reading import NotInStream, inspect
    from migrate.inspection.records.selector import selected

    def then(inspection: Inspection) -> ExitCode:
        reason = inspection.judgement.unjudged_because()
        if reason and not len(inspection.log):
            raise NothingError(reason, readable=False)
        if page is not None:
            contents = one_page(inspection, page)
            if contents is None:
                raise NotInStream(f"pfn {page:#x} never came with contents")
            with stream_output(out, force=force, sources=[stream]) as file:
                file.write(contents)
            return ExitCode.FINE
        assert record is not None
        entry = selected(inspection, record)
        got = 0
        with stream_output(out, force=force, sources=[stream]) as file:
            for piece in record_body(inspection, entry):
                file.write(piece)
                got += len(piece)
        if got == entry.length:
            return ExitCode.FINE
        complain(
            f"{stream}: not all is there: the input ends in the {entry.name}: {got} of {count(entry.length, 'byte')}"
        )
        return ExitCode.FOUND

    try:
        return inspect(source_of(stream), offset=offset, then=then)
    except NotInStream as error:
        complain(f"{stream}: {error}", error)
        return ExitCode.FAILED
    except NothingError as error:
        complain(f"{stream}: {error}", error)
        return ExitCode.UNJUDGED
