"""`migrate show`: what is in a stream?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from migrate.cli.check import reason_of
from migrate.cli.command import command
from migrate.cli.declaring import option
from migrate.cli.ending import ExitCode, complain, echo
from migrate.cli.options import (
    ALL,
    Question,
    destination_options,
    format_option,
    offset_option,
    record_option,
    source_of,
    whole_number,
)
from streams.values import dataclass

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.inspection.reading import Inspection


def _vcpu(ctx: click.Context, param: click.Parameter, asked: str | None) -> str | int | None:
    if asked is None or asked == ALL:
        return asked
    if not asked.isascii() or not asked.isdigit() or len(asked) > 10:
        raise click.BadParameter(f"{asked!r} is neither a vcpu's number nor {ALL}")
    return int(asked)


@dataclass(frozen=True, slots=True)
class View:
    """Something to be shown: on a console, or as an object under a key of the JSON document."""

    key: str
    render: Callable[[Inspection, Console], None]
    object: Callable[[Inspection], Any]


@command(
    epilog="Exit code: 0 shown, whatever is wrong with the stream (check judges it): a damaged one as far as it "
    "goes; 2 wrong usage, unreadable input, or what was asked for is not in the stream; 3 there is nothing to show: "
    "it is no stream, or one from before 4.6."
)
@click.argument("stream", metavar="STREAM", type=click.Path(allow_dash=True, readable=False))
@record_option("All fields of a record")
@click.option("--hexdump", is_flag=True, help="With --record: its bytes, too.")
@click.option(
    "--vcpu",
    metavar="N|all",
    callback=_vcpu,
    help="The registers of vcpu N, or of all. (Not --vcpus: that is how many the new domain would have.)",
)
@click.option("--rounds", is_flag=True, help="The passes of a live migration, and which pages were sent again.")
@option("--pfn", metavar="P", parse=whole_number, help="All about a page.")
@option(
    "--walk",
    metavar="VADDR",
    parse=whole_number,
    help="From an address of the guest to a page, table by table: those of the vcpu that --vcpu names, or vcpu 0.",
)
@click.option("--tables", is_flag=True, help="The page tables as a forest.")
@click.option("--p2m", is_flag=True, help="Which machine frames the guest's pages had, or would get (--placement).")
@click.option("--map", "map_", is_flag=True, help="A picture of the guest's memory.")
@click.option("--config", is_flag=True, help="The configuration that travels with the stream.")
@click.option(
    "--against",
    metavar="OTHER",
    type=click.Path(exists=True, dir_okay=False),
    help="Which sections of the device model's state the QEMU that saved OTHER, a stream as well, would not know.",
)
@click.option("--all", "everything", is_flag=True, help="Fold nothing, and leave nothing out that is long.")
@format_option(help="json: one document, with a key for each view. jsonl: the same on one line.")
@click.option("--json", "as_json", is_flag=True, hidden=True)
@destination_options()
@offset_option
@click.pass_context
def show(
    ctx: click.Context,
    /,
    stream: str,
    question: Question,
    offset: int,
    form: str,
    as_json: bool,
    **asked: Any,
) -> None:
    """Show what is in a stream: its records, and what is wrong with which; a record, a vcpu, a page.

    Without an option for one of these, the table of records. Records that are alike share a line, and so do the
    PAGE_DATA records of one pass over memory; a mark and ids of rules stand at what has findings.

    \b
    Example: migrate show guest.xl --record 12 --hexdump
    """
    if asked["hexdump"] and asked["record"] is None:
        raise click.UsageError("--hexdump goes with --record")
    if as_json:
        form = "json"

    from migrate.cli import progress
    from migrate.inspection.reading import NotInStream, inspect
    from streams.transports import TransportError

    with ExitStack() as stack:
        bar = stack.enter_context(progress.ProgressBar(stream)) if progress.wanted() else None

        def then(inspection: Inspection) -> ExitCode:
            stack.close()
            inspection.judgement.facts.name = stream
            _judge(inspection)
            if not len(inspection.log):
                return _nothing(inspection, form)
            chosen = list(views(**asked))
            if form != "text":
                _write_document(inspection, chosen, form)
            else:
                _print_views(inspection, chosen)
            return ExitCode.FINE

        try:
            ending = inspect(
                source_of(stream),
                question.destination,
                offset=offset,
                progress=bar,
                then=then,
            )
        except BrokenPipeError:
            raise
        except NotInStream as error:
            complain(f"{stream}: {error}")
            ending = ExitCode.FAILED
        except (OSError, TransportError) as error:
            complain(f"{stream}: {reason_of(error, stream)}", error)
            ending = ExitCode.FAILED
    ctx.exit(ending)


def _judge(inspection: Inspection) -> None:
    """Make the report now: a map of frames is read for it, which may be none."""
    try:
        inspection.report  # noqa: B018
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _nothing(inspection: Inspection, form: str) -> ExitCode:
    """Tell of a stream without a single record what is known of it."""
    damaged, report = inspection.log.damaged, inspection.report
    if form != "text":
        _write_document(inspection, [], form)
    elif report.stream.legacy is not None:
        from migrate.reports.verdict.text import console_for, render_head

        render_head(report, console_for())
    why = damaged.message if damaged is not None else report.unjudged_because or "no record"
    complain(f"{report.stream.name}: nothing to show: {why}")
    return ExitCode.UNJUDGED


def views(
    *,
    record: str | None,
    hexdump: bool,
    vcpu: str | int | None,
    rounds: bool,
    pfn: int | None,
    walk: int | None,
    tables: bool,
    p2m: bool,
    map_: bool,
    config: bool,
    against: str | None,
    everything: bool,
) -> Iterator[View]:
    """The views that options of the command ask for."""
    plain = (record, vcpu, rounds, pfn, walk, tables, p2m, map_, config, against)
    if all(one is None or one is False for one in plain):
        yield _contents_view(everything)
    if record is not None:
        yield _record_view(record, hexdump, everything)
    if vcpu is not None and walk is None:
        yield _vcpu_view(vcpu)
    if rounds:
        yield _rounds_view()
    if config:
        yield _config_view()
    if against is not None:
        yield _against_view(against)
    yield from _memory_views(pfn, walk, vcpu, tables, p2m, map_)


def _contents_view(everything: bool) -> View:
    from migrate.reports.inspection import records
    from migrate.reports.verdict.text import render_head

    def render(inspection: Inspection, console: Console) -> None:
        render_head(inspection.report, console)
        console.print()
        records.render_contents(inspection, console, everything=everything)

    return View("records", render, lambda i: records.contents_objects(i, everything=everything))


def _record_view(selector: str, dump: bool, everything: bool) -> View:
    from migrate.inspection.records.selector import selected
    from migrate.reports.inspection import records

    return View(
        "record",
        lambda i, console: records.render_record(i, console, selected(i, selector), everything=everything, dump=dump),
        lambda i: records.record_object(i, selected(i, selector), everything=everything, dump=dump),
    )


def _vcpu_view(vcpu: str | int) -> View:
    from migrate.inspection.reading import NotInStream
    from migrate.inspection.vcpus.states import vcpu_ids
    from migrate.reports.inspection import vcpus

    def wanted(inspection: Inspection) -> list[int]:
        if isinstance(vcpu, int):
            return [vcpu]
        known = vcpu_ids(inspection)
        if not known:
            raise NotInStream("the stream has no vcpu")
        return known

    return View(
        "vcpus",
        lambda i, console: vcpus.render_vcpus(i, console, wanted(i)),
        lambda i: vcpus.vcpu_objects(i, wanted(i)),
    )


def _rounds_view() -> View:
    from migrate.reports.inspection import rounds

    return View("rounds", rounds.render_rounds, rounds.rounds_object)


def _config_view() -> View:
    from migrate.reports.inspection import configuration

    return View("config", configuration.render_config, configuration.config_object)


def _against_view(name: str) -> View:
    from migrate.inspection.reading import NotInStream, inspect
    from migrate.inspection.records.device_model import state_of
    from migrate.reports.inspection import configuration

    other = inspect(name, then=state_of)
    if other is None:
        raise NotInStream(f"there is no device model's state in {name}")
    return View(
        "against",
        lambda i, console: configuration.render_against(i, other, name, console),
        lambda i: configuration.against_object(i, other),
    )


def _memory_views(
    pfn: int | None, walk: int | None, vcpu: str | int | None, tables: bool, p2m: bool, map_: bool
) -> Iterator[View]:
    from migrate.reports.inspection import memory, picture

    if pfn is not None:
        yield View(
            "pfn",
            lambda i, console: memory.render_pfn(i, console, pfn),
            lambda i: memory.pfn_object(i, pfn),
        )
    if walk is not None:
        if vcpu == ALL:
            raise click.UsageError("--walk goes by the tables of one vcpu")
        by = vcpu if isinstance(vcpu, int) else 0
        yield View(
            "walk",
            lambda i, console: memory.render_walk(i, console, walk, by),
            lambda i: memory.walk_object(i, walk, by),
        )
    if tables:
        yield View("tables", memory.render_tables, memory.tables_object)
    if p2m:
        yield View("p2m", memory.render_p2m, memory.p2m_object)
    if map_:
        yield View("map", picture.render_map, picture.map_object)


def _print_views(inspection: Inspection, views: list[View]) -> None:
    from migrate.reports.verdict.text import console_for

    console = console_for()
    for number, view in enumerate(views):
        if number:
            console.print()
        view.render(inspection, console)


def _write_document(inspection: Inspection, views: list[View], form: str) -> None:
    """One JSON document, or the same on one line. What may be long is made and written piece by piece."""
    from migrate.judging.report_json import dumps, report_object
    from migrate.reports.inspection.records import damage_object, elsewhere_object

    report = report_object(inspection.report)
    asked = ("schema", "tool", "stream", "target", "placement", "verdict", "damaged", "reason")
    known = {key: report[key] for key in asked}
    # Made before anything is written: what is not in the stream ends the command without half a document.
    about = {"damage": damage_object(inspection), "of_no_one_record": elsewhere_object(inspection)}
    parts = known | about | {view.key: view.object(inspection) for view in views}
    last = list(parts)[-1]
    write = partial(echo, ends_line=form == "json")
    write("{")
    for key, value in parts.items():
        comma = "" if key == last else ","
        if isinstance(value, Iterator):
            write(f"{dumps(key)}: [")
            before = ""
            for item in value:
                write(f"{before} {dumps(item)}")
                before = ","
            write(f"]{comma}")
        else:
            write(f"{dumps(key)}: {dumps(value)}{comma}")
    echo("}")
