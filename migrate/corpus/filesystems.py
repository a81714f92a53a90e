"""Where streams lie: files and directories here, and whatever fsspec opens behind a URL.

A URL is what somebody wrote on the command line. What is found behind it, such as the members of an archive, has names
that are data: they go to the file system that the URL led to, and are never taken for URLs themselves.
"""

from __future__ import annotations

import glob
import os
import re
import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Any, Protocol

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# A directory there is what ends with a slash: asking would mean to fetch the whole file. "?" starts a query.
_WEB = ("http", "https")
# Expectations that are longer are none.
LONGEST_TEXT = 16 << 20
TEXT_PIECE = 64 << 10


class FetchError(Exception):
    """What cannot be opened or read: an unknown scheme, a missing package, a server's refusal, a broken archive."""


@dataclass(frozen=True, slots=True)
class File:
    """A file.

    Attributes
    ----------
    path:
        as its file system has it.
    size:
        bytes; None where unknown.
    stamp:
        a text that is another once the file has been changed; None where unknown.
    packed:
        bytes that it takes in a compressed archive; None for what lies in none.
    """

    path: str
    size: int | None = None
    stamp: str | None = None
    packed: int | None = None


@dataclass(slots=True)
class Folder:
    """A directory, with its files by name in the order of names; hidden ones are left out."""

    path: str
    files: dict[str, File] = field(default_factory=dict)


class Files(Protocol):
    """A file system. Paths are its own, not URLs.

    Attributes
    ----------
    url:
        what it was opened by; None here.
    start:
        the path that was asked for.
    """

    url: str | None
    start: str

    def exists(self, path: str) -> bool:
        """Whether something is there."""

    def is_file(self, path: str) -> bool:
        """Whether a file is there that can be read as often as one likes."""

    def is_folder(self, path: str) -> bool:
        """Whether a directory is there."""

    def matches(self, pattern: str) -> list[str]:
        """Files and directories that a pattern with *, ? or [ ] means, sorted; ** means any depth."""

    def is_pattern(self, path: str) -> bool:
        """Whether it is a pattern."""

    def folders(self, root: str) -> Iterator[Folder]:
        """A directory and all below it, sorted; hidden ones are left out."""

    def file(self, path: str) -> File:
        """What is known of a file without reading it."""

    def open(self, path: str) -> IO[bytes]:
        """A file to read from front to back. Raises OSError, FetchError."""

    def identity(self, path: str) -> Hashable:
        """The same value for two names of one file."""

    def split(self, path: str) -> tuple[str, str]:
        """Directory and name."""

    def join(self, folder: str, name: str) -> str:
        """The path of a file in a directory."""

    def shown(self, path: str) -> str:
        """The path as people see it: with the URL around it."""


def is_url(path: str) -> bool:
    """Whether somebody has named a URL, such as s3://bucket/corpus or zip://*.zst::corpus.zip."""
    return _URL.match(path) is not None


def files_of(named: str) -> Files:
    """Where a path or URL leads that somebody has named. Raises FetchError for a URL that cannot be opened."""
    return Remote(named) if is_url(named) else Local(named)


def read_text(files: Files, path: str) -> bytes:
    """All of a file that is meant for people. Raises OSError, and FetchError for one that is too long."""
    data = b""
    with files.open(path) as file:
        while piece := file.read(TEXT_PIECE):
            data += piece
            if len(data) > LONGEST_TEXT:
                raise FetchError(f"{files.shown(path)}: longer than {LONGEST_TEXT >> 20} MiB")
    return data


# -- here -------------------------------------------------------------------------------------------


class Local(Files):
    """This machine's file system."""

    url = None

    def __init__(self, start: str = os.curdir) -> None:
        self.start = start

    def exists(self, path: str) -> bool:
        """Whether something is there, if only a link to nowhere."""
        return os.path.lexists(path)

    def is_file(self, path: str) -> bool:
        """Whether a regular file is there: a FIFO would be waited for."""
        return os.path.isfile(path)

    def is_folder(self, path: str) -> bool:
        """Whether a directory is there."""
        return os.path.isdir(path)

    def matches(self, pattern: str) -> list[str]:
        """What a pattern means."""
        return sorted(glob.glob(pattern, recursive=True))

    def is_pattern(self, path: str) -> bool:
        """Whether it is a pattern."""
        return glob.has_magic(path)

    def folders(self, root: str) -> Iterator[Folder]:
        """A directory and all below it."""
        for parent, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            visible = ((name, os.path.join(parent, name)) for name in sorted(names) if not name.startswith("."))
            yield Folder(parent, {name: self.file(path) for name, path in visible if os.path.isfile(path)})

    def file(self, path: str) -> File:
        """Size and time of the last change."""
        try:
            known = os.stat(path)
        except OSError:
            return File(path)
        return File(path, known.st_size, f"{known.st_size}-{known.st_mtime_ns}")

    def open(self, path: str) -> IO[bytes]:
        """The file."""
        return open(path, "rb")

    def identity(self, path: str) -> Hashable:
        """The real path."""
        return os.path.realpath(path)

    def split(self, path: str) -> tuple[str, str]:
        """Directory and name."""
        return os.path.split(path)

    def join(self, folder: str, name: str) -> str:
        """The path of a file in a directory."""
        return os.path.join(folder, name)

    def shown(self, path: str) -> str:
        """As it is."""
        return path


LOCAL = Local()


# -- elsewhere --------------------------------------------------------------------------------------


class Remote(Files):
    """The file system behind a URL, chained ones (zip://…::https://…) included.

    Raises
    ------
    FetchError
        where fsspec, or what it needs for this scheme, is missing, and for an unknown scheme.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs = _file_system(url, os.getpid(), threading.get_ident())
        head, _, rest = url.partition("::")
        self._scheme = head.partition("://")[0]
        self._around = f"::{rest}" if rest else ""
        self._host = type(self._fs)._get_kwargs_from_urls(head).get("host")
        self.start = self._fs._strip_protocol(head)

    def exists(self, path: str) -> bool:
        """Whether something is there."""
        # Some places do not count a directory that is but the beginning of names.
        return self.is_folder(path) or bool(self._asked("exists", path))

    def is_file(self, path: str) -> bool:
        """Whether a file is there."""
        return bool(self._asked("isfile", path))

    def is_folder(self, path: str) -> bool:
        """Whether a directory is there; on the web, whether it is written as one."""
        if self._scheme in _WEB:
            return path.endswith("/")
        return not path or bool(self._asked("isdir", path))

    def matches(self, pattern: str) -> list[str]:
        """What a pattern means."""
        # Here a * does not mean hidden names; elsewhere it does.
        hidden = "/." in pattern
        return sorted(path for path in self._asked("glob", pattern) if hidden or "/." not in f"/{path}")

    def is_pattern(self, path: str) -> bool:
        """Whether it is a pattern."""
        return "*" in path if self._scheme in _WEB else glob.has_magic(path)

    def folders(self, root: str) -> Iterator[Folder]:
        """A directory and all below it."""
        found: dict[str, dict[str, Any]] = self._asked("find", root, detail=True)
        folders: dict[str, dict[str, File]] = {root: {}}
        for path, known in found.items():
            below = path.strip("/").removeprefix(root.strip("/")).strip("/")
            if not any(part.startswith(".") for part in below.split("/")):
                parent, _, name = path.rstrip("/").rpartition("/")
                parent = parent if "/" in below else root
                folders.setdefault(parent, {})[name] = self._known(path, known)
        for parent in sorted(folders, key=lambda path: path.split("/")):  # what lies in one comes right after it
            yield Folder(parent, dict(sorted(folders[parent].items())))

    def file(self, path: str) -> File:
        """Size, and whatever the place knows of a file."""
        return self._known(path, self._asked("info", path))

    def open(self, path: str) -> IO[bytes]:
        """The file, by what opens it there."""
        file: IO[bytes] = self._asked("open", path, mode="rb")
        return file

    def identity(self, path: str) -> Hashable:
        """The file system and the path."""
        return self._fs, path

    def split(self, path: str) -> tuple[str, str]:
        """Directory and name."""
        parent, _, name = path.rpartition("/")
        return parent, name

    def join(self, folder: str, name: str) -> str:
        """The path of a file in a directory."""
        return f"{folder.rstrip('/')}/{name}" if folder or not self._around else name

    def shown(self, path: str) -> str:
        """A URL; a path that has :: in it does not make it a chain of URLs."""
        path = path.replace("::", "%3A%3A")
        if self._around:
            return f"{self._scheme}://{path.lstrip('/')}{self._around}"
        if self._host:
            return f"{self._scheme}://{self._host}/{path.lstrip('/')}"
        url: str = self._fs.unstrip_protocol(path)
        return url

    def _known(self, path: str, info: dict[str, Any]) -> File:
        size = info.get("size")
        marks = [str(info[key]) for key in ("ETag", "etag", "mtime", "LastModified", "created", "CRC") if info.get(key)]
        packed = info.get("compress_size")
        return File(path, size, "-".join([str(size), *marks]) if marks else None, packed)

    def _asked(self, question: str, path: str, **how: Any) -> Any:
        try:
            return getattr(self._fs, question)(path, **how)
        except OSError:
            raise
        except Exception as error:
            raise FetchError(f"{self.shown(path)}: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=4)
def _file_system(url: str, process: int, thread: int) -> Any:
    """What fsspec opens by a URL, once: an archive's list of members is long.

    None is shared by processes or threads, as their reads would get into each other's way.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise FetchError(f"{url}: URLs need the Python package fsspec (pip install 'xen-migrate[remote]')") from None
    try:
        return url_to_fs(url)[0]
    except Exception as error:
        raise FetchError(f"{url}: {error}") from error


# What is opened anew sees what has changed meanwhile.
forget = _file_system.cache_clear
