"""Numbers of things, in words."""

from __future__ import annotations

_UNITS = (("GiB", 30), ("MiB", 20), ("KiB", 10))


def memory_size(number: float) -> str:
    """A number of bytes as people write sizes of memory: 512 KiB, 8 MiB, 1.5 GiB."""
    unit, shift = next(((unit, shift) for unit, shift in _UNITS if number >= 1 << shift), _UNITS[-1])
    return f"{number / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"


def count(number: int, what: str, many: str = "", *, form: str = "") -> str:
    """A number of things.

    Parameters
    ----------
    many:
        the plural, where it is not `what` and an s.
    form:
        how the number is written: a format specification, such as "," for groups of thousands.
    """
    return f"{number:{form}} {what if number == 1 else many or what + 's'}"
