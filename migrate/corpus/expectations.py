"""What is expected of a stream: TOML files beside the streams, read and validated.

`NAME.expect.toml` stands beside the stream NAME (or NAME.zst, .gz, .xz). Where a directory holds many
streams, one `expect.toml` has a table for each, named as its file is; `[defaults]` in it holds for all.

    host_dependent = true       # the answer depends on the destination: a difference is shown, but is no failure
    [options]
    vcpus = 2                   # of the domain that it is restored into
    [provenance]                # free: saved_by, guest, mode, sha256 (of the uncompressed bytes), damage, layer …
    [guest]                     # free: what the guest said of itself while it was saved
    [facts]                     # free: what is in the stream
    [[expect]]
    target = "4.20"
    placement = "high"
    host = "hosts/a.txt"        # a host file, from where this file lies; without target and placement it decides them
    measured.verdict = "refuse" # what real Xen did …
    measured.step = "context"   # … and step, call, vcpu, errno, signal where it failed,
    measured.error = "…"        # what the toolstack said; xen_log, guest_runs, guest_errors, note
    rules = { HYP-22 = 7 }      # this validator's findings that are errors or warnings

The validator is expected to say what real Xen did. `verdict` (with step, call …) beside `measured` or without
it is this validator's own opinion, and then that is what is expected of it.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from migrate.corpus.expected_verdict import REFUSE, STEPS, UNJUDGED, VERDICTS, Difference, ExpectedVerdict, Observation
from migrate.corpus.filesystems import LOCAL, FetchError, Files
from migrate.corpus.hosts import Asked, HostFile, beside, host_file, host_of
from migrate.corpus.toml_reader import ExpectationError, Table, hint, parse_table, read_table
from migrate.destination.destination import Destination
from migrate.destination.host_facts import HostFileError
from migrate.destination.placement import NAMES as PLACEMENTS
from migrate.destination.releases import resolve
from migrate.rules.catalogue import RULES

if TYPE_CHECKING:
    from migrate.destination.host import Host

SHARED_NAME = "expect.toml"
SUFFIX = ".expect.toml"
DEFAULTS = "defaults"
COMPRESSED = (".zst", ".gz", ".xz")
FAILURE_KEYS = tuple(f.name for f in fields(ExpectedVerdict) if f.name != "verdict")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a real Xen did with the stream, and with the guest in it."""

    outcome: ExpectedVerdict
    error: str | None = None
    xen_log: tuple[str, ...] = ()
    guest_runs: bool | None = None
    guest_errors: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Expectation:
    """What this validator is to say under one target and placement, perhaps on a known host.

    Attributes
    ----------
    outcome:
        this validator's own opinion where there is one, else what was measured.
    rules:
        number of findings by rule id, errors and warnings; None where that is left open.
    """

    target: str
    placement: str
    outcome: ExpectedVerdict
    rules: dict[str, int] | None = None
    measured: Measured | None = None
    host: HostFile | None = None

    @property
    def asked(self) -> Asked:
        """The question."""
        return Asked(self.target, self.placement, self.host)

    def compare(self, observation: Observation) -> tuple[Difference, ...]:
        """How an observation differs from what is expected."""
        differences = self.outcome.differences(observation.outcome)
        if self.rules is not None and self.rules != observation.rules:
            differences += (Difference("rules", _counted(self.rules), _counted(observation.rules)),)
        return differences


@dataclass(frozen=True, slots=True)
class Entry:
    """All that is known and expected of one stream."""

    file: str
    expect: tuple[Expectation, ...]
    vcpus: int | None = None
    host_dependent: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    guest: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def _counted(rules: dict[str, int]) -> str:
    return ", ".join(f"{rule} ×{count}" for rule, count in sorted(rules.items())) or "none"


# -- which file -------------------------------------------------------------------------------------


def bare_name(name: str) -> str:
    """A stream's file name without what its compression added."""
    return next((name.removesuffix(end) for end in COMPRESSED if name.endswith(end)), name)


def is_expectation(name: str) -> bool:
    """Whether a file of this name holds expectations."""
    return name == SHARED_NAME or name.endswith(SUFFIX)


class Shelf:
    """The expectation files of directories, each read once."""

    def __init__(self) -> None:
        self._shared: dict[Hashable, dict[str, Entry | ExpectationError] | ExpectationError] = {}

    def entry(self, stream: str | os.PathLike[str], files: Files = LOCAL) -> Entry | None:
        """What is expected of a stream; None where nothing is.

        Raises
        ------
        ExpectationError
            where what is said of it is not as it should be, and where two files speak of it.
        """
        folder, name, own = _around(os.fspath(stream), files)
        shared = self.shared(folder, files)
        if not files.is_file(own):
            found = shared if isinstance(shared, ExpectationError) else shared.get(name)
            if isinstance(found, ExpectationError):
                raise found
            return found
        if not isinstance(shared, ExpectationError) and name in shared:
            other = files.shown(files.join(folder, SHARED_NAME))
            raise ExpectationError(f"{files.shown(own)}: {other} speaks of the same stream; only one of them may")
        return _entry(read_table(files, own), Beside(files, own))

    def speaks_of(self, stream: str, files: Files = LOCAL) -> bool:
        """Whether a file is about that stream, be it of any use or not."""
        folder, name, own = _around(stream, files)
        shared = self.shared(folder, files)
        return files.is_file(own) or (not isinstance(shared, ExpectationError) and name in shared)

    def shared(self, folder: str, files: Files = LOCAL) -> dict[str, Entry | ExpectationError] | ExpectationError:
        """What a directory's `expect.toml` says, as `load_shared` has it; nothing where there is none.

        An error where nobody knows what it says, not even of which streams.
        """
        key = folder if files.url is None else files.identity(folder)
        if key not in self._shared:
            file = files.join(folder, SHARED_NAME)
            try:
                near = Beside(files, file)
                self._shared[key] = _entries(read_table(files, file), near) if files.is_file(file) else {}
            except ExpectationError as error:
                self._shared[key] = error
        return self._shared[key]


def _around(stream: str, files: Files) -> tuple[str, str, str]:
    """A stream's directory and name, and the file that is about it alone."""
    folder, name = files.split(stream)
    return folder, name, files.join(folder, bare_name(name) + SUFFIX)


# -- reading ----------------------------------------------------------------------------------------


def load_own(file: str | os.PathLike[str], data: bytes | None = None) -> Entry:
    """Read a file about one stream; `data` stands in for its bytes.

    Raises
    ------
    ExpectationError
        for a file that cannot be read, or is not as it should be.
    """
    return _entry(_table(os.fspath(file), data), Beside(LOCAL, os.fspath(file)))


def load_shared(file: str | os.PathLike[str], data: bytes | None = None) -> dict[str, Entry | ExpectationError]:
    """Read a file about the streams of a directory; `data` stands in for its bytes.

    Returns
    -------
    dict
        by file name, in the order of the file: what is expected, or what is wrong with what is said.

    Raises
    ------
    ExpectationError
        for a file that cannot be read, and for what is wrong with all of it.
    """
    return _entries(_table(os.fspath(file), data), Beside(LOCAL, os.fspath(file)))


class Beside(NamedTuple):
    """Where a file of expectations lies, which names others from there."""

    files: Files
    expectations: str

    def host(self, table: Table) -> tuple[HostFile, Host]:
        """The host file that a table names, and what it says."""
        name = table.text("host")
        try:
            found = host_file(name, beside(self.files, self.expectations, name), self.files)
            return found, host_of(found)
        except (HostFileError, FetchError) as error:
            raise table.error("host", str(error)) from None
        except OSError as error:
            raise table.error("host", f"{name}: {error.strerror or error}") from None


def _table(file: str, data: bytes | None) -> Table:
    return read_table(LOCAL, file) if data is None else parse_table(file, data)


def _entries(tables: Table, near: Beside) -> dict[str, Entry | ExpectationError]:
    defaults: dict[str, Any] = tables.take(DEFAULTS, dict, {})
    entries: dict[str, Entry | ExpectationError] = {}
    for name in list(tables.left):
        try:
            if "/" in name:
                raise tables.error(name, "a stream is named as its file is, without a directory")
            own: dict[str, Any] = tables.take(name, dict, {})
            entries[name] = _entry(Table(tables.file, f"{name!r}: ", _with_defaults(own, defaults)), near)
        except ExpectationError as error:
            entries[name] = error
    return entries


def _with_defaults(own: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **own}
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(own.get(key), dict):
            merged[key] = {**value, **own[key]}
    return merged


def _entry(table: Table, near: Beside) -> Entry:
    options = table.table("options")
    entry = Entry(
        file=table.file,
        expect=tuple(_expectation(one, near) for one in table.tables("expect")),
        vcpus=options.number("vcpus", least=1),
        host_dependent=table.take("host_dependent", bool, False),
        provenance=table.take("provenance", dict, {}),
        guest=table.take("guest", dict, {}),
        facts=table.take("facts", dict, {}),
    )
    options.done()
    table.done()
    if not entry.expect:
        raise table.error("expect", "missing; at least one is needed")
    seen = set()
    for number, one in enumerate(entry.expect, 1):
        if one.asked in seen:
            where = f" on {one.host.name}" if one.host else ""
            raise table.error(f"expect {number}", f"{one.target} under {one.placement}{where} is there twice")
        seen.add(one.asked)
    return entry


def _expectation(table: Table, near: Beside) -> Expectation:
    host, known = near.host(table) if table.has("host") else (None, None)
    release = None
    if known is None or table.has("target"):
        try:
            release = resolve(table.text("target"))
        except ValueError as error:
            raise table.error("target", str(error)) from None
    placement = table.word("placement", PLACEMENTS) if known is None or table.has("placement") else None
    destination = Destination(release, placement, host=known)
    rules = _rules(table)
    measured = _measured(table.table("measured")) if table.has("measured") else None
    if measured is None or table.has("verdict"):
        outcome = _outcome(table, VERDICTS)
    else:
        outcome = measured.outcome
    table.done()
    return Expectation(destination.release.short, destination.placement, outcome, rules, measured, host)


def _measured(table: Table) -> Measured:
    measured = Measured(
        outcome=_outcome(table, [verdict for verdict in VERDICTS if verdict != UNJUDGED]),
        error=table.take("error", str, None),
        xen_log=tuple(table.take("xen_log", list, [])),
        guest_runs=table.take("guest_runs", bool, None),
        guest_errors=table.number("guest_errors"),
        note=table.take("note", str, None),
    )
    if not all(isinstance(line, str) for line in measured.xen_log):
        raise table.error("xen_log", "expected strings only")
    table.done()
    return measured


def _outcome(table: Table, verdicts: Iterable[str]) -> ExpectedVerdict:
    verdict = table.word("verdict", verdicts)
    for key in FAILURE_KEYS:
        if verdict != REFUSE and table.has(key):
            raise table.error(key, "only a refusal has one")
    return ExpectedVerdict(
        verdict=verdict,
        step=table.word("step", STEPS) if table.has("step") else None,
        call=table.take("call", str, None),
        vcpu=table.number("vcpu"),
        errno=table.take("errno", str, None),
        signal=table.number("signal", least=1),
    )


def _rules(table: Table) -> dict[str, int] | None:
    if not table.has("rules"):
        return None
    counts = table.table("rules")
    rules = {}
    for rule in list(counts.left):
        if rule not in RULES:
            raise counts.error(rule, f"no such rule{hint(rule, RULES)}")
        rules[rule] = counts.number(rule, least=1) or 0
    return rules
