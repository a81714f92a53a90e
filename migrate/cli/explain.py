"""`migrate explain`: what a rule is about, and a stream that breaks it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from migrate.cli import suggestions
from migrate.cli.command import command
from migrate.cli.ending import ExitCode, complain, echo

if TYPE_CHECKING:
    from migrate.reports.rules.pages import Shown
    from migrate.rules.declaring import Rule

STDOUT = "-"


def _rule(ctx: click.Context, param: click.Parameter, asked: str) -> str:
    """The id that a word means; that of something which deliberately is no rule, too."""
    from migrate.rules.catalogue import NOT_RULES
    from migrate.rules.selection import matching

    if asked.strip().upper() in NOT_RULES:
        return asked.strip().upper()
    try:
        found = matching(asked)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if len(found) > 1:
        raise click.BadParameter(f"{asked.strip()} begins the ids of {len(found)} rules: {', '.join(found)}")
    return found[0]


@command(epilog="Exit code: 0; 2 where no rule is called so, or the stream cannot be written.")
@click.argument("rule", metavar="RULE", callback=_rule, shell_complete=suggestions.one_rule)
@click.option(
    "--write",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help='Instead of explaining, write the smallest stream that breaks the rule; "-" is standard output.',
)
@click.option("--force", is_flag=True, help="Let --write overwrite a file.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def explain(ctx: click.Context, rule: str, write: str | None, force: bool, form: str) -> None:
    """Explain a rule, and show what breaking it looks like.

    RULE is an id or a slug, as findings name it: HYP-22, l3-above-4g.

    \b
    Example: migrate explain HYP-22
    """
    from migrate.rules.catalogue import NOT_RULES, RULES

    if force and write is None:
        raise click.UsageError("--force is for --write")
    if write is not None and form != "text":
        raise click.UsageError(f"--write writes a stream instead of an explanation: there is none as {form}")
    if rule in NOT_RULES:
        if write is not None:
            raise click.UsageError(f"{rule} is not a rule: {NOT_RULES[rule]}")
        _explain_not_rule(rule, form)
    elif write is None:
        _explain(RULES[rule], form)
    else:
        ctx.exit(_write(RULES[rule], write, force))


def _explain_not_rule(id: str, form: str) -> None:
    from migrate.judging.report_json import dumps
    from migrate.reports.rules.pages import not_rule_object
    from migrate.rules.catalogue import NOT_RULES

    echo(dumps(not_rule_object(id), indent=2) if form == "json" else f"{id} is not a rule: {NOT_RULES[id]}")


def _explain(rule: Rule, form: str) -> None:
    shown = None if rule.violation is None else show(rule)
    if form == "json":
        from migrate.judging.report_json import dumps
        from migrate.reports.rules.pages import explanation_object

        echo(dumps(explanation_object(rule, shown), indent=2))
    else:
        from migrate.reports.rules.text import render_explanation
        from migrate.reports.verdict.text import console_for

        render_explanation(rule, shown, console_for())


def violating_stream(rule: Rule) -> bytes:
    """The smallest stream that breaks a rule.

    Raises
    ------
    ValueError
        for a rule that no stream can show.
    """
    from migrate.building.builder import StreamBuilder

    if rule.violation is None:
        raise ValueError(f"no stream can show {rule.id}, so there is none to write")
    builder = StreamBuilder.pv()
    rule.violation(builder)
    return builder.build()


def show(rule: Rule) -> Shown:
    """Judge the stream that breaks a rule, under what it takes to see it."""
    from migrate import check
    from migrate.reports.rules.pages import Shown, conditions

    return Shown(rule, check(violating_stream(rule), **conditions(rule)._asdict()))


def _write(rule: Rule, file: str, force: bool) -> ExitCode:
    if file == STDOUT and sys.stdout is None:
        raise BrokenPipeError("stdout is closed")
    if file == STDOUT and sys.stdout.isatty():
        complain("a stream is not for a terminal: give --write a file, or redirect standard output")
        return ExitCode.FAILED
    try:
        stream = violating_stream(rule)
    except ValueError as error:
        complain(str(error), error)
        return ExitCode.FAILED
    if file == STDOUT:
        sys.stdout.buffer.write(stream)
        return ExitCode.FINE
    try:
        with open(file, "wb" if force else "xb") as out:
            out.write(stream)
    except FileExistsError as error:
        complain(f"{file} exists; --force overwrites it", error)
        return ExitCode.FAILED
    _tell_what_next(rule, file, len(stream))
    return ExitCode.FINE


def _tell_what_next(rule: Rule, file: str, size: int) -> None:
    from shlex import join

    from migrate.reports.rules.pages import check_command
    from migrate.safe import safe

    # A name that looks like an option would be taken for one.
    name = f"./{file}" if file.startswith("-") else file
    echo(safe(f"{file}: {size} bytes; to see it: {join(check_command(rule, name))}"))
