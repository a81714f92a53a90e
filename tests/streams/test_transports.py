"""Transports: all give the same bytes, none trusts a length, and broken input is named with its offset."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import random
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trying import examples

from streams.compressed import CompressedTransport
from streams.compression import BZIP2, CODECS, DECODED_PIECE, GZIP, LZ4, LZMA, XZ, ZSTD, Codec
from streams.opening import open_transport
from streams.pipes import PipeTransport
from streams.transports import PIECE, WINDOW, BytesTransport, FileTransport, Transport, TransportError

MIB = 1 << 20


def zstd(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True, **options).compress(data)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "bzip2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=0),
    "zstd": zstd,
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
}
codecs = pytest.mark.parametrize("codec", CODECS, ids=[codec.name for codec in CODECS])


@contextlib.contextmanager
def fed_pipe(data: bytes, chunks: list[int], *, pause: float = 0) -> Iterator[int]:
    """Read end of a real pipe that a thread writes to, some bytes at a time."""
    read_end, write_end = os.pipe()

    def feed() -> None:
        left, turn = memoryview(data), 0
        with contextlib.suppress(BrokenPipeError):
            while left:
                left = left[os.write(write_end, left[: chunks[turn % len(chunks)]]) :]
                turn += 1
                time.sleep(pause)
        os.close(write_end)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield read_end
    finally:
        os.close(read_end)
        thread.join()


@contextlib.contextmanager
def fed_socket(data: bytes) -> Iterator[int]:
    ours, theirs = socket.socketpair()

    def feed() -> None:
        with theirs, contextlib.suppress(OSError):
            theirs.sendall(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with ours:
        yield ours.fileno()
    thread.join()


@contextlib.contextmanager
def file_of(data: bytes, directory: Path, start: int = 0) -> Iterator[int]:
    path = directory / "input"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, start, os.SEEK_SET)
    yield fd
    os.close(fd)


@contextlib.contextmanager
def opened(kind: str, data: bytes, chunks: list[int], directory: Path) -> Iterator[Transport]:
    """A transport of one kind over these bytes."""
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        if kind == "bytes":
            yield enter(BytesTransport(data))
        elif kind == "file":
            yield enter(FileTransport(enter(file_of(data, directory))))
        elif kind == "file from an offset":
            yield enter(open_transport(enter(file_of(b"before" + data, directory, start=6))))
        elif kind == "pipe":
            yield enter(PipeTransport(enter(fed_pipe(data, chunks))))
        elif kind == "non-blocking pipe":
            fd = enter(fed_pipe(data, chunks))
            os.set_blocking(fd, False)
            yield enter(PipeTransport(fd))
        elif kind == "socket":
            yield enter(PipeTransport(enter(fed_socket(data))))
        elif kind.endswith(" pipe"):
            yield enter(open_transport(enter(fed_pipe(COMPRESS[kind.split()[0]](data), chunks))))
        else:
            yield enter(open_transport(COMPRESS[kind](data)))


RAW = ["bytes", "file", "file from an offset", "pipe", "non-blocking pipe", "socket"]
COMPRESSED = [*COMPRESS, *(f"{codec} pipe" for codec in COMPRESS)]
REREADING = ["bytes", "file", "file from an offset", *COMPRESS]


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Up to 100 KB that begin as no compressed data do, part noise and part repetition."""
    noise = random.Random(draw(st.integers(0, 1 << 32))).randbytes(draw(st.integers(0, 60_000)))
    return (b"\xff" + noise + bytes(draw(st.integers(0, 40_000))))[: draw(st.integers(0, 100_001))]


lengths = st.one_of(st.integers(0, 24), st.integers(0, 9000), st.integers(0, 120_000))
requests = st.lists(st.tuples(st.sampled_from(["give", "skip"]), lengths), max_size=30)
chunkings = st.lists(st.integers(1, 70_000), min_size=1, max_size=4)
quick = settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("kind", RAW + COMPRESSED)
@quick
@given(data=contents(), asked=requests, chunks=chunkings)
def test_every_transport_gives_and_skips_the_same(
    kind: str, data: bytes, asked: list[tuple[str, int]], chunks: list[int], tmp_path: Path
) -> None:
    position = 0
    with opened(kind, data, chunks, tmp_path) as transport:
        for what, n in asked:
            expected = data[position : position + n]
            if what == "give":
                assert bytes(transport.give(n)) == expected
            else:
                assert transport.skip(n) == len(expected)
            position += len(expected)
            assert transport.position == position
        assert transport.size in (None, len(data))


@pytest.mark.parametrize("kind", REREADING)
@quick
@given(
    data=contents(),
    first=lengths,
    ranges=st.lists(st.tuples(st.integers(0, 110_000), st.integers(0, 9000)), max_size=8),
)
def test_reread_returns_any_ranges_and_leaves_the_position(
    kind: str, data: bytes, first: int, ranges: list[tuple[int, int]], tmp_path: Path
) -> None:
    with opened(kind, data, [1], tmp_path) as transport:
        transport.skip(first)
        assert transport.reread(ranges) == [data[offset : offset + n] for offset, n in ranges]
        assert bytes(transport.give(len(data))) == data[first:]


@pytest.mark.parametrize("pack", [bytes, zstandard.ZstdCompressor().compress], ids=["plain", "zstd"])
def test_ascending_ranges_are_reread_one_after_the_other(pack):
    data = random.Random(3).randbytes(300_000)
    ranges = [(0, 10), (10, 0), (4096, 100_000), (250_000, 4096), (299_990, 100), (400_000, 8)]
    with open_transport(pack(data)) as transport:
        transport.skip(1000)
        assert list(transport.reread_in_order(ranges)) == [data[offset : offset + n] for offset, n in ranges]
        assert transport.position == 1000


def test_nothing_is_reread_in_order_where_there_is_no_going_back():
    read, write = os.pipe()
    os.write(write, zstandard.ZstdCompressor().compress(b"stream"))
    os.close(write)
    with open_transport(read) as transport:
        assert list(transport.reread_in_order([(0, 1)])) == []
    os.close(read)


@pytest.mark.parametrize("kind", ["pipe", "socket", "gzip pipe", "zstd pipe"])
def test_reread_is_none_where_there_is_no_going_back(kind: str, tmp_path: Path) -> None:
    with opened(kind, b"data", [4], tmp_path) as transport:
        assert not transport.rereads
        assert transport.reread([(0, 1)]) is None


# -- files ------------------------------------------------------------------------------------------


@pytest.fixture
def preads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The (offset, length) of every pread there is."""
    seen: list[tuple[int, int]] = []
    pread = os.pread

    def counting(fd: int, n: int, offset: int) -> bytes:
        seen.append((offset, n))
        return pread(fd, n, offset)

    monkeypatch.setattr(os, "pread", counting)
    return seen


def test_the_heads_of_a_page_data_record_cost_one_read(tmp_path: Path, preads: list[tuple[int, int]]) -> None:
    with opened("file", bytes(5 * MIB), [1], tmp_path) as transport:
        transport.skip(40)
        for n in (8, 8, 1024 * 8):
            assert len(transport.give(n)) == n
        assert transport.skip(4 * MIB) == 4 * MIB
    assert preads == [(40, WINDOW)]


def test_a_run_of_tiny_records_costs_one_read_per_window(tmp_path: Path, preads: list[tuple[int, int]]) -> None:
    with opened("file", bytes(4 * WINDOW), [1], tmp_path) as transport:
        while transport.give(8):
            transport.skip(16)
    assert len(preads) <= 8


def test_a_lone_page_is_read_without_its_neighbours(tmp_path: Path, preads: list[tuple[int, int]]) -> None:
    with opened("file", bytes(MIB), [1], tmp_path) as transport:
        transport.skip(8192)
        transport.give(4096)
    assert preads == [(8192, 4096)]


def test_a_file_that_grows_is_read_to_its_new_end(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"0123456789")
    with path.open("ab", buffering=0) as more, open_transport(path) as transport:
        assert transport.give(20) == b"0123456789"
        assert transport.skip(1) == 0
        more.write(b"abcdefgh")
        assert transport.skip(4) == 4
        assert transport.give(20) == b"efgh"
        assert transport.size == 18


@pytest.mark.parametrize(
    "ask",
    [
        lambda transport: transport.give(8192),
        lambda transport: transport.give(100),
        lambda transport: transport.skip(8192),
        lambda transport: transport.some(100),
        lambda transport: transport.reread([(0, 100), (900, 200)]),
    ],
    ids=["a page", "a few bytes", "skip", "some", "reread"],
)
def test_a_file_that_has_become_shorter_is_an_error_where_it_is_noticed(
    tmp_path: Path, ask: Callable[[FileTransport], object]
) -> None:
    path = tmp_path / "stream"
    path.write_bytes(bytes(10_000))
    with open_transport(path) as transport:
        assert isinstance(transport, FileTransport)
        transport.skip(5000)
        os.truncate(path, 1000)
        with pytest.raises(TransportError, match="shorter while it was read: 1000 bytes, which were 10000"):
            ask(transport)


def test_a_sparse_4_gib_file_is_passed_over_at_once(tmp_path: Path, preads: list[tuple[int, int]]) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 4 << 30)
    with open_transport(path) as transport:
        preads.clear()
        assert transport.skip(5 << 30) == 4 << 30
    assert preads == []


def test_a_descriptors_own_offset_stays(tmp_path: Path) -> None:
    with file_of(b"0123456789", tmp_path, start=3) as fd:
        with open_transport(fd) as transport:
            assert transport.give(4) == b"3456"
        assert os.lseek(fd, 0, os.SEEK_CUR) == 3


# -- pipes ------------------------------------------------------------------------------------------


def test_a_pipe_is_never_read_beyond_what_was_asked() -> None:
    with fed_pipe(b"0123456789", [10]) as fd, PipeTransport(fd) as transport:
        transport.give(3)
        transport.skip(4)
        assert os.read(fd, 100) == b"789"


def test_a_pipe_is_read_on_from_the_bytes_it_was_recognised_by() -> None:
    with fed_pipe(b"0123456789", [2]) as fd, open_transport(fd) as transport:
        assert transport.position == 0
        assert transport.skip(2) == 2
        assert transport.give(3) == b"234"
        assert transport.give(100) == b"56789"
        assert transport.position == 10


def test_large_gives_from_a_pipe_after_the_bytes_it_was_recognised_by() -> None:
    data = b"\xff" + random.Random(1).randbytes(3 * MIB)
    with fed_pipe(data, [100_000]) as fd, open_transport(fd) as transport:
        assert transport.give(len(data)) == data
    with fed_pipe(data, [100_000]) as fd, open_transport(fd) as transport:
        assert transport.give(MIB) == data[:MIB]


def test_a_non_blocking_pipe_is_waited_for() -> None:
    data = random.Random(2).randbytes(300)
    with fed_pipe(data, [50], pause=0.01) as fd, PipeTransport(fd) as transport:
        os.set_blocking(fd, False)
        assert transport.give(100) == data[:100]
        assert transport.skip(100) == 100
        assert transport.give(200) == data[200:]


def test_skipping_works_where_splice_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "splice")
    with fed_pipe(bytes(200_000) + b"end", [65536]) as fd, PipeTransport(fd) as transport:
        assert transport.skip(200_000) == 200_000
        assert transport.give(10) == b"end"


def test_skipping_works_where_there_is_no_null_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "devnull", "/nowhere/null")
    with fed_pipe(bytes(200_000) + b"end", [65536]) as fd, PipeTransport(fd) as transport:
        assert transport.skip(200_000) == 200_000
        assert transport.give(10) == b"end"


def test_a_terminal_ends_once() -> None:
    ours, theirs = os.openpty()
    with PipeTransport(theirs, owned=True) as transport:
        os.write(ours, b"abc\n\x04more\n")
        assert transport.give(6) == b"abc\n"
        assert transport.give(1) == b""
        assert transport.skip(1) == 0
    os.close(ours)


# -- lengths are not trusted ------------------------------------------------------------------------


def peak_of(act: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", RAW + COMPRESSED)
def test_a_huge_claim_on_short_input_allocates_little(kind: str, tmp_path: Path) -> None:
    with opened(kind, b"\xffshort", [6], tmp_path) as transport:
        given: list[bytes] = []
        assert peak_of(lambda: given.append(bytes(transport.give(1 << 40)))) < 4 * PIECE
        assert given == [b"\xffshort"]


def test_skipping_through_a_device_stays_flat() -> None:
    with open_transport("/dev/zero") as transport:
        passed: list[int] = []
        assert peak_of(lambda: passed.append(transport.skip(512 * MIB))) < 2 * PIECE
        assert passed == [512 * MIB]
        assert transport.size is None


@codecs
def test_a_bomb_is_decoded_piece_by_piece(codec: Codec) -> None:
    bomb = COMPRESS[codec.name](bytes(64 * MIB))
    assert len(bomb) < MIB
    with CompressedTransport(BytesTransport(bomb), codec) as transport:
        assert peak_of(lambda: transport.skip(1 << 40)) < 8 * DECODED_PIECE
        assert transport.position == 64 * MIB


# -- compression ------------------------------------------------------------------------------------

TEXT = b"".join(b"record %d of many\n" % i for i in range(300))


def all_of(transport: Transport) -> bytes:
    return bytes(transport.give(1 << 30))


def raw(data: bytes, codec: Codec) -> CompressedTransport:
    return CompressedTransport(BytesTransport(data), codec)


@codecs
def test_concatenated_members_are_one_stream(codec: Codec) -> None:
    compress = COMPRESS[codec.name]
    assert all_of(open_transport(compress(b"first, ") + compress(b"") + compress(b"second"))) == b"first, second"


@codecs
def test_compressed_data_that_end_early_are_named_with_their_end(codec: Codec) -> None:
    data = COMPRESS[codec.name](TEXT)
    for length in range(1, len(data)):
        with pytest.raises(TransportError, match=rf"{codec.name} data ends at .*; expected") as caught:
            all_of(raw(data[:length], codec))
        assert caught.value.offset == length


@codecs
def test_a_failed_transport_does_not_pass_for_an_ended_one(codec: Codec) -> None:
    transport = raw(COMPRESS[codec.name](TEXT)[:-3], codec)
    for _ in range(2):
        with pytest.raises(TransportError):
            transport.skip(1 << 20)


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec != LZMA], ids=lambda codec: codec.name)
@quick
@given(seed=st.integers(0, 1 << 32))
def test_a_flipped_byte_is_noticed_or_harmless(codec: Codec, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(COMPRESS[codec.name](TEXT))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    with contextlib.suppress(TransportError):
        assert all_of(raw(bytes(data), codec)) == TEXT


@codecs
def test_junk_after_compressed_data_is_an_error(codec: Codec) -> None:
    data = COMPRESS[codec.name](TEXT)
    transport = raw(data + b"junk" * 8, codec)
    assert transport.give(len(TEXT)) == TEXT
    with pytest.raises(TransportError) as caught:
        transport.give(1)
    assert caught.value.offset == len(data)


@pytest.mark.parametrize(
    ("codec", "padding"), [(GZIP, 1), (GZIP, 100_000), (XZ, 4), (XZ, 100_000), (BZIP2, 5), (LZMA, 100_000), (LZ4, 5)]
)
def test_zero_padding_between_members_is_passed_over(codec: Codec, padding: int) -> None:
    data = COMPRESS[codec.name](TEXT) + bytes(padding)
    assert all_of(raw(data + data, codec)) == TEXT + TEXT


def test_xz_padding_comes_in_fours() -> None:
    data = COMPRESS["xz"](TEXT)
    with pytest.raises(TransportError, match="multiple of 4"):
        all_of(raw(data + bytes(3), XZ))


@pytest.mark.parametrize(
    "word",
    [93, (1 << 24) + 0x5D, 0x5D | 0xFFFF_FFFF << 32],
    ids=["of 93 pages", "of 64 GiB", "of a 32-bit toolstack"],
)
def test_an_old_stream_whose_first_word_begins_as_lzma_does_is_not_decompressed(word: int) -> None:
    # A stream from before Xen 4.6 begins with the number of its pages, and all ones.
    data = word.to_bytes(8, "little") + b"\xff" * 8
    assert all_of(open_transport(data)) == data


def test_lz4_without_its_package_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = COMPRESS["lz4"](TEXT)
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    with pytest.raises(TransportError, match="the Python package lz4 is missing"):
        all_of(open_transport(data))


def test_skippable_zstd_frames_are_passed_over() -> None:
    skippable = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    assert all_of(open_transport(skippable + zstd(TEXT) + skippable)) == TEXT
    with pytest.raises(TransportError, match="zstd data ends"):
        all_of(open_transport(skippable[:-1]))


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65_791, 65_792, 300_000])
@pytest.mark.parametrize("sized", [True, False])
def test_zstd_frames_of_every_header_size_are_decoded(length: int, sized: bool) -> None:
    data = random.Random(length).randbytes(length)
    assert all_of(raw(zstd(data, write_content_size=sized), ZSTD)) == data


@pytest.mark.parametrize(("window_log", "decoded"), [(27, True), (28, False)])
def test_zstd_windows_beyond_128_mib_are_refused(window_log: int, decoded: bool) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = stream.compress(TEXT) + stream.flush()
    if decoded:
        assert all_of(raw(data, ZSTD)) == TEXT
    else:
        with pytest.raises(TransportError, match="too much memory"):
            all_of(raw(data, ZSTD))


def test_a_compressed_pipe_gives_what_has_arrived_without_waiting_for_the_end() -> None:
    stream = zstandard.ZstdCompressor().compressobj()
    begun = stream.compress(b"head" * 100) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    read_end, write_end = os.pipe()
    os.write(write_end, begun)
    transport = open_transport(read_end)
    assert transport.give(400) == b"head" * 100
    os.close(write_end)
    with pytest.raises(TransportError, match="ends"):
        transport.give(1)
    os.close(read_end)


# -- opening ----------------------------------------------------------------------------------------

COUNT = """
import os
from streams.opening import open_transport
transport = open_transport("-")
transport.skip(2)
print(bytes(transport.give(5)).decode(), transport.position, transport.size)
transport.close()
print(os.fstat(0) is not None)
"""


def test_a_dash_is_standard_input_from_a_pipe() -> None:
    result = subprocess.run([sys.executable, "-c", COUNT], input=b"0123456789", capture_output=True, check=True)
    assert result.stdout.split() == [b"23456", b"7", b"None", b"True"]


def test_a_dash_is_standard_input_from_a_file_where_it_stands(tmp_path: Path) -> None:
    with file_of(b"before0123456789", tmp_path, start=6) as fd:
        result = subprocess.run([sys.executable, "-c", COUNT], stdin=fd, capture_output=True, check=True)
    assert result.stdout.split() == [b"23456", b"7", b"10", b"True"]


def test_only_the_string_dash_is_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").write_bytes(b"a file of that name")
    with open_transport(Path("-")) as transport:
        assert transport.give(6) == b"a file"


def test_a_fifo_is_read_as_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(COMPRESS["gzip"](TEXT),))
    writer.start()
    with open_transport(path) as transport:
        assert all_of(transport) == TEXT
        assert transport.reread([(0, 1)]) is None
    writer.join()


def test_a_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        open_transport(tmp_path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        open_transport(tmp_path / "absent")


def test_an_io_error_is_a_transport_error() -> None:
    # Page 0 of a process is never mapped: reading there is EIO.
    with pytest.raises(TransportError, match="reading failed at offset 0x0") as caught:
        open_transport("/proc/self/mem")
    assert caught.value.offset == 0
    fd = os.open("/proc/self/mem", os.O_RDONLY)
    with PipeTransport(fd, owned=True) as transport, pytest.raises(TransportError, match="offset 0x0"):
        transport.give(1 << 20)


@pytest.mark.parametrize("compress", [bytes, *COMPRESS.values()])
def test_close_closes_paths_and_leaves_descriptors_open(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    path = tmp_path / "stream"
    path.write_bytes(compress(TEXT))
    before = open_files()
    with open_transport(path) as transport:
        assert open_files() == before + 1
        transport.reread([(0, 4)])
        transport.close()
    assert open_files() == before
    with path.open("rb") as file:
        open_transport(file.fileno()).close()
        assert file.read() == compress(TEXT)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_are_input(wrap: Callable[[bytes], bytes]) -> None:
    assert all_of(open_transport(wrap(TEXT))) == TEXT
    assert all_of(open_transport(wrap(zstd(TEXT)))) == TEXT


def test_opening_an_input_imports_no_numpy_and_no_decompressor() -> None:
    heavy = "numpy zstandard lzma zlib gzip bz2 lz4 construct"
    script = f"import sys, streams.opening; print([m for m in {heavy.split()} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
