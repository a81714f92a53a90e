"""`migrate rules`: what is checked."""

from __future__ import annotations

import click

from migrate.cli.command import command
from migrate.cli.ending import echo
from migrate.rules.declaring import Layer


def _layer(ctx: click.Context, param: click.Parameter, asked: str | None) -> Layer | None:
    return None if asked is None else Layer[asked.upper()]


@command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
    help="json: also what is deliberately no rule. markdown: one page with everything that `explain` tells.",
)
@click.option(
    "--layer",
    type=click.Choice([layer.name for layer in Layer], case_sensitive=False),
    callback=_layer,
    help="One layer alone: " + ", ".join(f"{layer.name} {layer.value}" for layer in Layer) + ".",
)
@click.option(
    "--releases",
    is_flag=True,
    help="In place of the rules: what changed from release to release, as far as it makes a difference to a stream.",
)
@click.option(
    "--messages",
    is_flag=True,
    help="In place of the rules: the messages of failed restores that `explain` knows in a log.",
)
def rules(form: str, layer: Layer | None, releases: bool, messages: bool) -> None:
    """List all rules.

    \b
    Example: migrate rules --layer HYP
    """
    if releases + messages + (layer is not None) > 1:
        raise click.UsageError("--releases tells of all changes, --messages of logs, --layer of rules: one of them")
    if releases:
        _releases(form)
        return
    if messages:
        _messages(form)
        return
    if form == "text":
        from migrate.reports.rules.text import render_rules
        from migrate.reports.verdict.text import console_for

        render_rules(console_for(), layer)
        return
    from migrate.reports.rules.pages import rules_markdown, rules_object

    if form == "json":
        from migrate.judging.report_json import dumps

        echo(dumps(rules_object(layer), indent=2))
    else:
        echo(rules_markdown(layer))


def _releases(form: str) -> None:
    """Print the table of changes."""
    from migrate.reports.rules.changes import changes_markdown, changes_object, render_changes

    if form == "text":
        from migrate.reports.verdict.text import console_for

        render_changes(console_for())
    elif form == "json":
        from migrate.judging.report_json import dumps

        echo(dumps(changes_object(), indent=2))
    else:
        echo(changes_markdown())


def _messages(form: str) -> None:
    """Print what is known of logs."""
    from migrate.reports.rules.messages import messages_markdown, messages_object, render_messages

    if form == "text":
        from migrate.reports.verdict.text import console_for

        render_messages(console_for())
    elif form == "json":
        from migrate.judging.report_json import dumps

        echo(dumps(messages_object(), indent=2))
    else:
        echo(messages_markdown())
