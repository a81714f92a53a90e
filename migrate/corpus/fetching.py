"""A stream's bytes, wherever it lies, behind a descriptor that a judgement can read from."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from migrate.corpus.filesystems import FetchError, Remote
from streams.compression import FREE_EXPANSION, MAX_EXPANSION
from streams.counting import count

# Bytes fetched at a time.
PIECE = 1 << 20
# What is no longer is fetched as a whole before it is read; anything else is read as it comes.
COPIED = 64 << 20


@contextmanager
def descriptor(
    path: str, url: str | None = None, *, packed: int | None = None, max_expansion: int = MAX_EXPANSION
) -> Iterator[int]:
    """A descriptor to read a file from: of the file itself, of a copy that was fetched, or a pipe for a long one.

    Parameters
    ----------
    path, url:
        the file, and what its file system is opened by; None for a file here.
    packed, max_expansion:
        bytes that it takes in a compressed archive, and how many times as many it may have, beyond 4 GiB; 0 for any.

    Raises
    ------
    OSError, FetchError
        for what cannot be read; of a pipe, once it has been read.
    """
    if url is None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    remote = Remote(url)
    with remote.open(path) as file, tempfile.TemporaryFile(prefix="migrate-") as copy:
        pieces = _pieces(file, packed if max_expansion else None, max_expansion)
        for piece in pieces:
            copy.write(piece)
            if copy.tell() > COPIED:
                break
        length = copy.tell()
        copy.seek(0)
        if length <= COPIED:
            yield copy.fileno()
            return
        with _poured(_all(copy, pieces)) as fd:
            yield fd


def _pieces(file: IO[bytes], packed: int | None, max_expansion: int) -> Iterator[bytes]:
    """A file's bytes. Raises FetchError where they cannot be fetched, or become too many."""
    length = 0
    while True:
        try:
            piece = file.read(PIECE)
        except OSError:
            raise
        except Exception as error:
            raise FetchError(f"cannot be fetched: {type(error).__name__}: {error}") from error
        if not piece:
            return
        length += len(piece)
        if packed is not None and length > max(FREE_EXPANSION, max_expansion * packed):
            raise FetchError(
                f"its {count(packed, 'byte')} in the archive become more than {FREE_EXPANSION >> 30} GiB, and more "
                f"than {max_expansion} times as many (--max-expansion)"
            )
        yield piece


def _all(copy: IO[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    while piece := copy.read(PIECE):
        yield piece
    yield from rest


@contextmanager
def _poured(pieces: Iterator[bytes]) -> Iterator[int]:
    """The end of a pipe into which a thread pours all that comes. Raises what the pieces raise."""
    source, sink = os.pipe2(os.O_CLOEXEC)
    failed: list[BaseException] = []

    def pour() -> None:
        try:
            with open(sink, "wb", buffering=0) as out:
                for piece in pieces:
                    view = memoryview(piece)
                    while view:
                        view = view[out.write(view) :]
        except BrokenPipeError:
            pass  # nobody wants to know the rest
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=pour, daemon=True)
    thread.start()
    try:
        yield source
    finally:
        os.close(source)
    # A reader that was interrupted does not wait for a server either.
    thread.join()
    if failed:
        raise failed[0]
