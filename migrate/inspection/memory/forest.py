"""The page tables of a PV guest as trees: who names whom, from which roots, and where the restore fails."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from migrate.inspection.names import Span, spans
from migrate.inspection.reading import NotInStream
from migrate.xen.entries import IS_TABLE
from streams.pages import LEVEL_MASK, PFN_MASK, PIN_BIT
from streams.wire.framing import PAGE_SHIFT, PAGE_SIZE
from streams.wire.paging import ENTRIES, FRAME_MASK, L4_XEN_SLOTS, PAE_L3_ENTRIES, PAE_L3_LIMIT, RW, P
from streams.wire.vcpu import CONTEXT, USER_ROOT_VALID, cr3_to_pfn
from streams.wire.views import view

if TYPE_CHECKING:
    from migrate.guest.memory import PvGuest
    from migrate.guest.pages import Pages
    from migrate.inspection.reading import Inspection
    from migrate.rules.findings import Finding

_TABLES_AT_ONCE = 4096


class Link(StrEnum):
    """What a branch of a tree is."""

    TABLE = "table"  # the one place where the table and what is below it is shown
    AGAIN = "again"  # a table that is shown elsewhere
    LINEAR = "linear"  # a table of the naming table's own level
    SELF = "self"  # the naming table itself
    WRONG = "wrong"  # a table, but not of the level below
    DATA = "data"  # a page that is no table


class Group(StrEnum):
    """Why a tree's root is one."""

    LIVE = "live"  # a vcpu's cr3 or cr1 names it
    PINNED = "pinned"  # it is pinned, and no tree of a vcpu reaches it
    LOOSE = "loose"  # nothing holds it


class Branch(NamedTuple):
    """One line of the forest.

    Attributes
    ----------
    depth:
        0 for a root, one more for what its entries name.
    pfns:
        first and last, ascending or descending; more than one only where neighbouring slots name neighbouring pfns
        that are alike: L1 tables that nothing is to be said of, or what is not shown here. Alike also means
        equally many parents, and all of them pinned or none.
    slots:
        of the table above that name it; empty for a root.
    group:
        for a root, why it is one.
    """

    depth: int
    link: Link
    pfns: Span
    slots: tuple[Span, ...] = ()
    group: Group | None = None

    @property
    def pages(self) -> int:
        """How many pages it stands for."""
        return abs(self.pfns[1] - self.pfns[0]) + 1


@dataclass(frozen=True, slots=True)
class Table:
    """A page table.

    Attributes
    ----------
    level:
        as tagged by the last record that names it; 0 where that calls it no table.
    roots:
        why a vcpu holds it: "cr3 of vcpu 0".
    held:
        whether the stream has its contents as a table.
    present, writable:
        how many entries are present, and of an L1 how many of them are writable.
    parents:
        how many other tables name it.
    source_mfn, placed_mfn:
        machine frames where it came from and under the placement; None where unknown.
    failing:
        whether it is in the chain that leads to what stops the restore.
    """

    pfn: int
    level: int
    pinned: bool
    roots: tuple[str, ...]
    held: bool
    present: int
    writable: int
    parents: int
    source_mfn: int | None
    placed_mfn: int | None
    failing: bool
    findings: tuple[Finding, ...]

    @property
    def above_4g(self) -> bool | None:
        """Whether it would lie above 4 GiB; None where nobody knows."""
        return None if self.placed_mfn is None else self.placed_mfn >= PAE_L3_LIMIT


@dataclass(frozen=True, slots=True)
class Forest:
    """All page tables, as arrays of one entry each, ascending by pfn, and the entries of those above L1.

    Attributes
    ----------
    pfns, levels, pinned, held, present, writable, parents, source_mfns, placed_mfns:
        shape (tables,); as in `Table`, unknown frames -1.
    roots:
        why a vcpu holds a table, by pfn, in the order of the vcpus.
    parent, slot, target, child:
        shape (edges,), ordered by parent and slot: row of the naming table, its slot, pfn named, and the row of
        that, -1 where it is no table.
    findings:
        those that concern a table, by pfn.
    chain:
        what leads to the failure of the restore: pfn, and the slot (or None) that led on.
    """

    width: int
    top: int
    placement: str
    pfns: NDArray[np.int64]
    levels: NDArray[np.uint8]
    pinned: NDArray[np.bool_]
    held: NDArray[np.bool_]
    present: NDArray[np.int32]
    writable: NDArray[np.int32]
    parents: NDArray[np.int64]
    source_mfns: NDArray[np.int64]
    placed_mfns: NDArray[np.int64]
    parent: NDArray[np.int32]
    slot: NDArray[np.int16]
    target: NDArray[np.int64]
    child: NDArray[np.int32]
    roots: dict[int, tuple[str, ...]] = field(default_factory=dict)
    findings: dict[int, tuple[Finding, ...]] = field(default_factory=dict)
    chain: tuple[tuple[int, int | None], ...] = ()

    def __len__(self) -> int:
        return len(self.pfns)

    def row(self, pfn: int) -> int:
        """Where a table stands in the arrays; -1 for what is no table."""
        if not 0 <= pfn <= PFN_MASK:
            return -1
        at = int(np.searchsorted(self.pfns, pfn))
        return at if at < len(self.pfns) and self.pfns[at] == pfn else -1

    def table(self, pfn: int) -> Table:
        """All about one table. Raises KeyError for a pfn that is none."""
        row = self.row(pfn)
        if row < 0:
            raise KeyError(pfn)
        source, placed = int(self.source_mfns[row]), int(self.placed_mfns[row])
        return Table(
            pfn,
            int(self.levels[row]),
            bool(self.pinned[row]),
            self.roots.get(pfn, ()),
            bool(self.held[row]),
            int(self.present[row]),
            int(self.writable[row]),
            int(self.parents[row]),
            source if source >= 0 else None,
            placed if placed >= 0 else None,
            any(pfn == link for link, _ in self.chain),
            self.findings.get(pfn, ()),
        )

    @property
    def high_l3s(self) -> NDArray[np.int64]:
        """Pfns of L3 tables that would lie above 4 GiB."""
        found: NDArray[np.int64] = self.pfns[(self.levels == 3) & (self.placed_mfns >= PAE_L3_LIMIT)]
        return found

    def branches(self) -> Iterator[Branch]:
        """The trees, line by line, roots first: live ones, then pinned ones, then what nothing holds.

        Every table is a `Link.TABLE` exactly once, where it is met first; after that it is only referred to.
        """
        shown = np.zeros(len(self), np.bool_)
        plain = self._plain()
        for root, group in self._seeds():
            row = self.row(root)
            if shown[row]:
                continue
            shown[row] = True
            yield Branch(0, Link.TABLE, (root, root), (), group)
            stack = [self._below(row, 1, shown, plain)]
            while stack:
                branch = next(stack[-1], None)
                if branch is None:
                    stack.pop()
                    continue
                yield branch
                if branch.link is Link.TABLE and branch.pages == 1:
                    stack.append(self._below(self.row(branch.pfns[0]), branch.depth + 1, shown, plain))

    def _seeds(self) -> Iterator[tuple[int, Group]]:
        for pfn in self.roots:
            yield pfn, Group.LIVE
        top_down = np.lexsort((self.pfns, -self.levels.astype(np.int64)))
        for row in top_down[self.pinned[top_down]].tolist():
            yield int(self.pfns[row]), Group.PINNED
        for row in top_down.tolist():
            yield int(self.pfns[row]), Group.LOOSE

    def _plain(self) -> NDArray[np.bool_]:
        """Leaf tables with nothing to say of, which may share a line."""
        apart = np.array([*self.findings, *self.roots, *(pfn for pfn, _ in self.chain if self.row(pfn) >= 0)], np.int64)
        plain: NDArray[np.bool_] = (self.levels == 1) & self.held & ~np.isin(self.pfns, apart)
        return plain

    def _below(self, row: int, depth: int, shown: NDArray[np.bool_], plain: NDArray[np.bool_]) -> Iterator[Branch]:
        """What the entries of a table name, slots with the same target together."""
        # Numbers of another size would have the whole array converted, for each table.
        start, stop = np.searchsorted(self.parent, np.array([row, row + 1], self.parent.dtype))
        if start == stop:
            return
        targets, slots = self.target[start:stop], self.slot[start:stop].astype(np.int64)
        named, first, each = np.unique(targets, return_index=True, return_inverse=True)
        waiting: Branch | None = None
        before = (0, False)  # parents of what waits, and whether it is pinned
        for at in np.argsort(first).tolist():
            pfn = int(named[at])
            child = int(self.child[start + first[at]])
            link = self._link(row, child, shown)
            if link is Link.TABLE:
                shown[child] = True
            branch = Branch(depth, link, (pfn, pfn), spans(slots[each == at]))
            held = (int(self.parents[child]), bool(self.pinned[child])) if child >= 0 else (0, False)
            joinable = child < 0 or link is Link.AGAIN or plain[child]
            joined = _joined(waiting, branch) if joinable and held == before else None
            if joined is None and waiting is not None:
                yield waiting
            waiting = (joined or branch) if joinable else None
            before = held
            if waiting is None:
                yield branch
        if waiting is not None:
            yield waiting

    def _link(self, row: int, child: int, shown: NDArray[np.bool_]) -> Link:
        if child < 0:
            return Link.DATA
        if child == row:
            return Link.SELF
        level, below = int(self.levels[row]), int(self.levels[child])
        if below == level:
            return Link.LINEAR
        if below != level - 1:
            return Link.WRONG
        return Link.AGAIN if shown[child] else Link.TABLE


def _joined(before: Branch | None, branch: Branch) -> Branch | None:
    """Two branches as one, where slots and pfns go on by one; None where they do not."""
    if before is None or before.link is not branch.link or len(before.slots) != 1 or len(branch.slots) != 1:
        return None
    (first, last), (slot, end) = before.slots[0], branch.slots[0]
    step = branch.pfns[0] - before.pfns[1]
    goes_on = before.pages == 1 or (before.pfns[1] > before.pfns[0]) == (step > 0)
    one_each = last - first + 1 == before.pages and slot == end == last + 1
    if abs(step) != 1 or not goes_on or not one_each:
        return None
    return branch._replace(pfns=(before.pfns[0], branch.pfns[1]), slots=((first, slot),))


def contexts(guest: PvGuest) -> Iterator[tuple[int, Any]]:
    """The vcpu_guest_context of every vcpu that came with one, in the order of their numbers."""
    for index, vcpu in sorted(guest.vcpus.items()):
        if vcpu.basic is not None:
            yield index, view(CONTEXT[guest.width], vcpu.basic)


def vcpu_roots(guest: PvGuest) -> dict[int, tuple[str, ...]]:
    """Why vcpus hold page tables, by pfn: cr3 of every vcpu in order, then the user roots (cr1) of 64-bit ones."""
    found: dict[int, list[str]] = defaultdict(list)
    controls = {index: context["ctrlreg"] for index, context in contexts(guest)}
    for index, registers in controls.items():
        found[cr3_to_pfn(int(registers[3]), guest.width)].append(f"cr3 of vcpu {index}")
    for index, registers in controls.items():
        if guest.width == 8 and int(registers[1]) & USER_ROOT_VALID:
            found[cr3_to_pfn(int(registers[1]), guest.width)].append(f"cr1 of vcpu {index}")
    return {pfn: tuple(reasons) for pfn, reasons in found.items()}


def failing_chain(inspection: Inspection) -> tuple[tuple[int, int | None], ...]:
    """The tables that lead to what stops the restore: pfn, and the slot that leads on; empty where nothing does."""
    failure, finding = inspection.report.failure, inspection.report.decisive
    if finding is not None and finding.chain:
        return tuple((link.pfn, link.slot) for link in finding.chain)
    return () if failure is None or failure.pfn is None else ((failure.pfn, None),)


def forest(inspection: Inspection) -> Forest:
    """The page tables of a PV guest.

    Raises
    ------
    NotInStream
        for any other guest, and for one without page tables.
    """
    guest, placement = inspection.guest, inspection.placement
    if guest is None or placement is None:
        raise NotInStream("there are page tables of PV guests only: an HVM guest's are part of its memory, unnamed")
    roots = vcpu_roots(guest)
    tagged = np.flatnonzero(IS_TABLE[guest.types])
    pfns = np.unique(np.concatenate([guest.store.tables()[0], np.array(list(roots), np.int64), tagged]))
    if not len(pfns):
        raise NotInStream("the stream has no page tables")
    types = _taken(guest.types, pfns, 0)
    levels = np.where(IS_TABLE[types], types & LEVEL_MASK, 0).astype(np.uint8)
    edges = _Edges(guest, pfns, levels)
    edges.add(inspection, tagged[~edges.held[np.searchsorted(pfns, tagged)]])
    parent, slot, target, child = edges.sorted()
    others = child[(child >= 0) & (child != parent)].astype(np.int64)
    namers = parent[(child >= 0) & (child != parent)].astype(np.int64)
    pairs = np.unique(others * len(pfns) + namers)
    return Forest(
        guest.width,
        guest.levels,
        placement.name,
        pfns,
        levels,
        (types & PIN_BIT != 0) & (levels > 0),
        edges.held,
        edges.present,
        edges.writable,
        np.bincount(pairs // len(pfns), minlength=len(pfns)),
        _taken(guest.source_mfns(), pfns, -1),
        _taken(placement.mfns, pfns, -1),
        parent,
        slot,
        target,
        child,
        roots,
        _by_table(inspection, pfns),
        failing_chain(inspection),
    )


def _taken(values: NDArray[np.generic], pfns: NDArray[np.int64], missing: int) -> NDArray[np.int64]:
    """Values by pfn, for pfns that may lie beyond them."""
    found = np.full(len(pfns), missing, np.int64)
    inside = pfns < len(values)
    found[inside] = values[pfns[inside]]
    return found


def _by_table(inspection: Inspection, pfns: NDArray[np.int64]) -> dict[int, tuple[Finding, ...]]:
    tables = set(pfns.tolist())
    found: dict[int, list[Finding]] = defaultdict(list)
    for finding in inspection.report.findings:
        named = {link.pfn for link in finding.chain} | ({finding.pfn} if finding.pfn is not None else set())
        for pfn in named & tables:
            found[pfn].append(finding)
    return {pfn: tuple(findings) for pfn, findings in found.items()}


class _Edges:
    """What the tables' entries say, gathered some hundred tables at a time."""

    def __init__(self, guest: PvGuest, pfns: NDArray[np.int64], levels: NDArray[np.uint8]) -> None:
        self.pfns = pfns
        self.levels = levels
        self.pae = guest.width == 4
        self.held = np.zeros(len(pfns), np.bool_)
        self.present = np.zeros(len(pfns), np.int32)
        self.writable = np.zeros(len(pfns), np.int32)
        self._parent: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
        self._slot: list[NDArray[np.int16]] = [np.zeros(0, np.int16)]
        self._target: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        for some, entries in guest.store.table_batches():
            self._take(some, entries)

    def add(self, inspection: Inspection, tables: NDArray[np.int64]) -> None:
        """Tables of a record that libxc dies of: they are not in the store."""
        for start in range(0, len(tables), _TABLES_AT_ONCE):
            pages = inspection.pages(tables[start : start + _TABLES_AT_ONCE].tolist())
            whole = {pfn: page for pfn, page in pages.items() if page is not None and len(page) == PAGE_SIZE}
            self._take(
                np.array(list(whole), np.int64), np.frombuffer(b"".join(whole.values()), "<u8").reshape(-1, ENTRIES)
            )

    def _take(self, tables: NDArray[np.int64], entries: Pages) -> None:
        rows = np.searchsorted(self.pfns, tables)
        levels = self.levels[rows]
        present = entries & np.uint64(P) != 0
        present[np.flatnonzero(levels == 4)[:, None], np.r_[L4_XEN_SLOTS]] = False
        if self.pae:
            present[levels == 3, PAE_L3_ENTRIES:] = False
        self.held[rows] = True
        self.present[rows] = present.sum(axis=1)
        writable = (present & (entries & np.uint64(RW) != 0)).sum(axis=1)
        self.writable[rows] = np.where(levels == 1, writable, 0)
        at, slot = np.nonzero(present & (levels >= 2)[:, None])
        self._parent.append(rows[at].astype(np.int32))
        self._slot.append(slot.astype(np.int16))
        self._target.append(((entries[at, slot] & np.uint64(FRAME_MASK)) >> np.uint64(PAGE_SHIFT)).astype(np.int64))

    def sorted(self) -> tuple[NDArray[np.int32], NDArray[np.int16], NDArray[np.int64], NDArray[np.int32]]:
        """Row of the naming table, slot, pfn, and that pfn's row: by table and slot."""
        parent, slot = np.concatenate(self._parent), np.concatenate(self._slot)
        target = np.concatenate(self._target)
        order = np.argsort(parent, kind="stable")
        parent, slot, target = parent[order], slot[order], target[order]
        at = np.searchsorted(self.pfns, target)
        at[at == len(self.pfns)] = 0
        return parent, slot, target, np.where(self.pfns[at] == target, at, -1).astype(np.int32)
