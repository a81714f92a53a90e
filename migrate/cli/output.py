"""Where a command writes a stream or a document: a file that appears whole or not at all, or standard output."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

import click

from migrate.cli.ending import ExitCode, complain

STDOUT = "-"


@contextmanager
def stream_output(
    path: str, *, force: bool, sources: Iterable[str] = (), what: str = "a stream"
) -> Iterator[IO[bytes]]:
    """A binary file to write a stream (or `what`) to; "-" is standard output. A regular file can be read back.

    A file that is there is only replaced with `force`, and then at the end: the command may read it meanwhile.
    What is not a regular file, such as a FIFO or /dev/null, is written to as it is.

    Parameters
    ----------
    sources:
        the files that are read: none of them is ever overwritten.

    Raises
    ------
    click.exceptions.Exit
        once it has said why the stream cannot be written there.
    OSError
        for a file that cannot be written.
    BrokenPipeError
        where there is no standard output.
    """
    if path == STDOUT:
        yield _stdout(what)
        return
    there = _mode(path)
    if any(is_same(path, source) for source in sources):
        _give_up(f"{path} is what is read: it is never overwritten")
    if there is None:
        with _new(path) as out:
            yield out
    elif not stat.S_ISREG(there):
        with open(path, "wb") as out:
            yield out
    elif force:
        with _replacement(path, stat.S_IMODE(there)) as out:
            yield out
    else:
        _give_up(f"{path} exists; --force overwrites it")


def is_same(path: str, source: str | int) -> bool:
    """Whether a path leads to the regular file that is read: one named so ("-": standard input), or a descriptor."""
    try:
        there = os.stat(path)
        return stat.S_ISREG(there.st_mode) and os.path.samestat(there, os.stat(0 if source == STDOUT else source))
    except OSError:
        return False


def _stdout(what: str) -> IO[bytes]:
    if sys.stdout is None:
        raise BrokenPipeError("stdout is closed")
    if sys.stdout.isatty():
        _give_up(f"{what} is not for a terminal: name a file, or redirect standard output")
    return sys.stdout.buffer


def _give_up(why: str) -> None:
    complain(why)
    raise click.exceptions.Exit(ExitCode.FAILED)


def _mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


@contextmanager
def _new(path: str) -> Iterator[IO[bytes]]:
    with open(path, "x+b") as out:
        try:
            yield out
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise


@contextmanager
def _replacement(path: str, mode: int) -> Iterator[IO[bytes]]:
    real = os.path.realpath(path)
    fd, beside = tempfile.mkstemp(dir=os.path.dirname(real), prefix=f".{os.path.basename(real)}.")
    try:
        os.close(fd)
        with open(beside, "w+b") as out:
            yield out
        os.chmod(beside, mode)
        os.replace(beside, real)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
