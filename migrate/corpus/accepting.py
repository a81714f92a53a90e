"""What this validator says becomes what is expected of it: changes to expectation files, planned and then written.

Comments, provenance and all else that people wrote stay as they are. What real Xen did is never changed: this
validator's own opinion is written beside it, and taken away again where both agree.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Comment, Whitespace

from migrate.corpus.expectations import (
    FAILURE_KEYS,
    SHARED_NAME,
    SUFFIX,
    Entry,
    bare_name,
    load_own,
    load_shared,
)
from migrate.corpus.expected_verdict import Observation
from migrate.corpus.filesystems import is_url
from migrate.corpus.results import Comparison, Result, Status
from migrate.corpus.toml_reader import ExpectationError
from migrate.whole_file import whole_file

EXPECT, RULES = "expect", "rules"
VERDICT = "verdict"


class AcceptError(Exception):
    """A file that cannot be changed so that it says what it should. The text names it."""


@dataclass(slots=True)
class Plan:
    """What is to be written.

    Attributes
    ----------
    before, after:
        texts of the files that change, by path; None before for a file that is new.
    kept:
        streams of which nothing is accepted, each with the reason.
    accepted:
        streams whose expectations are new or change.
    """

    before: dict[str, str | None] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    kept: list[tuple[str, str]] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)

    def diff(self) -> Iterator[str]:
        """What changes, as lines of a unified diff."""
        for path, after in self.after.items():
            before = self.before[path]
            yield from difflib.unified_diff(
                (before or "").splitlines(),
                after.splitlines(),
                path if before is not None else os.devnull,
                path,
                lineterm="",
            )

    def write(self) -> None:
        """Write the files, each whole or not at all. Raises OSError."""
        for path, after in self.after.items():
            with whole_file(path) as file:
                file.write(after.encode())


def plan(results: Iterable[Result], *, new_only: bool = False) -> Plan:
    """Changes that make the expectations say what was observed.

    Parameters
    ----------
    new_only:
        leave alone what is expected already.

    Raises
    ------
    AcceptError
        for a file that cannot be changed.
    """
    planner = _Planner(new_only)
    for result in results:
        planner.add(result)
    return planner.finish()


class _Planner:
    """Files on their way from how they are to how they should be."""

    def __init__(self, new_only: bool) -> None:
        self._new_only = new_only
        self._plan = Plan()
        self._documents: dict[str, tomlkit.TOMLDocument] = {}
        self._due: list[tuple[str, str | None, Result]] = []

    def add(self, result: Result) -> None:
        why_not = self._why_not(result)
        if why_not is not None:
            self._plan.kept.append((result.case.path, why_not))
        elif result.status is Status.NEW:
            self._describe(result)
        elif result.case.entry is not None and result.differing:
            self._change(result, result.case.entry)

    def finish(self) -> Plan:
        for path, document in self._documents.items():
            text = tomlkit.dumps(document).rstrip("\n") + "\n"
            if text != self._plan.before[path]:
                self._plan.after[path] = text
        for path, name, result in self._due:
            _verify(path, self._plan.after.get(path), name, result)
        return self._plan

    def _why_not(self, result: Result) -> str | None:
        if result.answer.error is not None:
            return f"cannot be judged: {result.answer.error}"
        if result.unjudged_because is not None:
            return f'not judged: {result.unjudged_because}; verdict = "unjudged" is for people to write'
        match result.status:
            case Status.NEW if is_url(result.case.path):
                return "expectations can only be written to local files"
            case Status.FINE | Status.NEW:
                return None
            case Status.HOST:
                return "differs, but depends on the destination host"
            case Status.DEVIATES:
                return "differs, but that is known"
            case _ if self._new_only:
                return "differs, but only new streams are accepted"
            case _ if is_url(result.case.path):
                return "expectations can only be written to local files"
            case _:
                return None

    def _describe(self, result: Result) -> None:
        folder, name = os.path.split(result.case.path)
        shared = os.path.join(folder, SHARED_NAME)
        if os.path.isfile(shared):
            document = self._document(shared)
            section = tomlkit.table(is_super_table=True)
            section[EXPECT] = _array(result, folder)
            document[name] = section
            self._planned(shared, name, result)
            return
        own = os.path.join(folder, bare_name(name) + SUFFIX)
        document = self._document(own)
        if EXPECT in document:
            self._plan.kept.append((result.case.path, f"{own} speaks of another stream already"))
            return
        document[EXPECT] = _array(result, folder)
        self._planned(own, None, result)

    def _change(self, result: Result, entry: Entry) -> None:
        document: Any = self._document(entry.file)
        shared = os.path.basename(entry.file) == SHARED_NAME
        name = os.path.basename(result.case.path) if shared else None
        table = document if name is None else document[name]
        if EXPECT not in table:  # it came from the defaults, which hold for others too
            table[EXPECT] = _array(result, os.path.dirname(entry.file))
        else:
            for one, comparison in zip(table[EXPECT], result.comparisons, strict=True):
                if comparison in result.unknown:
                    _update(one, comparison)
        self._planned(entry.file, name, result)

    def _planned(self, path: str, name: str | None, result: Result) -> None:
        self._due.append((path, name, result))
        self._plan.accepted.append(result.case.path)

    def _document(self, path: str) -> tomlkit.TOMLDocument:
        if path not in self._documents:
            text = None
            with suppress(FileNotFoundError), open(path, encoding="utf-8", newline="") as file:
                text = file.read()
            self._plan.before[path] = text
            try:
                self._documents[path] = tomlkit.parse(text or "")
            except TOMLKitError as error:
                raise AcceptError(f"{path}: cannot be changed: {error}") from error
        return self._documents[path]


def _array(result: Result, folder: str) -> AoT:
    """All that was observed, as an array of tables for a file of that directory."""
    array = tomlkit.aot()
    named = [one.expectation.host and one.expectation.host.name for one in result.comparisons]
    for number, observation in enumerate(result.answer.observations):
        table = tomlkit.table()
        table["target"], table["placement"] = observation.target, observation.placement
        if observation.host is not None:
            table["host"] = (named[number] if named else None) or os.path.relpath(observation.host, folder or os.curdir)
        _put(table, observation)
        table[RULES] = _counts(observation)
        array.append(table)
    return array


def _update(table: Any, comparison: Comparison) -> None:
    """Have an expectation say what was observed."""
    expectation, observation = comparison.expectation, comparison.observation
    # Blank lines and comments at a table's end belong to what comes after it.
    body = table.value.body
    tail = []
    while body and body[-1][0] is None and isinstance(body[-1][1], Comment | Whitespace):
        tail.append(body.pop())
    if expectation.outcome.differences(observation.outcome):
        measured = expectation.measured
        if measured is not None and not measured.outcome.differences(observation.outcome):
            for key in (VERDICT, *FAILURE_KEYS):
                table.pop(key, None)
        else:
            _put(table, observation)
    if RULES in table:
        table[RULES] = _counts(observation)
    body.extend(reversed(tail))


def _put(table: Any, observation: Observation) -> None:
    outcome = observation.outcome
    table[VERDICT] = outcome.verdict
    for key in FAILURE_KEYS:
        value = getattr(outcome, key)
        if value is not None:
            table[key] = value
        else:
            table.pop(key, None)


def _counts(observation: Observation) -> Any:
    counts = tomlkit.inline_table()
    counts.update(observation.rules)
    return counts


def _verify(path: str, after: str | None, name: str | None, result: Result) -> None:
    """Raises AcceptError if the new text does not say what was observed."""
    try:
        data = (after or "").encode()
        entry = load_own(path, data) if name is None else load_shared(path, data)[name]
        if isinstance(entry, ExpectationError):
            raise entry
    except (ExpectationError, KeyError) as error:
        raise AcceptError(f"{path}: cannot be changed by this program, as it would read then: {error}") from error
    known = {number for number, c in enumerate(result.comparisons) if c.differences and c not in result.unknown}
    said, observed = entry.expect, result.answer.observations
    # Both are in the order of the file.
    if len(said) != len(observed) or any(
        one.compare(observed[number]) for number, one in enumerate(said) if number not in known
    ):
        raise AcceptError(
            f"{path}: cannot be changed by this program so that it says what it should; nothing is written"
        )
