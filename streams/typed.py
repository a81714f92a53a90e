"""What type checkers are told of classes; when the program runs it takes nothing: `typing` is not imported for it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Generic, Protocol, TypeVar
else:

    class Protocol:
        """What classes have in common that share no code."""

    class Generic:
        """A class for any type of what is in it."""

        def __class_getitem__(cls, types):
            return cls

    def TypeVar(name, **asked):
        """A type that is not named."""


__all__ = ["Generic", "Protocol", "TypeVar"]
