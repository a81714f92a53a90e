"""`migrate check`: would these guests come back?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import click

from migrate.cli import Ending, complain, internal_error

if TYPE_CHECKING:
    from migrate.findings import Report

STDIN = "-"
# With several streams the worst counts; later is worse.
BADNESS = (Ending.FINE, Ending.UNJUDGED, Ending.FOUND, Ending.FAILED)


def resolve_rules(asked: Sequence[str]) -> tuple[str, ...]:
    """The ids of all rules that a user's words mean: ids, beginnings of ids (HYP, HYP-2) or slugs.

    Words may be joined by commas, case does not matter. A word that is an id means that rule alone, not those
    whose ids it also begins. One that means nothing raises ValueError, with a hint at what may have been meant.
    """
    from migrate.rules import NOT_RULES, RULES

    slugs = {rule.slug: id for id, rule in RULES.items()}
    meant: dict[str, None] = {}
    for word in filter(None, (word.strip() for words in asked for word in words.split(","))):
        id = word.upper()
        if id in RULES:
            found = [id]
        elif word.lower() in slugs:
            found = [slugs[word.lower()]]
        elif id in NOT_RULES:
            raise ValueError(f"{id} is not a rule: {NOT_RULES[id]}")
        else:
            found = [known for known in RULES if known.startswith(id)]
        if not found:
            raise ValueError(f"no rule is called {word!r}{_hint(word, [*RULES, *slugs])}")
        meant |= dict.fromkeys(found)
    return tuple(meant)


def _hint(word: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    by_fold = {name.casefold(): name for name in known}
    close = [by_fold[name] for name in get_close_matches(word.casefold(), by_fold, n=3)]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _rules(ctx: click.Context, param: click.Parameter, asked: tuple[str, ...]) -> tuple[str, ...]:
    if not asked:
        return ()
    try:
        return resolve_rules(asked)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _target(ctx: click.Context, param: click.Parameter, asked: str) -> str:
    from migrate import targets

    try:
        targets.resolve(asked)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return asked


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
        from migrate.reports.text import console_for, render_verdict

        if ending != Ending.FINE:
            render_verdict(report, console_for())

    def close(self) -> None:
        """Nothing is left to print."""


class JsonLinesOutput:
    """For programs: one object per line, as soon as the stream is judged."""

    def show(self, report: Report, ending: Ending) -> None:
        """Print the object."""
        from migrate.reports.as_json import dumps

        _echo(dumps(report.to_dict()))

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
            _echo(dumps(self.objects, indent=2))
        elif self.objects:
            _echo(dumps(self.objects[0], indent=2))


def _echo(text: str) -> None:
    if sys.stdout is None:
        raise BrokenPipeError("stdout is closed")
    click.echo(text)


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
@click.argument("streams", metavar="STREAM...", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option(
    "--target",
    metavar="VERSION",
    default="newest",
    show_default=True,
    callback=_target,
    help="The Xen release that would restore it: 4.20 (meaning 4.20.0), 4.20.3, newest.",
)
@click.option(
    "--placement",
    metavar="source|high|low|identity|file:MAP",
    default="source",
    show_default=True,
    help="Where the guest's frames would lie: as on the source, above or below 4 GiB, mfn = pfn, or by a map.",
)
@click.option("--vcpus", metavar="N", type=click.IntRange(min=1), help="How many vcpus the new domain would have.")
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

    from migrate import check as judge
    from migrate.cli import progress
    from streams.transports import TransportError

    outputs = {
        "text": QuietOutput if quiet else TextOutput,
        "json": lambda: JsonOutput(several=len(streams) > 1),
        "jsonl": JsonLinesOutput,
    }
    output: Output = outputs[form]()
    watched = not quiet and progress.wanted()
    worst = Ending.FINE
    for name in streams:
        try:
            with progress.ProgressBar(name) if watched else nullcontext() as bar:
                report = judge(
                    0 if name == STDIN else name,
                    target=target,
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
            report.stream.name = name
            ending = ending_of(report, fail_on)
            output.show(report, ending)
        worst = max(worst, ending, key=BADNESS.index)
    output.close()
    ctx.exit(worst)


def _reason(error: Exception, name: str) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    # Something other than the stream may be what cannot be read: a map of frames.
    return error.strerror if error.filename in (None, name) else f"{error.filename}: {error.strerror}"
