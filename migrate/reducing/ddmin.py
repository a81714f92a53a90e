"""A smaller list of things of which a test still holds: delta debugging, by chunks that get ever finer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def ddmin(things: Sequence[T], still: Callable[[list[T]], bool], *, finest: int = 1) -> list[T]:
    """Leave out what can be left out; what stays is in its order.

    Parameters
    ----------
    still:
        whether some of the things are enough. It holds of all of them, and is not asked that.
    finest:
        the least number of things that are left out at a time. With 1, no single one of what stays can go.

    Returns
    -------
    list
        of n things with k that stay, after about 2 k log2(n / k) questions; 2 n where all stay.
    """
    kept = list(things)
    chunk = len(kept)
    while kept and chunk >= max(finest, 1):
        before = len(kept)
        at = 0
        while at < len(kept):
            candidate = kept[:at] + kept[at + chunk :]
            if still(candidate):
                kept = candidate
            else:
                at += chunk
        if chunk == 1:
            # Something that could not go may have become free by what went after it.
            if len(kept) == before:
                break
        else:
            chunk //= 2
    return kept
