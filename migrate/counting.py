"""Numbers of things, in words."""

from __future__ import annotations


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
