"""The group of `migrate corpus`: streams together with what is expected of them."""

from __future__ import annotations

import click

from migrate.cli.main import LazyGroup

# Only the command that runs is imported.
COMMANDS = {
    "run": "migrate.cli.corpus.run",
    "accept": "migrate.cli.corpus.accept",
    "merge": "migrate.cli.corpus.merge",
    "shrink": "migrate.cli.corpus.shrink",
    "scrub": "migrate.cli.corpus.scrub",
}


class _Corpus(LazyGroup):
    modules = COMMANDS


@click.group(cls=_Corpus)
def corpus() -> None:
    """Work with many streams and what is expected of them.

    \b
    Example: migrate corpus run guests
    """
