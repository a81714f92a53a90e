"""`migrate host`: what is known of a host that guests would come to?"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import click

from migrate.cli.command import command
from migrate.cli.ending import ExitCode, complain, echo
from migrate.cli.options import STDIN

if TYPE_CHECKING:
    from migrate.destination.host_files import HostReading

# What is run on a host; with -n xl also tells where memory ends.
COMMANDS = (("xl", "info", "-n"), ("xen-cpuid", "-p"))
# Where the tools of Xen are on hosts that keep them out of PATH.
_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/xen/bin", "/usr/libexec/xen/bin")
_VERSIONED_PLACES = "/usr/lib/xen-*/bin"
_SECONDS = 60


class _CommandError(Exception):
    """A command that could not be run, or that failed."""


@command(epilog="Exit code: 0; 2 wrong usage, a file that is no host's or is damaged, or a command that cannot be run.")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(allow_dash=True))
@click.option("--json", "as_json", is_flag=True, help="Write what was understood as JSON, which is a host file, too.")
@click.pass_context
def host(ctx: click.Context, files: tuple[str, ...], as_json: bool) -> None:
    """Show what is known of a host.

    A host file is what `xl info` (better `xl info -n`) and `xen-cpuid -p` print on it, in one file or in several,
    whatever stands around it; all FILEs are of the same host. Shown is what follows for guests that would come there,
    the fact that decided each answer, and what is missing.

    Without a FILE the two commands are run here, and what they print is printed: save it as a host file. That needs
    root, on a Xen host.

    \b
    Example: migrate host pool/a.txt
    """
    from migrate.destination.host_facts import HostFileError
    from migrate.destination.host_files import parse_host, read_host

    try:
        if files:
            reading = read_host(*(sys.stdin.buffer if name == STDIN else name for name in files))
            _show(reading, ", ".join(files), as_json)
        elif as_json:
            reading = parse_host([(" ".join(command), _output(command)) for command in COMMANDS])
            _show(reading, "this host", as_json)
        else:
            for command in COMMANDS:
                click.echo(_output(command), nl=False)
    except (HostFileError, _CommandError) as error:
        complain(str(error), error)
        ctx.exit(ExitCode.FAILED)
    except BrokenPipeError:
        raise
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error), error)
        ctx.exit(ExitCode.FAILED)


def _show(reading: HostReading, name: str, as_json: bool) -> None:
    from migrate.reports.inspection.host import host_object, render_host

    if as_json:
        from migrate.judging.report_json import dumps

        echo(dumps(host_object(reading), indent=2))
    else:
        from migrate.reports.verdict.text import console_for

        render_host(reading, name, console_for())


def _output(command: tuple[str, ...]) -> bytes:
    """What a command prints. Raises _CommandError."""
    called = " ".join(command)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_PLACES, *sorted(glob.glob(_VERSIONED_PLACES))])
    program = shutil.which(command[0], path=path)
    if program is None:
        raise _CommandError(f"{command[0]} is not here: run this in dom0 of a Xen host, or name the files of one")
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise _CommandError(f"{called} has not ended after {_SECONDS} seconds") from None
    except OSError as error:
        raise _CommandError(f"{called}: {error.strerror}") from None
    if done.returncode or not done.stdout:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        root = "" if os.geteuid() == 0 else "; it needs root"
        raise _CommandError(f"{called} failed ({said[-1] if said else f'exit code {done.returncode}'}){root}")
    return done.stdout
