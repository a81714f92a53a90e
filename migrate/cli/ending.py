"""How every command ends: exit codes, and what is said of errors."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

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


class Exit(Exception):
    """The command ends here, with an exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class UsageError(Exception):
    """A command is asked what it cannot do; told together with how it is called."""


class StandardOutputError(Exception):
    """Standard output cannot be written. No OSError: it is never taken for a fault of what is read meanwhile."""


class _StandardOutput(io.FileIO):
    """A standard output that says so where it cannot be written; a closed reader is a BrokenPipeError, as ever."""

    replaced: object = None  # what stood there, which closes the descriptor once nobody holds it

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StandardOutputError(f"writing standard output: {error.strerror}") from error


def echo(text: str, *, ends_line: bool = True) -> None:
    """Print a line on stdout, or a part of one. Raises BrokenPipeError where there is none."""
    if sys.stdout is None:
        raise BrokenPipeError("stdout is closed")
    _print(text + "\n" * ends_line, sys.stdout)


def complain(message: str, error: BaseException | None = None) -> None:
    """Tell on stderr what went wrong."""
    _print(complaint(message, error), sys.stderr)


def make_printable() -> None:
    """Have what an output's encoding lacks printed as escapes, and standard output say whose fault a failure is."""
    _own_standard_output()
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):
            output.reconfigure(errors="backslashreplace")


def _own_standard_output() -> None:
    old = sys.stdout
    if not isinstance(old, io.TextIOWrapper):
        return
    raw = getattr(old.buffer, "raw", old.buffer)  # with `python -u` there is nothing between
    if type(raw) is not io.FileIO:  # not the one that Python has opened
        return
    old.flush()
    own = _StandardOutput(old.fileno(), "w", closefd=False)
    own.replaced = old
    sys.stdout = io.TextIOWrapper(
        own if old.buffer is raw else io.BufferedWriter(own),
        old.encoding,
        old.errors,
        line_buffering=old.line_buffering,
        write_through=old.write_through,
    )


def say_aside(text: str) -> None:
    """Print a line on stderr, if there is one."""
    _print(f"{text}\n", sys.stderr)


def _print(text: str, file: TextIO | None) -> None:
    if file is not None:
        file.write(text)
        file.flush()


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


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _silence(*outputs: TextIO | None) -> None:
    # What is left in a buffer would fail again when Python exits, with a message and another exit code.
    for output in outputs:
        if output is not None:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


@contextmanager
def orderly_end() -> Iterator[None]:
    """Within, whatever happens ends as `ExitCode` says, without a traceback.

    Raises
    ------
    Exit, UsageError
        and what click raises.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except (Exit, UsageError):
        raise
    except KeyboardInterrupt:
        raise Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        _silence(sys.stdout, sys.stderr)
        raise Exit(ExitCode.BROKEN_PIPE) from None
    except (OSError, StandardOutputError) as error:
        complain(_told(error), error)
        _silence(sys.stdout)
        raise Exit(ExitCode.FAILED) from None
    except Exception as error:
        if any(kind.__module__.startswith("click.") for kind in type(error).__mro__):  # which tells them itself
            raise
        internal_error(error)
        raise Exit(ExitCode.FAILED) from None
