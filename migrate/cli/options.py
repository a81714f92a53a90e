"""Options that several commands share, declared once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from migrate.cli import suggestions
from migrate.cli.command import Command
from migrate.cli.ending import ExitCode
from streams.values import NamedTuple, replace

if TYPE_CHECKING:
    from migrate.destination.destination import Destination
    from migrate.destination.host import Host
    from migrate.judging.report import Report

ALL = "all"
STDIN = "-"
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,19}")

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def source_of(name: str) -> str | int:
    """What to read for a stream that was named so: the file, or standard input's descriptor."""
    return 0 if name == STDIN else name


def streams_of(paths: Sequence[str]) -> tuple[str, ...]:
    """The streams that are meant: for a directory all in it and below, each once. Raises UsageError for one without."""
    import os

    found: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            found.append(path)
            continue
        from migrate.corpus.discovery import discover
        from migrate.corpus.toml_reader import ExpectationError

        try:
            inside = [case.path for case in discover([path]).cases]
        except ExpectationError as error:
            raise click.UsageError(str(error)) from error
        if not inside:
            raise click.UsageError(f"there is no stream in {path}")
        found += inside
    return tuple(dict.fromkeys(found))


FORMATS = ("text", "json", "jsonl")
"""What every command that answers about one stream can print."""


def format_option(*more: str, default: str = "text", help: str = "") -> Decorator:
    """`--format`, which reaches the command as `form`."""
    return click.option(
        "--format",
        "form",
        type=click.Choice([*FORMATS, *more]),
        default=default,
        show_default=True,
        help=help or "json: one document. jsonl: an object per line.",
    )


def one_rule(ctx: click.Context, param: click.Parameter, asked: str | None) -> str | None:
    """Callback of an option that names one rule: the id that an id or a slug means."""
    if asked is None:
        return None
    from migrate.rules.selection import matching

    try:
        found = matching(asked)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if len(found) > 1:
        raise click.BadParameter(f"{asked.strip()} begins the ids of {len(found)} rules: {', '.join(found)}")
    return found[0]


def target_option(*, all_too: bool = False) -> Decorator:
    """`--target`; with `all_too` also `all`."""

    def check(ctx: click.Context, param: click.Parameter, asked: str | None) -> str | None:
        from migrate.destination import releases

        if asked is None or (all_too and asked == ALL):
            return asked
        try:
            releases.resolve(asked)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        return asked

    return click.option(
        "--target",
        metavar="VERSION",
        show_default="newest",
        callback=check,
        shell_complete=suggestions.releases(*[ALL] * all_too),
        help="The Xen release that would restore it: 4.20 (meaning 4.20.0), 4.20.3, newest"
        + (", or all for a table." if all_too else "."),
    )


class Question(NamedTuple):
    """What is asked about streams.

    Attributes
    ----------
    destinations:
        where they would come back, one or more.
    every_release, every_form:
        whether that is every release that differs, or every form of the 4 GiB rule.
    several_hosts:
        whether it is more than one host.
    any_host:
        whether it is enough if one of them takes a stream.
    """

    destinations: list[Destination]
    every_release: bool = False
    every_form: bool = False
    several_hosts: bool = False
    any_host: bool = True

    def of_pool(self, report: Report, ending: ExitCode) -> ExitCode:
        """The exit code that one of several hosts makes: too little is known of it, or what any destination makes."""
        open_there = self.several_hosts and ending is ExitCode.FINE and report.left_to_host is not None
        return ExitCode.UNJUDGED if open_there else ending

    def together(self, endings: Sequence[ExitCode]) -> ExitCode:
        """The exit code that the answers about one stream make: the best of several hosts if one is enough."""
        better = min if self.several_hosts and self.any_host else max
        return better(endings, key=BADNESS.index)

    @property
    def destination(self) -> Destination:
        """Where they would come back, for a command that asks about one place."""
        return self.destinations[0]


# With several answers the worst counts; later is worse.
BADNESS = (ExitCode.FINE, ExitCode.UNJUDGED, ExitCode.FOUND, ExitCode.FAILED)


def hosts_of(files: Sequence[str]) -> list[Host]:
    """What is known of hosts, each from its file. Raises UsageError for files that are none."""
    if not files:
        return []
    from migrate.destination.host_facts import HostFileError
    from migrate.destination.host_files import read_host

    try:
        return [replace(read_host(file).host, path=file) for file in files]
    except HostFileError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.UsageError(f"{error.filename}: {error.strerror}") from error


class HostsAfterStreams(Command):
    """A command whose `--host`, once it stands after a stream, takes all files up to the next option: a shell's *."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option for each file."""
        at = args.index(HOST) if HOST in args else len(args)
        if args[at:] and self.takes_all(ctx, args[:at], args[at:]):
            at += 2
            while at < len(args) and not args[at].startswith("-"):
                args = [*args[:at], HOST, *args[at:]]
                at += 2
        return super().parse_args(ctx, args)

    def takes_all(self, ctx: click.Context, before: list[str], after: list[str]) -> bool:
        """Whether a stream has come before the option, so that none comes after it."""
        try:
            values, rest, _ = self.make_parser(ctx).parse_args(before)
        except click.UsageError:
            return False
        arguments = (values.get(str(param.name)) for param in self.params if isinstance(param, click.Argument))
        return bool(rest) or any(isinstance(found, str | tuple) and found for found in arguments)


# What --host takes, said once for all that have it.
HOST = "--host"
_HOST_FILE = "What `xl info` and `xen-cpuid -p` print on the host that {whose} (migrate host)"


def host_option(says: str, *, many: bool = False, dest: str = "host", whose: str = "would restore it") -> Decorator:
    """`--host`, any number of them.

    Parameters
    ----------
    says:
        what its help says beyond what the file is.
    many:
        whether one may be followed by several files.
    whose:
        what that host did or would do.
    """
    return click.option(
        HOST,
        dest,
        metavar="FILE" + "..." * many,
        multiple=True,
        type=click.Path(exists=True, dir_okay=False),
        help=f"{_HOST_FILE.format(whose=whose)}{says}",
    )


def _any_option(command: Callable[..., Any]) -> Callable[..., Any]:
    said = "With several hosts: is it enough if one takes a stream?"
    return click.option("--any/--all", "any_host", default=None, show_default="any", help=said)(command)


def destination_options(*, all_too: bool = False, many_hosts: bool = False) -> Decorator:
    """`--target`, `--placement`, `--vcpus`, `--l3-rule`, `--host`, `--any`: they reach the command as `question`.

    Parameters
    ----------
    all_too:
        `--target all` and `--l3-rule all` stand for every release that differs, and every form of the rule.
    many_hosts:
        whether `--host` may be given more than once; `--any` and `--all` go with it.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def run(
            *args: Any,
            target: str | None,
            placement: str | None,
            vcpus: int | None,
            l3_rule: str | None,
            host: tuple[str, ...],
            any_host: bool | None = None,
            **kwargs: Any,
        ) -> Any:
            target, placement = _unless_the_host_says(target, placement)
            if len(host) > 1 and not many_hosts:
                raise click.UsageError("--host is given more than once")
            if any_host is not None and not host:
                raise click.UsageError(f"{'--any' if any_host else '--all'} is about hosts: it goes with --host")
            try:
                destinations = _destinations(target, placement, vcpus, l3_rule, hosts_of(host))
            except ValueError as error:
                raise click.UsageError(str(error)) from error
            question = Question(destinations, target == ALL, l3_rule == ALL, len(host) > 1, any_host is not False)
            return command(*args, question=question, **kwargs)

        decorated: Callable[..., Any] = run
        options: list[Decorator] = [_any_option] if many_hosts else []
        several = " After the streams there may be several: which of them would take it?" if many_hosts else ""
        options += (
            host_option(f": its release, processor and memory decide.{several}", many=many_hosts),
            l3_rule_option(all_too=all_too),
            vcpus_option,
            placement_option,
            target_option(all_too=all_too),
        )
        for option in options:
            decorated = option(decorated)
        return decorated

    return decorate


def _unless_the_host_says(target: str | None, placement: str | None) -> tuple[str | None, str | None]:
    """Release and placement, where they are not configured only and --host was given: then the host decides."""
    from click.core import ParameterSource

    ctx = click.get_current_context()
    if ctx.get_parameter_source("host") is not ParameterSource.COMMANDLINE:
        return target, placement
    said = ParameterSource.COMMANDLINE
    return (
        target if ctx.get_parameter_source("target") is said else None,
        placement if ctx.get_parameter_source("placement") is said else None,
    )


def _destinations(
    target: str | None, placement: str | None, vcpus: int | None, l3_rule: str | None, hosts: Sequence[Host]
) -> list[Destination]:
    from migrate.destination.destination import Destination
    from migrate.destination.releases import distinct
    from migrate.rules.extended_cr3 import L3_RULES

    known: Sequence[Host | None] = hosts or [None]
    return [
        Destination(release, placement, l3_rule=rule, vcpus=vcpus, host=host)
        for host in known
        for release in (distinct() if target == ALL else [target])
        for rule in (L3_RULES if l3_rule == ALL else [l3_rule])
    ]


def l3_rule_option(*, all_too: bool = False) -> Decorator:
    """`--l3-rule`; with `all_too` also `all`."""

    def check(ctx: click.Context, param: click.Parameter, asked: str | None) -> str | None:
        from migrate.rules.extended_cr3 import L3_RULES

        if asked is None or (all_too and asked == ALL):
            return asked
        names = {form.name: id for id, form in L3_RULES.items()}
        id = names.get(asked.lower().replace("-", " "), asked.upper())
        if id not in L3_RULES:
            known = ", ".join(f"{id} ({form.name})" for id, form in L3_RULES.items())
            raise click.BadParameter(f"unknown form of the 4 GiB rule {asked!r}; known: {known}")
        return id

    return click.option(
        "--l3-rule",
        metavar="VARIANT",
        callback=check,
        shell_complete=suggestions.l3_rules(*[ALL] * all_too),
        help="Try another form of the 4 GiB rule: L3V-1 to L3V-5" + (", or all for a table." if all_too else "."),
    )


placement_option = click.option(
    "--placement",
    metavar="source|high|low|identity|file:MAP",
    show_default="high, or as on the --host",
    shell_complete=suggestions.placements,
    help="Where the guest's frames would lie: as on the source; above 4 GiB, where a host that has more memory than "
    "that places them, or below; mfn = pfn; or by a map, a text file of lines 'pfn mfn'.",
)

vcpus_option = click.option(
    "--vcpus", metavar="N", type=click.IntRange(min=1), help="How many vcpus the new domain would have."
)


def record_option(help: str) -> Decorator:
    """`--record`: gives a selector of `migrate.inspection.records.selector`, or None."""

    def check(ctx: click.Context, param: click.Parameter, asked: str | None) -> str | None:
        from migrate.inspection.records.selector import check_selector

        try:
            return None if asked is None else check_selector(asked)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return click.option(
        "--record",
        metavar="N",
        callback=check,
        help=f"{help}: its number among libxc's as findings give it, libxl:N or xapi:N for one of those, "
        "a header by its name (xl, libvirt, libxl, image, domain), or @OFFSET for what lies there.",
    )


def whole_number(ctx: click.Context, param: click.Parameter, asked: str | None) -> int | None:
    """Callback of an option that takes a number below 2^64, in decimal or as 0x…."""
    if asked is None:
        return None
    if not _NUMBER.fullmatch(asked) or int(asked, 0) >= 1 << 64:
        raise click.BadParameter(f"{asked!r} is not a number below 2^64; 0x begins a hexadecimal one")
    return int(asked, 0)


_SHIFTS = {"K": 10, "M": 20, "G": 30, "T": 40}


def size_in_bytes(ctx: click.Context, param: click.Parameter, asked: str | None) -> int:
    """Callback of an option that takes a number of bytes: 65536, 512K, 8M, 4G, 1T; 0 where it is not given."""
    if asked is None:
        return 0
    shift = _SHIFTS.get(asked[-1:].upper(), 0)
    digits = asked[:-1] if shift else asked
    if not (digits.isascii() and digits.isdigit()):
        raise click.BadParameter(f"{asked!r} is not a size such as 512K, 8M or 4G")
    return int(digits) << shift


def _offset(ctx: click.Context, param: click.Parameter, asked: str | None) -> int:
    return whole_number(ctx, param, asked) or 0


offset_option = click.option(
    "--offset",
    metavar="N",
    callback=_offset,
    help="The byte at which the stream begins, where something else is in front of it. All offsets are counted from "
    "the beginning of the input.",
)
