"""The command line: the group, and how every command of it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import click

from migrate.cli.command import WIDEST, Context, made, told_by_click
from migrate.cli.declaring import Declared
from migrate.cli.ending import Exit, make_printable, orderly_end
from migrate.cli.settings import ENVIRONMENT, SETTINGS_FILE, SETTINGS_TABLE
from migrate.cli.start import COMPLETE as COMPLETE
from migrate.cli.start import LINKS
from migrate.cli.start import PROGRAM as PROGRAM

# Only the command that runs is imported.
COMMANDS = {
    "check": "migrate.cli.check",
    "explain": "migrate.cli.explain",
    "rules": "migrate.cli.rules",
    "filter": "migrate.cli.filter",
    "trace": "migrate.cli.trace",
    "show": "migrate.cli.show",
    "report": "migrate.cli.report",
    "extract": "migrate.cli.extract",
    "corpus": "migrate.cli.corpus.group",
    "policy": "migrate.cli.policy",
    "config": "migrate.cli.config",
    "host": "migrate.cli.host",
    "verify-stream-v2": "migrate.cli.verify_stream_v2",
    "synth": "migrate.cli.synth",
    "completion": "migrate.cli.completion",
    "manual": "migrate.cli.manual",
}
# Both names of it; another program may have the first.
PROGRAMS = (PROGRAM, "xen-migrate")


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, and names similar ones where there is none.

    `modules` says where commands are, beside those that are declared as usual.
    """

    modules: ClassVar[Mapping[str, str]] = {}
    context_class = Context

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return [*super().list_commands(ctx), *self.modules]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in self.modules:
            return super().get_command(ctx, cmd_name)
        found: Declared | click.Command = getattr(import_module(self.modules[cmd_name]), cmd_name.replace("-", "_"))
        return made(found) if isinstance(found, Declared) else found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word means."""
        word = args[0]
        if not (word.startswith("-") or ctx.resilient_parsing or word in self.list_commands(ctx)):
            from difflib import get_close_matches

            close = get_close_matches(word, self.list_commands(ctx))
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            ctx.fail(f"No such command {word!r}.{hint}")
        return super().resolve_command(ctx, args)


class Commands(LazyGroup):
    """All commands; they end as `ExitCode` says whatever happens."""

    modules = COMMANDS

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run; under a name of `LINKS`, as that command."""
        called = os.path.basename(sys.argv[0])
        if called in LINKS and not args and kwargs.get("args") is None:
            kwargs |= {"args": [called, *sys.argv[1:]], "prog_name": PROGRAM}
        if COMPLETE in os.environ:
            import_module("migrate.cli.completion")
        return super().main(*args, **{"complete_var": COMPLETE, **kwargs})

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the group's own options."""
        make_printable()
        try:
            with orderly_end():
                return super().make_context(*args, **kwargs)
        except Exit as end:
            raise click.exceptions.Exit(end.code) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with told_by_click(ctx), orderly_end():
            return super().invoke(ctx)


def _show_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from migrate.rules.version import version_line

        click.echo(version_line())
        ctx.exit()


@click.group(
    cls=Commands,
    epilog=f"Where guests would come back may be configured: {', '.join(ENVIRONMENT.values())}, or below "
    f"[{'.'.join(SETTINGS_TABLE)}] in {SETTINGS_FILE}, here or in ~/.config. The command line goes first.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version, and that of the rules.",
)
def main() -> None:
    """Would this guest come back? Judges Xen migration streams as the receiver would.

    \b
    Example: migrate check guest.xl --target 4.20
    """
