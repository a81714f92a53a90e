"""Which streams: from paths, directories, patterns and URLs to files, each with what is expected of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b

from migrate.corpus.expectations import SUFFIX, Entry, Shelf, bare_name, is_expectation
from migrate.corpus.filesystems import File, Files, Folder, files_of
from migrate.corpus.known import KNOWN_NAME, Deviation, load_known

# What may lie beside streams in a corpus; a file of such a name counts as a stream only if an entry names it.
_DOCUMENTS = {".md", ".rst", ".txt", ".html", ".log", ".csv"}
_DATA = {".toml", ".json", ".jsonl", ".sarif", ".xml", ".xsd", ".yaml", ".yml"}
_TOOLS = {".py", ".sh", ".sha256", ".asc", ".sig"}
NOT_STREAMS = frozenset(_DOCUMENTS | _DATA | _TOOLS)


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` (from 1) of `count` equal ones."""

    index: int
    count: int

    def has(self, key: str) -> bool:
        """Whether a stream, known by its path below the given root, belongs to this part."""
        return int.from_bytes(blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()) % self.count == (
            self.index - 1
        )


@dataclass(frozen=True, slots=True)
class Case:
    """One stream and what is expected of it; None where that is not known yet.

    Attributes
    ----------
    number:
        its place among all streams that were asked for, those of other shards included.
    size, stamp:
        as in `File`.
    known:
        deviations that speak of it.
    """

    path: str
    entry: Entry | None
    number: int = 0
    size: int | None = None
    stamp: str | None = None
    known: tuple[Deviation, ...] = ()


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


def discover(
    paths: Iterable[str], *, known: Iterable[str] = (), shard: Shard | None = None, today: date | None = None
) -> Corpus:
    """Find the streams of files, of directories and all below them, and of patterns such as "corpus/**/pv32*".

    Parameters
    ----------
    paths:
        local ones, or URLs that fsspec opens.
    known:
        lists of known deviations that hold for all streams, beside those in the directories.
    shard:
        leave out what belongs to others.
    today:
        the day on which known deviations may have expired; by default that of the clock.

    Raises
    ------
    FileNotFoundError
        for a path or a pattern that nothing answers to.
    ExpectationError
        for expectations that cannot be used.
    OSError, PlaceError
        for a URL that cannot be opened.
    """
    finder = _Finder(known, shard, today or date.today())
    for path in paths:
        finder.look(path)
    return Corpus(tuple(finder.cases.values()), tuple(finder.missing))


class _Finder:
    """Streams found so far, by identity."""

    def __init__(self, known: Iterable[str], shard: Shard | None, today: date) -> None:
        self.cases: dict[str, Case] = {}
        self.missing: dict[str, None] = {}
        self._shelf = Shelf()
        self._shard = shard
        self._today = today
        self._everywhere = tuple(deviation for file in known for deviation in load_known(file, today))
        self._here: dict[str, tuple[Deviation, ...]] = {}
        self._seen: set[str] = set()

    def look(self, path: str) -> None:
        files = files_of(path)
        for root, place in _places(files, path):
            if not files.is_folder(place):
                folder, name = files.split(place)
                self._take(files, files.file(place), name if root is None else _below(root, place), (folder,))
                continue
            above: list[str] = []
            for inner in files.folders(place):
                # Folders come sorted, so that those above the present one are what is left of the last.
                above = [*(one for one in above if _lies_in(inner.path, one)), inner.path]
                self._walk(files, place, inner, tuple(above))

    def _walk(self, files: Files, root: str, folder: Folder, above: tuple[str, ...]) -> None:
        for file in folder.files.values():
            self._take(files, file, _below(root, file.path), above)
        for name in _lacking(folder, self._shelf):
            path = files.join(folder.path, name)
            if self._shard is None or self._shard.has(_below(root, path)):
                self.missing[path] = None

    def _take(self, files: Files, file: File, key: str, above: tuple[str, ...]) -> None:
        identity = files.identity(file.path)
        if identity in self._seen:
            return
        entry = self._shelf.entry(file.path)
        if entry is None and not _may_be_stream(files.split(file.path)[1]):
            return
        number = len(self._seen)
        self._seen.add(identity)
        if self._shard is not None and not self._shard.has(key):
            return
        deviations = (*self._everywhere, *(one for folder in above for one in self._of(files, folder)))
        known = tuple(one for one in deviations if one.concerns(file.path))
        self.cases[identity] = Case(file.path, entry, number, file.size, file.stamp, known)

    def _of(self, files: Files, folder: str) -> tuple[Deviation, ...]:
        if folder not in self._here:
            file = files.join(folder, KNOWN_NAME)
            self._here[folder] = load_known(file, self._today) if files.is_file(file) else ()
        return self._here[folder]


def _places(files: Files, path: str) -> list[tuple[str | None, str]]:
    """Files and directories, each with the directory that a pattern starts from."""
    if files.exists(path):
        return [(None, path)]
    matches = files.matches(path) if files.is_pattern(path) else []
    if not matches:
        raise FileNotFoundError(path)
    fixed = path.partition("::")[0]
    while files.is_pattern(fixed):
        fixed = os.path.dirname(fixed)
    return [(fixed, match) for match in matches]


def _below(root: str, path: str) -> str:
    """The path of a file below a root, the same wherever the root lies."""
    root, path = (one.partition("::")[0].rpartition("://")[2].strip("/") for one in (root, path))
    return os.path.relpath(f"/{path}", f"/{root}")


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or _below(folder, path).partition("/")[0] != ".."


def _lacking(folder: Folder, shelf: Shelf) -> Iterator[str]:
    yield from (name for name in shelf.shared(folder.path) if name not in folder.files)
    streams = {bare_name(name) for name in folder.files}
    own = (name.removesuffix(SUFFIX) for name in folder.files if name.endswith(SUFFIX))
    yield from (name for name in own if name not in streams)


def _may_be_stream(name: str) -> bool:
    return not is_expectation(name) and os.path.splitext(name)[1].lower() not in NOT_STREAMS
