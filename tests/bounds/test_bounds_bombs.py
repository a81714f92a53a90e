"""Compressed input that decodes to far more than it is."""

import bz2
import gzip
import lzma
import random

import lz4.frame
import pytest
import zstandard
from hostile import END, OPTIONAL

from migrate.building.builder import StreamBuilder
from streams import compressed, transports
from streams.compression import CODECS, DECODED_PIECE, FREE_EXPANSION, MAX_EXPANSION, ZSTD_MAGIC
from streams.opening import open_transport
from streams.transports import TransportError
from streams.wire.framing import RECORD_HEADER

MIB, GIB = 1 << 20, 1 << 30
STREAM = StreamBuilder.hvm().build()
SAYS = "times their length"

BLOCK = 128 << 10


def zstd_zeros(size):
    """A zstd frame of so many zeros, a multiple of BLOCK: four bytes for each block, the format's densest."""
    rle = 1 << 1 | BLOCK << 3
    window = 7 << 3  # 128 KiB
    blocks = [rle.to_bytes(3, "little") + b"\0"] * (size // BLOCK - 1) + [(rle | 1).to_bytes(3, "little") + b"\0"]
    return ZSTD_MAGIC + bytes([0, window]) + b"".join(blocks)


def zstd(data):
    return zstandard.ZstdCompressor().compress(data)


def optional_zeros(count):
    """A zstd stream with so many records of 128 MiB of zeros, which a restore skips."""
    one = zstd(RECORD_HEADER.pack(OPTIONAL, 128 * MIB)) + zstd_zeros(128 * MIB)
    return zstd(STREAM.removesuffix(END)) + one * count + zstd(END)


def test_zeros_are_decoded_as_they_should_be():
    assert open_transport(zstd_zeros(3 * BLOCK)).give(4 * BLOCK) == bytes(3 * BLOCK)


@pytest.mark.parametrize(
    "bomb", [lambda: zstd(STREAM) + zstd_zeros(64 * GIB), lambda: optional_zeros(512)], ids=["behind", "within"]
)
def test_a_bomb_is_not_decoded_to_its_end(check, bomb):
    ended = check(bomb())
    assert ended.code == 2
    assert SAYS in ended.err
    assert "--max-expansion" in ended.err


def test_a_bomb_on_standard_input_is_not_decoded_to_its_end(confinement, tmp_path):
    bomb = zstd(STREAM) + zstd_zeros(64 * GIB)
    (tmp_path / "bomb").write_bytes(bomb)
    ended = confinement.run(["check", "-"], len(bomb), stdin=str(tmp_path / "bomb"))
    assert (ended.code, SAYS in ended.err) == (2, True)


@pytest.mark.parametrize("command", [["trace"], ["verify-stream-v2", "-i"], ["policy"]])
def test_a_bomb_harms_no_other_command(confinement, tmp_path, command):
    bomb = optional_zeros(512)
    (tmp_path / "bomb").write_bytes(bomb)
    assert confinement.run([*command, tmp_path / "bomb"], len(bomb)).code in (0, 1, 2)


def test_the_bound_can_be_raised(check):
    data = zstd(STREAM) + zstd_zeros(5 * GIB)
    assert check(data).code == 2
    assert check(data, "--max-expansion", str(1 << 16)).code == 0
    assert check(data, "--max-expansion", "0").code == 0


def test_a_guest_of_four_gibibytes_of_zeros_is_judged(check):
    assert check(optional_zeros(FREE_EXPANSION // (128 * MIB) - 1)).code == 0


COMPRESS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zstd": zstd,
    "lz4": lz4.frame.compress,
}


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "gibibytes", "code"), [("xz", 16, 2), ("gzip", 8, 0)])
def test_gigabytes_of_zeros_keep_the_law_with_other_codecs(check, codec, gibibytes, code):
    compress = COMPRESS[codec]
    assert check(compress(STREAM) + compress(bytes(64 * MIB)) * (gibibytes * 16)).code == code


@pytest.mark.parametrize("codec", COMPRESS)
def test_no_decoder_hands_out_more_than_a_piece_at_once(codec):
    raw = transports.BytesTransport(COMPRESS[codec](bytes(4 * MIB)))
    decode = next(known.decode for known in CODECS if known.name == codec)
    assert max(map(len, decode(raw))) <= DECODED_PIECE


@pytest.mark.parametrize("codec", COMPRESS)
def test_the_bound_counts_from_the_free_size_on_with_every_codec(monkeypatch, codec):
    monkeypatch.setattr(compressed, "FREE_EXPANSION", 2 * MIB)
    data = COMPRESS[codec](bytes(4 * MIB))
    with pytest.raises(TransportError, match=rf"{codec} data decode to more than .* and more than 50 {SAYS}"):
        open_transport(data, max_expansion=50).skip(4 * MIB)
    assert open_transport(data, max_expansion=50).skip(2 * MIB) == 2 * MIB
    assert open_transport(data, max_expansion=MAX_EXPANSION * 64).skip(4 * MIB) == 4 * MIB
    assert open_transport(data, max_expansion=0).skip(4 * MIB) == 4 * MIB


def test_a_bomb_stays_one_when_it_is_read_again(monkeypatch):
    monkeypatch.setattr(compressed, "FREE_EXPANSION", 2 * MIB)
    with open_transport(zstd(bytes(4 * MIB)), max_expansion=50) as transport:
        for _ in range(2):
            with pytest.raises(TransportError, match=SAYS):
                transport.skip(4 * MIB)
        with pytest.raises(TransportError, match=SAYS):
            transport.reread([(3 * MIB, 1)])


def test_what_does_not_shrink_much_may_be_as_long_as_it_likes(monkeypatch):
    monkeypatch.setattr(compressed, "FREE_EXPANSION", 1024)
    data = random.Random(1).randbytes(2 * MIB)
    assert open_transport(zstd(data), max_expansion=MAX_EXPANSION).skip(len(data)) == len(data)
