"""Options that several commands share, declared once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from migrate.cli import suggestions
from migrate.cli.declaring import Choice, IntRange, Path, gathered, option
from migrate.cli.ending import ExitCode, UsageError
from streams.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from migrate.cli.declaring import Decorator, Values
    from migrate.destination.destination import Destination
    from migrate.destination.host import Host
    from migrate.judging.report import Report

ALL = "all"
STDIN = "-"


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
            raise UsageError(str(error)) from error
        if not inside:
            raise UsageError(f"there is no stream in {path}")
        found += inside
    return tuple(dict.fromkeys(found))


def need_no_host(paths: Sequence[str], question: Question) -> None:
    """Where hosts are asked about, no stream shall be the file of another one. Raises UsageError."""
    import os

    if question.destination.host is None:
        return
    from migrate.destination.host_facts import HostFileError
    from migrate.destination.host_files import may_be_host_file, read_host

    for path in filter(os.path.isfile, paths):
        try:
            if not may_be_host_file(path):
                continue
            read_host(path)
        except (OSError, HostFileError):
            continue  # whatever it is, it is told as a stream that cannot be read
        raise UsageError(f"{path} is no stream, but tells of a host; for several hosts repeat {HOST} before each")


FORMATS = ("text", "json", "jsonl")
"""What every command that answers about one stream can print."""


def format_option(*more: str, default: str = "text", help: str = "") -> Decorator:
    """`--format`, which reaches the command as `form`."""
    return option(
        "--format",
        "form",
        type=Choice([*FORMATS, *more]),
        default=default,
        show_default=True,
        help=help or "json: one document. jsonl: an object per line.",
    )


def one_rule(asked: str) -> str:
    """For an option that names one rule: the id that an id or a slug means. Raises ValueError."""
    from migrate.rules.selection import matching

    found = matching(asked)
    if len(found) > 1:
        raise ValueError(f"{asked.strip()} begins the ids of {len(found)} rules: {', '.join(found)}")
    return found[0]


def target_option(*, all_too: bool = False) -> Decorator:
    """`--target`; with `all_too` also `all`."""

    def known(asked: str) -> str:
        from migrate.destination import releases

        if not (all_too and asked == ALL):
            releases.resolve(asked)
        return asked

    return option(
        "--target",
        metavar="VERSION",
        show_default="newest",
        parse=known,
        elsewhere=() if all_too else (ALL,),
        shell_complete=suggestions.releases(*[ALL] * all_too),
        help="The Xen release that would restore it: 4.20 (meaning 4.20.0), 4.20.3, newest"
        + (f", or {ALL} for a table." if all_too else f". Where {ALL} is configured, the newest."),
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
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error


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
    return option(
        HOST,
        dest,
        metavar="FILE" + "..." * many,
        multiple=True,
        plain=False,
        type=Path(exists=True, dir_okay=False),
        help=f"{_HOST_FILE.format(whose=whose)}{says}",
    )


_any_option = option(
    "--any/--all",
    "any_host",
    default=None,
    show_default="any",
    help="With several hosts: is it enough if one takes a stream?",
)


def destination_options(*, all_too: bool = False, many_hosts: bool = False) -> Decorator:
    """`--target`, `--placement`, `--vcpus`, `--l3-rule`, `--host`, `--any`: they reach the command as `question`.

    Parameters
    ----------
    all_too:
        `--target all` and `--l3-rule all` stand for every release that differs, and every form of the rule.
    many_hosts:
        whether `--host` may be given more than once; `--any` and `--all` go with it.
    """

    def question(values: Values, said: frozenset[str]) -> Values:
        target, placement, vcpus, l3_rule, host = (values.pop(name) for name in _DESTINATION)
        any_host = values.pop("any_host", None)
        if "host" in said:  # it decides, unless they are more than configured
            target, placement = target if "target" in said else None, placement if "placement" in said else None
        if len(host) > 1 and not many_hosts:
            raise UsageError("--host is given more than once")
        if any_host is not None and not host:
            raise UsageError(f"{'--any' if any_host else '--all'} is about hosts: it goes with --host")
        try:
            destinations = _destinations(target, placement, vcpus, l3_rule, hosts_of(host))
        except ValueError as error:
            raise UsageError(str(error)) from error
        several = len(host) > 1
        return values | {
            "question": Question(destinations, target == ALL, l3_rule == ALL, several, any_host is not False)
        }

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        decorated = gathered(command, question)
        several = " After the streams there may be several: which of them would take it?" if many_hosts else ""
        for declare in (
            *[_any_option] * many_hosts,
            host_option(f": its release, processor and memory decide.{several}", many=many_hosts),
            l3_rule_option(all_too=all_too),
            vcpus_option,
            placement_option,
            target_option(all_too=all_too),
        ):
            decorated = declare(decorated)
        return decorated

    return decorate


_DESTINATION = ("target", "placement", "vcpus", "l3_rule", "host")


def _destinations(
    target: str | None, placement: str | None, vcpus: int | None, l3_rule: str | None, hosts: Sequence[Host]
) -> list[Destination]:
    from migrate.destination.destination import Destination
    from migrate.destination.releases import distinct

    known: Sequence[Host | None] = hosts or [None]
    rules: Iterable[str | None] = [l3_rule]
    if l3_rule == ALL:
        from migrate.rules.extended_cr3 import L3_RULES

        rules = L3_RULES
    return [
        Destination(release, placement, l3_rule=rule, vcpus=vcpus, host=host)
        for host in known
        for release in (distinct() if target == ALL else [target])
        for rule in rules
    ]


def l3_rule_option(*, all_too: bool = False) -> Decorator:
    """`--l3-rule`; with `all_too` also `all`."""

    def known_form(asked: str) -> str:
        from migrate.rules.extended_cr3 import L3_RULES

        if all_too and asked == ALL:
            return asked
        names = {form.name: id for id, form in L3_RULES.items()}
        id = names.get(asked.lower().replace("-", " "), asked.upper())
        if id not in L3_RULES:
            known = ", ".join(f"{id} ({form.name})" for id, form in L3_RULES.items())
            raise ValueError(f"unknown form of the 4 GiB rule {asked!r}; known: {known}")
        return id

    return option(
        "--l3-rule",
        metavar="VARIANT",
        parse=known_form,
        elsewhere=() if all_too else (ALL,),
        shell_complete=suggestions.l3_rules(*[ALL] * all_too),
        help="Try another form of the 4 GiB rule: L3V-1 to L3V-5" + (", or all for a table." if all_too else "."),
    )


def _placement(asked: str) -> str:
    from migrate.destination.placement import check_name

    return check_name(asked)


placement_option = option(
    "--placement",
    parse=_placement,
    metavar="source|high|low|identity|file:MAP",
    show_default="high, or as on the --host",
    shell_complete=suggestions.placements,
    help="Where the guest's frames would lie: as on the source; above 4 GiB, where a host that has more memory than "
    "that places them, or below; mfn = pfn; or by a map, a text file of lines 'pfn mfn'.",
)

vcpus_option = option("--vcpus", metavar="N", type=IntRange(min=1), help="How many vcpus the new domain would have.")


def record_option(help: str) -> Decorator:
    """`--record`: gives a selector of `migrate.inspection.records.selector`, or None."""

    def selector(asked: str) -> str:
        from migrate.inspection.records.selector import check_selector

        return check_selector(asked)

    return option(
        "--record",
        metavar="N",
        parse=selector,
        help=f"{help}: its number among libxc's as findings give it, libxl:N or xapi:N for one of those, "
        "a header by its name (xl, libvirt, libxl, image, domain), or @OFFSET for what lies there.",
    )


def whole_number(asked: str) -> int:
    """For an option that takes a number below 2^64, in decimal or as 0x…. Raises ValueError."""
    import re

    if not re.fullmatch(_NUMBER, asked) or int(asked, 0) >= 1 << 64:
        raise ValueError(f"{asked!r} is not a number below 2^64; 0x begins a hexadecimal one")
    return int(asked, 0)


_NUMBER = r"0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,19}"
_SHIFTS = {"K": 10, "M": 20, "G": 30, "T": 40}


def size_in_bytes(asked: str) -> int:
    """For an option that takes a number of bytes: 65536, 512K, 8M, 4G, 1T. Raises ValueError."""
    shift = _SHIFTS.get(asked[-1:].upper(), 0)
    digits = asked[:-1] if shift else asked
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{asked!r} is not a size such as 512K, 8M or 4G")
    return int(digits) << shift


offset_option = option(
    "--offset",
    metavar="N",
    parse=whole_number,
    absent=0,
    help="The byte at which the stream begins, where something else is in front of it. All offsets are counted from "
    "the beginning of the input.",
)
