"""Which streams: from paths, directories, patterns and URLs to files, each with what is expected of it."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from hashlib import blake2b

from migrate.corpus.expectations import SUFFIX, Entry, Expectation, Shelf, bare_name, is_expectation
from migrate.corpus.filesystems import File, Files, Folder, files_of, forget
from migrate.corpus.hosts import HostFile, host_of
from migrate.corpus.known import KNOWN_NAME, Deviation, known_in, load_known
from migrate.corpus.toml_reader import ExpectationError
from migrate.destination.releases import resolve
from migrate.rules.declaring import Severity

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
    path:
        what it is called.
    number:
        its place among all streams that were asked for, those of other shards included.
    file, url:
        where it lies: its path in a file system, and what that is opened by; None here.
    known:
        deviations that speak of it.
    fault:
        why nobody knows what is expected of it.
    fail_on:
        where nothing is expected: the severity from which on a finding fails the run, as every refusal then does;
        None for none.
    """

    path: str
    entry: Entry | None
    number: int = 0
    file: File = field(default_factory=lambda: File(""))
    url: str | None = None
    known: tuple[Deviation, ...] = ()
    fault: str | None = None
    fail_on: Severity | None = None


@dataclass(frozen=True, slots=True)
class Corpus:
    """The streams asked for, in the order of the paths and by name within each.

    Attributes
    ----------
    missing:
        streams of which a directory's expectations speak, but which are not there.
    unmatched:
        known deviations that speak of no stream, of lists that were given and of directories that were gone through.
    faults:
        what is wrong with expectations where no stream shows it: with all of a file, or about a stream that is missing.
    """

    cases: tuple[Case, ...]
    missing: tuple[str, ...]
    unmatched: tuple[Deviation, ...] = ()
    faults: tuple[str, ...] = ()


def discover(
    paths: Iterable[str],
    *,
    known: Iterable[str] = (),
    shard: Shard | None = None,
    today: date | None = None,
    fail_on: Severity | None = None,
) -> Corpus:
    """Find the streams of files, of directories and all below them, and of patterns such as "corpus/**/pv32*".

    An expectation that cannot be used is a fault of the cases that it is about.

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
    fail_on:
        as in `Case`.

    Raises
    ------
    FileNotFoundError
        for a path or a pattern that nothing answers to.
    ExpectationError
        for a list of known deviations that cannot be used.
    OSError, FetchError
        for a URL that cannot be opened.
    """
    forget()
    finder = _Finder(known, shard, today or date.today(), fail_on)
    for path in paths:
        finder.look(path)
    return finder.corpus()


class _Finder:
    """Streams found so far, by identity."""

    def __init__(self, known: Iterable[str], shard: Shard | None, today: date, fail_on: Severity | None) -> None:
        self._cases: dict[Hashable, Case] = {}
        self._missing: dict[str, None] = {}
        self._faults: dict[str, None] = {}
        self._shelf = Shelf()
        self._shard = shard
        self._today = today
        self._fail_on = fail_on
        self._everywhere = tuple(deviation for file in known for deviation in load_known(file, today))
        self._here: dict[Hashable, tuple[Deviation, ...]] = {}
        self._unmatched = dict.fromkeys(self._everywhere)
        self._matched: set[Deviation] = set()
        self._seen: set[Hashable] = set()

    def corpus(self) -> Corpus:
        unmatched = (one for one in self._unmatched if one not in self._matched)
        return Corpus(tuple(self._cases.values()), tuple(self._missing), tuple(unmatched), tuple(self._faults))

    def look(self, named: str) -> None:
        files = files_of(named)
        for root, path in _found(files, named):
            if not files.is_folder(path):
                folder, name = files.split(path)
                self._take(files, files.file(path), name if root is None else _below(root, path), (folder,))
                continue
            above: list[str] = []
            for inner in files.folders(path):
                # Folders come sorted, so that those above the present one are what is left of the last.
                above = [*(one for one in above if _lies_in(inner.path, one)), inner.path]
                self._walk(files, path, inner, tuple(above))

    def _walk(self, files: Files, root: str, folder: Folder, above: tuple[str, ...]) -> None:
        self._unmatched |= dict.fromkeys(self._of(files, folder.path))
        for file in folder.files.values():
            self._take(files, file, _below(root, file.path), above)
        shared = self._shelf.shared(folder.path, files)
        if isinstance(shared, ExpectationError):
            self._faults[str(shared)] = None
            shared = {}
        for name in _lacking(folder, shared):
            if isinstance(fault := shared.get(name), ExpectationError):
                self._faults[str(fault)] = None
                continue
            path = files.join(folder.path, name)
            if self._shard is None or self._shard.has(_below(root, path)):
                self._missing[files.shown(path)] = None

    def _take(self, files: Files, file: File, key: str, above: tuple[str, ...]) -> None:
        identity = files.identity(file.path)
        if identity in self._seen:
            return
        entry, fault = None, None
        try:
            entry = self._shelf.entry(file.path, files)
        except ExpectationError as error:
            fault = str(error)
        if not _may_be_stream(files.split(file.path)[1]) and not self._shelf.speaks_of(file.path, files):
            return
        number = len(self._seen)
        self._seen.add(identity)
        deviations = (*self._everywhere, *(one for folder in above for one in self._of(files, folder)))
        known = tuple(one for one in deviations if one.concerns(file.path))
        self._matched.update(known)
        if self._shard is None or self._shard.has(key):
            fail_on = self._fail_on if entry is None else None
            self._cases[identity] = Case(files.shown(file.path), entry, number, file, files.url, known, fault, fail_on)

    def _of(self, files: Files, folder: str) -> tuple[Deviation, ...]:
        key = (files.url, folder)
        if key not in self._here:
            file = files.join(folder, KNOWN_NAME)
            self._here[key] = known_in(files, file, self._today) if files.is_file(file) else ()
        return self._here[key]


def _found(files: Files, named: str) -> list[tuple[str | None, str]]:
    """Files and directories, each with the directory that a pattern starts from."""
    path = files.start
    if files.exists(path):
        return [(None, path)]
    matches = files.matches(path) if files.is_pattern(path) else []
    if not matches:
        raise FileNotFoundError(named)
    while files.is_pattern(path):
        path = os.path.dirname(path)
    return [(path, match) for match in matches]


def _below(root: str, path: str) -> str:
    """The path of a file below a root, the same wherever the root lies."""
    return os.path.relpath(f"/{path.strip('/')}", f"/{root.strip('/')}")


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or _below(folder, path).partition("/")[0] != ".."


def _lacking(folder: Folder, shared: Iterable[str]) -> Iterator[str]:
    yield from (name for name in shared if name not in folder.files)
    streams = {bare_name(name) for name in folder.files}
    own = (name.removesuffix(SUFFIX) for name in folder.files if name.endswith(SUFFIX))
    yield from (name for name in own if name not in streams)


def _may_be_stream(name: str) -> bool:
    return not is_expectation(name) and os.path.splitext(name)[1].lower() not in NOT_STREAMS


def at_hosts(cases: Iterable[Case], hosts: Sequence[HostFile]) -> tuple[Case, ...]:
    """The same cases, judged for these hosts: an expectation that names no host for the first one of its branch."""
    return tuple(
        replace(case, entry=replace(case.entry, expect=tuple(_at_host(one, hosts) for one in case.entry.expect)))
        if case.entry is not None
        else case
        for case in cases
    )


def _at_host(expectation: Expectation, hosts: Sequence[HostFile]) -> Expectation:
    if expectation.host is not None:
        return expectation
    branch = resolve(expectation.target).branch
    releases = ((host, host_of(host).release.value) for host in hosts)
    fitting = (host for host, release in releases if release is not None and release.branch == branch)
    return replace(expectation, host=next(fitting, None))
