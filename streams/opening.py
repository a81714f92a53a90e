"""Which transport an input needs, by what is given and how it begins."""

from __future__ import annotations

import errno
import os
import stat

from streams.compressed import CompressedTransport
from streams.compression import CODECS, LONGEST_MAGIC, MAX_EXPANSION
from streams.pipes import PipeTransport
from streams.transports import BytesTransport, FileTransport, RawTransport, Readable, Transport


def open_transport(
    source: str | os.PathLike[str] | int | bytes | bytearray | memoryview | Readable,
    *,
    max_expansion: int = MAX_EXPANSION,
) -> Transport:
    """Open an input, and decompress it if it begins as one of `CODECS` does.

    Parameters
    ----------
    source:
        a path; "-" for standard input; a descriptor, which is read from where it stands and is left open by
        `close`; the bytes themselves; or a file object, which is read from where it stands, too, and left open.
    max_expansion:
        as for `CompressedTransport`.

    Raises
    ------
    OSError
        if the path cannot be opened; IsADirectoryError for a directory.
    TransportError
        if its first bytes cannot be read.
    """
    raw: RawTransport
    if isinstance(source, bytes | bytearray | memoryview):
        raw = BytesTransport(source)
    elif isinstance(source, int):
        raw = _on_descriptor(source, f"descriptor {source}", owned=False)
    elif not isinstance(source, str | os.PathLike):
        if not hasattr(source, "read"):
            raise ValueError(f"{source!r:.60} is no stream: expected a path, a descriptor, bytes or a file object")
        from streams.file_objects import transport_of

        raw = transport_of(source)
    elif source == "-":
        raw = _on_descriptor(0, "standard input", owned=False)
    else:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            raw = _on_descriptor(fd, os.fspath(source), owned=True)
        except BaseException:
            os.close(fd)
            raise
    try:
        head = raw.peek(LONGEST_MAGIC)
    except BaseException:
        raw.close()
        raise
    for codec in CODECS:
        if codec.fits(head):
            return CompressedTransport(raw, codec, max_expansion)
    return raw


def _on_descriptor(fd: int, name: str, *, owned: bool) -> RawTransport:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if stat.S_ISREG(mode):
        return FileTransport(fd, owned=owned)
    return PipeTransport(fd, owned=owned)
