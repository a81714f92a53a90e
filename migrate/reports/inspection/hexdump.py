"""Bytes for people: sixteen to a line, lines that repeat folded."""

from __future__ import annotations

from collections.abc import Iterator

_LINE = 16
_PRINTABLE = "".join(chr(code) if 0x20 <= code < 0x7F else "." for code in range(256))


def hexdump(data: bytes, first: int = 0, *, digits: int = 8) -> Iterator[str]:
    """Lines of an address, up to 16 bytes in hex, and the same as ASCII; a `*` stands for repetitions of a line.

    Parameters
    ----------
    first:
        address of the first byte.
    digits:
        how wide an address is at least.

    Only printable ASCII comes out, whatever the bytes are.
    """
    before, folded = None, False
    for at in range(0, len(data), _LINE):
        line = data[at : at + _LINE]
        # The last line is shown, so that one sees where it ends.
        if line == before and at + _LINE < len(data):
            if not folded:
                yield "*"
            folded = True
            continue
        before, folded = line, False
        left, right = line[: _LINE // 2].hex(" "), line[_LINE // 2 :].hex(" ")
        yield f"{first + at:0{digits}x}  {left:<23}  {right:<23}  |{line.decode('latin-1').translate(_PRINTABLE)}|"
