"""`migrate corpus shrink`: the smallest stream that still shows a finding."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

import click

from migrate.cli import suggestions
from migrate.cli.command import command
from migrate.cli.declaring import option
from migrate.cli.ending import ExitCode, complain, echo
from migrate.cli.options import STDIN, one_rule, placement_option, source_of, target_option, vcpus_option
from migrate.cli.output import STDOUT, stream_output
from streams.counting import count

if TYPE_CHECKING:
    from migrate.reducing.items import Contents
    from migrate.reducing.shrink import Shrunk


@command(
    epilog="Exit code: 0; 2 for wrong usage, a stream that cannot be read or does not show the finding, or a file "
    "that cannot be written."
)
@click.argument("stream", metavar="STREAM", type=click.Path(allow_dash=True))
@option(
    "--rule",
    metavar="RULE",
    parse=one_rule,
    shell_complete=suggestions.one_rule,
    help="Whose finding is to stay; by default what the restore fails of.",
)
@click.option("-o", "--output", "out", metavar="FILE", type=click.Path(allow_dash=True), help="By default STREAM.min.")
@target_option()
@placement_option
@vcpus_option
@click.option("--verify", is_flag=True, help="Compare the pages after a VERIFY record, as for `migrate check`.")
@click.option(
    "--clean",
    is_flag=True,
    help="Break no rule that the stream does not break already: what is left is sound but for the finding. Without "
    "it only what would fail a restore is kept out.",
)
@click.option(
    "--seconds", metavar="N", type=click.FloatRange(min=0), default=60.0, show_default=True, help="How long to try."
)
@click.option("--force", is_flag=True, help="Overwrite a file.")
@click.pass_context
def shrink(
    ctx: click.Context,
    stream: str,
    rule: str | None,
    out: str | None,
    target: str,
    placement: str | None,
    vcpus: int | None,
    verify: bool,
    clean: bool,
    seconds: float,
    force: bool,
) -> None:
    """Leave out of a stream all that a finding does not need.

    The verdict stays, too, and if the finding is why the restore fails, it still is. What goes is tried on the
    validator itself: containers, vcpus, records, passes, pages and whatever refers to them, pfns, contents.

    \b
    Example: migrate corpus shrink guest.xl --rule HYP-22 --placement high -o small.libxc
    """
    from migrate.destination.destination import DEFAULT_PLACEMENT
    from migrate.reducing.items import read_whole
    from migrate.reducing.shrink import NothingToShowError
    from migrate.reducing.shrink import shrink as leave_out
    from streams.transports import TransportError

    started = time.monotonic()
    out = out or _default_name(stream)
    try:
        with stream_output(out, force=force, sources=[stream]) as file:
            shrunk = leave_out(
                read_whole(source_of(stream)),
                rule,
                target=target,
                placement=placement or DEFAULT_PLACEMENT,
                vcpus=vcpus,
                verify=verify,
                clean=clean,
                seconds=seconds,
            )
            file.write(shrunk.stream)
    except (TransportError, NothingToShowError) as error:
        complain(f"{stream}: {error}", error)
        ctx.exit(ExitCode.FAILED)
    except MemoryError as error:
        complain(f"{stream}: there is not enough memory: a stream that is to be shrunk is held in it", error)
        ctx.exit(ExitCode.FAILED)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if out != STDOUT:
        asked = ["--target", target] if target else []
        asked += ["--placement", placement] if placement else []
        asked += ["--vcpus", str(vcpus)] if vcpus else []
        asked += ["--verify"] if verify else []
        _tell(shrunk, out, time.monotonic() - started, asked)


def _default_name(stream: str) -> str:
    from migrate.corpus.expectations import bare_name

    return ("stdin" if stream == STDIN else bare_name(stream)) + ".min"


def _tell(shrunk: Shrunk, out: str, seconds: float, asked: list[str]) -> None:
    from migrate.reports.tables import print_table
    from migrate.safe import safe

    print_table(_rows(shrunk.before, shrunk.after))
    finding = shrunk.finding
    echo("")
    echo(safe(f"{finding.rule.id} {finding.rule.slug}: {finding.message}"))
    others = dict.fromkeys(f.rule.id for f in shrunk.report.findings if f.rule is not finding.rule)
    if others:
        echo(f"also found in it: {', '.join(others)}")
    echo("")
    tried = f"{count(shrunk.tried, 'stream')} judged in {seconds:.1f} s"
    if not shrunk.finished:
        tried += "; time is up, and it may become smaller: --seconds gives more"
    echo(tried)
    name = f"./{out}" if out.startswith("-") else out
    echo(safe(f"{out}: see it: {shlex.join(['migrate', 'check', name, *asked])}"))


def _rows(before: Contents, after: Contents) -> list[dict[str, str | int]]:
    rows: list[dict[str, str | int]] = [
        {"": what, "before": getattr(before, what), "after": getattr(after, what)}
        for what in ("bytes", "vcpus", "pfns", "pages")
    ]
    for name, number in before.records.items():
        rows.append({"": name, "before": number, "after": after.records.get(name, 0)})
    return rows
