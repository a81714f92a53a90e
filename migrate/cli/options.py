"""Options that several commands share, declared once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from migrate.cli import suggestions

ALL = "all"
STDIN = "-"
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,19}")

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def source_of(name: str) -> str | int:
    """What to read for a stream that was named so: the file, or standard input's descriptor."""
    return 0 if name == STDIN else name


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

    def check(ctx: click.Context, param: click.Parameter, asked: str) -> str:
        from migrate.destination import releases

        if all_too and asked == ALL:
            return asked
        try:
            releases.resolve(asked)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        return asked

    return click.option(
        "--target",
        metavar="VERSION",
        default="newest",
        show_default=True,
        callback=check,
        shell_complete=suggestions.releases(*[ALL] * all_too),
        help="The Xen release that would restore it: 4.20 (meaning 4.20.0), 4.20.3, newest"
        + (", or all for a table." if all_too else "."),
    )


def l3_rule_option(*, all_too: bool = False) -> Decorator:
    """`--l3-rule`; with `all_too` also `all`."""

    def check(ctx: click.Context, param: click.Parameter, asked: str | None) -> str | None:
        from migrate.rules.extended_cr3 import L3_RULES

        if asked is None or (all_too and asked == ALL):
            return asked
        names = {variant.name: id for id, variant in L3_RULES.items()}
        id = names.get(asked.lower().replace("-", " "), asked.upper())
        if id not in L3_RULES:
            known = ", ".join(f"{id} ({variant.name})" for id, variant in L3_RULES.items())
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
    default="source",
    show_default=True,
    shell_complete=suggestions.placements,
    help="Where the guest's frames would lie: as on the source, above or below 4 GiB, mfn = pfn, or by a map, a text "
    "file of lines 'pfn mfn'.",
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
        "a header by its name (xl, libxl, image, domain), or @OFFSET for what lies there.",
    )


def whole_number(ctx: click.Context, param: click.Parameter, asked: str | None) -> int | None:
    """Callback of an option that takes a number below 2^64, in decimal or as 0x…."""
    if asked is None:
        return None
    if not _NUMBER.fullmatch(asked) or int(asked, 0) >= 1 << 64:
        raise click.BadParameter(f"{asked!r} is not a number below 2^64; 0x begins a hexadecimal one")
    return int(asked, 0)
