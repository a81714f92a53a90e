"""A stream's records for people and for programs: the table of contents, and one record field by field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from migrate.inspection.logbook import Layer
from migrate.inspection.records.contents import blame, contents, number_at
from migrate.inspection.records.cursor import Field
from migrate.inspection.records.shown import fields_of, needed, summary
from migrate.reports.folding import place
from migrate.reports.inspection.hexdump import hexdump
from migrate.reports.inspection.lines import INDENT, line_writer
from migrate.reports.verdict.text import SEVERITY_STYLE
from migrate.rules.declaring import Severity
from migrate.safe import well_formed
from migrate.toolstack.restore import BREACHES
from streams.counting import count
from streams.wire.framing import padded

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.inspection.logbook import Entry
    from migrate.inspection.reading import Inspection
    from migrate.inspection.records.contents import Line
    from migrate.rules.findings import Finding

_MARKS = {Severity.ERROR: "!", Severity.WARNING: "?", Severity.INFO: "."}
_MEANINGS = {Severity.ERROR: "an error", Severity.WARNING: "a warning", Severity.INFO: "for information"}
_LINES_MEASURED = 512  # names of later records may be longer
_OFFSET_DIGITS = 8
# Of a longer record only so much is dumped, unless all is wanted; and read at once.
DUMPED = 4096
_DUMPED_AT_ONCE = 16 << 20
_BYTES_SHOWN = 16
_NUMBERS_ALIKE = 4
_ON_ONE_LINE = 8

# -- the table of contents --------------------------------------------------------------------------


def render_contents(inspection: Inspection, console: Console, *, everything: bool = False) -> None:
    """Print all records, a line each as they come, and where the grammar broke."""
    lines = contents(inspection, everything=everything)
    first = list(islice(lines, _LINES_MEASURED))
    digits = len(f"{inspection.judgement.facts.bytes:x}") + 2
    index_width = max((len(_index(line)) for line in first), default=0)
    name_width = max((len(_name(line)) for line in first), default=0)
    length_width = len(str(max((line.length for line in first), default=0)))
    write = line_writer(console)
    seen: set[Severity] = set()
    for part in (first, lines):
        for line in part:
            worst = max((finding.severity for finding in line.findings), key=lambda s: s.rank, default=None)
            seen |= set() if worst is None else {worst}
            mark = " " if worst is None else _MARKS[worst]
            blamed = f"  <- {', '.join(map(_id, line.findings))}" if line.findings else ""
            write(
                f"{mark} {line.first.offset:#0{digits}x}  {_index(line):>{index_width}}  {_name(line):<{name_width}}  "
                f"{line.length:>{length_width}}  ",
                line.summary + blamed,
                "" if worst is None else SEVERITY_STYLE[worst],
            )
    damaged = inspection.log.damaged
    if damaged is not None:
        why = f"{damaged.message} ({BREACHES[damaged.breach]})"
        write(f"! {damaged.offset:#0{digits}x}  the stream cannot be read on: ", why, "bold red")
    for alike in _elsewhere(inspection):
        more = f", and {len(alike) - 1} more like it" if len(alike) > 1 else ""
        text = f"{alike[0].message} ({_id(alike[0])}{more})"
        severity = alike[0].severity
        seen.add(severity)
        write(f"{_MARKS[severity]} {place(alike[0])}: ", text, SEVERITY_STYLE[severity])
    if seen:
        legend = (f"{_MARKS[one]} {_MEANINGS[one]}" for one in _MARKS if one in seen)
        write("", f"{', '.join(legend)}: migrate explain RULE tells of each", "dim")


def _elsewhere(inspection: Inspection) -> Iterator[list[Finding]]:
    """Findings about no record in particular, those of one rule together, but for the damage that ends the stream."""
    damaged = inspection.log.damaged
    known = None if damaged is None else (BREACHES[damaged.breach], damaged.offset)
    by_rule: dict[str, list[Finding]] = {}
    for finding in blame(inspection).nowhere:
        if (finding.rule.id, finding.offset) != known:
            by_rule.setdefault(finding.rule.id, []).append(finding)
    yield from by_rule.values()


def _id(finding: Finding) -> str:
    return finding.rule.id + (f" x{finding.count}" if finding.count > 1 else "")


def _index(line: Line) -> str:
    first, last = line.first.index, line.last.index
    return "" if first is None else str(first) if first == last else f"{first}-{last}"


def _name(line: Line) -> str:
    return "  " * line.depth + line.first.name + (f" x{line.count}" if line.count > 1 else "")


def contents_objects(inspection: Inspection, *, everything: bool = False) -> Iterator[dict[str, Any]]:
    """The same as JSON objects, one for each line, as they are asked for."""
    for line in contents(inspection, everything=everything):
        shown = _entry_object(line.first) | {
            "last_index": line.last.index,
            "count": line.count,
            "length": line.length,
            "depth": line.depth,
            "meaning": well_formed(line.summary),
            "findings": [_finding_object(finding) for finding in line.findings],
        }
        yield shown | ({"pages": asdict(line.pages)} if line.pages is not None else {})


def _entry_object(entry: Entry) -> dict[str, Any]:
    return {
        "offset": entry.offset,
        "layer": entry.layer.value,
        "index": entry.index,
        "type": entry.type,
        "name": str(entry.name),
        "length": entry.length,
        "round": entry.round,
        "cut": entry.cut,
    }


def elsewhere_object(inspection: Inspection) -> list[dict[str, Any]]:
    """Findings about no record in particular, as JSON objects."""
    return [_finding_object(finding) for alike in _elsewhere(inspection) for finding in alike]


def damage_object(inspection: Inspection) -> dict[str, Any] | None:
    """Where the grammar broke as a JSON object; None where it did not."""
    damaged = inspection.log.damaged
    return (
        None
        if damaged is None
        else {
            "rule": BREACHES[damaged.breach],
            "offset": damaged.offset,
            "message": damaged.message,
        }
    )


def _finding_object(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule.id,
        "severity": finding.severity.value,
        "message": well_formed(finding.message),
        "count": finding.count,
    }


# -- one record -------------------------------------------------------------------------------------


def _findings_about(inspection: Inspection, entry: Entry) -> list[Finding]:
    number = number_at(inspection.log, entry.offset)
    return blame(inspection).records.get(number, []) if number is not None else []


def _summary(inspection: Inspection, entry: Entry) -> str:
    return summary(entry, inspection.body(entry, needed(entry)), inspection.judgement.facts.width)


def render_record(
    inspection: Inspection, console: Console, entry: Entry, *, everything: bool = False, dump: bool = False
) -> None:
    """Print all fields of a record, and its bytes if they are wanted."""
    write = line_writer(console)
    write(_title(entry), "", "bold")
    write(INDENT, _summary(inspection, entry), "")
    write(INDENT, f"at {entry.offset:#x}, {count(entry.length, 'byte')} from {entry.body:#x}", "")
    for finding in _findings_about(inspection, entry):
        text = f"{finding.message} ({finding.severity.value})"
        write(f"{INDENT}{_id(finding)}  ", text, SEVERITY_STYLE[finding.severity])
    found = fields_of(inspection, entry, everything=everything)
    console.print()
    for head, body in _rows(found, 0):
        write(head, body, "")
    if dump:
        console.print()
        for line in _dump(inspection, entry, everything):
            write(line, "", "")


def _title(entry: Entry) -> str:
    if entry.index is None:
        return str(entry.name)
    layer = "" if entry.layer is Layer.LIBXC else f"{entry.layer.value} "
    return f"{layer}{'block' if entry.layer is Layer.XAPI else 'record'} {entry.index} {entry.name}"


def _rows(found: Sequence[Field], depth: int) -> Iterator[tuple[str, str]]:
    """Head and body of the lines of some fields; elements of zeros that follow one another share one."""
    width = max((len(field.name) for field in found), default=0)

    def head(field: Field, name: str) -> str:
        offset = " " * (_OFFSET_DIGITS + 2) if field.offset is None else f"{field.offset:#0{_OFFSET_DIGITS + 2}x}"
        return f"{offset}  {'  ' * depth}{name:<{width}}  "

    for _, group in groupby(found, _sameness):
        alike = list(group)
        if len(alike) > 1:
            text = "zero" if _is_zero(alike[0]) else f"{_on_one_line(alike[0])}, each"
            yield head(alike[0], f"{alike[0].name}..{alike[-1].name}"), text
            continue
        for field in alike:
            parts = [part for part in field.fields if not (isinstance(part.value, bytes) and _is_zero(part))]
            short = parts and all(map(_is_plain, parts)) and len(parts) <= _ON_ONE_LINE and not field.left_out
            if short and (field.name.startswith("[") or not field.meaning):
                yield head(field, field.name), _on_one_line(replace(field, fields=tuple(parts)))
                continue
            yield head(field, field.name), "  ".join(filter(None, (_shown(field), field.meaning)))
            yield from _rows(field.fields, depth + 1)
            if field.left_out:
                yield head(Field("", None), ""), f"… and {field.left_out} more (--all shows them)"


def _on_one_line(field: Field) -> str:
    if not field.fields:
        return "  ".join(filter(None, (_shown(field), field.meaning)))
    return field.meaning or ", ".join(f"{part.name} {_shown(part)}" for part in field.fields)


def _sameness(field: Field) -> object:
    """The same for elements that say the same on one line, or nothing but zeros."""
    if field.name.startswith("[") and not field.left_out:
        if field.fields and all(map(_is_plain, field.fields)):
            return tuple(part.value for part in field.fields)
        if _is_zero(field):
            return 0
        if isinstance(field.value, int) and field.meaning:
            return field.value, field.meaning
    return id(field)


def _is_plain(field: Field) -> bool:
    return not field.fields and not field.meaning and isinstance(field.value, int | str | None)


def _is_zero(field: Field) -> bool:
    if field.fields:
        return all(map(_is_zero, field.fields))
    value = field.value
    if isinstance(value, bytes):
        return not any(value)
    return value == 0 if isinstance(value, int) else isinstance(value, tuple) and not any(value)


def _shown(field: Field) -> str:
    match field.value:
        case int(value):
            return _number(value)
        case bytes(value):
            if len(value) > _NUMBERS_ALIKE and not any(value):
                return count(len(value), "zero byte")
            more = f" … ({count(len(value), 'byte')})" if len(value) > _BYTES_SHOWN else ""
            return value[:_BYTES_SHOWN].hex(" ") + more
        case str(value):
            return value
        case tuple(values):
            return ", ".join(_alike(values))
        case _:
            return ""


def _number(value: int) -> str:
    return str(value) if value < 10 else f"{value:#x} ({value})" if value < 1 << 20 else f"{value:#x}"


def _alike(values: Sequence[int]) -> Iterator[str]:
    for value, group in groupby(values):
        number = sum(1 for _ in group)
        yield from [f"{value:#x}"] * number if number < _NUMBERS_ALIKE else [f"{value:#x} x{number}"]


def _dump(inspection: Inspection, entry: Entry, everything: bool) -> Iterator[str]:
    """The bytes of a record, its header and padding included, at their offsets in the stream."""
    end = entry.body + (entry.length if entry.type is None or entry.layer is Layer.XAPI else padded(entry.length))
    size = end - entry.offset
    wanted = size if everything else min(size, DUMPED)
    digits = max(len(f"{inspection.judgement.facts.bytes:x}"), _OFFSET_DIGITS)
    for start in range(0, wanted, _DUMPED_AT_ONCE):
        (piece,) = inspection.read([(entry.offset + start, min(_DUMPED_AT_ONCE, wanted - start))])
        if not piece:
            return
        yield from hexdump(piece, entry.offset + start, digits=digits)
    there = min(size, max(inspection.judgement.facts.bytes - entry.offset, 0))
    if there > wanted:
        yield f"… {count(there - wanted, 'byte')} more (--all shows them)"


def record_object(
    inspection: Inspection, entry: Entry, *, everything: bool = False, dump: bool = False
) -> dict[str, Any]:
    """The same as a JSON object; with `dump`, `bytes` are those of the body as hex."""
    shown = _entry_object(entry) | {
        "body": entry.body,
        "meaning": well_formed(_summary(inspection, entry)),
        "findings": [_finding_object(finding) for finding in _findings_about(inspection, entry)],
        "fields": [_field_object(field) for field in fields_of(inspection, entry, everything=everything)],
    }
    if dump:
        raw = inspection.body(entry, None if everything else DUMPED)
        shown |= {"bytes": raw.hex(), "bytes_left_out": max(entry.length - len(raw), 0)}
    return shown


def _field_object(field: Field) -> dict[str, Any]:
    value: Any = field.value
    if isinstance(value, bytes):
        value = value.hex()
    elif isinstance(value, tuple):
        value = list(value)
    elif isinstance(value, str):
        value = well_formed(value)
    shown: dict[str, Any] = {"name": well_formed(field.name), "offset": field.offset, "value": value}
    if field.meaning:
        shown["meaning"] = well_formed(field.meaning)
    if field.fields:
        shown["fields"] = [_field_object(part) for part in field.fields]
    if field.left_out:
        shown["left_out"] = field.left_out
    return shown
