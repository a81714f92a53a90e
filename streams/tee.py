"""tee(2), which Python's `os` lacks: bytes of one pipe show up in another too, and are not copied."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable


def _from_libc() -> Callable[[int, int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).tee
    except (OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint]
    call.restype = ctypes.c_ssize_t
    return call


_TEE = _from_libc()


def tee(source: int, sink: int, n: int) -> int:
    """Have up to n bytes that are in one pipe in another one as well; they stay in the first.

    Waits for the first byte, as a read does. Returns how many there are; 0 at the end of the input.

    Raises
    ------
    OSError
        as the system call does: EINVAL where either is no pipe; ENOSYS where there is no such call.
    """
    if _TEE is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while True:
        done = _TEE(source, sink, n, 0)
        if done >= 0:
            return done
        code = ctypes.get_errno()
        if code != errno.EINTR:  # a signal's handler has run by now, and may have raised
            raise OSError(code, os.strerror(code))
