"""Several files after one `--host`."""

from __future__ import annotations

import click

from migrate.cli.command import Command
from migrate.cli.options import HOST


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
