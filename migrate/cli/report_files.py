"""Where a report goes: one document, or a folder with a page for each stream and one that leads to them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

import click

from migrate.cli.ending import ExitCode, complain
from migrate.cli.output import is_same, stream_output
from migrate.cli.signals import orderly_signals
from migrate.whole_file import whole_file
from streams.counting import count
from streams.values import replace

if TYPE_CHECKING:
    from migrate.reports.html.section import Section


class ReportFiles:
    """What takes the streams' parts of a report, one after the other."""

    def __init__(self) -> None:
        self.sections: list[Section] = []

    def add(self, section: Section) -> None:
        """Take the part of the next stream."""
        self.sections.append(section)

    def finish(self) -> str:
        """Write what has to wait for all of them; returns what there is now, in a few words."""
        raise NotImplementedError


class _OneDocument(ReportFiles):
    def __init__(self, out: IO[bytes]) -> None:
        super().__init__()
        self.out = out

    def finish(self) -> str:
        from migrate.reports.html.document import write

        return count(write(self.sections, self.out), "byte")


class _Folder(ReportFiles):
    """Each page is written, and forgotten, as soon as its stream is judged; the index comes last."""

    def __init__(self, folder: str, sources: Sequence[str], *, force: bool) -> None:
        super().__init__()
        self.folder, self.sources, self.force = folder, sources, force
        self.pages: list[str | None] = []
        self.made: list[str] = []
        self.size = 0

    def add(self, section: Section) -> None:
        """Write the page of a stream; there is nothing to see of one that cannot be read."""
        from markupsafe import Markup

        from migrate.reports.html.document import write
        from migrate.reports.html.naming import INDEX, page_name

        page = None if section.lost else page_name(section.name, len(self.pages) + 1)
        if page is not None:
            with self._file(page) as out:
                self.size += write([section], out, index=INDEX)
        self.pages.append(page)
        super().add(replace(section, html=Markup(), parts=[], rules=frozenset()))

    def finish(self) -> str:
        from migrate.reports.html.document import write_index
        from migrate.reports.html.naming import INDEX

        with self._file(INDEX) as out:
            self.size += write_index(self.sections, self.pages, out)
        return f"{count(len(self.made), 'page')}, {count(self.size, 'byte')}"

    @contextmanager
    def _file(self, name: str) -> Iterator[IO[bytes]]:
        path = os.path.join(self.folder, name)
        if any(is_same(path, source) for source in self.sources):
            _give_up(f"{path} is what is read: it is never overwritten")
        new = not os.path.lexists(path)
        try:
            with whole_file(path, private=True, replace=self.force) as out:
                yield out
        except FileExistsError:
            _give_up(f"{path} exists; --force overwrites it")
        if new:
            self.made.append(path)

    def take_back(self) -> None:
        """Remove the pages that were not there before."""
        for path in self.made:
            with suppress(OSError):
                os.unlink(path)


@contextmanager
def report_files(output: str, sources: Sequence[str], *, force: bool) -> Iterator[ReportFiles]:
    """Where to put a report: a folder if one is there or the name ends with a slash, else a document.

    What is not finished leaves nothing behind that was not there before. What is new is its owner's alone: a report
    shows registers, the configuration, and what else the guest holds.

    Raises
    ------
    click.exceptions.Exit
        once it has said why nothing can be written there; after TERM and HUP.
    OSError
        for a file or folder that cannot be written.
    """
    if not (output.endswith(os.sep) or os.path.isdir(output)):
        with stream_output(output, force=force, sources=sources, what="a report") as out:
            yield _OneDocument(out)
        return
    from migrate.reports.html.naming import INDEX

    index = os.path.join(output, INDEX)
    if os.path.lexists(index) and not force:
        _give_up(f"{index} exists; --force overwrites it")
    new = not os.path.isdir(output)
    if new:
        os.mkdir(output, 0o700)
    files = _Folder(output, sources, force=force)
    with orderly_signals():
        try:
            yield files
        except BaseException:
            files.take_back()
            if new:
                with suppress(OSError):
                    os.rmdir(output)
            raise


def _give_up(why: str) -> None:
    complain(why)
    raise click.exceptions.Exit(ExitCode.FAILED)
