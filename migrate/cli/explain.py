"""`migrate explain`: what a rule is about, and a stream that breaks it; what a log or a message says."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import click

from migrate.cli import suggestions
from migrate.cli.command import command
from migrate.cli.ending import ExitCode, complain, echo
from streams.counting import count

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from migrate.reports.rules.pages import Shown
    from migrate.rules.declaring import Rule
    from migrate.rules.messages.log import Log

STDOUT = STDIN = "-"
_PIECE = 1 << 16  # bytes
_LISTED = "migrate rules --messages lists what is"


def _asked(ctx: click.Context, param: click.Parameter, asked: str | None) -> str | None:
    """The id that a word means; that of something which deliberately is no rule, too. A message stays as it is."""
    from migrate.rules.catalogue import NOT_RULES
    from migrate.rules.selection import matching

    if asked is None:
        return None
    if asked.strip().upper() in NOT_RULES:
        return asked.strip().upper()
    try:
        found = matching(asked)
    except ValueError as error:
        if len(asked.split()) > 1:
            return asked
        raise click.BadParameter(str(error)) from None
    if len(found) > 1:
        raise click.BadParameter(f"{asked.strip()} begins the ids of {len(found)} rules: {', '.join(found)}")
    return found[0]


@command(
    epilog="Exit code: 0; 2 where no rule is called so, or the stream cannot be written; 3 where no message is known."
)
@click.argument("rule", metavar="RULE|MESSAGE", required=False, callback=_asked, shell_complete=suggestions.one_rule)
@click.option(
    "--log",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help="Find out from a log why a restore failed: xl's output or /var/log/xen/xl-NAME.log, libvirt's "
    'libxl-driver.log, xensource.log, QEMU\'s log, xl dmesg, or several one after the other. "-" is standard input.',
)
@click.option(
    "--write",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help='Instead of explaining, write the smallest stream that breaks the rule; "-" is standard output.',
)
@click.option("--force", is_flag=True, help="Let --write overwrite a file.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def explain(ctx: click.Context, rule: str | None, log: str | None, write: str | None, force: bool, form: str) -> None:
    """Explain a rule, a message, or what a log says of a restore that failed.

    RULE is an id or a slug, as findings name it: HYP-22, l3-above-4g. It is explained, with what breaking it looks
    like.

    MESSAGE is a line that libxc, libxl, xl, libvirt, xenopsd, QEMU or Xen wrote when a restore failed; --log finds
    such lines in a log. Both say which rules can have been broken, what was going on, what decides between the
    rules, and which command would confirm it if the stream is still there. Lines that belong together narrow it
    down: give Xen's console (xl dmesg) as well if you have it, (xl restore guest.xl; xl dmesg) 2>&1 | migrate
    explain --log -

    \b
    Example: migrate explain "Failed to set vcpu1's basic info (34 = Numerical result out of range)"
    """
    from migrate.rules.catalogue import NOT_RULES, RULES

    if log is not None and rule is not None:
        raise click.UsageError("--log reads messages from a file; a rule or message beside it would be lost")
    if log is None and rule is None:
        raise click.MissingParameter(ctx=ctx, param_hint="'RULE|MESSAGE'", param_type="argument")
    if force and write is None:
        raise click.UsageError("--force is for --write")
    if write is not None and form != "text":
        raise click.UsageError(f"--write writes a stream instead of an explanation: there is none as {form}")
    if log is not None or rule not in (*RULES, *NOT_RULES):
        if write is not None:
            raise click.UsageError("--write takes a rule: what a message means is not certain enough")
        ctx.exit(_explain_log(log, form) if log is not None else _explain_message(rule or "", form))
    elif rule in NOT_RULES:
        if write is not None:
            raise click.UsageError(f"{rule} is not a rule: {NOT_RULES[rule]}")
        _explain_not_rule(rule, form)
    elif write is None:
        _explain(RULES[rule], form)
    else:
        ctx.exit(_write(RULES[rule], write, force))


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    """A file as it comes, in pieces."""
    read = getattr(file, "read1", file.read)
    while piece := read(_PIECE):
        yield piece


def _explain_log(file: str, form: str) -> ExitCode:
    from migrate.rules.messages.log import read

    if file == STDIN:
        if sys.stdin is None:
            raise click.UsageError("standard input is closed")
        return _tell(read(_pieces(sys.stdin.buffer)), "standard input", form)
    with open(file, "rb") as opened:
        return _tell(read(_pieces(opened)), file, form)


def _explain_message(text: str, form: str) -> ExitCode:
    from migrate.rules.messages.log import read

    return _tell(read([text.encode("utf-8", "surrogateescape")]), None, form)


def _tell(log: Log, name: str | None, form: str) -> ExitCode:
    """Print what a log says; `name` is None for a message."""
    if form == "json":
        from migrate.judging.report_json import dumps
        from migrate.reports.rules.failures import log_object

        echo(dumps(log_object(log, name or "message"), indent=2))
    elif log.failures:
        from migrate.reports.rules.failures_text import render_log, render_message
        from migrate.reports.verdict.text import console_for

        render_message(log, console_for()) if name is None else render_log(log, name, console_for())
    if log.failures:
        return ExitCode.FINE
    complain(_nothing_known(log, name))
    return ExitCode.UNJUDGED


def _nothing_known(log: Log, name: str | None) -> str:
    """That no line is known, and where there may be one."""
    from streams.counting import count

    if name is None:
        return f"no rule is called so, and it is no message of a failed restore that is known; {_LISTED}"
    none = "it is not" if log.lines == 1 else "none is"
    said = f"{name}: {count(log.lines, 'line')}, and {none} a message of a failed restore that is known"
    return f"{said}; look also at xl dmesg and /var/log/xen/qemu-dm-NAME.log; {_LISTED}"


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
    from migrate.reports.rules.commands import conditions
    from migrate.reports.rules.pages import Shown

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
    from migrate.whole_file import OutputFile

    try:
        with io.BufferedWriter(OutputFile(file, file, "w" if force else "x")) as out:
            out.write(stream)
    except FileExistsError as error:
        complain(f"{file} exists; --force overwrites it", error)
        return ExitCode.FAILED
    _tell_what_next(rule, file, len(stream))
    return ExitCode.FINE


def _tell_what_next(rule: Rule, file: str, size: int) -> None:
    from shlex import join

    from migrate.reports.rules.commands import check_command
    from migrate.safe import safe

    # A name that looks like an option would be taken for one.
    name = f"./{file}" if file.startswith("-") else file
    echo(safe(f"{file}: {count(size, 'byte')}; to see it: {join(check_command(rule, name))}"))
