"""The page-table forest as a tree of lines, cut down to what a reader can take in."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from migrate.inspection.memory.forest import Group, Link
from streams.counting import count

if TYPE_CHECKING:
    from migrate.inspection.memory.forest import Branch, Forest
    from migrate.reports.html.anchors import Anchors

# Lines shown below the roots; what leads to a finding always is, up to as many again.
MOST_LINES = 1200
# Of one group, and below one table.
MOST_ROOTS = 256
MOST_CHILDREN = 96
# More roots of a group than this are folded, unless one of them leads to what stops the restore.
ROOTS_SEEN = 24
# Tables may name one another in as many ways as they have entries: beyond this nobody looks.
MOST_LOOKED_AT = 200_000

HEADINGS = {
    Group.LIVE: "Held by a vcpu",
    Group.PINNED: "Pinned, and reached from no vcpu's root",
    Group.LOOSE: "Held by nothing",
}


@dataclass(slots=True)
class Node:
    """A line of the forest, and those below it.

    Attributes
    ----------
    rules:
        ids of those that findings about it are about.
    chain:
        whether it leads to what stops the restore.
    home:
        its id, where it is the place of its table.
    pfn:
        the table it stands for, here or elsewhere.
    open:
        whether something below it leads to what stops the restore.
    hidden:
        how many lines right below it are left out.
    """

    what: str
    notes: list[str]
    rules: list[str] = field(default_factory=list)
    chain: bool = False
    home: str | None = None
    pfn: int | None = None
    below: list[Node] = field(default_factory=list)
    open: bool = False
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Tree:
    """The forest: roots by the heading of their group, and how many tables there are and are not shown."""

    groups: list[tuple[str, list[Node], int, bool]]  # heading, roots, how many are left out, whether it is folded
    tables: int
    left_out: int
    failing: str | None  # a link to the last of the tables that lead to what stops the restore


@dataclass(slots=True)
class _Step:
    """A branch on the way to the one that is looked at, and its line if it has one."""

    branch: Branch
    node: Node | None = None
    chain: bool = False


def tree(forest: Forest, anchors: Anchors) -> Tree:
    """The lines of a forest that fit into a document; tells the anchors which tables have a place in it."""
    return _Grower(forest, anchors).grow()


class _Grower:
    """Makes lines of branches, those above a line that is worth telling included."""

    def __init__(self, forest: Forest, anchors: Anchors) -> None:
        self.forest = forest
        self.anchors = anchors
        self.on_chain = {pfn for pfn, _ in forest.chain}
        self.roots = {group: Node(heading, []) for group, heading in HEADINGS.items()}
        self.path: list[_Step] = []
        self.tables = 0

    def grow(self) -> Tree:
        """All of it, or as much as is looked at."""
        lines = telling_lines = 0
        for branch in islice(self.forest.branches(), MOST_LOOKED_AT):
            del self.path[branch.depth :]
            step = _Step(branch, chain=self._chain(branch))
            self.path.append(step)
            telling = step.chain or (branch.link is Link.TABLE and branch.pfns[0] in self.forest.findings)
            if telling and telling_lines < MOST_LINES:
                telling_lines += 1
                for depth in range(len(self.path)):
                    self._show(depth).open |= step.chain and depth < branch.depth
                continue
            above = self._above(branch.depth)
            if above is None:
                continue
            room = len(above.below) < (MOST_CHILDREN if branch.depth else MOST_ROOTS)
            if room and (lines < MOST_LINES or not branch.depth):
                lines += 1 if branch.depth else 0
                self._show(branch.depth)
            else:
                above.hidden += 1
        groups = [
            (root.what, root.below, root.hidden, len(root.below) > ROOTS_SEEN and not any(n.chain for n in root.below))
            for root in self.roots.values()
            if root.below or root.hidden
        ]
        links = (self.anchors.table(pfn) for pfn, _ in reversed(self.forest.chain))
        failing = next((link for link in links if link is not None), None)
        return Tree(groups, len(self.forest), len(self.forest) - self.tables, failing)

    def _chain(self, branch: Branch) -> bool:
        if branch.pages > 1 or branch.pfns[0] not in self.on_chain:
            return False
        # A table that several name is on the way only where the way goes.
        return branch.link is Link.TABLE or (bool(self.path) and self.path[-1].chain)

    def _above(self, depth: int) -> Node | None:
        if depth:
            return self.path[depth - 1].node
        group = self.path[0].branch.group
        return self.roots[group] if group is not None else None

    def _show(self, depth: int) -> Node:
        step = self.path[depth]
        if step.node is None:
            step.node = _node(self.forest, step.branch, self.anchors)
            step.node.chain = step.chain
            above = self._above(depth)
            assert above is not None  # those above are shown first
            above.below.append(step.node)
            if step is not self.path[-1]:
                above.hidden -= 1  # as which it was counted when it was passed
            if step.branch.link is Link.TABLE:
                self.tables += step.branch.pages
        return step.node


def _node(forest: Forest, branch: Branch, anchors: Anchors) -> Node:
    first, last = branch.pfns
    row = forest.row(first)
    span = f"pfn {first:#x}" + (f" to {last:#x}" if branch.pages > 1 else "")
    slots = ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in branch.slots)
    notes = [f"slot {slots}" if branch.slots and branch.slots[0][0] == branch.slots[-1][1] else f"slots {slots}"]
    if not branch.slots:
        notes = []
    if row < 0:
        return Node(f"{count(branch.pages, 'page')}, {span}" if branch.pages > 1 else f"{span}, no table", notes)
    table = forest.table(first)
    level = f"L{table.level}" if table.level else "not sent as a table:"
    if branch.link is not Link.TABLE:
        notes.append(
            {
                Link.AGAIN: "shown elsewhere",
                Link.LINEAR: "of the same level: a linear mapping",
                Link.SELF: "itself",
                Link.WRONG: "not of the level below",
            }[branch.link]
        )
        return Node(f"{level} {span}", notes, pfn=first)
    if branch.pages > 1:
        return Node(f"{count(branch.pages, f'{level} table')}, {span}", notes)
    notes += table.roots
    if table.pinned:
        notes.append("pinned")
    if table.placed_mfn is not None:
        notes.append(f"mfn {table.placed_mfn:#x}" + (", above 4 GiB" if table.above_4g and forest.width == 4 else ""))
    if table.held:
        notes.append(f"{table.present} present" + (f", {table.writable} writable" if table.writable else ""))
    else:
        notes.append("its contents did not come")
    if table.parents > 1:
        notes.append(f"named by {count(table.parents, 'table')}")
    anchors.tables.add(first)
    rules = sorted({finding.rule.id for finding in table.findings})
    return Node(f"{level} {span}", notes, rules, home=anchors.id("table", first), pfn=first)
