"""What `migrate show` tells of a guest's memory: a page, an address, the page tables, the p2m."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.text import Text

from migrate.destination.placement import SOURCE
from migrate.inspection.memory.entries import EntryRange, flag_names
from migrate.inspection.memory.forest import Branch, Forest, Group, Link, Table, forest
from migrate.inspection.memory.frame_runs import Placed, Runs, placed
from migrate.inspection.memory.page_history import History, Mapper, Sending, history
from migrate.inspection.memory.thinned import Rest, thinned
from migrate.inspection.memory.walk import Step, Walk, walk
from migrate.inspection.names import Span, spans
from migrate.reports.inspection.hexdump import hexdump
from migrate.reports.verdict.text import SEVERITY_STYLE, hanging
from migrate.safe import safe, well_formed
from streams.counting import count
from streams.pages import type_name
from streams.wire.framing import PAGE_SIZE
from streams.wire.paging import PAE_L3_LIMIT, P

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.inspection.reading import Inspection
    from migrate.rules.findings import Finding

_KEY_WIDTH = 13
_INDENT = "    "
# Lists longer than this are cut on a screen; JSON has all.
MOST_MAPPERS = 64
MOST_RUNS = 4096
_MOST_RANGES = 8

_FAILING = "bold red"
_HIGH = "yellow"
_DIM = "dim"
_GROUPS = {
    Group.LIVE: "held by a vcpu",
    Group.PINNED: "pinned, and not reached from a vcpu",
    Group.LOOSE: "held by nothing",
}


# -- a page ----------------------------------------------------------------------------------------


def render_pfn(inspection: Inspection, console: Console, pfn: int) -> None:
    """Print all that is known of a page. Raises NotInStream where nothing names it."""
    found = history(inspection, pfn)
    _head(console, f"pfn {pfn:#x}", _FAILING if found.failing else "bold")
    _fact(console, "type", _type_text(found))
    if inspection.guest is not None:
        _fact(console, "source mfn", _frame(found.source_mfn))
        where = inspection.placement.name if inspection.placement else ""
        _fact(console, "placed", f"{_frame(found.placed_mfn)} (placement {where})")
    for role in found.roles:
        _fact(console, "used as", role)
    if found.mappers is not None:
        for mapper in found.mappers[:MOST_MAPPERS]:
            _fact(console, "named by", _mapper_text(mapper))
        if len(found.mappers) > MOST_MAPPERS:
            _fact(console, "", f"and {count(len(found.mappers) - MOST_MAPPERS, 'more page table')}")
        if not found.mappers:
            _fact(console, "named by", "no page table")
    _fact(console, "sent", count(found.times, "time"))
    for sending in found.sendings:
        _line(console, f"{_INDENT * 2}{_sending_text(sending)}")
    if found.times > len(found.sendings):
        _line(console, f"{_INDENT * 2}{found.times - len(found.sendings)} more in between, not shown")
    for finding in found.findings:
        _finding(console, _INDENT, finding)
    _contents(console, found)


def _type_text(found: History) -> str:
    if found.type is None:
        return "never sent"
    pinned = ", pinned" if found.level and type_name(found.type).endswith("_PINNED") else ""
    return type_name(found.type) + (f": an L{found.level} page table{pinned}" if found.level else "")


def _mapper_text(mapper: Mapper) -> str:
    what = f"L{mapper.level}" if mapper.level else "former table"
    named = sum(last - first + 1 for first, last in mapper.slots)
    how = "read-only" if not mapper.writable else "writable" if mapper.writable == named else "some writable"
    return f"{what} pfn {mapper.table:#x}, {_slots(mapper.slots)}, {how}"


def _sending_text(sending: Sending) -> str:
    where = f"record {sending.record} at {sending.offset:#x}, word {sending.word}"
    seen = f"pass {sending.round} ({sending.kind}), " if sending.round is not None else ""
    data = f"contents at {sending.data:#x}" if sending.data is not None else "without contents"
    return f"{seen}{where}: {type_name(sending.type)}, {data}"


def _contents(console: Console, found: History) -> None:
    if found.page is None:
        _fact(console, "contents", "none came")
    elif not found.page.strip(b"\0") and len(found.page) == PAGE_SIZE:
        _fact(console, "contents", "zeros, the whole page")
    elif found.table is not None:
        _fact(console, "contents", f"entries of a page table{f' of level {found.level}' if found.level else ''}")
        for entries in found.table:
            _line(console, f"{_INDENT * 2}{_entries_text(entries, found.level)}", "" if entries.present else _DIM)
    else:
        cut = "" if len(found.page) == PAGE_SIZE else f"{count(len(found.page), 'byte')}: the stream ends in the page"
        _fact(console, "contents", cut)
        for line in hexdump(found.page, digits=3):
            _line(console, f"{_INDENT * 2}{line}")


def _entries_text(entries: EntryRange, level: int) -> str:
    last = entries.slot + entries.count - 1
    slots = f"{entries.slot}" if entries.count == 1 else f"{entries.slot}-{last}"
    if not entries.entry:
        return f"{slots:>9}  empty"
    end = entries.frame + entries.step * (entries.count - 1)
    frames = f"pfn {entries.frame:#x}" + (f"-{end:#x}" if entries.step else "")
    if not entries.present:
        return f"{slots:>9}  not present, left over {entries.entry:#x}"
    return f"{slots:>9}  {frames:<22} {' '.join(flag_names(entries.entry, level))}"


def pfn_object(inspection: Inspection, pfn: int) -> dict[str, Any]:
    """The same as a JSON object; contents in full, as hex. Raises NotInStream as well."""
    found = history(inspection, pfn)
    return {
        "pfn": pfn,
        "type": None if found.type is None else type_name(found.type),
        "level": found.level or None,
        "source_mfn": found.source_mfn,
        "placed_mfn": found.placed_mfn,
        "roles": list(found.roles),
        "named_by": None
        if found.mappers is None
        else [
            {"table": m.table, "level": m.level or None, "slots": [list(s) for s in m.slots], "writable": m.writable}
            for m in found.mappers
        ],
        "times_sent": found.times,
        "sent": [
            {
                "record": s.record,
                "offset": s.offset,
                "round": s.round,
                "kind": s.kind,
                "word": s.word,
                "type": type_name(s.type),
                "contents": s.data,
            }
            for s in found.sendings
        ],
        "findings": [_finding_object(finding) for finding in found.findings],
        "failing": found.failing,
        "entries": None if found.table is None else [_entries_object(e, found.level) for e in found.table if e.entry],
        "contents": None if found.page is None else found.page.hex(),
    }


def _entries_object(entries: EntryRange, level: int) -> dict[str, Any]:
    return {
        "slot": entries.slot,
        "count": entries.count,
        "entry": entries.entry,
        "pfn": entries.frame,
        "step": entries.step,
        "present": entries.present,
        "flags": list(flag_names(entries.entry, level)),
    }


# -- an address ------------------------------------------------------------------------------------


def render_walk(inspection: Inspection, console: Console, vaddr: int, vcpu: int) -> None:
    """Print the way from an address of a vcpu to the page behind it. Raises NotInStream where that vcpu is missing."""
    found = walk(inspection, vaddr, vcpu)
    root = "" if found.root is None else f", cr3 pfn {found.root:#x}"
    _head(console, f"vcpu {vcpu}, address {vaddr:#x}: {found.paging}{root}")
    for step in found.steps:
        _line(console, f"{_INDENT}{_step_text(step)}")
    if found.stopped is not None:
        _line(console, f"{_INDENT}stops here: {found.stopped}", "yellow")
        return
    assert found.pfn is not None
    size = "" if found.page_size == PAGE_SIZE else f", in a page of {found.page_size >> 10} KiB"
    _head(console, f"pfn {found.pfn:#x}, offset {found.offset:#x}{size}")
    if found.data is None:
        _line(console, f"{_INDENT}the page came without contents")
    for line in hexdump(found.data or b"", vaddr):
        _line(console, f"{_INDENT}{line}")


def _step_text(step: Step) -> str:
    leads = f"pfn {step.frame:#x}  {' '.join(step.flags)}" if step.entry & P else "not present"
    return f"L{step.level} pfn {step.table:#x} slot {step.slot}: {step.entry:#018x} → {leads}"


def walk_object(inspection: Inspection, vaddr: int, vcpu: int) -> dict[str, Any]:
    """The same as a JSON object."""
    found: Walk = walk(inspection, vaddr, vcpu)
    return {
        "vcpu": vcpu,
        "address": vaddr,
        "paging": found.paging,
        "root": found.root,
        "steps": [
            {
                "level": step.level,
                "table": step.table,
                "slot": step.slot,
                "entry": step.entry,
                "pfn": step.frame,
                "flags": list(step.flags),
            }
            for step in found.steps
        ],
        "pfn": found.pfn,
        "offset": None if found.pfn is None else found.offset,
        "page_size": None if found.pfn is None else found.page_size,
        "stopped": found.stopped,
        "bytes": None if found.data is None else found.data.hex(),
    }


# -- the page tables -------------------------------------------------------------------------------


def render_tables(inspection: Inspection, console: Console) -> None:
    """Print the page tables as trees. Raises NotInStream where there are none."""
    found = forest(inspection)
    for line in _summary(found):
        _line(console, line)
    heading: Group | None = None
    shown: set[int] = set()
    for branch in thinned(found.branches()):
        if isinstance(branch, Rest):
            _line(console, _INDENT * (branch.depth + 1) + _rest_text(branch), _DIM)
            continue
        if branch.group is not None and branch.group is not heading:
            heading = branch.group
            console.print()
            _head(console, _GROUPS[heading])
        table = found.table(branch.pfns[0]) if branch.link is not Link.DATA else None
        indent = _INDENT * (branch.depth + 1)
        _line(console, indent + _branch_text(branch, table, found.width), _branch_style(branch, table))
        if branch.link is not Link.TABLE or table is None:
            continue
        for finding in table.findings:
            # The tables on the way there are only marked.
            if finding.pfn == table.pfn or (found.row(finding.pfn or 0) < 0 and id(finding) not in shown):
                shown.add(id(finding))
                _finding(console, indent + _INDENT, finding)


def _summary(found: Forest) -> Iterator[str]:
    yield f"{count(len(found), 'page table')}, placement {safe(found.placement)}"
    for level in range(found.top, 0, -1):
        of_level = found.levels == level
        pinned = int(np.count_nonzero(of_level & found.pinned))
        yield f"{_INDENT}L{level}  {int(np.count_nonzero(of_level))}, {pinned} of them pinned"
    if other := int(np.count_nonzero((found.levels == 0) | (found.levels > found.top))):
        yield f"{_INDENT}of no level that this guest has: {other}"
    if found.width == 4 and len(found.high_l3s):
        yield f"{_INDENT}L3 above 4 GiB: {len(found.high_l3s)}"
    if found.chain:
        chain = (f"pfn {pfn:#x}" + ("" if slot is None else f" slot {slot}") for pfn, slot in found.chain)
        yield f"{_INDENT}the restore fails at: {' → '.join(chain)}"


def _branch_text(branch: Branch, table: Table | None, width: int) -> str:
    head = f"{_slots(branch.slots)} → " if branch.slots else ""
    first, last = branch.pfns
    pfns = f"pfn {first:#x}" + ("" if first == last else f"-{last:#x}")
    if table is None:
        return f"{head}{pfns}: no page table" + (f" ({count(branch.pages, 'page')})" if branch.pages > 1 else "")
    what = f"{head}L{table.level} {pfns}" if table.level else f"{head}{pfns}, no page table by its last type"
    if branch.link is not Link.TABLE:
        return what + _LINKS[branch.link]
    if branch.pages > 1:
        return f"{what}, {count(branch.pages, 'table')}" + _of_all(table)
    return ", ".join([what, *_facts(table, width)])


def _rest_text(rest: Rest) -> str:
    what = count(rest.targets, "more page") if rest.link is Link.DATA else count(rest.targets, "more table")
    return f"and {what}{_LINKS.get(rest.link, ': no page table')}"


_LINKS = {
    Link.AGAIN: ", see above",
    Link.LINEAR: ": a linear page table",
    Link.SELF: ": itself, a linear page table",
    Link.WRONG: ": not of the level below",
}


def _of_all(table: Table) -> str:
    pinned = ", pinned" if table.pinned else ""
    return pinned + (f", each named by {count(table.parents, 'table')}" if table.parents > 1 else "")


def _facts(table: Table, width: int) -> Iterator[str]:
    yield from table.roots
    if table.pinned:
        yield "pinned"
    if table.placed_mfn is not None:
        high = " above 4 GiB" if table.above_4g and table.level == 3 and width == 4 else ""
        yield f"mfn {table.placed_mfn:#x}{high}"
    if not table.held:
        yield "came without contents"
    else:
        yield count(table.present, "entry", "entries")
        if table.writable:
            yield f"{table.writable} writable"
    if table.parents > 1:
        yield f"named by {count(table.parents, 'table')}"


def _branch_style(branch: Branch, table: Table | None) -> str:
    if branch.link in (Link.DATA, Link.WRONG):
        return _FAILING
    if table is None or branch.link is not Link.TABLE:
        return _DIM
    if table.failing:
        return _FAILING
    if table.roots or table.pinned:
        return "bold"
    return ""


def tables_object(inspection: Inspection) -> dict[str, Any]:
    """All page tables and the entries of those above L1 as a JSON object."""
    found = forest(inspection)
    bounds = np.searchsorted(found.parent, np.arange(len(found) + 1)).tolist()
    slots, targets = found.slot.tolist(), found.target.tolist()
    tables = []
    for row, pfn in enumerate(found.pfns.tolist()):
        table = found.table(pfn)
        start, stop = bounds[row], bounds[row + 1]
        tables.append(
            {
                "pfn": pfn,
                "level": table.level or None,
                "pinned": table.pinned,
                "roots": list(table.roots),
                "came_with_contents": table.held,
                "present": table.present,
                "writable": table.writable,
                "parents": table.parents,
                "source_mfn": table.source_mfn,
                "placed_mfn": table.placed_mfn,
                "above_4g": table.above_4g,
                "failing": table.failing,
                "findings": [finding.rule.id for finding in table.findings],
                "names": [list(pair) for pair in zip(slots[start:stop], targets[start:stop], strict=True)],
            }
        )
    return {
        "width": found.width,
        "levels": found.top,
        "placement": well_formed(found.placement),
        "chain": [{"pfn": pfn, "slot": slot} for pfn, slot in found.chain],
        "tables": tables,
    }


# -- the p2m ---------------------------------------------------------------------------------------


def render_p2m(inspection: Inspection, console: Console) -> None:
    """Print where a PV guest's pages lie. Raises NotInStream for any other guest."""
    found = placed(inspection)
    _fact(console, "p2m pages", _p2m_pages(found))
    _fact(console, "frames", f"{count(found.frames, 'page')} of the guest need one")
    _fact(console, "source", _runs_text(found.source))
    if found.placement != SOURCE:
        _fact(console, "placed", f"{_runs_text(found.target)} (placement {found.placement})")
    shown = found.source if found.placement == SOURCE else found.target
    console.print()
    _head(console, "on the source host" if found.placement == SOURCE else f"placement {found.placement}")
    for first, pages, mfn in _listed(shown, MOST_RUNS):
        _line(
            console, _INDENT + _run_text(first, pages, mfn), _HIGH if mfn >= PAE_L3_LIMIT else _DIM if mfn < 0 else ""
        )
    if len(shown) > MOST_RUNS:
        _line(console, f"{_INDENT}and {len(shown) - MOST_RUNS} more runs")


def _p2m_pages(found: Placed) -> str:
    said = found.p2m_pages[found.p2m_pages >= 0]
    missing = len(found.p2m_pages) - len(said)
    listed = f"pfn {_ranges(spans(said), '#x')}" if len(said) else "none"
    unsaid = f"; {missing} that the stream has not said" if missing else ""
    return f"{listed} ({count(found.entries_per_page, 'entry', 'entries')} each){unsaid}"


def _ranges(found: tuple[Span, ...], form: str) -> str:
    listed = ", ".join(f"{a:{form}}" if a == b else f"{a:{form}}-{b:{form}}" for a, b in found[:_MOST_RANGES])
    return listed + (f" and {count(len(found) - _MOST_RANGES, 'more range')}" if len(found) > _MOST_RANGES else "")


def _runs_text(runs: Runs) -> str:
    known = int(np.count_nonzero(runs.mfns >= 0))
    if runs.span is None:
        return "no machine frame is known"
    low, high = runs.span
    unknown = f"; {runs.unknown} without a known frame" if runs.unknown else ""
    text = f"{count(runs.below, 'page')} below 4 GiB, {runs.above} above"
    return f"{text}, in {count(known, 'run')} between mfn {low:#x} and {high:#x}{unknown}"


def _listed(runs: Runs, most: int) -> Iterable[tuple[int, int, int]]:
    return zip(*(part[:most].tolist() for part in (runs.pfns, runs.counts, runs.mfns)), strict=True)


def _run_text(first: int, pages: int, mfn: int) -> str:
    pfns = f"pfn {first:#x}" + (f"-{first + pages - 1:#x}" if pages > 1 else "")
    if mfn < 0:
        return f"{pfns:<24} no known frame  {count(pages, 'page')}"
    mfns = f"mfn {mfn:#x}" + (f"-{mfn + pages - 1:#x}" if pages > 1 else "")
    return f"{pfns:<24} {mfns:<28} {count(pages, 'page')}{', above 4 GiB' if mfn >= PAE_L3_LIMIT else ''}"


def p2m_object(inspection: Inspection) -> dict[str, Any]:
    """The same as a JSON object; runs as [first pfn, pages, first mfn or null]."""
    found = placed(inspection)
    return {
        "placement": well_formed(found.placement),
        "p2m_pages": [pfn if pfn >= 0 else None for pfn in found.p2m_pages.tolist()],
        "entries_per_page": found.entries_per_page,
        "frames": found.frames,
        "source": _runs_object(found.source),
        "target": _runs_object(found.target),
    }


def _runs_object(runs: Runs) -> dict[str, Any]:
    return {
        "below_4g": runs.below,
        "above_4g": runs.above,
        "unknown": runs.unknown,
        "runs": [[pfn, pages, mfn if mfn >= 0 else None] for pfn, pages, mfn in _listed(runs, len(runs))],
    }


# -- pieces ----------------------------------------------------------------------------------------


def _frame(mfn: int | None) -> str:
    return "unknown" if mfn is None else f"{mfn:#x}, {'above' if mfn >= PAE_L3_LIMIT else 'below'} 4 GiB"


def _slots(slots: tuple[Span, ...]) -> str:
    several = len(slots) > 1 or slots[0][0] != slots[0][1]
    return f"slot{'s' if several else ''} {_ranges(slots, 'd')}"


def _finding(console: Console, indent: str, finding: Finding) -> None:
    head = Text(f"{indent}{finding.rule.id} ", SEVERITY_STYLE[finding.severity])
    hanging(console, head, safe(finding.message))


def _finding_object(finding: Finding) -> dict[str, Any]:
    return {"rule": finding.rule.id, "severity": finding.severity.value, "message": well_formed(finding.message)}


def _head(console: Console, line: str, style: str = "bold") -> None:
    hanging(console, Text(), safe(line), style)


def _fact(console: Console, key: str, value: str) -> None:
    hanging(console, Text(f"{_INDENT}{key:<{_KEY_WIDTH}}"), safe(value))


def _line(console: Console, line: str, style: str = "") -> None:
    """Text that hangs under itself where it is too long."""
    text = line.lstrip()
    hanging(console, Text(line[: len(line) - len(text)]), safe(text), style)
