"""The forest without what repeats itself: of a table's references to what is shown elsewhere, the first few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from migrate.inspection.memory.forest import Branch, Link

# So many of a table's references of each kind are shown one by one.
REFERENCES_SHOWN = 8


@dataclass(slots=True)
class Rest:
    """References of one kind that are left out of a table's lines.

    Attributes
    ----------
    depth:
        of the lines that are left out.
    targets:
        how many pages they lead to.
    """

    depth: int
    link: Link
    targets: int = 0


def thinned(branches: Iterable[Branch]) -> Iterator[Branch | Rest]:
    """Lines of a forest, with one line for all further references of a kind once the table's own lines are over.

    Tables themselves are all there, once each; so there are no more lines than some for each of them.
    """
    # Of each table above the present line: by kind how many references were shown, and what is left out.
    path: list[tuple[dict[Link, int], dict[Link, Rest]]] = []
    for branch in branches:
        while len(path) > branch.depth + 1:
            yield from path.pop()[1].values()
        if len(path) == branch.depth:
            path.append(({}, {}))
        shown, left = path[-1]
        shown[branch.link] = shown.get(branch.link, 0) + 1
        if branch.link is Link.TABLE or shown[branch.link] <= REFERENCES_SHOWN:
            yield branch
        else:
            left.setdefault(branch.link, Rest(branch.depth, branch.link)).targets += branch.pages
    while path:
        yield from path.pop()[1].values()
