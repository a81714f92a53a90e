"""Several files after one `--host`."""

from __future__ import annotations

import click

from migrate.cli.command import Command
from migrate.cli.options import STDIN


class HostsAfterStreams(Command):
    """A command whose `--host`, once it stands after a stream, takes all files up to the next option: a shell's *."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option for each file."""
        if "--host" in args and self.takes_all(args):
            at = args.index("--host") + 2
            while at < len(args) and not args[at].startswith("-"):
                args = [*args[:at], "--host", *args[at:]]
                at += 2
        return super().parse_args(ctx, args)

    def takes_all(self, args: list[str]) -> bool:
        """Whether a stream has come before the option, so that none comes after it."""
        options = (param for param in self.params if isinstance(param, click.Option) and not param.is_flag)
        with_value = {name for option in options for name in option.opts}
        before = args[: args.index("--host")]
        return any(
            arg == STDIN or (not arg.startswith("-") and (at == 0 or before[at - 1] not in with_value))
            for at, arg in enumerate(before)
        )
