"""A file that appears whole or not at all, whatever ends the one who writes it."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

# Short: a name as long as its file system allows has to have a neighbour, too.
_PREFIX = ".migrate-"
_DESCRIPTORS = "/proc/self/fd"
# What link says where there are no hard links.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


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
        for a file that cannot be written, and in the place of what is no regular file, such as a device.
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
        with open(beside, "x+b", opener=created) as file:
            yield file
            file.flush()
            if there is not None:
                os.fchmod(file.fileno(), there)
            if not os.fstat(file.fileno()).st_nlink:
                # With a descriptor (of any kind, as the path is absolute) it is linkat, and that alone follows links.
                os.link(f"{_DESCRIPTORS}/{file.fileno()}", beside, src_dir_fd=file.fileno(), follow_symlinks=True)
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


def _name_anew(beside: str, path: str) -> None:
    """Rename, but not over a file that has appeared meanwhile."""
    try:
        os.link(beside, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise _about(path, error.errno) from None
        if os.path.lexists(path):
            raise _about(path, errno.EEXIST) from None
        os.rename(beside, path)
    else:
        os.unlink(beside)


def _about(path: str | os.PathLike[str], number: int | None) -> OSError:
    """An error of the system that names the file which was asked for."""
    number = number or errno.EIO
    return OSError(number, os.strerror(number), os.fspath(path))
