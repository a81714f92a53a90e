"""Where streams lie: files and directories here, and whatever fsspec opens behind a URL."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# A directory there is what ends with a slash: asking would mean to fetch the whole file. "?" starts a query.
_WEB = ("http", "https")
# Bytes fetched at a time.
PIECE = 1 << 20


class PlaceError(Exception):
    """A URL that cannot be opened: an unknown scheme, a missing package, a server's refusal."""


@dataclass(frozen=True, slots=True)
class File:
    """A file: path or URL, bytes, and a text that is another once the file has been changed; None where unknown."""

    path: str
    size: int | None = None
    stamp: str | None = None


@dataclass(slots=True)
class Folder:
    """A directory, with its files by name in the order of names; hidden ones are left out."""

    path: str
    files: dict[str, File] = field(default_factory=dict)


class Files(Protocol):
    """What may be asked of a place, by path or URL."""

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

    def read(self, path: str) -> bytes:
        """All of a file. Raises OSError, PlaceError."""

    def identity(self, path: str) -> str:
        """The same text for two names of one file."""

    def split(self, path: str) -> tuple[str, str]:
        """Directory and name."""

    def join(self, folder: str, name: str) -> str:
        """The path of a file in a directory."""


def is_url(path: str) -> bool:
    """Whether a path is a URL, such as s3://bucket/corpus or zip://*.zst::corpus.zip."""
    return _URL.match(path) is not None


def files_of(path: str) -> Files:
    """Where a path or URL leads. Raises PlaceError for a URL that cannot be opened."""
    return Remote(path) if is_url(path) else LOCAL


@contextmanager
def local_source(path: str) -> Iterator[str | int]:
    """What is to be read instead of a path or URL: the path itself, or a descriptor of a fetched copy.

    Raises
    ------
    OSError, PlaceError
        for what cannot be fetched.
    """
    if not is_url(path):
        yield path
        return
    remote = Remote(path)
    with tempfile.TemporaryFile(prefix="migrate-") as copy:
        remote.fetch(path, copy)
        copy.flush()
        copy.seek(0)
        yield copy.fileno()


# -- here -------------------------------------------------------------------------------------------


class Local(Files):
    """This machine's file system."""

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

    def read(self, path: str) -> bytes:
        """All of a file."""
        with open(path, "rb") as file:
            return file.read()

    def identity(self, path: str) -> str:
        """The real path."""
        return os.path.realpath(path)

    def split(self, path: str) -> tuple[str, str]:
        """Directory and name."""
        return os.path.split(path)

    def join(self, folder: str, name: str) -> str:
        """The path of a file in a directory."""
        return os.path.join(folder, name)


LOCAL = Local()


# -- elsewhere --------------------------------------------------------------------------------------


class Remote(Files):
    """The file system behind a URL, chained ones (zip://…::https://…) included.

    Raises
    ------
    PlaceError
        where fsspec, or what it needs for this scheme, is missing, and for an unknown scheme.
    """

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise PlaceError(
                f"{url}: URLs need the Python package fsspec (pip install 'xen-migrate[remote]')"
            ) from None
        head, _, rest = url.partition("::")
        self._scheme = head.partition("://")[0]
        self._around = f"::{rest}" if rest else ""
        try:
            self._fs: Any = url_to_fs(url)[0]
        except Exception as error:
            raise PlaceError(f"{url}: {error}") from error

    def exists(self, path: str) -> bool:
        """Whether something is there."""
        # Some places do not count a directory that is but the beginning of names.
        return self.is_folder(path) or bool(self._asked(path, "exists"))

    def is_file(self, path: str) -> bool:
        """Whether a file is there."""
        return bool(self._asked(path, "isfile"))

    def is_folder(self, path: str) -> bool:
        """Whether a directory is there; on the web, whether it is written as one."""
        if self._scheme in _WEB:
            return path.endswith("/")
        return not self._inside(path) or bool(self._asked(path, "isdir"))

    def matches(self, pattern: str) -> list[str]:
        """What a pattern means."""
        # Here a * does not mean hidden names; elsewhere it does.
        hidden = "/." in self._inside(pattern)
        found = (path for path in self._asked(pattern, "glob") if hidden or "/." not in f"/{path}")
        return sorted(map(self._url, found))

    def is_pattern(self, path: str) -> bool:
        """Whether it is a pattern."""
        inside = path.partition("::")[0]
        return "*" in inside if self._scheme in _WEB else glob.has_magic(inside)

    def folders(self, root: str) -> Iterator[Folder]:
        """A directory and all below it."""
        inside = self._inside(root)
        found: dict[str, dict[str, Any]] = self._asked(root, "find", detail=True)
        folders: dict[str, dict[str, File]] = {inside: {}}
        for path, known in found.items():
            below = path.strip("/").removeprefix(inside.strip("/")).strip("/")
            if not any(part.startswith(".") for part in below.split("/")):
                parent, _, name = path.rstrip("/").rpartition("/")
                parent = parent if "/" in below else inside
                folders.setdefault(parent, {})[name] = self._known(path, known)
        for parent in sorted(folders, key=lambda path: path.split("/")):  # what lies in one comes right after it
            yield Folder(self._url(parent), dict(sorted(folders[parent].items())))

    def file(self, path: str) -> File:
        """Size, and whatever the place knows of a file."""
        return self._known(self._inside(path), self._asked(path, "info"))

    def read(self, path: str) -> bytes:
        """All of a file."""
        data: bytes = self._asked(path, "cat_file")
        return data

    def fetch(self, path: str, copy: Any) -> None:
        """Write all of a file into another. Raises OSError, PlaceError."""
        try:
            with self._fs.open(self._inside(path), "rb") as file:
                shutil.copyfileobj(file, copy, PIECE)
        except OSError:
            raise
        except Exception as error:
            raise PlaceError(f"cannot be fetched: {type(error).__name__}: {error}") from error

    def identity(self, path: str) -> str:
        """The URL."""
        return path

    def split(self, path: str) -> tuple[str, str]:
        """URL of the directory, and name."""
        parent, _, name = self._inside(path).rpartition("/")
        return self._url(parent), name

    def join(self, folder: str, name: str) -> str:
        """The URL of a file in a directory."""
        inside = self._inside(folder).rstrip("/")
        return self._url(f"{inside}/{name}" if inside or not self._around else name)

    def _inside(self, url: str) -> str:
        inside: str = self._fs._strip_protocol(url.partition("::")[0])
        return inside

    def _url(self, inside: str) -> str:
        if self._around:
            return f"{self._scheme}://{inside.lstrip('/')}{self._around}"
        url: str = self._fs.unstrip_protocol(inside)
        return url

    def _known(self, path: str, info: dict[str, Any]) -> File:
        size = info.get("size")
        marks = [str(info[key]) for key in ("ETag", "etag", "mtime", "LastModified", "created", "CRC") if info.get(key)]
        return File(self._url(path), size, "-".join([str(size), *marks]) if marks else None)

    def _asked(self, path: str, question: str, **how: Any) -> Any:
        try:
            return getattr(self._fs, question)(self._inside(path), **how)
        except OSError:
            raise
        except Exception as error:
            raise PlaceError(f"{path}: {type(error).__name__}: {error}") from error
