"""What `migrate show` tells of a stream's records and vcpus, and of the passes of a live migration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from rich.text import Text

from migrate.counting import count
from migrate.inspection.logbook import Layer
from migrate.inspection.memory.resent import live
from migrate.inspection.records.contents import blame, contents, number_at
from migrate.inspection.records.cursor import Field
from migrate.inspection.records.fields import fields_of
from migrate.inspection.records.summary import meaning, needed
from migrate.inspection.vcpus.registers import vcpu_states
from migrate.reports.inspection.hexdump import hexdump
from migrate.reports.tables import print_table
from migrate.reports.verdict.sentences import live_sentences
from migrate.reports.verdict.text import SEVERITY_STYLE, hanging
from migrate.rules.declaring import Severity
from migrate.safe import safe, well_formed
from migrate.toolstack.restore import BREACHES
from streams.wire.framing import padded

if TYPE_CHECKING:
    from rich.console import Console

    from migrate.inspection.logbook import Entry
    from migrate.inspection.reading import Inspection
    from migrate.inspection.records.contents import Line
    from migrate.inspection.vcpus.registers import Register, Section, VcpuState
    from migrate.rules.findings import Finding

_MARKS = {Severity.ERROR: "!", Severity.WARNING: "?", Severity.INFO: "."}
_LINES_MEASURED = 512  # names of later records may be longer
_INDENT = "    "
_KEY_WIDTH = 16
_COLUMNS, _GAP = 4, "  "
_OFFSET_DIGITS = 8
# Of a longer record only so much is dumped, unless all is wanted; and read at once.
DUMPED = 4096
_DUMPED_AT_ONCE = 16 << 20
_BYTES_SHOWN = 16
_NUMBERS_ALIKE = 4
_ON_ONE_LINE = 8


Say = Callable[[str, str, str], None]


def _writer(console: Console) -> Say:
    """What prints a line of head and body, the body wrapped beside the head on a terminal, in a style for the head."""
    if console.is_terminal:
        return lambda head, body, style: hanging(console, Text(safe(head), style), safe(body))
    # Many thousands of lines may come: the console would take its time for each.
    return lambda head, body, style: print(safe(f"{head}{body}").rstrip(), file=console.file)


def _line(console: Console, head: str, body: str = "", style: str = "") -> None:
    _writer(console)(head, body, style)


# -- the table of contents --------------------------------------------------------------------------


def render_contents(inspection: Inspection, console: Console, *, everything: bool = False) -> None:
    """Print all records, a line each as they come, and where the grammar broke."""
    lines = contents(inspection, everything=everything)
    first = list(islice(lines, _LINES_MEASURED))
    digits = len(f"{inspection.judgement.facts.bytes:x}") + 2
    index_width = max((len(_index(line)) for line in first), default=0)
    name_width = max((len(_name(line)) for line in first), default=0)
    length_width = len(str(max((line.length for line in first), default=0)))
    say = _writer(console)
    for part in (first, lines):
        for line in part:
            worst = max((finding.severity for finding in line.findings), key=lambda s: s.rank, default=None)
            mark = " " if worst is None else _MARKS[worst]
            blamed = f"  <- {', '.join(map(_id, line.findings))}" if line.findings else ""
            say(
                f"{mark} {line.first.offset:#0{digits}x}  {_index(line):>{index_width}}  {_name(line):<{name_width}}  "
                f"{line.length:>{length_width}}  ",
                line.meaning + blamed,
                "" if worst is None else SEVERITY_STYLE[worst],
            )
    damaged = inspection.log.damaged
    if damaged is not None:
        told = f"{damaged.message} ({BREACHES[damaged.breach]})"
        _line(console, f"! {damaged.offset:#0{digits}x}  the stream cannot be read on: ", told, "bold red")
    for alike in _elsewhere(inspection):
        more = f", and {len(alike) - 1} more like it" if len(alike) > 1 else ""
        told = f"{alike[0].message} ({_id(alike[0])}{more})"
        severity = alike[0].severity
        _line(console, f"{_MARKS[severity]} of no one record: ", told, SEVERITY_STYLE[severity])


def _elsewhere(inspection: Inspection) -> Iterator[list[Finding]]:
    """Findings about no record in particular, those of one rule together; the damage that ends the stream is told."""
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
        told = _entry_object(line.first) | {
            "last_index": line.last.index,
            "count": line.count,
            "length": line.length,
            "depth": line.depth,
            "meaning": well_formed(line.meaning),
            "findings": [_finding_object(finding) for finding in line.findings],
        }
        yield told | ({"pages": asdict(line.pages)} if line.pages is not None else {})


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


def _meaning(inspection: Inspection, entry: Entry) -> str:
    return meaning(entry, inspection.body(entry, needed(entry)), inspection.judgement.facts.width)


def render_record(
    inspection: Inspection, console: Console, entry: Entry, *, everything: bool = False, dump: bool = False
) -> None:
    """Print all fields of a record, and its bytes if they are wanted."""
    _line(console, _title(entry), style="bold")
    _line(console, _INDENT, _meaning(inspection, entry))
    _line(console, _INDENT, f"at {entry.offset:#x}, {count(entry.length, 'byte')} from {entry.body:#x}")
    for finding in _findings_about(inspection, entry):
        told = f"{finding.message} ({finding.severity.value})"
        _line(console, f"{_INDENT}{_id(finding)}  ", told, SEVERITY_STYLE[finding.severity])
    found = fields_of(inspection, entry, everything=everything)
    console.print()
    for row in _rows(found, 0):
        _line(console, *row)
    if dump:
        console.print()
        for line in _dump(inspection, entry, everything):
            _line(console, line)


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
            values = ", ".join(f"{part.name} {_shown(part)}" for part in alike[0].fields)
            told = "zero" if _is_zero(alike[0]) else f"{values}, each"
            yield head(alike[0], f"{alike[0].name}..{alike[-1].name}"), told
            continue
        for field in alike:
            parts = [part for part in field.fields if not (isinstance(part.value, bytes) and _is_zero(part))]
            if parts and all(map(_is_plain, parts)) and len(parts) <= _ON_ONE_LINE and not field.left_out:
                told = field.told or ", ".join(f"{part.name} {_shown(part)}" for part in parts)
                yield head(field, field.name), told
                continue
            yield head(field, field.name), "  ".join(filter(None, (_shown(field), field.told)))
            yield from _rows(field.fields, depth + 1)
            if field.left_out:
                yield head(Field("", None), ""), f"… and {field.left_out} more (--all shows them)"


def _sameness(field: Field) -> object:
    """The same for elements that say the same on one line, or nothing but zeros."""
    if field.name.startswith("[") and not field.left_out:
        if field.fields and all(map(_is_plain, field.fields)):
            return tuple(part.value for part in field.fields)
        if _is_zero(field):
            return 0
    return id(field)


def _is_plain(field: Field) -> bool:
    return not field.fields and not field.told and isinstance(field.value, int | str | None)


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
                return f"{len(value)} zero bytes"
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
    told = _entry_object(entry) | {
        "body": entry.body,
        "meaning": well_formed(_meaning(inspection, entry)),
        "findings": [_finding_object(finding) for finding in _findings_about(inspection, entry)],
        "fields": [_field_object(field) for field in fields_of(inspection, entry, everything=everything)],
    }
    if dump:
        raw = inspection.body(entry, None if everything else DUMPED)
        told |= {"bytes": raw.hex(), "bytes_left_out": max(entry.length - len(raw), 0)}
    return told


def _field_object(field: Field) -> dict[str, Any]:
    value: Any = field.value
    if isinstance(value, bytes):
        value = value.hex()
    elif isinstance(value, tuple):
        value = list(value)
    elif isinstance(value, str):
        value = well_formed(value)
    told: dict[str, Any] = {"name": well_formed(field.name), "offset": field.offset, "value": value}
    if field.told:
        told["meaning"] = well_formed(field.told)
    if field.fields:
        told["fields"] = [_field_object(part) for part in field.fields]
    if field.left_out:
        told["left_out"] = field.left_out
    return told


# -- vcpus ------------------------------------------------------------------------------------------


def render_vcpus(inspection: Inspection, console: Console, vcpus: Sequence[int]) -> None:
    """Print the registers of vcpus. Raises NotInStream for one that the stream has nothing of."""
    for number, state in enumerate(vcpu_states(inspection, vcpus)):
        if number:
            console.print()
        _vcpu(console, state)


def _vcpu(console: Console, state: VcpuState) -> None:
    width = f", {state.width * 8}-bit" if state.width else ""
    _line(console, f"vcpu {state.vcpu} ({state.kind}{width})", style="bold")
    for section in state.sections:
        key = section.name
        for row in _register_rows(section, console.width - _KEY_WIDTH - len(_INDENT)):
            _line(console, f"{_INDENT}{key:<{_KEY_WIDTH}}", row)
            key = ""
    for note in state.notes:
        _line(console, f"{_INDENT}{'note':<{_KEY_WIDTH}}", note, "yellow")
    places = ", ".join(f"record {entry.index} {entry.name} at {entry.offset:#x}" for entry in state.records)
    _line(console, f"{_INDENT}{'from':<{_KEY_WIDTH}}", places)


def _register_rows(section: Section, room: int) -> Iterator[str]:
    """Bare registers share lines, in up to four columns; one with something to tell has its own."""
    for bare, group in groupby(section.registers, lambda r: r.flags is None and not r.parts and not r.told):
        told = list(map(_register, group))
        if not bare:
            yield from told
            continue
        width = max(map(len, told)) + len(_GAP)
        step = max(1, min(_COLUMNS, (room + len(_GAP)) // width))
        for start in range(0, len(told), step):
            yield "".join(one.ljust(width) for one in told[start : start + step]).rstrip()


def _register(register: Register) -> str:
    value = f"{register.value:0{register.bits // 4}x}" if register.bits else str(register.value)
    told = [f"{name.replace('_', ' ')} {part:#x}" for name, part in register.parts.items()]
    if register.flags:
        told.insert(0, " ".join(register.flags))
    if register.told:
        told.append(register.told)
    return f"{register.name}={value}" + (f"  {', '.join(told)}" if told else "")


def vcpu_objects(inspection: Inspection, vcpus: Sequence[int]) -> list[dict[str, Any]]:
    """The same as JSON objects: a key for each section, in it one for each register. Raises NotInStream as well."""
    return list(map(_vcpu_object, vcpu_states(inspection, vcpus)))


def _vcpu_object(state: VcpuState) -> dict[str, Any]:
    sections: dict[str, dict[str, Any]] = {}
    for section in state.sections:
        registers = sections.setdefault(section.name.replace(" ", "_"), {})
        registers |= {register.name: _register_object(register) for register in section.registers}
    return {
        "vcpu": state.vcpu,
        "kind": state.kind,
        "width": state.width,
        "records": [{"index": e.index, "name": str(e.name), "offset": e.offset} for e in state.records],
        "registers": sections,
        "notes": list(state.notes),
    }


def _register_object(register: Register) -> dict[str, Any]:
    told: dict[str, Any] = {"value": register.value, **register.parts}
    if register.flags is not None:
        told["flags"] = list(register.flags)
    if register.told:
        told["meaning"] = register.told
    return told


# -- passes over the guest's memory -----------------------------------------------------------------


def render_rounds(inspection: Inspection, console: Console) -> None:
    """Print the passes over the guest's memory as a table, and what they add up to in sentences."""
    found = live(inspection)
    if not found.passes:
        _line(console, "no page of the guest's memory is in the stream")
        return
    rows = [
        {
            "pass": number,
            "kind": done.round.kind,
            "pages": done.round.pages,
            "bytes": done.round.bytes,
            "types": ", ".join(f"{name} {pages}" for name, pages in done.types.items()),
        }
        for number, done in enumerate(found.passes)
    ]
    print_table(rows, console)
    console.print()
    for sentence in live_sentences(found):
        _line(console, "", sentence)


def rounds_object(inspection: Inspection) -> dict[str, Any]:
    """The same as a JSON object."""
    found = live(inspection)
    return {
        "passes": [{**asdict(done.round), "types": done.types} for done in found.passes],
        "times_sent": {str(times): pages for times, pages in found.times_sent.items()},
        "put_off": found.put_off.tolist(),
        "never_came": found.never_came.tolist(),
        "too_sparse": found.too_sparse,
    }
