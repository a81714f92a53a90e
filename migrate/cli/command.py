"""What all commands have in common: an option counts once, defaults may be configured, and help fits its window."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import click

SETTINGS_FILE = "migrate.toml"
SETTINGS_TABLE = ("tool", "xen-migrate")
CONFIGURABLE = ("target", "placement", "host", "vcpus", "l3-rule")
"""Options that may stand in the file: where a guest would come back."""
ENVIRONMENT = {"target": "MIGRATE_TARGET", "placement": "MIGRATE_PLACEMENT", "host": "MIGRATE_HOST"}
WIDEST = 1000
# A hyphen that no line is broken at: what names an option or a command stays in one piece.
_HYPHEN, _WHOLE = "-", "\u2011"


class Formatter(click.HelpFormatter):
    """Help as wide as the window, without a name broken at its hyphens."""

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        super().write_text(text.replace(_HYPHEN, _WHOLE))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write options or commands, each with what is to be said of it."""
        whole = [(first, second.replace(_HYPHEN, _WHOLE)) for first, second in rows]
        super().write_dl(whole, col_max, col_spacing)

    def getvalue(self) -> str:
        """All that was written."""
        return super().getvalue().replace(_WHOLE, _HYPHEN)


class Context(click.Context):
    """A context whose help is formatted so."""

    formatter_class = Formatter


class Command(click.Command):
    """A command of this program."""

    context_class = Context

    def make_parser(self, ctx: click.Context) -> Any:
        """A parser that refuses what is said twice and can mean one thing only."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            values, rest, order = parse(args)
            for param, times in Counter(order).items():
                if times > 1 and _means_one_thing(param):
                    raise click.UsageError(f"{param.opts[0]} is given more than once", ctx)
            return values, rest, order

        parser.parse_args = parse_args  # type: ignore[method-assign]
        return parser

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; what is not among them may be configured."""
        if not ctx.resilient_parsing:
            ctx.default_map = {**self._configured(), **(ctx.default_map or {})}
        return super().parse_args(ctx, args)

    def _configured(self) -> dict[str, Any]:
        named = {option: param for param in self.params for option in param.opts if isinstance(param, click.Option)}
        options = {name: named[f"--{name}"] for name in CONFIGURABLE if f"--{name}" in named}
        if not options:
            return {}
        return {
            str(options[name].name): [value] if options[name].multiple and isinstance(value, str) else value
            for name, value in settings().items()
            if name in options
        }


def _means_one_thing(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and not (param.multiple or param.is_flag or param.count)


def settings() -> dict[str, Any]:
    """Values of options that are configured: in the environment, in the working directory, or for the user.

    Raises
    ------
    click.UsageError
        for a file that cannot be used.
    """
    found: dict[str, Any] = {}
    for folder in (_user_folder(), ""):
        file = os.path.join(folder, SETTINGS_FILE)
        if os.path.isfile(file):
            found |= _read(file)
    return found | {name: os.environ[key] for name, key in ENVIRONMENT.items() if os.environ.get(key)}


def _user_folder() -> str:
    return os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")


def _read(file: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(file, "rb") as opened:
            table = tomllib.load(opened)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    for key in SETTINGS_TABLE:
        table = table.get(key, {})
        if not isinstance(table, dict):
            raise click.UsageError(f"{file}: {'.'.join(SETTINGS_TABLE)} is no table")
    for name, value in table.items():
        _check(file, name, value)
    return table


def _check(file: str, name: str, value: object) -> None:
    if name not in CONFIGURABLE:
        from difflib import get_close_matches

        close = get_close_matches(name, CONFIGURABLE, 1)
        hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(CONFIGURABLE)}"
        raise click.UsageError(f"{file}: no such option {name!r}{hint}")
    wanted = int if name == "vcpus" else str
    if type(value) is not wanted:
        raise click.UsageError(f"{file}: {name} = {value!r}: expected {'a number' if wanted is int else 'a text'}")


def command(
    name: str | None = None, *, cls: type[Command] = Command, **attributes: Any
) -> Callable[[Callable[..., Any]], Command]:
    """A decorator that makes such a command of a function; as `click.command`."""
    return click.command(name, cls=cls, **attributes)
