"""`migrate policy`: what was the guest promised of its processor, and what can a guest be promised on several hosts?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from migrate.cli.command import command
from migrate.cli.ending import ExitCode, complain, echo
from migrate.cli.hosts_after_streams import HostsAfterStreams
from migrate.cli.options import format_option, host_option, hosts_of, source_of, target_option
from streams.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from migrate.destination.host import Host, Kind
    from migrate.destination.releases import Release
    from migrate.guest.cpu_policy import Policy
    from migrate.guest.cpu_policy_files import Found
    from migrate.rules.declaring import GuestKind
    from migrate.xen.policy_comparison import Lack

KINDS: tuple[Kind, ...] = ("pv", "hvm")


class _Other(NamedTuple):
    """What a guest's policy is compared with: whose it is, and the release that would take it."""

    name: str
    policy: Policy
    release: Release


class _Command(HostsAfterStreams):
    def takes_all(self, ctx: click.Context, before: list[str], after: list[str]) -> bool:
        """With --level no stream comes at all."""
        return "--level" in before + after or super().takes_all(ctx, before, after)


@command(
    cls=_Command,
    epilog="Exit code: 0; 1 the other, or the common policy, lacks something that was promised; 2 wrong usage, or a "
    "file that cannot be read; 3 there is no CPU policy in it, or none that all hosts could keep.",
)
@click.argument("stream", metavar="[STREAM]", required=False, type=click.Path(allow_dash=True))
@click.option(
    "--against",
    metavar="STREAM|JSON|HOSTFILE",
    type=click.Path(),
    help="Compare with the policy of another stream; with that in a JSON dump: what this command writes with --format "
    "json, or {leaf: {subleaf: [eax, ebx, ecx, edx]}}; or with the most that a host offers: a host file.",
)
@target_option()
@host_option(
    ": compare with the most that it offers; its release takes the place of --target. With --level there "
    "may be several.",
    many=True,
)
@click.option(
    "--level", is_flag=True, help="Show the policy that new guests keep on every --host, and how to ask for it."
)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    show_default="that of --guest, else all that every host runs",
    help="With --level: which guests; PVH guests are hvm.",
)
@click.option(
    "--guest",
    metavar="STREAM",
    type=click.Path(),
    help="With --level: what was this guest promised beyond the common policy?",
)
@format_option(help="json: an object. jsonl: the same on one line.")
@click.pass_context
def policy(
    ctx: click.Context,
    stream: str | None,
    against: str | None,
    target: str | None,
    host: tuple[str, ...],
    level: bool,
    kind: Kind | None,
    guest: str | None,
    form: str,
) -> None:
    """Show the CPU policy that a stream carries.

    A guest keeps using what it once saw of its processor. With --against or --host: would it still find all of it
    there? The other policy is best what a host offers at most (migrate host), or one that was made on the destination,
    as in a stream of a guest started there. What is lacking Xen takes away in silence, but for a little that makes it
    refuse the guest; what that is --target decides, which a host file sets.

    With --level: what can a new guest be promised, so that it finds all of it on each of several hosts?

    \b
    Example: migrate policy guest.xl --against host.txt
    """
    if level:
        if stream is not None or against is not None or target is not None:
            raise click.UsageError("--level is about hosts: a stream is named with --guest")
        if not host:
            raise click.UsageError("--level needs --host, best for each host of a pool")
        ctx.exit(_level(ctx, host, kind, guest, form))
    if kind or guest:
        raise click.UsageError("--kind and --guest go with --level")
    if stream is None:
        raise click.UsageError("Missing argument 'STREAM'.")
    named = ctx.get_parameter_source("host") is ParameterSource.COMMANDLINE
    if len(host) > 1:
        raise click.UsageError("compare with one --host at a time; what several have in common --level tells")
    if named and against is not None:
        raise click.UsageError("--against and --host both say what to compare with: choose one")
    promised = _load(ctx, stream)
    other = None
    if against is not None:
        other = _other(ctx, against, promised, target)
    elif host:
        other = _host(ctx, host[0], promised, target)
    ctx.exit(_show(promised, stream, other, form))


def _show(promised: Found, name: str, other: _Other | None, form: str) -> ExitCode:
    from migrate.xen.policy_comparison import lacking, unreadable

    missing: list[Lack] = []
    extra: list[Lack] = []
    if other is not None:
        kind = _kind_of(promised)
        missing = [*unreadable(promised.policy, kind, other.release)]
        missing += lacking(promised.policy, other.policy, kind, other.release)
        extra = list(lacking(other.policy, promised.policy, kind, other.release))
    if form != "text":
        from migrate.judging.report_json import dumps
        from migrate.reports.inspection.policy import comparison_object, policy_object

        made = policy_object(promised.policy, name, promised.xen)
        if other is not None:
            made["against"] = comparison_object(other.name, other.release, missing, extra)
        echo(dumps(made, indent=2 if form == "json" else None))
    else:
        from migrate.reports.inspection.policy import render_comparison, render_policy
        from migrate.reports.verdict.text import console_for

        console = console_for()
        render_policy(promised.policy, name, promised.xen, console)
        if other is not None:
            render_comparison(name, other.name, other.release, missing, extra, console)
    return ExitCode.FOUND if missing else ExitCode.FINE


def _level(ctx: click.Context, files: Sequence[str], kind: Kind | None, guest: str | None, form: str) -> ExitCode:
    from migrate.destination.levelling import LevellingError, level
    from migrate.destination.releases import NEWEST
    from migrate.xen.policy_comparison import beyond

    hosts = dict(zip(files, hosts_of(files), strict=True))
    wanted = [kind] if kind else _kinds_of_all(hosts.values())
    found = None if guest is None else _load(ctx, guest)
    if found is not None:
        of_guest = _kind_of(found)
        if kind not in (None, of_guest.value):
            raise click.UsageError(f"{guest} is a {of_guest.value} guest: --kind {kind} says nothing of it")
        wanted = [of_guest.value]
    try:
        levelled = [level(hosts, one) for one in wanted]
    except LevellingError as error:
        complain(str(error), error)
        return ExitCode.UNJUDGED
    lacks: list[Lack] | None = None
    if found is not None:
        offered = ((one.release.value or NEWEST, one.max_policy(of_guest.value).value) for one in hosts.values())
        most = [(release, policy) for release, policy in offered if policy is not None]
        lacks = list(beyond(found.policy, levelled[0].policy, of_guest, most))
    if form != "text":
        from migrate.judging.report_json import dumps
        from migrate.reports.inspection.levelling import levelling_object

        objects = [levelling_object(one, files, guest, lacks) for one in levelled]
        echo(dumps(objects if objects[1:] else objects[0], indent=2 if form == "json" else None))
    else:
        from migrate.reports.inspection.levelling import render_levelling
        from migrate.reports.verdict.text import console_for

        console = console_for()
        for number, one in enumerate(levelled):
            if number:
                console.print()
            render_levelling(one, files, guest, lacks, console)
    return ExitCode.FOUND if lacks else ExitCode.FINE


def _kinds_of_all(hosts: Collection[Host]) -> list[Kind]:
    """The kinds of guests that every host runs; one that some host has not got, to be complained of, where none is."""
    return [kind for kind in KINDS if all(host.max_policy(kind).value for host in hosts)] or ["pv"]


def _kind_of(found: Found) -> GuestKind:
    from migrate.rules.declaring import GuestKind
    from streams.wire.framing import GuestType

    return GuestKind.HVM if found.guest == GuestType.HVM else GuestKind.PV


def _other(ctx: click.Context, name: str, promised: Found, target: str | None) -> _Other:
    """What the option --against names."""
    from migrate.destination.host_files import may_be_host_file
    from migrate.destination.releases import resolve

    try:
        is_host = may_be_host_file(name)
    except OSError as error:
        complain(f"{name}: {error.strerror or error}", error)
        ctx.exit(ExitCode.FAILED)
    if is_host:
        return _host(ctx, name, promised, target)
    return _Other(name, _load(ctx, name, dump_too=True).policy, resolve(target or "newest"))


def _host(ctx: click.Context, file: str, promised: Found, target: str | None) -> _Other:
    """The most that a host offers guests of that kind."""
    from migrate.destination.destination import Destination

    host = hosts_of([file])[0]
    answer = host.max_policy(_kind_of(promised).value)
    if answer.value is None:
        complain(f"{file}: {answer.because}")
        ctx.exit(ExitCode.UNJUDGED)
    return _Other(f"{file} ({answer.because})", answer.value, Destination(target, host=host).release)


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
