"""The results of a run as JSON lines: written as they come, read to go on from or to be joined.

One object per stream: `stream`, `number` (its place in the order), `status`, `seconds`, `cached`, `error`, `checks`
(the objects of `migrate check --format json`), `asked`, `expected`, `fail_on`, `comparisons` and `known`. A stream that
is expected but not there has the status "missing". The last line, with "kind": "end", says that all have been judged,
and which known deviations speak of no stream.

While the run lasts the lines come in the order in which streams are done, each written at once; at its end the
file is put into the order of the streams.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from types import TracebackType
from typing import IO, Any, Self

from migrate.corpus.cache import validator
from migrate.corpus.discovery import Case, Shard
from migrate.corpus.expectations import Entry
from migrate.corpus.expected_verdict import Observation, observe
from migrate.corpus.filesystems import File
from migrate.corpus.hosts import Asked
from migrate.corpus.known import Deviation
from migrate.corpus.results import Answer, Result, Run, compared
from migrate.corpus.runner import Task, task_of
from migrate.corpus.structuring import structured
from migrate.judging.report import Report
from migrate.judging.report_json import dumps, report_from
from migrate.rules.declaring import Severity
from migrate.safe import well_formed
from migrate.whole_file import OutputFile, whole_file

SCHEMA = 1
STREAM, MISSING, END = "stream", "missing", "end"
# In an entry's provenance this alone is made use of: agreement is counted by it.
LAYER = "layer"
# Bytes. What has longer lines was not written here.
LONGEST_LINE = 64 << 20
# So many missing shards are named.
SHARDS_NAMED = 5
_HALF_CHARACTER = re.compile(rb"\\u[dD][89abAB]")


class JournalError(ValueError):
    """A file of results that cannot be read, or was written by something else. The text names the line."""


# -- writing ----------------------------------------------------------------------------------------


class Journal:
    """A file that results are written to as they come, a line each; None for no file at all.

    Parameters
    ----------
    known:
        results that it begins with. What the file held before is lost only once they are in it.

    Raises
    ------
    OSError
        for a file that cannot be written.
    """

    def __init__(self, path: str | None, known: Iterable[Result] = ()) -> None:
        self._path = path
        self._file: IO[str] | None = None
        # What goes into a pipe stays as it is, and cannot be read again.
        self._final = path is not None and os.path.exists(path) and not os.path.isfile(path)
        if path is None:
            return
        if not self._final:
            _write(path, map(line_of, known))
        self._file = io.TextIOWrapper(io.BufferedWriter(OutputFile(path, path, "a")), "ascii")
        if self._final:
            for result in known:
                self.add(result)

    def add(self, result: Result) -> None:
        """Write a result, whatever comes after."""
        if self._file is not None:
            self._file.write(line_of(result) + "\n")
            self._file.flush()

    def finish(self, run: Run, shard: Shard | None) -> None:
        """All streams have been judged: put the lines into their order, and say that these are all."""
        if self._file is None or self._path is None:
            return
        last = [*map(_missing_line, run.missing), _end_line(run, shard)]
        if self._final:
            self._file.writelines(f"{line}\n" for line in last)
            return
        self._file.close()
        _write(self._path, (*map(line_of, run.results), *last))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _write(path: str, lines: Iterable[str]) -> None:
    with whole_file(path) as file:
        file.writelines(f"{line}\n".encode("ascii") for line in lines)


def line_of(result: Result) -> str:
    """The JSON object of one result, in one line."""
    case = result.case
    line = {
        "kind": STREAM,
        "schema": SCHEMA,
        "stream": well_formed(case.path),
        "number": case.number,
        "status": result.status.name.lower(),
        "seconds": round(result.answer.seconds, 6),
        "cached": result.answer.cached,
        "error": None if result.answer.error is None else well_formed(result.answer.error),
        "validator": validator(),
        "stamp": case.file.stamp,
        "asked": _asked(task_of(case)),
        "fail_on": None if case.fail_on is None else case.fail_on.value,
        "expected": None if case.entry is None else _entry_object(case.entry),
        "comparisons": [
            {
                "target": comparison.expectation.target,
                "placement": comparison.expectation.placement,
                "host": comparison.expectation.host and well_formed(comparison.expectation.host.name),
                "observed": asdict(comparison.observation.outcome),
                "rules": comparison.observation.rules,
                "differences": [asdict(one) for one in comparison.differences],
                "from_real": [asdict(one) for one in comparison.from_real],
            }
            for comparison in result.comparisons
        ],
        "known": list(map(_deviation_object, case.known)),
    }
    # The checks are JSON already.
    return f'{dumps(line)[:-1]}, "checks": [{", ".join(result.answer.checks)}]}}'


def _asked(task: Task) -> dict[str, Any]:
    return {"vcpus": task.vcpus, "questions": [_question(one) for one in task.questions]}


def _question(asked: Asked) -> list[str]:
    return [asked.target, asked.placement, *([asked.host.digest] if asked.host else [])]


def _entry_object(entry: Entry) -> dict[str, Any]:
    return {
        "file": well_formed(entry.file),
        "vcpus": entry.vcpus,
        "host_dependent": entry.host_dependent,
        "provenance": {LAYER: str(entry.provenance[LAYER])} if LAYER in entry.provenance else {},
        "expect": [asdict(one) for one in entry.expect],
    }


def _deviation_object(deviation: Deviation) -> dict[str, Any]:
    return {**asdict(deviation), "expires": deviation.expires and str(deviation.expires)}


def _missing_line(path: str) -> str:
    return dumps({"kind": MISSING, "schema": SCHEMA, "stream": well_formed(path), "status": MISSING})


def _end_line(run: Run, shard: Shard | None) -> str:
    line: dict[str, Any] = {"kind": END, "schema": SCHEMA, "streams": len(run.results), "missing": len(run.missing)}
    line["shard"] = None if shard is None else [shard.index, shard.count]
    return dumps({**line, "unmatched": list(map(_deviation_object, run.unmatched)), "gaps": list(run.gaps)})


# -- reading ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _StreamLine:
    """What is read of a line about a stream; the rest follows from it."""

    stream: str
    number: int
    seconds: float
    cached: bool
    error: str | None
    validator: str
    stamp: str | None
    asked: dict[str, Any]
    expected: Entry | None
    known: tuple[Deviation, ...]
    checks: tuple[dict[str, Any], ...]
    fail_on: Severity | None = None


@dataclass(frozen=True, slots=True)
class _EndLine:
    shard: tuple[int, int] | None
    unmatched: tuple[Deviation, ...] = ()
    gaps: tuple[str, ...] = ()


@dataclass(slots=True)
class Written:
    """What a file of results holds.

    Attributes
    ----------
    results:
        by stream, the later of two about one.
    keys:
        by stream, what its answer is an answer to.
    end:
        the last line, None where the run was interrupted.
    rule_sets:
        versions of the rules that the streams were judged by.
    damaged:
        complaints about lines that are of no use.
    """

    path: str
    results: dict[str, Result] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    end: _EndLine | None = None
    rule_sets: set[str] = field(default_factory=set)
    damaged: list[str] = field(default_factory=list)

    def take(self, line: bytes) -> None:
        """Take one line. Raises ValueError, or RecursionError, for one that is of no use."""
        row = _object(line)
        if row["kind"] == END:
            end: _EndLine = structured(_EndLine, row)
            if end.shard is not None and not 1 <= end.shard[0] <= end.shard[1]:
                raise ValueError(f"shard: there is no {end.shard[0]} of {end.shard[1]}")
            self.end = end
            return
        if row["kind"] == MISSING:
            self.missing.append(structured(str, row.get("stream"), "stream"))
            return
        read: _StreamLine = structured(_StreamLine, row)
        reports = [report_from(dumps(check)) for check in read.checks]
        observations = tuple(_observed(report) for report in reports)
        if read.error is None and not observations:
            raise ValueError("there is neither a report nor an error")
        answer = Answer(tuple(map(dumps, read.checks)), observations, read.error, read.seconds, read.cached)
        file = File(read.stream, None, read.stamp)
        case = Case(read.stream, read.expected, read.number, file, known=read.known, fail_on=read.fail_on)
        self.results[read.stream] = compared(case, answer)
        self.keys[read.stream] = _key(read.validator, read.stamp, read.asked)
        self.rule_sets |= {structured(str, check.get("rule_set"), "rule_set") for check in read.checks}
        self.end = None


def read_journal(path: str) -> Written:
    """Read the results of an earlier run; a last line that was cut off in the middle is left out.

    Raises
    ------
    JournalError
        for a file that cannot be read, or holds something else.
    """
    written = Written(path)
    useful = False
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
                if not line.endswith(b"\n"):
                    if len(line) == LONGEST_LINE:
                        raise JournalError(f"{path}: line {number}: longer than {LONGEST_LINE >> 20} MiB")
                    break
                try:
                    written.take(line)
                    useful = True
                except (ValueError, RecursionError) as error:
                    written.damaged.append(f"{path}: line {number}: {_reason(error)}")
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror or error}") from error
    if written.damaged and not useful:
        raise JournalError(written.damaged[0])
    return written


def answered(written: Written, case: Case, task: Task) -> Answer | None:
    """What a file says of a case, if it was the same question to the same validator about the same bytes."""
    found = written.results.get(well_formed(case.path))
    if found is None or found.answer.error is not None or case.file.stamp is None:
        return None
    same = written.keys[found.case.path] == _key(validator(), case.file.stamp, _asked(task))
    return found.answer if same else None


def joined(files: Sequence[Written]) -> Run:
    """The results of several runs as those of one, in the order that they had before they were shared out.

    Runs that were interrupted, and shards that are missing, are named as gaps.
    """
    results: dict[str, Result] = {}
    for file in files:
        results |= file.results
    ordered = sorted(results.values(), key=lambda result: result.case.number)
    missing = dict.fromkeys(path for file in files for path in file.missing if path not in results)
    matched = {one for result in ordered for one in result.case.known}
    unmatched = dict.fromkeys(one for file in files if file.end for one in file.end.unmatched if one not in matched)
    return Run(ordered, tuple(missing), tuple(dict.fromkeys(_gaps(files))), tuple(unmatched), tuple(_rule_sets(files)))


def _gaps(files: Sequence[Written]) -> Iterator[str]:
    shards: dict[int, set[int]] = {}
    for file in files:
        if file.end is None:
            yield f"{file.path}: the run was interrupted"
            continue
        yield from file.end.gaps
        if file.end.shard:
            index, count = file.end.shard
            shards.setdefault(count, set()).add(index)
    for count, indices in sorted(shards.items()):
        lacking = (index for index in range(1, count + 1) if index not in indices)
        yield from (f"shard {index}/{count} is not among the files" for index in islice(lacking, SHARDS_NAMED))
        more = count - len(indices) - SHARDS_NAMED
        if more > 0:
            yield f"{more} more of {count} shards are not among the files"


def _rule_sets(files: Sequence[Written]) -> Iterator[str]:
    if len(set().union(*(file.rule_sets for file in files))) > 1:
        by_file = (f"{file.path} by {' and '.join(sorted(file.rule_sets))}" for file in files if file.rule_sets)
        yield f"not all streams were judged by the same rules: {', '.join(by_file)}"


def _key(*parts: object) -> str:
    return json.dumps(parts, sort_keys=True)


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(row, dict) or row.get("schema") != SCHEMA or row.get("kind") not in (STREAM, MISSING, END):
        raise ValueError("not a result of `migrate corpus run --jsonl`")
    if _HALF_CHARACTER.search(line):
        # Raises UnicodeEncodeError for half a pair of surrogates, which no file could be written with.
        json.dumps(row, ensure_ascii=False).encode()
    return row


def _observed(report: Report) -> Observation:
    """What a report says, once all of it is found to be of the right types."""
    return observe(structured(Report, report, "check"))


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "not text" if isinstance(error, UnicodeEncodeError) else str(error)
