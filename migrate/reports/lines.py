"""Lines put together with their styles, and printed without any where nobody looks at a screen.

rich, which breaks and styles them for a terminal, takes longer to import than a small stream takes to judge.
"""

from __future__ import annotations

from streams.typed import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    import rich.text

UNLIMITED = 1 << 20
"""Columns; wider than any line."""


class Text:
    """A line, or a part of one, of pieces with a style each; rich takes it for one of its own."""

    __slots__ = ("pieces",)

    def __init__(self, text: str = "", style: str = "") -> None:
        self.pieces = [(text, style)]

    @classmethod
    def assemble(cls, *parts: str | tuple[str, str]) -> Text:
        """One after the other."""
        text = cls()
        text.pieces = [(part, "") if isinstance(part, str) else part for part in parts]
        return text

    @property
    def plain(self) -> str:
        """The text alone."""
        return "".join(piece for piece, _ in self.pieces)

    def __rich__(self) -> rich.text.Text:
        from rich.text import Text as Styled

        return Styled.assemble(*self.pieces)


class HasText(Protocol):
    """Text with styles, rich's or that of this module."""

    @property
    def plain(self) -> str:
        """The text alone."""


class PlainConsole:
    """Prints lines as long as they are, without styles."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def print(self, line: str | HasText = "") -> None:
        """Print a line, which is there at once for who reads a pipe."""
        text = line if isinstance(line, str) else line.plain
        self.file.write(f"{text.rstrip()}\n")
        self.file.flush()
