"""Mutations that know where the pieces of an input lie, and mend nothing after an edit (but some lengths)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import islice
from random import Random

import numpy as np
from anatomy import MOST_PIECES, Anatomy, Piece

from streams.pages import TYPE_SHIFT
from streams.wire.framing import FREE_RECORD_TYPE, RECORD_HEADER, RecordType, padded

EDGES = (0, 1, 2, 3, 4, 7, 8, 0xFF, 0x1000, 0xFFFF, 0x7FF_FFFF, 0x800_0000, 0x800_0001, 0x7FFF_FFFF, 0x8000_0000)
WORDS = (*EDGES, 0xFFFF_FFFF, 1 << 32, 1 << 51, (1 << 52) - 1, (1 << 63) - 1, (1 << 64) - 1)
PFN_WORDS = tuple(kind << TYPE_SHIFT | pfn for kind in range(16) for pfn in (4, 5))
TOKENS = (
    b"[",
    b'{"a":',
    b"(",
    b'"',
    b"\\",
    b"\0",
    b"\x1b[2J",
    b"null",
    b"-1",
    b"1e9",
    b"9",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b"</p><script src=//x>",
    b"'\"><b onload=x>&amp;",
)
WIDTHS = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}
# Where the fields of most headers and bodies are.
NEAR = 80
# Repetitions are a power of two: mostly a small one, as many records are nothing but slow.
FEW_REPEATS, MANY_REPEATS = 5, 12
MANY_ONE_IN = 12
LARGEST_DELTA = 16

Edit = Callable[[bytearray, list[Piece], Random], None]


def mutate(data: bytes, anatomy: Anatomy, rng: Random, limit: int, donors: Sequence[bytes] = ()) -> bytes:
    """One to four edits of an input, at most `limit` bytes of the result.

    Parameters
    ----------
    donors:
        inputs to take pieces from, of the same anatomy.
    """
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        pieces = [piece for piece in islice(anatomy(bytes(out)), MOST_PIECES) if piece.end > piece.start]
        if donors and (not pieces or rng.random() < 0.08):
            _transplant(out, pieces, rng, rng.choice(donors), anatomy)
        elif pieces:
            rng.choice(EDITS)(out, pieces, rng)
    return bytes(out[:limit])


# -- edits -------------------------------------------------------------------------------------------


def _field(out: bytearray, pieces: list[Piece], rng: Random) -> None:
    """Another value in one aligned field of a piece."""
    piece = rng.choice(pieces)
    size = rng.choice((1, 2, 4, 4, 8, 8))
    at = _place(out, piece, size, rng)
    if at + size > piece.end:
        return
    field = out[at : at + size]
    old = int.from_bytes(field, "little")
    match rng.randrange(6):
        case 0:
            new = rng.choice(WORDS)
        case 1:
            new = old + rng.choice((-1, 1)) * rng.randint(1, LARGEST_DELTA)
        case 2:
            new = old ^ 1 << rng.randrange(8 * size)
        case 3:  # what another field says: an id, a pfn, a length
            other = rng.choice(pieces)
            start = _place(out, other, size, rng)
            new = int.from_bytes(out[start : start + size], "little")
        case 4:
            new = rng.choice(PFN_WORDS)
        case _:
            new = rng.getrandbits(8 * size)
    struct.pack_into(WIDTHS[size], out, at, new & (1 << 8 * size) - 1)


def _place(out: bytearray, piece: Piece, size: int, rng: Random) -> int:
    """Where a field of a piece may be: near its start, or anywhere, preferably where something is."""
    length = piece.end - piece.start
    near = rng.random() < 0.5
    if not near and length >= 8:
        words = np.frombuffer(bytes(out[piece.start : piece.start + length // 8 * 8]), "<u8")
        used = np.flatnonzero(words)
        if len(used) and rng.random() < 0.8:
            return piece.start + int(used[rng.randrange(len(used))]) * 8 + rng.randrange(0, 8, size)
    return piece.start + rng.randrange(max(1, (min(length, NEAR) if near else length) // size)) * size


def _drop(out: bytearray, pieces: list[Piece], rng: Random) -> None:
    piece = rng.choice(pieces)
    del out[piece.start : piece.end]


def _duplicate(out: bytearray, pieces: list[Piece], rng: Random) -> None:
    piece, beside = rng.choice(pieces), rng.choice(pieces)
    at = rng.choice((piece.end, beside.start))
    out[at:at] = out[piece.start : piece.end]


def _swap(out: bytearray, pieces: list[Piece], rng: Random) -> None:
    first, second = sorted((rng.choice(pieces), rng.choice(pieces)))
    if first.end <= second.start:
        between = out[first.end : second.start]
        out[first.start : second.end] = out[second.start : second.end] + between + out[first.start : first.end]


def _cut(out: bytearray, pieces: list[Piece], rng: Random) -> None:
    piece = rng.choice(pieces)
    del out[rng.choice((piece.start, piece.end, rng.randint(piece.start, piece.end))) :]


def _token(out: bytearray, pieces: list[Piece], rng: Random) -> None:
    """A few telling bytes over others or between them."""
    piece = rng.choice(pieces)
    at = rng.randint(piece.start, piece.end)
    token = rng.choice(TOKENS)
    out[at : at + rng.choice((0, len(token)))] = token


def _repeat(out: bytearray, pieces: list[Piece], rng: Random) -> None:
    """A few bytes, very often."""
    piece = rng.choice(pieces)
    at = rng.randint(piece.start, piece.end)
    size = rng.choice((1, 1, 2, 4, 5, 8, 16))
    most = FEW_REPEATS if rng.randrange(MANY_ONE_IN) else MANY_REPEATS
    out[at:at] = out[at : at + size] * (1 << rng.randint(0, most))


def _resize(out: bytearray, pieces: list[Piece], rng: Random) -> None:
    """A body longer or shorter by something, and a length that says so."""
    framed = [piece for piece in pieces if piece.framed and piece.end - piece.start >= RECORD_HEADER.size]
    if not framed:
        return
    piece = rng.choice(framed)
    kind, length = RECORD_HEADER.unpack_from(out, piece.start)
    start = piece.start + RECORD_HEADER.size
    body = out[start : min(start + length, piece.end)]
    by = rng.choice((1, 4, 8, 8, 16, 24))
    if rng.random() < 0.5:
        body = body[: max(0, len(body) - by)]
    else:
        at = rng.choice((len(body), rng.randint(0, len(body))))
        body[at:at] = rng.choice((bytes(by), bytes(body[-by:]), rng.randbytes(by)))
    header = RECORD_HEADER.pack(kind, len(body))
    filled = len(body) + (padded(length) - length and padded(len(body)) - len(body))
    out[piece.start : piece.end] = header + body.ljust(filled, b"\0")


def _insert(out: bytearray, pieces: list[Piece], rng: Random) -> None:
    """A record of any type, with what another one holds, or not much."""
    kind = rng.choice((*RecordType, FREE_RECORD_TYPE, RecordType.PAGE_DATA | 0x8000_0000))
    giver = rng.choice(pieces)
    body = rng.choice((b"", bytes(8), rng.randbytes(rng.randrange(40)), bytes(out[giver.start + 8 : giver.end])))
    at = rng.choice(pieces).start
    out[at:at] = RECORD_HEADER.pack(kind, len(body)) + body.ljust(padded(len(body)), b"\0")


def _transplant(out: bytearray, pieces: list[Piece], rng: Random, donor: bytes, anatomy: Anatomy) -> None:
    """A piece of another input, between two of this one or in one's place."""
    given = [piece for piece in islice(anatomy(donor), MOST_PIECES) if piece.end > piece.start]
    if not given:
        return
    piece = rng.choice(given)
    place = rng.choice(pieces) if pieces else Piece(0, 0)
    out[place.start : rng.choice((place.start, place.end))] = donor[piece.start : piece.end]


EDITS: tuple[Edit, ...] = (
    *[_field] * 12,
    _drop,
    _drop,
    _duplicate,
    _duplicate,
    _swap,
    _swap,
    _cut,
    _token,
    _token,
    _repeat,
    _resize,
    _resize,
    _insert,
)
