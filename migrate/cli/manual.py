"""`migrate manual`: the manual page, made of what the commands say of themselves."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator

import click

from migrate.cli.command import command
from migrate.cli.ending import DEBUG, ExitCode, echo
from migrate.cli.main import PROGRAM
from migrate.cli.settings import CONFIGURABLE, ENVIRONMENT, SETTINGS_FILE, SETTINGS_TABLE

# What roff would take for a command, or print as a typographer would and not as a shell needs it.
_ROFF = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"})
# By itself or before a paragraph: its lines stay as they are (click's own mark).
_AS_IT_STANDS = "\b"
_EXIT_CODES = {
    ExitCode.FINE: "Nothing was found that matters.",
    ExitCode.FOUND: "Something was: a stream would be refused, a result differs from what is expected.",
    ExitCode.FAILED: "Wrong usage, or a file that cannot be read or written.",
    ExitCode.UNJUDGED: "Not judged: no stream, or none of those that are modelled.",
    ExitCode.JUDGE_LOST: "A filter's judge was lost; the stream went on unjudged, or was stopped if it was guarded.",
    ExitCode.INTERRUPTED: "Interrupted.",
    ExitCode.BROKEN_PIPE: "Nobody reads the output any more.",
}
_ENVIRONMENT = {
    **{key: f"The default of --{name}; goes before the files." for name, key in ENVIRONMENT.items()},
    "XDG_CONFIG_HOME": f"In it lies the user's {SETTINGS_FILE}; by default ~/.config.",
    "NO_COLOR": "If set, output on a terminal is neither coloured nor bold.",
    "XDG_CACHE_HOME": "Below it lies what corpora have been judged to be; by default ~/.cache.",
    DEBUG: "If 1, errors come with a traceback.",
}
_FILES = {
    f"./{SETTINGS_FILE}": f"Defaults of options, below [{'.'.join(SETTINGS_TABLE)}]: {', '.join(CONFIGURABLE)}; "
    'such as target = "4.20". A command that does not take the value all passes it over.',
    f"~/.config/{SETTINGS_FILE}": "The same for the user; the one in the working directory goes first.",
}


def commands(command: click.Command, parent: click.Context | None = None) -> Iterator[click.Context]:
    """A command and all below it, each as the context in which it would run."""
    name = PROGRAM if parent is None else command.name
    ctx = click.Context(command, parent, info_name=name, **command.context_settings)
    yield ctx
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            if below is not None and not below.hidden:
                yield from commands(below, ctx)


def page(program: click.Group) -> str:
    """The manual page of a program and all its commands, in roff for man(7)."""
    return "\n".join(_page(program)) + "\n"


def _page(program: click.Group) -> Iterator[str]:
    from migrate.rules.version import VERSION

    every = list(commands(program))
    title = " ".join(_help(program).partition("\n\n")[0].split())
    yield f'.TH {PROGRAM.upper()} 1 "" "{_text(f"{PROGRAM} {VERSION}")}" "User Commands"'
    # Lines are not filled to both margins, and no word is broken: options are searched for.
    yield from (".ad l", ".nh")
    yield from (".SH NAME", rf"{PROGRAM} \- {_text(title)}")
    yield from (".SH SYNOPSIS", *_usage(every[0]))
    yield from (".SH DESCRIPTION", *_paragraphs(_help(program)), *_options(every[0]))
    yield ".SH COMMANDS"
    for ctx in every[1:]:
        yield from (f".SS {_text(ctx.command_path)}", *_usage(ctx))
        yield from _paragraphs(_help(ctx.command))
        yield from _options(ctx)
        yield from _paragraphs(inspect.cleandoc(ctx.command.epilog or ""))
    yield from (".SH EXIT STATUS", "Each command says what its own codes mean; in general:")
    yield from _definitions((str(int(code)), about) for code, about in _EXIT_CODES.items())
    yield from (".SH ENVIRONMENT", *_definitions(_ENVIRONMENT.items()))
    yield from (".SH FILES", *_definitions(_FILES.items()))
    yield from (".SH SEE ALSO", ".BR xl (1)")


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "")


def _usage(ctx: click.Context) -> Iterator[str]:
    yield rf"\fB{_text(ctx.command_path)}\fR {_text(' '.join(ctx.command.collect_usage_pieces(ctx)))}"


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in filter(None, re.split(r"\n\s*\n", text.strip())):
        lines = paragraph.split("\n")
        yield ".PP"
        if lines[0].strip(" ") == _AS_IT_STANDS:
            yield from (".nf", *(_text(line) for line in lines[1:]), ".fi")
        else:
            yield _text(" ".join(paragraph.split()))


def _options(ctx: click.Context) -> Iterator[str]:
    """Of the program `--help` too, which all commands have."""
    params = ctx.command.get_params(ctx) if ctx.parent is None else ctx.command.params
    records = [param.get_help_record(ctx) for param in params if isinstance(param, click.Option)]
    yield from _definitions(record for record in records if record)


def _definitions(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in pairs:
        yield from (".TP", rf"\fB{_text(term)}\fR", _text(meaning) or r"\&")


def _text(text: str) -> str:
    escaped = text.translate(_ROFF)
    escaped = "".join(c if c.isascii() else rf"\[u{ord(c):04X}]" for c in escaped)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


@command()
def manual() -> None:
    """Show the manual page; where standard output is no terminal, write it as man(1) reads it.

    \b
    Example: migrate manual > ~/.local/share/man/man1/migrate.1
    """
    from shutil import which

    from migrate.cli.main import main

    if sys.stdout is None or not sys.stdout.isatty() or which("man") is None:
        echo(page(main).rstrip())
        return
    import subprocess

    subprocess.run(["man", "-l", "-"], input=page(main).encode(), check=False)
