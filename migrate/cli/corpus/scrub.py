"""`migrate corpus scrub`: a stream for a bug report, without the guest's memory in it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import click

from migrate.cli.command import command
from migrate.cli.ending import ExitCode, complain, echo
from migrate.cli.options import target_option, vcpus_option
from migrate.cli.output import STDOUT, stream_output
from streams.counting import count

if TYPE_CHECKING:
    from migrate.reducing.scrub import Scrubbed


@command(
    epilog="Exit code: 0; 2 for wrong usage, a stream that cannot be read, one whose findings would change, or a "
    "file that cannot be written."
)
@click.argument("stream", metavar="STREAM", type=click.Path())
@click.option(
    "-o", "--output", "out", metavar="FILE", type=click.Path(allow_dash=True), required=True, help="Where to write it."
)
@target_option()
@vcpus_option
@click.option("--force", is_flag=True, help="Overwrite a file.")
@click.pass_context
def scrub(ctx: click.Context, stream: str, out: str, target: str, vcpus: int | None, force: bool) -> None:
    """Put zeros in the place of all that a judgement does not need, and say what is left.

    Page tables, the p2m, start_info without the command line, GDTs and the vcpus' registers stay, FPUs apart; all
    other pages become zero. Nothing moves. Verdict and findings stay the same: that is checked under every placement
    before FILE appears (not if it is standard output).

    \b
    Example: migrate corpus scrub guest.xl -o guest.scrubbed.xl
    """
    from migrate.reducing.scrub import ScrubError, changed
    from migrate.reducing.scrub import scrub as make_zero
    from streams.transports import TransportError

    try:
        with stream_output(out, force=force) as file:
            scrubbed = make_zero(stream, file)
            file.flush()
            if out != STDOUT and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.seek(0)  # it has no name yet
                difference = changed(stream, file.fileno(), target=target, vcpus=vcpus)
                if difference is not None:
                    raise ScrubError(f"would not be judged the same without the guest's memory: {difference}")
    except (TransportError, ScrubError) as error:
        complain(f"{stream}: {error}", error)
        ctx.exit(ExitCode.FAILED)
    _tell(scrubbed, out)


def _tell(scrubbed: Scrubbed, out: str) -> None:
    from migrate.reducing.scrub import called
    from migrate.safe import safe

    def say(text: str) -> None:
        if out == STDOUT:
            click.echo(text, err=True)
        else:
            echo(text)

    def listed(kinds: dict[str, int]) -> None:
        width = max(map(len, map(str, kinds.values())), default=0)
        for what, number in sorted(kinds.items()):
            say(safe(f"    {number:>{width}}  {called(what, number)}"))

    say("now zero:")
    listed(scrubbed.zeroed)
    say("left as it is:")
    listed(scrubbed.left)
    say("")
    if out != STDOUT:
        say(safe(f"{out}: {count(scrubbed.size, 'byte')}; verdict and findings are those of the original"))
