"""`pytest --streams DIR`: every stream below DIR, with what is expected of it, as tests.

    pytest --streams sample_streams
    pytest --streams sample_streams -m stream -n 4          # these tests alone, on four cores
    pytest --streams sample_streams sample_streams/guest.xl.zst::4.20-high

What is expected stands beside the streams, as for `migrate corpus run`; each pair of a release and a placement
in it is one test. A failing one shows what differs, the findings it comes from, the hypercalls that fail, and
the command that shows the same at a prompt. A stream of which nothing is expected is skipped once it has been
judged; one whose answer depends on the destination host, or that is known to differ, fails as expected
(xfail). Several `--streams` may be given.

Without the option this module does nothing, and imports nothing of the validator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from migrate.corpus.discovery import Case
    from migrate.corpus.results import Comparison, Result

MARKER = "stream"
# By real path: the streams that are there, and of every expectation file the streams that are not.
_CASES = pytest.StashKey[dict[str, "Case"]]()
_MISSING = pytest.StashKey[dict[str, list[str]]]()


class NotAsExpectedError(Exception):
    """A stream is not what its expectations say; the text tells all there is to tell."""


class StreamFile(pytest.File):
    """A stream; judged once, when the first of its tests runs."""

    case: Case

    @cached_property
    def result(self) -> Result:
        """The stream's outcome under all that is expected of it."""
        from migrate.corpus.runner import InProcess, run

        return run([self.case], InProcess())[0]

    def collect(self) -> Iterator[pytest.Item]:
        """One test per release and placement that something is expected of; one in all where nothing is."""
        from migrate.corpus.runner import UNEXPECTED

        expected = self.case.entry.expect if self.case.entry else ()
        questions = [one.asked for one in expected] or UNEXPECTED
        for index, asked in enumerate(questions):
            item: StreamItem = StreamItem.from_parent(self, name=asked.where.replace(", ", "-"))
            item.index = index
            yield item


class _Item(pytest.Item):
    """A test about a stream, whose failure is a text rather than a place in Python code."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.add_marker(MARKER)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The text of a difference, the traceback of anything else."""
        if isinstance(excinfo.value, NotAsExpectedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """What a report is headed with."""
        return self.path, None, f"{self.path.name} {self.name}"


class StreamItem(_Item):
    """What is expected of a stream under one release and placement."""

    index: int

    def runtest(self) -> None:
        """Compare. Raises NotAsExpectedError where the stream is not as expected, or cannot be read."""
        assert isinstance(self.parent, StreamFile)
        result = self.parent.result
        if result.answer.error is not None:
            raise NotAsExpectedError(f"{result.case.path}: {result.answer.error}")
        if result.case.entry is None:
            from migrate.reports.corpus.sentences import observed

            pytest.skip(f"nothing is expected of it yet; found {observed(result.answer.observations[0])}")
        self._compare(result, result.comparisons[self.index])

    def _compare(self, result: Result, comparison: Comparison) -> None:
        if not comparison.differences:
            return
        case = result.case
        from migrate.reports.corpus.mismatch import differences, mismatch

        assert case.entry is not None
        if case.entry.host_dependent:
            pytest.xfail(f"depends on the destination host; {'; '.join(differences(comparison))}")
        for known in result.deviations(comparison):
            if not known.expired:
                pytest.xfail(f"known: {known.reason}; {'; '.join(differences(comparison))}")
        name = os.path.relpath(case.path, self.config.invocation_params.dir)
        raise NotAsExpectedError(mismatch(case.path, name, case.entry.vcpus, comparison))


class ExpectationFile(pytest.File):
    """Expectations of streams that are not there."""

    missing: list[str]

    def collect(self) -> Iterator[pytest.Item]:
        """One failing test per stream."""
        for path in self.missing:
            yield MissingItem.from_parent(self, name=os.path.basename(path))


class MissingItem(_Item):
    """A stream that is not there."""

    def runtest(self) -> None:
        """Fail."""
        raise NotAsExpectedError(f"{self.path.with_name(self.name)}: expected, but not there")


# -- hooks ------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare `--streams`."""
    parser.getgroup("xen-migrate", "Xen migration streams").addoption(
        "--streams",
        action="append",
        default=[],
        metavar="DIR",
        help="Test the streams of this directory and all below it against what is expected of them.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have pytest look into the directories; one of which a part is asked for by name it looks into anyway."""
    folders = config.getoption("streams")
    if not folders:
        return
    config.addinivalue_line("markers", f"{MARKER}: a migration stream and what is expected of it (--streams)")
    start = config.invocation_params.dir
    asked = [start / argument.partition("::")[0] for argument in config.args]
    for folder in dict.fromkeys(folders):
        place = start / folder
        if not place.exists():
            raise pytest.UsageError(f"--streams {folder}: no such file or directory")
        if not any(_lies_in(path, place) for path in asked):
            config.args.append(str(place))


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Find the streams, and complain at once of files of expectations of which nobody knows what they are about."""
    folders = session.config.getoption("streams")
    if not folders:
        return
    from migrate.corpus.discovery import discover
    from migrate.corpus.toml_reader import ExpectationError

    start = session.config.invocation_params.dir
    try:
        corpus = discover(str(start / folder) for folder in folders)
    except ExpectationError as error:
        raise pytest.UsageError(str(error)) from None
    if corpus.faults:
        raise pytest.UsageError("\n".join(corpus.faults))
    session.config.stash[_CASES] = {os.path.realpath(case.path): case for case in corpus.cases}
    missing = session.config.stash[_MISSING] = {}
    for path in corpus.missing:
        missing.setdefault(os.path.realpath(_expected_in(path)), []).append(path)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take the streams that were found, and the expectations of those that were not."""
    stash = parent.config.stash
    if _CASES not in stash:
        return None
    here = os.path.realpath(file_path)
    if here in stash[_CASES]:
        stream: StreamFile = StreamFile.from_parent(parent, path=file_path)
        stream.case = stash[_CASES][here]
        return stream
    if here in stash[_MISSING]:
        file: ExpectationFile = ExpectationFile.from_parent(parent, path=file_path)
        file.missing = stash[_MISSING][here]
        return file
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A directory that another argument contains as well is tested once."""
    seen: set[str] = set()
    items[:] = [item for item in items if not isinstance(item, _Item) or _first(item.nodeid, seen)]


def _first(name: str, seen: set[str]) -> bool:
    new = name not in seen
    seen.add(name)
    return new


def _lies_in(path: Path, folder: Path) -> bool:
    real, around = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    return real == around or around in real.parents


def _expected_in(stream: str) -> str:
    """The file that speaks of a stream which is not there."""
    from migrate.corpus.expectations import SHARED_NAME, SUFFIX

    own = stream + SUFFIX
    return own if os.path.exists(own) else os.path.join(os.path.dirname(stream), SHARED_NAME)
