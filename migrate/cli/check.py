"""`migrate check`: would these guests come back?"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import click

from migrate.cli import Ending, complain, echo, internal_error
from migrate.cli.options import ALL, l3_rule_option, placement_option, target_option, vcpus_option

if TYPE_CHECKING:
    from migrate.findings import Report

STDIN = "-"
# With several streams the worst counts; later is worse.
BADNESS = (Ending.FINE, Ending.UNJUDGED, Ending.FOUND, Ending.FAILED)


def _rules(ctx: click.Context, param: click.Parameter, asked: tuple[str, ...]) -> tuple[str, ...]:
    if not asked:
        return ()
    from migrate.selection import resolve_rules

    try:
        return resolve_rules(asked)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class Output(Protocol):
    """One of the formats."""

    def show(self, report: Report, ending: Ending) -> None:
        """Take the report of one stream, and what it makes the exit code."""

    def close(self) -> None:
        """All streams have been judged."""


class TextOutput:
    """For people: each stream as soon as it is judged, a blank line between two."""

    def __init__(self) -> None:
        from migrate.reports.text import console_for

        self.console = console_for()
        self.first = True

    def show(self, report: Report, ending: Ending) -> None:
        """Print the report."""
        from migrate.reports.text import render

        if not self.first:
            self.console.print()
        self.first = False
        render(report, self.console)

    def close(self) -> None:
        """Nothing is left to print."""


class QuietOutput:
    """For people in a hurry: verdict lines, and only of streams that are not fine."""

    def show(self, report: Report, ending: Ending) -> None:
        """Print the verdict line."""
        if ending != Ending.FINE:
            from migrate.reports.text import console_for, render_verdict

            render_verdict(report, console_for())

    def close(self) -> None:
        """Nothing is left to print."""


class TableOutput:
    """For people who compare: a table of verdicts per stream, a row per release and form of the 4 GiB rule."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []

    def show(self, report: Report, ending: Ending) -> None:
        """Keep a row."""
        failure = report.failure
        where = ""
        if failure:
            who = f"vcpu {failure.vcpu} " if failure.vcpu is not None else ""
            page = f"pfn {failure.pfn:#x} " if failure.pfn is not None else ""
            where = f"{failure.step}: {who}{page}{failure.call} {failure.errno or ''}".rstrip()
        row = {"stream": report.stream.name, "target": report.target, "verdict": report.verdict}
        if report.l3_rule is not None:
            from migrate.rules.extended_cr3 import VARIANTS

            row["4 GiB rule"] = f"{report.l3_rule} {VARIANTS[report.l3_rule].name}"
        self.rows.append(row | {"rule": failure.rule if failure else "", "where": where or (report.reason or "")})

    def close(self) -> None:
        """Print the table."""
        from migrate.reports.tables import print_table

        names = {row["stream"] for row in self.rows}
        if len(names) == 1:
            # One stream needs no column of its own, which leaves the others room on a narrow terminal.
            from migrate.reports.safe import safe

            echo(safe(*names))
            self.rows = [{key: value for key, value in row.items() if key != "stream"} for row in self.rows]
        if self.rows:
            print_table(self.rows)


class JsonLinesOutput:
    """For programs: one object per line, as soon as the stream is judged."""

    def show(self, report: Report, ending: Ending) -> None:
        """Print the object."""
        from migrate.reports.as_json import dumps

        echo(dumps(report.to_dict()))

    def close(self) -> None:
        """Nothing is left to print."""


class JsonOutput:
    """For programs: one document at the end, an array if more than one stream was asked for."""

    def __init__(self, several: bool) -> None:
        self.several = several
        self.objects: list[dict[str, Any]] = []

    def show(self, report: Report, ending: Ending) -> None:
        """Keep the object."""
        self.objects.append(report.to_dict())

    def close(self) -> None:
        """Print the document."""
        from migrate.reports.as_json import dumps

        if self.several:
            echo(dumps(self.objects, indent=2))
        elif self.objects:
            echo(dumps(self.objects[0], indent=2))


def ending_of(report: Report, fail_on: str) -> Ending:
    """The exit code that one stream makes, with the threshold "error" or "warning"."""
    from migrate.rules.catalogue import Severity

    worst = report.worst()
    if report.verdict == "refuse" or (worst is not None and worst.rank >= Severity(fail_on).rank):
        return Ending.FOUND
    return Ending.FINE if report.verdict == "accept" else Ending.UNJUDGED


@click.command(
    epilog="Exit code: 0 nothing at or above the threshold; 1 a stream is refused, or has findings at or above "
    "it; 2 wrong usage, or a stream that cannot be read; 3 not judged. With several streams each is judged "
    "whatever becomes of the others, and the worst counts: 2, then 1, then 3, then 0."
)
@click.argument(
    "streams", metavar="STREAM...", nargs=-1, required=True, type=click.Path(allow_dash=True, readable=False)
)
@target_option(all_too=True)
@placement_option
@vcpus_option
@l3_rule_option(all_too=True)
@click.option(
    "--select",
    metavar="RULES",
    multiple=True,
    callback=_rules,
    help="Report these rules only: ids, beginnings of ids (HYP, HYP-2) or slugs; with commas, or repeated.",
)
@click.option("--ignore", metavar="RULES", multiple=True, callback=_rules, help="Do not report these rules.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning"]),
    default="error",
    show_default=True,
    help="Least severity that makes the exit code 1.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "jsonl"]),
    default="text",
    show_default=True,
    help="json: an object, or an array of them for several streams. jsonl: one object per line.",
)
@click.option(
    "--quiet", "-q", is_flag=True, help="No progress; as text, verdict lines only, and none for what exits with 0."
)
@click.pass_context
def check(
    ctx: click.Context,
    streams: tuple[str, ...],
    target: str,
    placement: str,
    vcpus: int | None,
    l3_rule: str | None,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: str,
    form: str,
    quiet: bool,
) -> None:
    """Judge streams: would the receiver restore the guest, and if not, what is the reason?

    STREAM is a file that holds a migration stream; "-" is standard input.
    """
    if streams.count(STDIN) > 1:
        raise click.UsageError("standard input can be read only once")

    from migrate.checker import survey
    from migrate.cli import progress
    from migrate.rules.extended_cr3 import VARIANTS
    from migrate.targets import RELEASES
    from streams.transports import TransportError

    targets = [release.name for release in RELEASES] if target == ALL else [target]
    variants = list(VARIANTS) if l3_rule == ALL else [l3_rule]
    many = ALL in (target, l3_rule)
    outputs = {
        "text": QuietOutput if quiet else TableOutput if many else TextOutput,
        "json": lambda: JsonOutput(several=many or len(streams) > 1),
        "jsonl": JsonLinesOutput,
    }
    output: Output = outputs[form]()
    watched = not quiet and progress.wanted()
    worst = Ending.FINE
    for name in streams:
        try:
            with progress.ProgressBar(name) if watched else nullcontext() as bar:
                reports = survey(
                    0 if name == STDIN else name,
                    targets=targets,
                    variants=variants,
                    placement=placement,
                    vcpus=vcpus,
                    select=select,
                    ignore=ignore,
                    progress=bar,
                )
        except (OSError, TransportError) as error:
            complain(f"{name}: {_reason(error, name)}", error)
            ending = Ending.FAILED
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        except Exception as error:
            internal_error(error, f"{name}: ")
            ending = Ending.FAILED
        else:
            ending = Ending.FINE
            for report, variant in zip(reports, variants * len(targets), strict=True):
                report.stream.name = name
                report.l3_rule = variant
                output.show(report, ending_of(report, fail_on))
                ending = max(ending, ending_of(report, fail_on), key=BADNESS.index)
        worst = max(worst, ending, key=BADNESS.index)
    output.close()
    ctx.exit(worst)


def _reason(error: Exception, name: str) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    # Something other than the stream may be what cannot be read: a map of frames.
    return error.strerror if error.filename in (None, name) else f"{error.filename}: {error.strerror}"
