"""`migrate synth`: a stream of a guest that never was."""

from __future__ import annotations

import json
import os
import shlex
import stat
from typing import IO, TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from migrate.cli import suggestions
from migrate.cli.command import command
from migrate.cli.declaring import option
from migrate.cli.ending import ExitCode, complain, echo
from migrate.cli.options import one_rule, size_in_bytes
from migrate.cli.output import STDOUT, stream_output
from streams.counting import count
from streams.wire.framing import PAGE_SIZE

if TYPE_CHECKING:
    from migrate.building.builder import StreamBuilder
    from migrate.building.hvm_contexts import Hardware
    from migrate.destination.releases import Release
    from migrate.rules.declaring import Rule

CONTAINERS = ("libxc", "libxl", "xl", "libvirt")
HVM_KINDS = ("hvm", "pvh")
# From here on a guest is written piece by piece, and never is in memory as a whole.
BIG = 64 << 20
BIG_TABLE_SHARE = 0.02


def _release(ctx: click.Context, param: click.Parameter, asked: str | None) -> Release | None:
    """The release that a word means."""
    if asked is None:
        return None
    from migrate.destination.releases import resolve

    try:
        return resolve(asked)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@command(epilog="Exit code: 0; 2 for wrong usage, or where the stream cannot be written.")
@click.argument("out", metavar="OUT", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--kind", type=click.Choice(["pv", *HVM_KINDS]), default="pv", show_default=True)
@click.option(
    "--release",
    metavar="X.Y",
    callback=_release,
    help="The Xen that saved it: 4.13, 4.20.3; by default in forms that each release from 4.14 on takes.",
)
@option(
    "--size",
    parse=size_in_bytes,
    absent=0,
    metavar="SIZE",
    help="Memory of the guest: 8M, 4G; by default, a dozen pages.",
)
@click.option("--width", type=click.Choice(["4", "8"]), default="4", show_default=True, help="PV: bytes of a word.")
@click.option("--vcpus", metavar="N", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option(
    "--tables",
    metavar="SHARE",
    type=click.FloatRange(0, 0.5),
    help=f"PV: page tables as a share of all pages; from 64M on {BIG_TABLE_SHARE} by default.",
)
@click.option("--rounds", metavar="N", type=click.IntRange(1, 64), default=1, show_default=True, help="Passes over it.")
@click.option("--extended", is_flag=True, help="PV: enable pae_extended_cr3.")
@click.option("--roots", metavar="N", type=click.IntRange(1, 1024), default=1, show_default=True, help="PV, below 64M.")
@click.option(
    "--l3-placement",
    type=click.Choice(["low", "high"]),
    default="low",
    show_default=True,
    help="PV of width 4, below 64M: whether its roots lie below 4 GiB on the source.",
)
@option(
    "--damage",
    metavar="RULE",
    parse=one_rule,
    shell_complete=suggestions.one_rule,
    help="The smallest stream that breaks this rule (an id or a slug). What any such guest meets on some hosts is told "
    "beside it: REC-32, HYP-27.",
)
@click.option("--seed", metavar="N", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--container", type=click.Choice(CONTAINERS), default="libxc", show_default=True)
@click.option("--force", is_flag=True, help="Overwrite a file.")
@click.pass_context
def synth(ctx: click.Context, /, out: str, force: bool, **asked: Any) -> None:
    """Write a stream of a made-up guest to OUT; "-" is standard output.

    The guest is one that every Xen restores, unless --damage, --release or --l3-placement say otherwise. An HVM guest,
    or a PVH guest, has every type of hardware state that its saver knows.

    \b
    Example: migrate synth guest.xl --size 8M --vcpus 4 --roots 4 --l3-placement high --container xl
    """
    given = {name for name in asked if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
    _check_usage(given, asked)
    rule = _named(asked["damage"])
    try:
        if rule is None and asked["size"] >= BIG:
            with stream_output(out, force=force, private=False) as file:
                written = _write_big(file, asked, sparse=out != STDOUT)
        else:
            stream = _small(asked).build() if rule is None else _damaged(rule, asked["container"], given)
            with stream_output(out, force=force, private=False) as file:
                file.write(stream)
            written = len(stream)
    except ValueError as error:
        complain(str(error), error)
        ctx.exit(ExitCode.FAILED)
    if out != STDOUT:
        _tell(out, written, rule)


def _check_usage(given: set[str], asked: dict[str, Any]) -> None:
    """Options that would be passed over in silence are refused."""

    def refuse(names: set[str], why: str) -> None:
        for name in sorted(names & given):
            raise click.UsageError(f"--{name.replace('_', '-')} {why}")

    if "size" in given and asked["size"] < PAGE_SIZE:
        raise click.UsageError(f"--size {asked['size']}: less than a page of {PAGE_SIZE} bytes; 8M are 8 MiB")
    if asked["damage"] is not None:
        refuse(given - {"damage", "container"}, "shapes a guest, and --damage comes with its own")
    if asked["kind"] in HVM_KINDS:
        refuse({"width", "tables", "extended", "roots", "l3_placement"}, "is about PV guests")
    if asked["width"] == "8":
        refuse({"l3_placement"}, "is about guests of width 4: others have no L3 roots")
    if asked["size"] >= BIG:
        refuse({"roots", "l3_placement"}, f"is for guests below {BIG >> 20}M")


def _named(id: str | None) -> Rule | None:
    if id is None:
        return None
    from migrate.rules.catalogue import RULES

    return RULES[id]


def _small(asked: dict[str, Any]) -> StreamBuilder:
    from migrate.building import shapes

    common = {name: asked[name] for name in ("vcpus", "rounds", "seed")}
    pages = shapes.pages_of(asked["size"])
    if asked["kind"] in HVM_KINDS:
        b = shapes.hvm_guest(pages=pages, hardware=_hardware(asked), **common)
    else:
        b = shapes.pv_guest(
            int(asked["width"]),
            pages=pages,
            roots=asked["roots"],
            table_share=asked["tables"] or 0.0,
            extended=asked["extended"],
            high_roots=asked["l3_placement"] == "high",
            **common,
        )
    if saver := _saver(asked):
        b.saved_by(*saver)
    b.wrap(asked["container"])
    return b


def _saver(asked: dict[str, Any]) -> tuple[int, int, int] | None:
    """Major and minor release of the Xen that saves, and the version of its images."""
    release: Release | None = asked["release"]
    return None if release is None else (*release.branch, max(release.versions))


def _hardware(asked: dict[str, Any]) -> Hardware:
    """Every type of entry, in the forms of the release."""
    from migrate.building.hvm_contexts import EVERYTHING

    hardware = EVERYTHING._replace(emulated=asked["kind"] == "hvm")
    release: Release | None = asked["release"]
    if release is None:
        return hardware
    from migrate.destination.releases import misc_features
    from migrate.xen.hvm_records import saved_lengths

    return hardware._replace(msrs=release.has(misc_features), lengths=saved_lengths(release))


def _write_big(file: IO[bytes], asked: dict[str, Any], *, sparse: bool) -> int:
    from migrate.building.big_streams import write_synthetic

    head, tail = _around(asked)
    file.write(head)
    written = write_synthetic(
        file,
        kind="pv" if asked["kind"] == "pv" else "hvm",
        size_bytes=asked["size"],
        width=int(asked["width"]),
        table_share=BIG_TABLE_SHARE if asked["tables"] is None else asked["tables"],
        vcpus=asked["vcpus"],
        rounds=asked["rounds"],
        extended=asked["extended"],
        seed=asked["seed"],
        sparse=sparse and stat.S_ISREG(os.fstat(file.fileno()).st_mode),
        hardware=_hardware(asked),
        saver=_saver(asked),
    )
    file.write(tail)
    return len(head) + written + len(tail)


def _around(asked: dict[str, Any]) -> tuple[bytes, bytes]:
    """What a container puts before a libxc image and after it: that of a small guest, but for the size it tells."""
    b = _small({**asked, "size": 0, "tables": None})
    config = json.loads(b.xl_config)
    config["b_info"] |= {"max_memkb": asked["size"] >> 10, "target_memkb": asked["size"] >> 10}
    b.xl_config = json.dumps(config).encode()
    whole = b.build()
    b.wrap(CONTAINERS[0])
    image = b.build()
    at = whole.index(image)
    return whole[:at], whole[at + len(image) :]


def _damaged(rule: Rule, container: str, given: set[str]) -> bytes:
    """The rule's own violation, in another container if one was asked for.

    Raises ValueError where no stream can show the rule, or none in such a container.
    """
    from migrate import check
    from migrate.building.builder import StreamBuilder
    from migrate.reports.rules.commands import conditions

    if rule.violation is None:
        raise ValueError(f"no stream can show {rule.id}, so there is none to write")
    b = StreamBuilder.pv()
    rule.violation(b)
    if "container" in given and b.container != container:
        b.wrap(container)
        found = check(b.build(), **conditions(rule)._asdict()).findings
        if rule.id not in {finding.rule.id for finding in found}:
            raise ValueError(f"{rule.id} does not show in a container of {container}")
    return b.build()


def _tell(out: str, written: int, rule: Rule | None) -> None:
    from migrate.safe import safe

    name = f"./{out}" if out.startswith("-") else out
    command: tuple[str, ...] = ("migrate", "check", name)
    if rule is not None:
        from migrate.reports.rules.commands import check_command

        command = check_command(rule, name)
    echo(safe(f"{out}: {count(written, 'byte')}; judge it: {shlex.join(command)}"))
