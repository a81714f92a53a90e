"""What may reach a terminal: text that a stream or a file name had a part in, made harmless."""

from __future__ import annotations

_SURROGATES = ("\ud800", "\udfff")
# Python decodes bytes of a file name that are no UTF-8 to these code points (PEP 383).
_LONE_BYTE = 0xDC00


def safe(text: str | bytes) -> str:
    """Text of one line with everything that is not printable as an escape: \\x1b, \\u202e.

    That covers the C0 and C1 controls, line ends, invisible and direction-changing characters, and bytes
    that are not UTF-8. rich's markup needs no escape here: such text only ever becomes a `rich.text.Text`,
    which does not parse any.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def well_formed(text: str) -> str:
    """Text that can be encoded as UTF-8: bytes of a file name that are not UTF-8 become escapes."""
    first, last = _SURROGATES
    return text if text.isascii() else "".join(_escape(c) if first <= c <= last else c for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if _LONE_BYTE + 0x80 <= code <= _LONE_BYTE + 0xFF:
        code -= _LONE_BYTE
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
