"""`migrate config`: the configuration in front of a stream, shown or changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, cast

import click

from migrate.cli.check import reason_of
from migrate.cli.command import command
from migrate.cli.ending import ExitCode, complain, echo
from migrate.cli.options import offset_option, source_of
from migrate.cli.output import STDOUT, stream_output
from streams.counting import count

if TYPE_CHECKING:
    from migrate.toolstack.config_edit import Front
    from streams.transports import Transport

_PIECE = 1 << 20
_HEADERS = 64 << 10  # of a stream's first bytes: its domain header is among them, and hardly any page


def _assignments(ctx: click.Context, param: click.Parameter, asked: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [one.partition("=") for one in asked]
    for one, (key, equals, _) in zip(asked, pairs, strict=True):
        if not key or not equals:
            raise click.BadParameter(f"{one!r} is not KEY=VALUE")
    return [(key, value) for key, _, value in pairs]


@command(
    epilog="Exit code: 0 shown, or written; 1 written, and the toolstack would refuse the new configuration; 2 wrong "
    "usage, unreadable input, no configuration, a key or value that cannot be set, or another kind of guest than the "
    "image's."
)
@click.argument("file", metavar="FILE", type=click.Path(allow_dash=True, readable=False))
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_assignments,
    help="Set a key of libxl's JSON, such as b_info.max_vcpus=4, or an element or attribute below the domain in "
    "libvirt's XML, such as os/type=hvm or vcpu@current=2. May be repeated.",
)
@click.option(
    "--any-key", is_flag=True, help="Set also what the configuration has not, and this program does not know as a key."
)
@click.option("--unset", "keys", metavar="KEY", multiple=True, help="Take a key away. May be repeated.")
@click.option(
    "-o",
    "--output",
    "out",
    metavar="OUT",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="The file to write: the changed configuration with its lengths, then the stream as it is, uncompressed.",
)
@click.option("--force", is_flag=True, help="Overwrite a file.")
@offset_option
@click.pass_context
def config(
    ctx: click.Context,
    file: str,
    assignments: list[tuple[str, str]],
    any_key: bool,
    keys: tuple[str, ...],
    out: str | None,
    force: bool,
    offset: int,
) -> None:
    """Show the configuration in an image of xl's or libvirt's, or write the image anew with another one.

    What is not set stays as it is, the stream byte for byte.

    \b
    Example: migrate config guest.xl --set b_info.max_vcpus=4 -o changed.xl
    """
    from migrate.toolstack.config_edit import EditError, read_front
    from streams.opening import open_transport
    from streams.transports import TransportError, ends_before

    edits: list[tuple[str, str | None]] = [*assignments, *((key, None) for key in keys)]
    if bool(edits) != (out is not None):
        raise click.UsageError("--set and --unset go with -o, and -o with them")
    try:
        with open_transport(source_of(file)) as transport:
            if (end := transport.skip(offset)) < offset:
                raise ends_before(offset, end)
            front = read_front(cast(BinaryIO, _Reader(transport)))
            if out is None:
                ending = _show(front)
            else:
                begins = bytes(transport.give(_PIECE))
                changed = front
                for key, value in edits:
                    changed = changed.with_key(key, value, any_key=any_key)
                _fits_the_image(front, changed, begins)
                ending = _write(changed, begins, transport, file, out, force=force)
    except EditError as error:
        complain(f"{file}: {error}", error)
        ending = ExitCode.FAILED
    except BrokenPipeError:
        raise
    except (OSError, TransportError) as error:
        if isinstance(error, OSError) and error.filename not in (None, file):  # what is written
            raise
        complain(f"{file}: {reason_of(error, file)}", error)
        ending = ExitCode.FAILED
    ctx.exit(ending)


class _Reader:
    """A transport that is read like a file."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def read(self, n: int) -> bytes:
        """The next n bytes, fewer only at the end."""
        return bytes(self._transport.give(n))


def _show(front: Front) -> ExitCode:
    from migrate.safe import safe

    for line in front.config.partition(b"\0")[0].decode("utf-8", "backslashreplace").rstrip("\n").split("\n"):
        echo(safe(line))
    return ExitCode.FINE


def _fits_the_image(before: Front, changed: Front, begins: bytes) -> None:
    """Raise EditError where the stream holds another kind of guest than the changed configuration creates."""
    from migrate.toolstack.config_edit import EditError

    objection = _objection_to_the_kind(changed, begins)
    if objection is not None and _objection_to_the_kind(before, begins) is None:
        raise EditError(objection)


def _objection_to_the_kind(front: Front, begins: bytes) -> str | None:
    from migrate.judging.check import Checker

    checker = Checker()
    checker.feed(front.build() + begins[:_HEADERS])
    return next((found.message for found in checker.judgement.collector.findings if found.rule.id == "CON-38"), None)


def _write(front: Front, begins: bytes, transport: Transport, file: str, out: str, *, force: bool) -> ExitCode:
    from migrate.safe import safe
    from migrate.toolstack.configuration import read

    head = front.build()
    size = len(head)
    with stream_output(out, force=force, sources=[file]) as written:
        written.write(head)
        piece: bytes | memoryview = begins
        while len(piece):
            written.write(piece)
            size += len(piece)
            piece = transport.give(_PIECE)
    found = read(front.config, front.source)
    if out != STDOUT:
        echo(safe(f"{out}: {count(size, 'byte')}, {len(front.config)} of them the configuration"))
    for problem in found.problems if found else ():
        said = f": {problem.says}" if problem.says else ""
        complain(f"{problem.by} would refuse it: {problem.message}{said}" if problem.by else problem.message)
    return ExitCode.FOUND if found and found.refused else ExitCode.FINE
