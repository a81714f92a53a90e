"""`migrate verify-stream-v2`: the command line of Xen's own verifier, for those who call it."""

from __future__ import annotations

import os
import syslog as system_log
from collections.abc import Callable
from contextlib import suppress

from migrate.cli.declaring import Choice, Path, declared, option, without_click
from migrate.cli.ending import ExitCode, complain, echo, say_aside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")


@declared(
    "verify-stream-v2",
    epilog="""Exit code: 0 the stream is good; 1 it is not; 2 wrong usage, or it could not be read.

    Callers that cannot name a sub-command call it through a link of Xen's name: ln -s "$(command -v migrate)"
    /usr/local/bin/verify-stream-v2. Under that name the program is this command.

    A stream is bad if the newest Xen's toolstack would refuse its form (container, header, framing, a record or the
    order of records), or if Xen's verifier objects to it. What the hypervisor makes of the contents is the business of
    `migrate check`. Where it differs from Xen's verifier on purpose:

    \b
    good here, bad there:
      an unknown optional record              libxc skips it (FRM-06)
      xenstore data of a device model         a fault of that verifier (CON-17)
      a checkpointed stream that stops after a checkpoint
      any stream from a pipe                  it takes a short read for the end
    \b
    bad here, good there:
      a record missing, twice, out of order or of the other kind of guest (ORD, FRM-11)
      contents that libxc refuses: widths, sizes, pfns beyond the p2m (REC)
      a record over 128 MiB (FRM-02); the big-endian flag (HDR-05)
      reserved option bits of libxl's and xl's headers (CON-02 to CON-11)
      records that libxl refuses in a plain stream (CON-13, CON-18, CON-19)
      an xl file around a bare libxc image
    \b
    told otherwise:
      a TOOLSTACK record                      exit 1, there 2
      a file that cannot be opened or read    exit 2, there 1
    """,
)
@option(
    "-i",
    "--in",
    "source",
    metavar="FD|FILE",
    type=Path(),
    default="0",
    help="The stream: a descriptor or a file (default: stdin).",
)
@option("-v", "--verbose", is_flag=True, help="Tell what is in the stream.")
@option("-q", "--quiet", is_flag=True, help="Tell nothing at all; the exit code tells.")
@option(
    "-f",
    "--format",
    "form",
    type=Choice(["libxc", "libxl", "xl"]),
    default="libxc",
    show_default=True,
    help="What the stream is.",
)
@option("--syslog", is_flag=True, help="Tell the system log as well, and what is in the stream only that.")
@without_click
def verify_stream_v2(source: str, verbose: bool, quiet: bool, form: str, syslog: bool) -> ExitCode:
    """Is this stream well formed? Takes the command line of Xen's verify-stream-v2.

    Reads to the end of the stream and not a byte further, so that whoever handed over the descriptor can go on there.

    \b
    Example: migrate verify-stream-v2 -f xl -i guest.xl
    """
    from migrate.judging.stand_in import verify
    from migrate.safe import safe
    from streams.transports import TransportError

    if syslog:
        system_log.openlog("verify-stream-v2", system_log.LOG_PID)

    def say(line: str) -> None:
        if syslog:
            system_log.syslog(system_log.LOG_INFO, safe(line))
        else:
            echo(safe(line))

    def object_to(line: str) -> None:
        if quiet:
            return
        if syslog:
            system_log.syslog(system_log.LOG_ERR, safe(line))
        say_aside(safe(line))

    try:
        outcome = _on(source, lambda fd: verify(fd, form, say if verbose and not quiet else None))
    except BrokenPipeError:
        raise
    except (OSError, TransportError) as error:
        if not quiet:
            complain(f"{source}: {getattr(error, 'strerror', None) or error}", error)
        return ExitCode.FAILED
    for finding in outcome.objections:
        where = f" at {finding.offset:#x}" if finding.offset is not None else ""
        more = f" (and {finding.count - 1} more like it)" if finding.count > 1 else ""
        object_to(f"{finding.rule.id} {finding.rule.slug}{where}: {finding.message}{more}")
    if outcome.unread is not None:
        object_to(outcome.unread)
    return ExitCode.FINE if outcome.good else ExitCode.FOUND


def _on(source: str, do: Callable[[int], T]) -> T:
    """Do something with the descriptor that is named, or that of the file that is."""
    if source.isdecimal():
        return do(int(source))
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        return do(fd)
    finally:
        with suppress(OSError):
            os.close(fd)
