"""How compressed input is recognised and decoded: gzip, bzip2, xz, lzma, zstd and lz4, into pieces of bounded size.

Each decoder is a generator over a `Source` of compressed bytes. Members, streams or frames that follow one
another are one stream, as the command-line tools have it. Nothing is imported before it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from streams.typed import Protocol
from streams.values import NamedTuple

# Compressed bytes read at a time, and the most that one decoding step may hand out.
COMPRESSED_PIECE = 128 << 10
DECODED_PIECE = 512 << 10
# Most memory a decoder may want for its window: what zstd -d and xz -9 are content with, and more.
DECODER_MEMORY = 128 << 20
# Data may decode to this many bytes in any case, and to more only if that is not more than so many times what was
# read of them. Even memory that is all zeros comes with an 8-byte word for each page, and with the kernel's own
# accounts of each page, once it has been used: that bounds what can be gained.
FREE_EXPANSION = 4 << 30
MAX_EXPANSION = 4096


class Undecodable(Exception):
    """Compressed data that is truncated, corrupt, or too demanding.

    Attributes
    ----------
    offset:
        byte offset in the compressed data.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class Source(Protocol):
    """Where compressed bytes come from; `streams.transports.RawTransport` has the particulars."""

    position: int

    def some(self, limit: int) -> bytes:
        """At least 1 byte and at most `limit`; empty only at the end."""


ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = tuple(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60))


def _ends_early(codec: str, offset: int, expected: str) -> Undecodable:
    return Undecodable(f"the {codec} data ends at compressed offset 0x{offset:x}; expected {expected}", offset)


def _undecodable(codec: str, offset: int, why: object) -> Undecodable:
    return Undecodable(f"the {codec} data from compressed offset 0x{offset:x} on cannot be decoded: {why}", offset)


def _gunzip(raw: Source) -> Iterator[bytes]:
    """Decode gzip members (RFC 1952) one after another; zero bytes after one are padding."""
    import zlib

    pending = raw.some(COMPRESSED_PIECE)
    while pending:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        while not member.eof:
            pending = pending or raw.some(COMPRESSED_PIECE)
            if not pending:
                raise _ends_early("gzip", raw.position, "the rest of a member and its checksum")
            try:
                piece = member.decompress(pending, DECODED_PIECE)
            except zlib.error as error:
                raise _undecodable("gzip", raw.position - len(pending), error) from error
            pending = member.unconsumed_tail
            yield piece
        pending = member.unused_data.lstrip(b"\0")
        while not pending and (more := raw.some(COMPRESSED_PIECE)):
            pending = more.lstrip(b"\0")


def _bunzip2(raw: Source) -> Iterator[bytes]:
    """Decode bzip2 streams one after another; zero bytes after one are padding."""
    import bz2

    yield from _streams(raw, "bzip2", bz2.BZ2Decompressor, OSError, "the rest of a stream")


def _unlzma(raw: Source) -> Iterator[bytes]:
    """Decode the one stream of a .lzma file, xz's predecessor, which has no checksum."""
    import lzma

    def begin() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=DECODER_MEMORY)

    yield from _streams(raw, "lzma", begin, lzma.LZMAError, "the rest of a stream")


def _unlz4(raw: Source) -> Iterator[bytes]:
    """Decode LZ4 frames one after another; skippable ones are passed over."""
    try:
        import lz4.frame
    except ImportError:
        raise Undecodable("the input is compressed with lz4, and the Python package lz4 is missing", 0) from None
    yield from _streams(raw, "lz4", lz4.frame.LZ4FrameDecompressor, RuntimeError, "the rest of a frame")


class _Decompressor(Protocol):
    """What the decoders of bz2, lzma, zstd and lz4 have in common."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...


def _streams(
    raw: Source,
    codec: str,
    begin: Callable[[], _Decompressor],
    failure: type[Exception],
    rest: str,
    padding: bytes = b"\0",
) -> Iterator[bytes]:
    """Decode streams one after another, with as many of some bytes between them as may be."""
    pending = raw.some(COMPRESSED_PIECE)
    while pending:
        stream = begin()
        while not stream.eof:
            if stream.needs_input:
                pending = pending or raw.some(COMPRESSED_PIECE)
                if not pending:
                    raise _ends_early(codec, raw.position, rest)
            fed, pending = pending, b""
            try:
                piece = stream.decompress(fed, DECODED_PIECE)
            except failure as error:
                raise _undecodable(codec, raw.position - len(fed), error) from error
            yield piece
        pending = (stream.unused_data or b"").lstrip(padding)
        while not pending and (more := raw.some(COMPRESSED_PIECE)):
            pending = more.lstrip(padding)


def _unxz(raw: Source) -> Iterator[bytes]:
    """Decode .xz streams one after another; zero bytes after one are padding, in multiples of 4."""
    import lzma

    pending = raw.some(COMPRESSED_PIECE)
    while pending:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DECODER_MEMORY)
        while not stream.eof:
            if stream.needs_input:
                pending = pending or raw.some(COMPRESSED_PIECE)
                if not pending:
                    raise _ends_early("xz", raw.position, "the rest of a stream and its index")
            fed, pending = pending, b""
            try:
                piece = stream.decompress(fed, DECODED_PIECE)
            except lzma.LZMAError as error:
                raise _undecodable("xz", raw.position - len(fed), error) from error
            yield piece
        pending = stream.unused_data
        end = raw.position - len(pending)
        while not pending.strip(b"\0") and (more := raw.some(COMPRESSED_PIECE)):
            pending = more
        pending = pending.lstrip(b"\0")
        if (raw.position - len(pending) - end) % 4:
            raise _undecodable("xz", end, "the padding after a stream is not a multiple of 4 bytes")


def _unzstd(raw: Source) -> Iterator[bytes]:
    """Decode Zstandard frames (RFC 8878) one after another; skippable ones are passed over."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise Undecodable(
            "the input is compressed with zstd, and the Python package backports.zstd is missing", 0
        ) from None
    most = DECODER_MEMORY.bit_length() - 1

    def begin() -> zstd.ZstdDecompressor:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: most})

    yield from _streams(raw, "zstd", begin, zstd.ZstdError, "the rest of a frame", padding=b"")


def _is_lzma(head: bytes) -> bool:
    """Whether a .lzma header begins here: the format has no magic.

    Behind the usual properties stand the size of the dictionary, a power of two or three times one, and that of the
    data or all ones.
    """
    dictionary, size = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:LZMA_HEADER], "little")
    powers = {1 << n for n in range(12, 32)} | {3 << n for n in range(11, 30)}
    return len(head) >= LZMA_HEADER and dictionary in powers and (size == (1 << 64) - 1 or 0 < size < 1 << 38)


LZMA_HEADER = 13


class Codec(NamedTuple):
    """A kind of compression.

    Attributes
    ----------
    magics:
        how its data may begin.
    decode:
        what turns them into bounded pieces.
    confirm:
        what else must be so of the first `LONGEST_MAGIC` bytes.
    """

    name: str
    magics: tuple[bytes, ...]
    decode: Callable[[Source], Iterator[bytes]]
    confirm: Callable[[bytes], bool] = bool

    def fits(self, head: bytes) -> bool:
        """Whether data of this kind begin so."""
        return head.startswith(self.magics) and self.confirm(head)


GZIP = Codec("gzip", (b"\x1f\x8b",), _gunzip)
BZIP2 = Codec("bzip2", (b"BZh",), _bunzip2)
XZ = Codec("xz", (b"\xfd7zXZ\x00",), _unxz)
LZMA = Codec("lzma", (b"\x5d\x00\x00",), _unlzma, _is_lzma)
ZSTD = Codec("zstd", (ZSTD_MAGIC, *ZSTD_SKIPPABLE), _unzstd)
LZ4 = Codec("lz4", (b"\x04\x22\x4d\x18",), _unlz4)
CODECS = (GZIP, BZIP2, XZ, LZMA, ZSTD, LZ4)
LONGEST_MAGIC = max(LZMA_HEADER, *(len(magic) for codec in CODECS for magic in codec.magics))
