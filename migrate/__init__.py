"""Would this guest come back? A model of the restoring toolstack and of Xen, over Xen migration streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from migrate.judging.check import Checker, check

__all__ = ["Checker", "check"]


def __getattr__(name: str) -> Any:
    """Import the engine only when it is asked for: the command line starts without it."""
    if name in __all__:
        from migrate.judging import check as checker

        return getattr(checker, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
