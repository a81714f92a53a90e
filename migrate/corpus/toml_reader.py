"""TOML beside streams, taken apart key by key, so that every mistake is named with its place."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from typing import Any, TypeVar

from migrate.corpus.filesystems import FetchError, Files, read_text

T = TypeVar("T")


class ExpectationError(ValueError):
    """A TOML file that cannot be read, or does not say what it should. The text names the place."""


_KINDS: dict[type, str] = {str: "a string", int: "a number", bool: "true or false", dict: "a table", list: "an array"}


class Table:
    """A TOML table that is taken apart key by key, so that what is left is what nobody knows."""

    def __init__(self, file: str, where: str, table: dict[str, Any]) -> None:
        self.file = file
        self.where = where
        self.left = dict(table)
        self._known: list[str] = []

    def error(self, key: str, what: str) -> ExpectationError:
        """The complaint about a key."""
        return ExpectationError(f"{self.file}: {self.where}{key}: {what}")

    def has(self, key: str) -> bool:
        """Whether a key is there that may be."""
        self._known.append(key)
        return key in self.left

    def take(self, key: str, kind: type, default: T) -> Any | T:
        """A value of that kind; the default where the key is not there."""
        if not self.has(key):
            return default
        value = self.left.pop(key)
        if type(value) is not kind:  # a bool is not a number here
            raise self.error(key, f"expected {_KINDS.get(kind, f'a {kind.__name__}')}, found {shown(value)}")
        return value

    def text(self, key: str) -> str:
        """A string that has to be there."""
        value: str | None = self.take(key, str, None)
        if value is None:
            raise self.error(key, "missing")
        return value

    def word(self, key: str, among: Iterable[str]) -> str:
        """A string that has to be there and to be one of these."""
        value, words = self.text(key), list(among)
        if value not in words:
            raise self.error(key, f"expected {', '.join(words[:-1])} or {words[-1]}, found {shown(value)}")
        return value

    def number(self, key: str, least: int = 0) -> int | None:
        """A number, where it is there."""
        value: int | None = self.take(key, int, None)
        if value is not None and value < least:
            raise self.error(key, f"expected at least {least}, found {value}")
        return value

    def table(self, key: str) -> Table:
        """A table within this one; empty where it is not there."""
        return Table(self.file, f"{self.where}{key}.", self.take(key, dict, {}))

    def tables(self, key: str) -> list[Table]:
        """The tables of an array."""
        found = []
        for number, value in enumerate(self.take(key, list, []), 1):
            if not isinstance(value, dict):
                raise self.error(f"{key} {number}", f"expected a table, found {shown(value)}")
            found.append(Table(self.file, f"{self.where}{key} {number}: ", value))
        return found

    def done(self) -> None:
        """Nothing more is known: what is left is a mistake."""
        for key in self.left:
            raise self.error(key, f"unknown key{hint(key, self._known)}")


def read_table(files: Files, path: str) -> Table:
    """A TOML file as a table.

    Raises
    ------
    ExpectationError
        for a file that cannot be read, and for one that is not TOML.
    """
    shown = files.shown(path)
    try:
        data = read_text(files, path)
    except OSError as error:
        raise ExpectationError(f"{shown}: {error.strerror or error}") from error
    except FetchError as error:
        raise ExpectationError(str(error)) from error
    return parse_table(shown, data)


def parse_table(file: str, data: bytes) -> Table:
    """The bytes of a TOML file as a table. Raises ExpectationError for what is not TOML."""
    try:
        return Table(file, "", tomllib.loads(data.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise ExpectationError(f"{file}: not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ExpectationError(f"{file}: not TOML: {error}") from error
    except RecursionError as error:
        raise ExpectationError(f"{file}: nested too deeply") from error


def shown(value: object) -> str:
    """A value in a complaint, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def hint(word: str, known: Iterable[str]) -> str:
    """What may have been meant, as the end of a complaint."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
