"""A file that appears whole or not at all, whatever ends the one who writes it."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

# Short: a name as long as its file system allows has to have a neighbour, too.
_PREFIX = ".migrate-"
_DESCRIPTORS = "/proc/self/fd"
# What link says where there are no hard links.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class OutputFile(io.FileIO):
    """A file, unbuffered, whose errors name it as `path`: what is read meanwhile is never blamed for a full disk."""

    def __init__(
        self, path: str | os.PathLike[str], file: str | os.PathLike[str], mode: str, opener: Any = None
    ) -> None:
        self._path = path
        super().__init__(file, mode, opener=opener)

    def write(self, data: Any, /) -> int:
        """Write, as any file."""
        try:
            return super().write(data)
        except OSError as error:
            raise _about(self._path, error.errno) from None

    def truncate(self, size: int | None = None, /) -> int:
        """Truncate, as any file."""
        try:
            return super().truncate(size)
        except OSError as error:
            raise _about(self._path, error.errno) from None


@contextmanager
def whole_file(
    path: str | os.PathLike[str], *, private: bool = False, replace: bool = True, follow: bool = True
) -> Iterator[IO[bytes]]:
    """A binary file to write, which can be read back; it gets its name once all has been written.

    Where something goes wrong, at the last moment included (a full disk may tell that on closing), nothing is left
    of it, and what was at `path` stays. Until then it has no name at all where the file system allows that, so that
    it goes with a process that is killed; elsewhere it has a hidden one.

    Parameters
    ----------
    path:
        where to.
    private:
        that nobody but its owner may read it. A file that is replaced keeps the permissions it had.
    replace:
        whether it may take the place of another.
    follow:
        whether a link stays one, and it is the file that it leads to which is written.

    Raises
    ------
    FileExistsError
        where it may not.
    OSError
        for a file that cannot be written, and in the place of what is no regular file, such as a device; it names
        `path`. So does one from within that names the file's descriptor, as `os.truncate` does.
    """
    real = os.path.realpath(path) if follow else os.path.abspath(path)
    folder = os.path.dirname(real)
    beside = os.path.join(folder, _PREFIX + secrets.token_hex(8))
    there = _permissions(real, follow=follow)
    if there is not None and not replace:
        raise _about(path, errno.EEXIST)

    def created(name: str, flags: int) -> int:
        permissions = 0o600 if private or there is not None else 0o666
        with suppress(OSError, AttributeError):
            if os.path.isdir(_DESCRIPTORS):
                return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, permissions)
        try:
            return os.open(name, flags | os.O_CLOEXEC, permissions)
        except OSError as error:
            raise _about(path, error.errno) from None

    try:
        with io.BufferedRandom(OutputFile(path, beside, "x+", created)) as file:
            try:
                yield file
            except OSError as error:
                if error.filename != file.fileno():
                    raise
                raise _about(path, error.errno) from None
            file.flush()
            with _told_of(path):
                if there is not None:
                    os.fchmod(file.fileno(), there)
                if not os.fstat(file.fileno()).st_nlink:
                    # With a descriptor (of any kind, as the path is absolute) it is linkat, and that alone follows
                    # links.
                    own = f"{_DESCRIPTORS}/{file.fileno()}"
                    os.link(own, beside, src_dir_fd=file.fileno(), follow_symlinks=True)
        with _told_of(path):
            if replace:
                os.replace(beside, real)
            else:
                _name_anew(beside, real)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


def _permissions(path: str, *, follow: bool) -> int | None:
    """Of the regular file that is there, if there is one; a link counts as none where it is not followed."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode) and not follow:
        return None
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return stat.S_IMODE(mode)


@contextmanager
def _told_of(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within, an error is one about the file that was asked for, not about the one beside it."""
    try:
        yield
    except OSError as error:
        raise _about(path, error.errno) from None


def _name_anew(beside: str, path: str) -> None:
    """Rename, but not over a file that has appeared meanwhile."""
    try:
        os.link(beside, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise _about(path, errno.EEXIST) from None
        os.rename(beside, path)
    else:
        os.unlink(beside)


def _about(path: str | os.PathLike[str], number: int | None) -> OSError:
    """An error of the system that names the file which was asked for."""
    number = number or errno.EIO
    return OSError(number, os.strerror(number), os.fspath(path))
