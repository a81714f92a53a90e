"""JSON that somebody else may have had hands on, as the dataclasses that it was made of; every mistake is named."""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import date
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

_PLAIN = {str: "a string", int: "a number", bool: "true or false", types.NoneType: "null"}


class StructureError(ValueError):
    """A value that is not of the type that it should be. The text names the place."""


def structured(kind: Any, value: Any, where: str = "") -> Any:
    """A value as its type hint says.

    Parameters
    ----------
    kind:
        a type hint: dataclasses are made of objects with the names of their fields (or looked through, if they are
        there already), dates and enums of what they are written as, tuples of arrays. Of other classes than these
        and JSON's own nothing is asked.
    where:
        what the value is called, for a complaint.

    Raises
    ------
    StructureError
        for any other value.
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _one_of(get_args(kind), value, where)
    if origin in (list, tuple, dict):
        return _several(origin, get_args(kind), value, where)
    if kind in _PLAIN:
        if type(value) is not kind:
            raise _mistyped(_PLAIN[kind], value, where)
        return value
    if kind is float:
        return _number(value, where)
    if isinstance(kind, type) and is_dataclass(kind):
        return _fields(kind, value, where)
    if isinstance(kind, type) and issubclass(kind, date | Enum) and not isinstance(value, kind):
        try:
            return kind.fromisoformat(value) if issubclass(kind, date) else kind(value)
        except (TypeError, ValueError):
            raise _mistyped(f"a {kind.__name__.lower()}", value, where) from None
    return value


def _fields(kind: Any, value: Any, where: str) -> Any:
    if isinstance(value, kind):
        for name, hint in _hints(kind).items():
            structured(hint, getattr(value, name), f"{where}.{name}".lstrip("."))
        return value
    if not isinstance(value, Mapping):
        raise _mistyped("an object", value, where)
    hints = _hints(kind)
    found = {}
    for declared in fields(kind):
        name = f"{where}.{declared.name}".lstrip(".")
        if declared.name in value:
            found[declared.name] = structured(hints[declared.name], value[declared.name], name)
        elif declared.default is MISSING and declared.default_factory is MISSING:
            raise StructureError(f"{name} is missing")
    return kind(**found)


def _several(origin: type, inner: tuple[Any, ...], value: Any, where: str) -> Any:
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _mistyped("an object", value, where)
        pairs = ((structured(inner[0], k, where), structured(inner[1], v, f"{where}.{k}")) for k, v in value.items())
        return dict(pairs)
    if not isinstance(value, list | tuple):
        raise _mistyped("an array", value, where)
    if origin is tuple and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            raise _mistyped(f"an array of {len(inner)}", value, where)
        kinds: Iterable[Any] = inner
    else:
        kinds = [inner[0]] * len(value)
    numbered = enumerate(zip(kinds, value, strict=True))
    return origin(structured(kind, one, f"{where}[{number}]") for number, (kind, one) in numbered)


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    *others, last = (kind for kind in kinds if kind is not types.NoneType)
    for kind in others:
        try:
            return structured(kind, value, where)
        except StructureError:
            continue
    return structured(last, value, where)


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _mistyped("a number", value, where)
    return number


def _mistyped(expected: str, value: Any, where: str) -> StructureError:
    text = repr(value)
    return StructureError(f"{where or 'it'}: expected {expected}, found {text if len(text) <= 60 else text[:59] + '…'}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Types of a class's fields; none where they are imported for type checkers alone, as those of rules are."""
    try:
        return get_type_hints(kind, localns={"Any": Any})  # which modules import for type checkers alone
    except NameError:
        return {}
