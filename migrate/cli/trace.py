"""`migrate trace`: the restore as a sequence of hypercalls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from migrate.cli.check import reason_of
from migrate.cli.command import command
from migrate.cli.ending import ExitCode, complain, echo
from migrate.cli.options import Question, destination_options, format_option, offset_option, source_of
from streams.counting import count

if TYPE_CHECKING:
    from migrate.destination.destination import Destination
    from migrate.judging.judgement import Judgement

ORDERS = ("restore", "build", "bottom-up", "top-down")


@command(epilog="Exit code: 0 every call succeeds; 1 one fails; 2 wrong usage or unreadable input; 3 not judged.")
@click.argument("stream", metavar="STREAM", type=click.Path(allow_dash=True, readable=False))
@destination_options()
@offset_option
@click.option(
    "--order",
    type=click.Choice(ORDERS),
    default="restore",
    show_default=True,
    help="restore: contexts, then pins by pfn, as libxc does. build: pins first, as the domain builder. bottom-up: "
    "pins from L1 to L4 first. top-down: contexts, then pins from the roots down.",
)
@click.option(
    "--cost",
    is_flag=True,
    help="Instead of the trace, count what each order makes Xen do, side by side: hypercalls, batches of pins, types "
    "taken because a table names the frame, deepest such chain, table entries validated, calls that found their "
    "table validated, calls that fail.",
)
@click.option("--only", type=click.Choice(["failed"]), help="Only the calls that fail.")
@format_option(help="json: an array with an object per call. jsonl: an object per line.")
@click.pass_context
def trace(
    ctx: click.Context,
    stream: str,
    question: Question,
    offset: int,
    order: str,
    cost: bool,
    only: str | None,
    form: str,
) -> None:
    """Show the restore of a stream as hypercalls, with Xen's answer to each.

    A real restore ends at the first call that fails; the trace goes on, to show what else would.

    \b
    Example: migrate trace guest.xl --target 4.20 --placement high --only failed
    """
    from migrate.judging.check import judge
    from streams.transports import TransportError

    if cost and (only or order != "restore"):
        raise click.UsageError("--cost compares all orders over the whole restore: it takes neither --order nor --only")

    destination = question.destination

    def then(judgement: Judgement) -> ExitCode:
        if cost:
            return _cost(judgement, destination, form)
        return _trace(judgement, destination, order, only == "failed", form)

    try:
        ending = judge(source_of(stream), vcpus=destination.vcpus, offset=offset, then=then)
    except BrokenPipeError:
        raise
    except (OSError, TransportError) as error:
        complain(f"{stream}: {reason_of(error, stream)}", error)
        ending = ExitCode.FAILED
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    ctx.exit(ending)


def _trace(
    judgement: Judgement,
    destination: Destination,
    order: str,
    only_failed: bool,
    form: str,
) -> ExitCode:
    from migrate.judging import report_json
    from migrate.reports.verdict import trace as report
    from migrate.rules.declaring import Stage
    from migrate.safe import safe

    answers = judgement.answers(destination, order)
    reason = judgement.unjudged_because(destination)
    stopped = next((f for f in judgement.collector.findings if f.fatal and f.in_force(destination)), None)
    if stopped is not None and stopped.step == Stage.DEVICE_MODEL:
        complain(f"after these calls QEMU is started, and refuses: {stopped.message} ({stopped.rule.id})")
    elif stopped is not None and stopped.step != "context":
        complain(f"the restore stops while reading: {stopped.message} ({stopped.rule.id})")
        complain("what follows is how it would go on if it did not")
    elif reason:
        complain(f"not judged: {reason}")
        return ExitCode.UNJUDGED
    where = judgement.placement(destination.placement)
    if form == "json":
        echo(report_json.dumps(list(report.objects(answers, where, only_failed=only_failed)), indent=2))
    elif form == "jsonl":
        for item in report.objects(answers, where, only_failed=only_failed):
            echo(report_json.dumps(item))
    else:
        for line in report.lines(answers, where, only_failed=only_failed):
            echo(safe(line))
    if again := judgement.session.calls_again:
        more = count(again, "more call")
        complain(f"not shown: {more}, made while records are read: Xen answers each as the one before")
    return ExitCode.FOUND if stopped or any(answer.finding for answer in answers) else ExitCode.FINE


def _cost(judgement: Judgement, destination: Destination, form: str) -> ExitCode:
    from migrate.judging import report_json
    from migrate.xen.schedules import SCHEDULES, hypercalls

    rows = []
    for name in SCHEDULES:
        replay = judgement.pv_replay(destination, name)
        if replay is None or replay.hypervisor is None:
            complain("there is no replay to count: the stream does not reach its end, or is not of a PV guest")
            return ExitCode.UNJUDGED
        cost = replay.hypervisor.cost
        calls, batches = hypercalls(judgement.steps)
        failed = sum(1 for answer in replay.answers if answer.finding)
        rows.append(
            {
                "order": name,
                "hypercalls": calls,
                "pin batches": batches,
                "by recursion": cost.recursive,
                "deepest": cost.deepest,
                "entries": cost.entries,
                "already done": cost.already,
                "failed": failed,
            }
        )
    if form == "json":
        echo(report_json.dumps(rows, indent=2))
    elif form == "jsonl":
        for row in rows:
            echo(report_json.dumps(row))
    else:
        from migrate.reports.tables import print_table

        print_table(rows)
    return ExitCode.FOUND if any(row["failed"] for row in rows) else ExitCode.FINE
