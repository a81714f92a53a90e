"""Which streams: from paths, directories and patterns to files, each with what is expected of it."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from migrate.corpus.expectations import SUFFIX, Entry, Shelf, bare_name, is_expectation

# What may lie beside streams in a corpus; a file of such a name counts as a stream only if an entry names it.
NOT_STREAMS = frozenset({".toml", ".md", ".rst", ".txt", ".json", ".jsonl", ".log"})


@dataclass(frozen=True, slots=True)
class Case:
    """One stream and what is expected of it; None where that is not known yet."""

    path: str
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Corpus:
    """The streams asked for, in the order of the paths and by name within each.

    Attributes
    ----------
    missing:
        streams of which a directory's expectations speak, but which are not there.
    """

    cases: tuple[Case, ...]
    missing: tuple[str, ...]


def discover(paths: Iterable[str]) -> Corpus:
    """Find the streams of files, of directories and all below them, and of patterns such as "corpus/**/pv32*".

    Raises
    ------
    FileNotFoundError
        for a path or a pattern that nothing answers to.
    ExpectationError
        for expectations that cannot be used.
    """
    shelf = Shelf()
    cases: dict[str, Case] = {}
    missing: dict[str, None] = {}
    for path in paths:
        for place in _places(path):
            if os.path.isdir(place):
                files, lost = _below(place, shelf)
                missing |= dict.fromkeys(lost)
            else:
                files = [place]
            for file in files:
                entry = shelf.entry(Path(file))
                if entry is not None or _may_be_stream(file):
                    cases.setdefault(os.path.realpath(file), Case(file, entry))
    return Corpus(tuple(cases.values()), tuple(missing))


def _places(path: str) -> list[str]:
    if os.path.lexists(path):
        return [path]
    matches = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
    if not matches:
        raise FileNotFoundError(path)
    return matches


def _below(folder: str, shelf: Shelf) -> tuple[list[str], list[str]]:
    """Files of a directory and all below it, sorted, and the streams it lacks."""
    files: list[str] = []
    missing: list[str] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = (os.path.join(parent, name) for name in sorted(names) if not name.startswith("."))
        files += (file for file in visible if os.path.isfile(file))  # a FIFO would be waited for
        missing += (os.path.join(parent, name) for name in _lacking(Path(parent), set(names), shelf))
    return files, missing


def _lacking(folder: Path, names: set[str], shelf: Shelf) -> Iterator[str]:
    yield from (name for name in shelf.shared(folder) if name not in names)
    streams = {bare_name(name) for name in names}
    own = (name.removesuffix(SUFFIX) for name in sorted(names) if name.endswith(SUFFIX))
    yield from (name for name in own if name not in streams)


def _may_be_stream(file: str) -> bool:
    return not is_expectation(file) and os.path.splitext(file)[1].lower() not in NOT_STREAMS
