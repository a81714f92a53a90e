"""What all commands have in common: an option counts once, defaults may be configured, and help fits its window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from migrate.cli.ending import Exit, UsageError
from migrate.cli.settings import CONFIGURABLE, origin, settings

if TYPE_CHECKING:
    from migrate.cli.declaring import Declared, Gather

WIDEST = 1000
# A hyphen that no line is broken at: what names an option or a command stays in one piece.
_HYPHEN, _WHOLE = "-", "\u2011"
_WRONG_SETTING = "migrate.wrong_setting"


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


class Option(click.Option):
    """An option for which values may be configured that only other commands take."""

    def __init__(self, *args: Any, elsewhere: tuple[str, ...], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.elsewhere = elsewhere


class WrongSettingError(click.UsageError):
    """What is configured cannot be used."""


class Command(click.Command):
    """A command of this program; `forbearing` as in `declaring.Declared`."""

    context_class = Context
    forbearing = False

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
        there = ctx.default_map or {}
        try:
            return self._parse_with_settings(ctx, list(args))
        except WrongSettingError as error:
            if not self.forbearing and not set(ctx.help_option_names) & set(args):
                raise
            ctx.meta[_WRONG_SETTING] = error.message
            ctx.default_map = there
            ctx.params.clear()
        return super().parse_args(ctx, args)

    def _parse_with_settings(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            try:
                ctx.default_map = {**self._configured(), **(ctx.default_map or {})}
            except UsageError as error:
                raise WrongSettingError(str(error), ctx) from error
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            param = error.param
            if isinstance(param, click.Option) and param.name in _from(ctx, ParameterSource.DEFAULT_MAP):
                where = origin(param.opts[0].removeprefix("--"))
                raise WrongSettingError(f"{where}: {param.opts[0]}: {error.message}", ctx) from error
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        with told_by_click(ctx):
            return super().invoke(ctx)

    def _configured(self) -> dict[str, Any]:
        named = {option: param for param in self.params for option in param.opts if isinstance(param, click.Option)}
        options = {name: named[f"--{name}"] for name in CONFIGURABLE if f"--{name}" in named}
        if not options:
            return {}
        return {
            str(options[name].name): [value] if options[name].multiple and isinstance(value, str) else value
            for name, value in settings().items()
            if name in options and value not in getattr(options[name], "elsewhere", ())
        }


@contextmanager
def told_by_click(ctx: click.Context) -> Iterator[None]:
    """Within, what ends a command is raised in click's terms."""
    try:
        yield
    except UsageError as error:
        raise click.UsageError(str(error), ctx) from error
    except Exit as end:
        ctx.exit(end.code)


def _means_one_thing(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and not (param.multiple or param.is_flag or param.count)


def command(
    name: str | None = None, *, cls: type[Command] = Command, **attributes: Any
) -> Callable[[Callable[..., Any]], Command]:
    """A decorator that makes such a command of a function; as `click.command`."""
    return click.command(name, cls=cls, **attributes)


def gathering(function: Callable[..., Any], gather: Gather) -> Callable[..., Any]:
    """A function for click to call, with what was given put together for another."""

    @wraps(function)
    def gathered(*args: Any, **values: Any) -> Any:
        return function(*args, **gather(values, _said(click.get_current_context())))

    return gathered


@cache
def made(declared: Declared) -> click.Command:
    """A command of click's for one that was declared without."""

    def callback(**values: Any) -> None:
        ctx = click.get_current_context()
        configured = _from(ctx, ParameterSource.DEFAULT_MAP)
        wrong = ctx.meta.get(_WRONG_SETTING, "")
        ctx.exit(declared.told(values, said=_said(ctx), configured=configured & values.keys(), wrong_setting=wrong))

    for parameter in reversed(declared.parameters):
        parameter.of_click()(callback)
    module, _, name = declared.cls.partition(":")
    cls: type[Command] = getattr(import_module(module), name)
    found = command(declared.name, cls=cls, epilog=declared.epilog, help=declared.function.__doc__)(callback)
    found.forbearing = declared.forbearing
    return found


def _said(ctx: click.Context) -> frozenset[str]:
    """Names of the parameters that the command line gives."""
    return _from(ctx, ParameterSource.COMMANDLINE) & ctx.params.keys()


def _from(ctx: click.Context, source: ParameterSource) -> frozenset[str]:
    """Names of the parameters whose values come from there."""
    names = (str(param.name) for param in ctx.command.params)
    return frozenset(name for name in names if ctx.get_parameter_source(name) is source)
