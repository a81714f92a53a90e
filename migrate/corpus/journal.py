"""The results of a run as JSON lines: written as they come, read to go on from or to be joined.

One object per stream: `stream`, `number` (its place in the order), `status`, `seconds`, `cached`, `error`, `checks`
(the objects of `migrate check --format json`), `asked`, `expected`, `comparisons` and `known`. A stream that is
expected but not there has the status "missing". The last line, with "kind": "end", says that all have been judged.

While the run lasts the lines come in the order in which streams are done, each written at once; at its end the
file is put into the order of the streams.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from types import TracebackType
from typing import IO, Any, Self

from migrate.corpus.cache import validator
from migrate.corpus.discovery import Case, Shard
from migrate.corpus.examining import Task
from migrate.corpus.expectations import Entry, Expectation, Measured
from migrate.corpus.expected_verdict import ExpectedVerdict
from migrate.corpus.known import Deviation
from migrate.corpus.results import Answer, Result, Run, compared
from migrate.corpus.runner import task_of
from migrate.judging.report_json import dumps
from migrate.safe import well_formed

SCHEMA = 1
STREAM, MISSING, END = "stream", "missing", "end"
# In an entry's provenance this alone is made use of: agreement is counted by it.
LAYER = "layer"


class JournalError(ValueError):
    """A file of results that cannot be read, or was written by something else. The text names the place."""


# -- writing ----------------------------------------------------------------------------------------


class Journal:
    """A file that results are written to as they come, a line each; None for no file at all.

    Raises
    ------
    OSError
        for a file that cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._file: IO[str] | None = None if path is None else open(path, "w", encoding="ascii")  # noqa: SIM115

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
        if not os.path.isfile(self._path):  # what has gone into a pipe stays as it is
            self._file.writelines(f"{line}\n" for line in last)
            return
        self._file.close()
        real = os.path.realpath(self._path)
        fd, beside = tempfile.mkstemp(dir=os.path.dirname(real))
        with open(fd, "w", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in (*map(line_of, run.results), *last))
        os.chmod(beside, os.stat(real).st_mode & 0o777)
        os.replace(beside, real)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def line_of(result: Result) -> str:
    """The JSON object of one result, in one line."""
    case = result.case
    task = task_of(case)
    told = {
        "kind": STREAM,
        "schema": SCHEMA,
        "stream": well_formed(case.path),
        "number": case.number,
        "status": result.status.name.lower(),
        "seconds": round(result.answer.seconds, 6),
        "cached": result.answer.cached,
        "error": None if result.answer.error is None else well_formed(result.answer.error),
        "validator": validator(),
        "stamp": case.stamp,
        "asked": {"vcpus": task.vcpus, "questions": [list(question) for question in task.questions]},
        "expected": None if case.entry is None else _entry_object(case.entry),
        "comparisons": [
            {
                "target": comparison.expectation.target,
                "placement": comparison.expectation.placement,
                "observed": asdict(comparison.observation.outcome),
                "rules": comparison.observation.rules,
                "differences": [asdict(one) for one in comparison.differences],
                "from_real": [asdict(one) for one in comparison.from_real],
            }
            for comparison in result.comparisons
        ],
        "known": [{**asdict(one), "expires": one.expires and str(one.expires)} for one in case.known],
    }
    # The checks are JSON already.
    return f'{dumps(told)[:-1]}, "checks": [{", ".join(result.answer.checks)}]}}'


def _entry_object(entry: Entry) -> dict[str, Any]:
    return {
        "file": well_formed(entry.file),
        "vcpus": entry.vcpus,
        "host_dependent": entry.host_dependent,
        "provenance": {LAYER: str(entry.provenance[LAYER])} if LAYER in entry.provenance else {},
        "expect": [asdict(one) for one in entry.expect],
    }


def _missing_line(path: str) -> str:
    return dumps({"kind": MISSING, "schema": SCHEMA, "stream": well_formed(path), "status": MISSING})


def _end_line(run: Run, shard: Shard | None) -> str:
    told = {"kind": END, "schema": SCHEMA, "streams": len(run.results), "missing": len(run.missing)}
    return dumps({**told, "shard": None if shard is None else [shard.index, shard.count]})


# -- reading ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
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
    """

    path: str
    results: dict[str, Result]
    keys: dict[str, str]
    missing: tuple[str, ...]
    end: dict[str, Any] | None


def read_journal(path: str) -> Written:
    """Read the results of an earlier run; a last line that was cut off in the middle is left out.

    Raises
    ------
    JournalError
        for a file that cannot be read, or holds something else.
    """
    results: dict[str, Result] = {}
    keys: dict[str, str] = {}
    missing: list[str] = []
    end: dict[str, Any] | None = None
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith("\n"):
                    break
                told = _object(path, number, line)
                if told["kind"] == END:
                    end = told
                elif told["kind"] == MISSING:
                    missing.append(str(told["stream"]))
                else:
                    result = _result(path, number, told)
                    results[result.case.path] = result
                    keys[result.case.path] = _key(told["validator"], told["stamp"], told["asked"])
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise JournalError(f"{path}: not UTF-8 at byte {error.start}") from error
    return Written(path, results, keys, tuple(missing), end)


def answered(written: Written, case: Case, task: Task) -> Answer | None:
    """What a file says of a case, if it was the same question to the same validator about the same bytes."""
    found = written.results.get(well_formed(case.path))
    if found is None or found.answer.error is not None or case.stamp is None:
        return None
    asked = {"vcpus": task.vcpus, "questions": [list(question) for question in task.questions]}
    return found.answer if written.keys[found.case.path] == _key(validator(), case.stamp, asked) else None


def joined(files: Sequence[Written]) -> Run:
    """The results of several runs as those of one, in the order that they had before they were shared out.

    Runs that were interrupted, and shards that are missing, are told as gaps.
    """
    results: dict[str, Result] = {}
    for file in files:
        results |= file.results
    ordered = sorted(results.values(), key=lambda result: result.case.number)
    missing = dict.fromkeys(path for file in files for path in file.missing if path not in results)
    return Run(tuple(ordered), tuple(missing), tuple(_gaps(files)))


def _gaps(files: Sequence[Written]) -> Iterable[str]:
    shards: dict[int, set[int]] = {}
    for file in files:
        if file.end is None:
            yield f"{file.path}: the run was interrupted"
        elif file.end.get("shard"):
            index, count = file.end["shard"]
            shards.setdefault(count, set()).add(index)
    for count, indices in sorted(shards.items()):
        for index in range(1, count + 1):
            if index not in indices:
                yield f"shard {index}/{count} is not among the files"


def _key(*parts: object) -> str:
    return json.dumps(parts, sort_keys=True)


def _object(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError as error:
        raise JournalError(f"{path}: line {number}: not JSON: {error}") from error
    if not isinstance(told, dict) or told.get("schema") != SCHEMA or told.get("kind") not in (STREAM, MISSING, END):
        raise JournalError(f"{path}: line {number}: not a result of `migrate corpus run --jsonl`")
    return told


def _result(path: str, number: int, told: dict[str, Any]) -> Result:
    try:
        known = tuple(_deviation(one) for one in told["known"])
        entry = None if told["expected"] is None else _entry(told["expected"])
        case = Case(told["stream"], entry, told["number"], None, told["stamp"], known)
        checks = tuple(dumps(check) for check in told["checks"])
        answer = Answer(checks, told["error"], told["seconds"], told["cached"])
        return compared(case, answer)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise JournalError(f"{path}: line {number}: not usable: {type(error).__name__}: {error}") from error


def _entry(told: dict[str, Any]) -> Entry:
    expect = tuple(
        Expectation(
            one["target"],
            one["placement"],
            ExpectedVerdict(**one["outcome"]),
            one["rules"],
            None if one["measured"] is None else _measured(one["measured"]),
        )
        for one in told["expect"]
    )
    return Entry(told["file"], expect, told["vcpus"], told["host_dependent"], told["provenance"])


def _measured(told: dict[str, Any]) -> Measured:
    return Measured(**{**told, "outcome": ExpectedVerdict(**told["outcome"]), "xen_log": tuple(told["xen_log"])})


def _deviation(told: dict[str, Any]) -> Deviation:
    deviation = Deviation(**told)
    return replace(
        deviation,
        aspects=None if deviation.aspects is None else tuple(deviation.aspects),
        expires=None if deviation.expires is None else date.fromisoformat(str(deviation.expires)),
    )
