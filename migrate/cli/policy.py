"""`migrate policy`: what was the guest promised of its processor?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from migrate.cli.command import command
from migrate.cli.ending import ExitCode, complain, echo
from migrate.cli.options import format_option, source_of, target_option

if TYPE_CHECKING:
    from migrate.guest.cpu_policy_files import Found


@command(
    epilog="Exit code: 0; 1 the other lacks something that was promised; 2 wrong usage, or a file that cannot be "
    "read; 3 there is no CPU policy in it."
)
@click.argument("stream", metavar="STREAM", type=click.Path(allow_dash=True))
@click.option(
    "--against",
    metavar="STREAM|JSON",
    type=click.Path(),
    help="Compare with the policy of another stream, or in a JSON dump: what this command writes with --format "
    "json, or {leaf: {subleaf: [eax, ebx, ecx, edx]}}.",
)
@target_option()
@format_option(help="json: an object. jsonl: the same on one line.")
@click.pass_context
def policy(ctx: click.Context, stream: str, against: str | None, target: str | None, form: str) -> None:
    """Show the CPU policy that a stream carries.

    A guest keeps using what it once saw of its processor. With --against: would it still find all of it there?
    The other policy is best one that was made on the destination, as in a stream of a guest started there. What is
    lacking Xen takes away in silence, but for a little that makes it refuse the guest; what that is --target decides.

    \b
    Example: migrate policy guest.xl --against other.json --target 4.17.7
    """
    from migrate.destination.releases import resolve
    from migrate.rules.declaring import GuestKind
    from migrate.xen.policy_comparison import lacking, unreadable
    from streams.wire.framing import GuestType

    release = resolve(target or "newest")
    promised = _load(ctx, stream)
    other = None if against is None else _load(ctx, against, dump_too=True)
    missing, extra = [], []
    if other is not None:
        kind = GuestKind.HVM if promised.guest == GuestType.HVM else GuestKind.PV
        missing = [*unreadable(promised.policy, kind, release)]
        missing += lacking(promised.policy, other.policy, kind, release)
        extra = list(lacking(other.policy, promised.policy, kind, release))
    if form != "text":
        from migrate.judging.report_json import dumps
        from migrate.reports.inspection.policy import comparison_object, policy_object

        told = policy_object(promised.policy, stream, promised.xen)
        if against is not None:
            told["against"] = comparison_object(against, release, missing, extra)
        echo(dumps(told, indent=2 if form == "json" else None))
    else:
        from migrate.reports.inspection.policy import render_comparison, render_policy
        from migrate.reports.verdict.text import console_for

        console = console_for()
        render_policy(promised.policy, stream, promised.xen, console)
        if against is not None:
            render_comparison(stream, against, release, missing, extra, console)
    ctx.exit(ExitCode.FOUND if missing else ExitCode.FINE)


def _load(ctx: click.Context, name: str, *, dump_too: bool = False) -> Found:
    """The policy of a stream, or of a file that may be a dump; ends the command where there is none."""
    from migrate.guest.cpu_policy_files import NoPolicyError, any_policy, stream_policy
    from streams.transports import TransportError

    try:
        return any_policy(name) if dump_too else stream_policy(source_of(name))
    except NoPolicyError as error:
        complain(f"{name}: {error}", error)
        ctx.exit(ExitCode.UNJUDGED)
    except (OSError, TransportError) as error:
        complain(f"{name}: {getattr(error, 'strerror', None) or error}", error)
        ctx.exit(ExitCode.FAILED)
