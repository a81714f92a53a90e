"""How every command ends: exit codes, and what is said of errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import TextIO

import click

DEBUG = "MIGRATE_DEBUG"


class ExitCode(IntEnum):
    """Exit codes of all commands."""

    FINE = 0
    FOUND = 1
    FAILED = 2
    UNJUDGED = 3
    JUDGE_LOST = 4
    INTERRUPTED = 130
    BROKEN_PIPE = 141


def echo(text: str, *, ends_line: bool = True) -> None:
    """Print a line on stdout, or a part of one. Raises BrokenPipeError where there is none."""
    if sys.stdout is None:
        raise BrokenPipeError("stdout is closed")
    click.echo(text, nl=ends_line)


def complain(message: str, error: BaseException | None = None) -> None:
    """Tell on stderr what went wrong."""
    click.echo(complaint(message, error), err=True, nl=False)


def complaint(message: str, error: BaseException | None = None) -> str:
    """What went wrong, in one line; with MIGRATE_DEBUG=1 after the traceback of `error`."""
    from migrate.safe import safe

    trace = ""
    if error is not None and os.environ.get(DEBUG, "0") not in ("", "0"):
        import traceback

        trace = "".join(traceback.format_exception(error))
    return f"{trace}migrate: {safe(message)}\n"


def internal_error(error: Exception, doing: str = "") -> None:
    """Own up to a fault of this program, without a traceback."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    complain(f"{doing}internal error: {what} ({DEBUG}=1 shows where)", error)


def _silence(*outputs: TextIO | None) -> None:
    # What is left in a buffer would fail again when Python exits, with a message and another exit code.
    for output in outputs:
        if output is not None:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


@contextmanager
def orderly_end() -> Iterator[None]:
    """Within, whatever happens ends as `ExitCode` says, without a traceback."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except (click.ClickException, click.exceptions.Exit):
        raise
    except (KeyboardInterrupt, click.Abort):
        raise click.exceptions.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        _silence(sys.stdout, sys.stderr)
        raise click.exceptions.Exit(ExitCode.BROKEN_PIPE) from None
    except OSError as error:
        complain(str(error), error)
        _silence(sys.stdout)
        raise click.exceptions.Exit(ExitCode.FAILED) from None
    except Exception as error:
        internal_error(error)
        raise click.exceptions.Exit(ExitCode.FAILED) from None
