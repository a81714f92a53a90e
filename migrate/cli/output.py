"""Where a command writes a stream or a document: a file that appears whole or not at all, or standard output."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO

import click

from migrate.cli.ending import ExitCode, complain
from migrate.cli.signals import orderly_signals

STDOUT = "-"


@contextmanager
def stream_output(
    path: str, *, force: bool, sources: Iterable[str] = (), what: str = "a stream", private: bool = True
) -> Iterator[IO[bytes]]:
    """A binary file to write a stream (or `what`) to; "-" is standard output. A regular file can be read back.

    It appears at the end, whole or not at all: TERM and HUP leave nothing behind either. A file that is there is only
    replaced with `force`; the command may read it meanwhile. What is not a regular file, such as a FIFO or /dev/null,
    is written to as it is.

    Parameters
    ----------
    sources:
        the files that are read: none of them is ever overwritten.
    private:
        whether only the owner may read a file that is new: guest memory is in it.

    Raises
    ------
    click.exceptions.Exit
        once it has said why the stream cannot be written there; after TERM and HUP.
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
    if there is not None and stat.S_ISREG(there) and not force:
        _give_up(f"{path} exists; --force overwrites it")
    with orderly_signals(), _opened(path, there, private=private, replace=force) as out:
        yield out


def write_document(path: str, text: str) -> None:
    """Write a document in the place of whatever is there, whole or not at all. Raises OSError."""
    with _opened(path, _mode(path), private=False, replace=True) as out:
        out.write(text.encode())


def refuse_doubles(outputs: Mapping[str, str | None], inputs: Mapping[str, Iterable[str]] | None = None) -> None:
    """Refuse to write two outputs to one file, or one over what is read.

    Parameters
    ----------
    outputs:
        files by the options that name them; None for those that were not given. Devices take any number of them.
    inputs:
        files that are read, by what they are called.

    Raises
    ------
    click.UsageError
        naming both.
    """
    named: dict[str, str] = {}
    there: dict[tuple[int, int], str] = {}
    for option, path in outputs.items():
        if path is None or is_device(path):
            continue
        other = named.setdefault(os.path.realpath(path), option)
        if (file := _file_at(path)) is not None:
            other = there.setdefault(file, other)
        if other != option:
            raise click.UsageError(f"{other} and {option} are one file: {path}")
    for what, paths in (inputs or {}).items() if there else ():
        for path in paths:
            if (file := _file_at(path)) in there:
                raise click.UsageError(f"{there[file]} would overwrite {what}: {path}")


def is_device(path: str) -> bool:
    """Whether a character device is there, such as /dev/null or a terminal."""
    there = _mode(path)
    return there is not None and stat.S_ISCHR(there)


def is_same(path: str, source: str | int) -> bool:
    """Whether a path leads to the regular file that is read: one named so ("-": standard input), or a descriptor."""
    try:
        there = os.stat(path)
        return stat.S_ISREG(there.st_mode) and os.path.samestat(there, os.stat(0 if source == STDOUT else source))
    except OSError:
        return False


def _file_at(path: str) -> tuple[int, int] | None:
    """What tells a file that is there from all others."""
    try:
        there = os.stat(path)
    except OSError:
        return None
    return there.st_dev, there.st_ino


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
def _opened(path: str, there: int | None, *, private: bool, replace: bool) -> Iterator[IO[bytes]]:
    from migrate.whole_file import OutputFile, whole_file

    if there is None or stat.S_ISREG(there):
        with whole_file(path, private=private, replace=replace) as out:
            yield out
    else:
        with io.BufferedWriter(OutputFile(path, path, "w")) as out:
            yield out
