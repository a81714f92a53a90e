"""Just enough of s-expressions to read what xenopsd writes: atoms, quoted atoms and lists.

The grammar is that of OCaml's Sexplib, in which xenopsd keeps its part of a suspend image.
"""

from __future__ import annotations

import re

Sexp = bytes | list["Sexp"]


# Lists in lists in lists: far more than any record has, and little enough to cost nothing.
DEEPEST = 64


class SexpError(ValueError):
    """The text is no s-expression."""


_TOKEN = re.compile(
    rb"""(?P<space> [ \t\r\n\f]+ | ;[^\n]* )
       | (?P<open> \( )
       | (?P<close> \) )
       | (?P<quoted> "(?: [^"\\]++ | \\. )*+" )
       | (?P<atom> [^ \t\r\n\f()";]+ )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(rb"\\(\r?\n[ \t]*|[0-9]{3}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_SHORT = {b"n": b"\n", b"t": b"\t", b"b": b"\b", b"r": b"\r"}


def parse(text: bytes) -> Sexp:
    """The one s-expression in a text. An atom is bytes, a list a list of s-expressions.

    Raises SexpError for text that holds none, more than one, or anything that is not one, and for lists nested more
    than DEEPEST deep. Takes some 30 times the memory of the text.
    """
    done: list[Sexp] = []
    current = done
    outer: list[list[Sexp]] = []
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise SexpError(f"no s-expression goes on like this, at byte {at}")
        kind = token.lastgroup
        if kind == "open":
            if len(outer) == DEEPEST:
                raise SexpError(f"lists are nested more than {DEEPEST} deep, at byte {at}")
            outer.append(current)
            inner: list[Sexp] = []
            current.append(inner)
            current = inner
        elif kind == "close":
            if not outer:
                raise SexpError(f"a closing parenthesis without its opening one, at byte {at}")
            current = outer.pop()
        elif kind == "quoted":
            current.append(_ESCAPE.sub(_unescaped, token[0][1:-1]))
        elif kind == "atom":
            current.append(token[0])
        at = token.end()
    if outer:
        raise SexpError("it ends within a list")
    if len(done) != 1:
        raise SexpError(f"{len(done)} s-expressions; expected 1")
    return done[0]


def fields(value: Sexp) -> dict[bytes, Sexp]:
    """The fields of a record: a list of (name value) pairs.

    Raises SexpError for anything else, and for a field that is there twice.
    """
    if not isinstance(value, list):
        raise SexpError("an atom; expected the fields of a record")
    found: dict[bytes, Sexp] = {}
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], bytes):
            raise SexpError("a field is not a pair of name and value")
        if pair[0] in found:
            raise SexpError(f"field {pair[0][:40]!r} is there twice")
        found[pair[0]] = pair[1]
    return found


def _unescaped(match: re.Match[bytes]) -> bytes:
    what = match[1]
    if what[:1] in (b"\r", b"\n") and what.endswith((b"\n", b" ", b"\t")):
        return b""
    if len(what) == 3:
        code = int(what[1:], 16) if what[:1] == b"x" else int(what)
        if code > 0xFF:
            raise SexpError(f"escape \\{what.decode()} is no byte")
        return bytes([code])
    return _SHORT.get(what, what)
