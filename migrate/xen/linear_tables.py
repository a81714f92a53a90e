"""Linear page tables: those whose entries name tables of their own level, and which of them Xen takes.

Source: `xen/arch/x86/mm.c` (get_l*_linear_pagetable).
"""

from __future__ import annotations

from collections.abc import Callable

from migrate.destination.answers import Answer
from migrate.xen.held_types import L2, L2X, FrameType, Refused
from streams.wire.paging import RW

ALLOWED: Answer[bool] = Answer(True, "nothing is known of the host")


class LinearTables:
    """The linear page tables of a guest.

    Parameters
    ----------
    types:
        of all frames, by pfn.
    journal:
        takes what undoes each step.
    restricted:
        whether they are limited to one step; else chains may have any length.
    allowed:
        whether the host allows them at all.
    """

    def __init__(
        self, types: memoryview, journal: list[Callable[[], None]], *, restricted: bool, allowed: Answer[bool]
    ) -> None:
        self._types = types
        self._journal = journal
        self._restricted = restricted
        self.allowed = allowed
        self._uses: dict[int, int] = {}  # > 0 linear entries of a table, < 0 uses of it by others

    def take(self, table: int, kind: FrameType, entry: int, target: int) -> bool:
        """Whether an entry may name a table of its own level; read-only, that is.

        Any other table of that level has been validated before: only tables of higher ones are not done yet.
        """
        if entry & RW or self.allowed.value is False:
            return False
        if target == table:
            return True
        if not self._alike(target, kind):
            return False
        if self._restricted and (self._uses.get(table, 0) < 0 or self._uses.get(target, 0) > 0):
            return False
        self._count(table, target, 1)
        self._journal.append(lambda: self._count(table, target, -1))
        return True

    def _alike(self, target: int, kind: FrameType) -> bool:
        have = self._types[target]
        return have == kind or (kind in (L2, L2X) and have in (L2, L2X))

    def _count(self, table: int, target: int, uses: int) -> None:
        self._uses[table] = self._uses.get(table, 0) + uses
        self._uses[target] = self._uses.get(target, 0) - uses

    def explain(self, refused: Refused, table: int, kind: FrameType, entry: int, target: int) -> None:
        """Say so of an entry that is refused, if it names a table of its own table's level."""
        if not self._alike(target, kind):
            return
        if self.allowed.value is False:
            why = self.allowed.because
        elif entry & RW:
            why = "it is writable"
        else:
            why = "such chains may be one table long"
        refused.rule = "HYP-17"
        refused.message = (
            f"{kind} pfn {table:#x}, entry {refused.slot}, maps {kind} pfn {target:#x} as a linear table, but {why}"
        )
