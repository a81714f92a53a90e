"""Commands and their options, declared without click: its import takes three times the instructions of Python's start.

A declaration reads a plain command line itself: options by their whole names, with values that are clearly good. All
else, help, completion and whatever may be wrong, is left to the command of click's that is made of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence

from migrate.cli.ending import UsageError
from migrate.cli.settings import origin
from streams.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import click

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
    Values = dict[str, Any]
    # Options may be gathered into one value; the second argument are the names of those that the command line gave.
    Gather = Callable[[Values, frozenset[str]], Values]

_DASH = "-"
_OPTIONS, _GATHERS = "declared_options", "declared_gathers"


# -- what values may be ------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """One of some words."""

    words: Sequence[str]

    def plain(self, text: str) -> str:
        """The value. Raises ValueError where it may be no good."""
        if text not in self.words:
            raise ValueError(text)
        return text

    def of_click(self) -> click.ParamType[Any]:
        """The same for click."""
        import click

        return click.Choice(self.words)


class IntRange(NamedTuple):
    """A number, not below the least there is."""

    min: int

    def plain(self, text: str) -> int:
        """The value. Raises ValueError where it may be no good."""
        if not (text.isascii() and text.isdigit() and int(text) >= self.min):
            raise ValueError(text)
        return int(text)

    def of_click(self) -> click.ParamType[Any]:
        """The same for click."""
        import click

        return click.IntRange(self.min)


class FloatRange(NamedTuple):
    """A number with a fraction, between two others."""

    min: float
    max: float

    def plain(self, text: str) -> float:
        """The value. Raises ValueError where it may be no good."""
        value = float(text)
        if not self.min <= value <= self.max:
            raise ValueError(text)
        return value

    def of_click(self) -> click.ParamType[Any]:
        """The same for click."""
        import click

        return click.FloatRange(self.min, self.max)


class Path(NamedTuple):
    """A path, and what must be there: nothing at all, unless `exists`."""

    exists: bool = False
    dir_okay: bool = True
    readable: bool = True
    allow_dash: bool = False

    def plain(self, text: str) -> str:
        """The value. Raises ValueError where it may be no good."""
        if text == _DASH and self.allow_dash:
            return text
        try:
            there = os.stat(text)
        except OSError:
            if self.exists:
                raise ValueError(text) from None
            return text
        if (stat.S_ISDIR(there.st_mode) and not self.dir_okay) or (self.readable and not os.access(text, os.R_OK)):
            raise ValueError(text)
        return text

    def of_click(self) -> click.ParamType[Any]:
        """The same for click."""
        import click

        return click.Path(**self._asdict())


# -- options and arguments ---------------------------------------------------------------------------------


class Parameter:
    """An option or an argument, as click has them, but for `parse`, `absent` and `plain`.

    Parameters
    ----------
    type:
        what values may be, one of this module's.
    parse:
        makes a value of a text, or of the tuple of them where there may be many. Raises ValueError.
    absent:
        the value where there is no text to parse.
    plain:
        whether a command line that has it may be plain.
    elsewhere:
        values that only other commands take: where one is configured, it does not count here.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        *,
        argument: bool = False,
        type: Choice | IntRange | FloatRange | Path | None = None,
        parse: Callable[[Any], Any] | None = None,
        absent: Any = None,
        plain: bool = True,
        elsewhere: tuple[str, ...] = (),
        **attributes: Any,
    ) -> None:
        self.argument = argument
        self._names = names
        self.type = type
        self.parse = parse
        self.absent = absent
        self.plain = plain
        self.elsewhere = elsewhere
        self._attributes = attributes
        self.is_flag = bool(attributes.get("is_flag")) or any("/" in name for name in names)
        self.many = bool(attributes.get("multiple")) or attributes.get("nargs") == -1
        self.words = {name: True for names_ in names for name in names_.split("/")[:1] if name.startswith("-")}
        self.words |= {name: False for names_ in names for name in names_.split("/")[1:]}
        own = [name for name in names if not name.startswith("-")]
        self.name = (own or [name for name in names if name.startswith("--")])[0].lstrip("-").replace("-", "_")

    def value(self, given: Any) -> Any:
        """The value that the command gets for texts from the command line, or for what is configured."""
        if self.is_flag:
            return given
        if self.many:
            given = tuple(map(self._typed, given))
        else:
            given = self._typed(given)
        return given if self.parse is None else self._parsed(given)

    @property
    def default(self) -> Any:
        """The value that the command gets where nothing is given."""
        value = self._attributes.get("default", False if self.is_flag else () if self.many else None)
        return value if self.parse is None else self._parsed(value)

    def _typed(self, given: Any) -> Any:
        return given if self.type is None else self.type.plain(str(given))

    def _parsed(self, given: Any) -> Any:
        assert self.parse is not None
        return self.absent if given is None or given == () else self.parse(given)

    def of_click(self) -> Decorator:
        """The decorator of click's that declares the same."""
        import click

        attributes = dict(self._attributes)
        if self.elsewhere:
            from migrate.cli.command import Option

            attributes |= {"cls": Option, "elsewhere": self.elsewhere}
        if self.type is not None:
            attributes["type"] = self.type.of_click()
        if self.parse is not None:
            attributes["callback"] = self._parsed_for_click
        return (click.argument if self.argument else click.option)(*self._names, **attributes)

    def _parsed_for_click(self, ctx: click.Context, param: click.Parameter, given: Any) -> Any:
        try:
            return self._parsed(given)
        except ValueError as error:
            import click

            raise click.BadParameter(str(error)) from None


def option(*names: str, **attributes: Any) -> Decorator:
    """A decorator that declares an option: of a command that is read `without_click`, or of click's."""
    return lambda function: _added(function, Parameter(names, **attributes))


def argument(*names: str, **attributes: Any) -> Decorator:
    """A decorator that declares an argument."""
    return lambda function: _added(function, Parameter(names, argument=True, **attributes))


def _added(function: Callable[..., Any], parameter: Parameter) -> Callable[..., Any]:
    there = getattr(function, _OPTIONS, None)
    if there is None:
        return parameter.of_click()(function)
    there.insert(0, parameter)
    return function


def gathered(function: Callable[..., Any], gather: Gather) -> Callable[..., Any]:
    """Have what was given put together before the function is called."""
    there = getattr(function, _GATHERS, None)
    if there is None:
        from migrate.cli.command import gathering

        return gathering(function, gather)
    there.append(gather)
    return function


# -- commands ----------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """What a command line says.

    Attributes
    ----------
    values:
        by name, what is configured among them.
    said, configured:
        names of those that the command line gives, and of those that come from a setting.
    wrong_setting:
        why nothing that is configured counts, if so.
    """

    values: Values
    said: frozenset[str]
    configured: frozenset[str] = frozenset()
    wrong_setting: str = ""


class Declared:
    """A command: a function that returns its exit code, or None for 0.

    Parameters
    ----------
    cls:
        where the class of click's is that reads command lines which are not plain, as "module:name".
    epilog:
        stands below the options in its help.
    forbearing:
        whether it runs where a setting is wrong, too: without all that is configured, and with the reason as
        `wrong_setting`, which is empty otherwise.
    """

    def __init__(self, function: Callable[..., Any], name: str, cls: str, epilog: str, forbearing: bool) -> None:
        self.function = function
        self.name = name
        self.cls = cls
        self.epilog = epilog
        self.forbearing = forbearing
        self.parameters: list[Parameter] = getattr(function, _OPTIONS)
        self._gathers: list[Gather] = getattr(function, _GATHERS)
        self._refusal: Exception | None = None

    def __call__(self, line: Line) -> int:
        """Run it; the exit code."""
        if self._refusal is not None:
            raise self._refusal
        try:
            return self._run(line)
        except UsageError as error:
            if not (self.forbearing and line.configured):
                raise
            wrong = f"{', '.join(origin(name.replace('_', '-')) for name in sorted(line.configured))}: {error}"
        # Where that cannot be asked either, it is the command line that is wrong.
        plain = {one.name: one.default for one in self.parameters if one.name in line.configured}
        return self._run(Line(line.values | plain, line.said, wrong_setting=wrong))

    def told(self, values: Values, **names: Any) -> int:
        """Run it with values that click has read, and the other attributes of a `Line`; the exit code."""
        return self(Line(values, **names))

    def _run(self, line: Line) -> int:
        values = dict(line.values)
        for gather in self._gathers:
            values = gather(values, line.said)
        if self.forbearing:
            values = values | {"wrong_setting": line.wrong_setting}
        return int(self.function(**values) or 0)

    def refused(self, error: Exception) -> None:
        """It was found to be asked what cannot be: all that is left to do is to say so, and click knows how."""
        self._refusal = error

    def plain(self, args: Sequence[str], configured: Callable[[], Mapping[str, Any]]) -> Line | None:
        """What a plain command line says; None for any other, and for one that may be wrong.

        Parameters
        ----------
        configured:
            gives values of options by their names, without dashes. Raises UsageError.
        """
        try:
            given = self._given(args)
            said, configured_too = frozenset(given), set()
            names = {name.lstrip("-"): one for one in self.parameters for name in one.words}
            for name, value in configured().items():
                one = names.get(name)
                if one is not None and one.name not in given and value not in one.elsewhere:
                    if not one.plain:
                        return None
                    given[one.name] = [value] if one.many else value
                    configured_too.add(one.name)
            values = {
                one.name: one.value(given[one.name]) if one.name in given else one.default for one in self.parameters
            }
        except (ValueError, UsageError):
            return None
        return Line(values, said, frozenset(configured_too))

    def _given(self, args: Sequence[str]) -> Values:
        """What is given, by name, as text or True. Raises ValueError for a line that is not plain."""
        named = {word: one for one in self.parameters for word in one.words}
        given: Values = {}
        loose = []
        words = iter(args)
        for word in words:
            if word == _DASH or not word.startswith("-"):
                loose.append(word)
                continue
            name, equals, text = word.partition("=") if word.startswith("--") else (word, "", "")
            one = named.get(name)
            if one is None or not one.plain or (one.is_flag and equals):
                raise ValueError(word)
            if one.is_flag:
                given[one.name] = one.words[name]
                continue
            if not equals:
                text = next(words, "-?")
            if text.startswith("-") and text != _DASH:
                raise ValueError(word)
            if one.many:
                given.setdefault(one.name, []).append(text)
            elif one.name in given:
                raise ValueError(word)
            else:
                given[one.name] = text
        for argument in (one for one in self.parameters if one.argument):
            if not argument.many or not loose:
                raise ValueError("an argument")
            given[argument.name], loose = loose, []
        if loose:
            raise ValueError(loose[0])
        return given


def declared(
    name: str = "", *, cls: str = "migrate.cli.command:Command", epilog: str = "", forbearing: bool = False
) -> Callable[..., Declared]:
    """A decorator that makes a command of a function; the lowest one is `without_click`."""
    return lambda function: Declared(function, name or function.__name__, cls, epilog, forbearing)


def without_click(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have the decorators of this module that follow declare the options of a function without click."""
    setattr(function, _OPTIONS, [])
    setattr(function, _GATHERS, [])
    return function
