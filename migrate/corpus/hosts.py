"""Hosts that streams are judged for: named in a file of expectations, or on the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from migrate.corpus.filesystems import LOCAL, Files, files_of, read_text
from migrate.destination.destination import Destination

if TYPE_CHECKING:
    from migrate.destination.host import Host


@dataclass(frozen=True)  # which is pickled several times as fast as one with slots
class HostFile:
    """A host file, as workers find it.

    Attributes
    ----------
    name:
        what it is called where it is named.
    path, url:
        where it lies, as those of a `Case`.
    digest:
        of its contents, in hexadecimal: answers are about a host, not about a name.
    """

    name: str
    path: str
    digest: str
    url: str | None = None


class Asked(NamedTuple):
    """What is asked about a stream: a release and a placement, perhaps on a known host."""

    target: str
    placement: str
    host: HostFile | None = None

    @property
    def where(self) -> str:
        """The same in words."""
        return f"{self.target}, {self.placement}" + (f", {self.host.name}" if self.host else "")

    def destination(self, vcpus: int | None = None) -> Destination:
        """Where a guest of so many vcpus would come back. Raises as `host_of` does."""
        host = None if self.host is None else host_of(self.host)
        return Destination(self.target, self.placement, vcpus=vcpus, host=host)


def asked(target: str | None = None, placement: str | None = None, host: HostFile | None = None) -> Asked:
    """A question, in which the host decides what is left out. Raises as `host_of` does, and ValueError."""
    destination = Destination(target, placement, host=None if host is None else host_of(host))
    return Asked(destination.release.short, destination.placement, host)


def host_file(name: str, path: str, files: Files = LOCAL) -> HostFile:
    """The host file at a path.

    Raises
    ------
    HostFileError
        for a file that says nothing of a host.
    OSError, FetchError
        for one that cannot be read.
    """
    data = read_text(files, path)
    _parsed(name, data)
    return HostFile(name, path, _digest(data), files.url)


def host_of(file: HostFile) -> Host:
    """What it says of the host. Raises as `host_file` does, and OSError for a file that has changed since."""
    data = read_text(LOCAL if file.url is None else files_of(file.url), file.path)
    if _digest(data) != file.digest:
        raise OSError(f"{file.name}: changed since it was first read")
    return _parsed(file.name, data)


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=24).hexdigest()


@lru_cache(maxsize=256)
def _parsed(name: str, data: bytes) -> Host:
    from migrate.destination.host_files import parse_host

    return replace(parse_host([(name, data)]).host, path=name)


def beside(files: Files, expectations: str, name: str) -> str:
    """The path of a file that a file of expectations names: from where that lies."""
    folder, _ = files.split(expectations)
    return os.path.normpath(files.join(folder, name))
