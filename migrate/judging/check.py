"""One stream, judged: bytes in, a report out."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from migrate.destination.destination import Destination
from migrate.judging.judgement import Judgement
from migrate.judging.report import Report
from migrate.rules.selection import Selection
from streams.compression import MAX_EXPANSION
from streams.decoder import Decoder, drive
from streams.opening import open_transport
from streams.transports import Readable, Transport, TransportError, ends_before

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from migrate.destination.host import Host

_STDIN = ("-", 0)
Source = str | os.PathLike[str] | int | bytes | bytearray | memoryview | Readable


def destination_of(
    destination: Destination | None,
    target: str | None,
    placement: str | None,
    *,
    l3_rule: str | None = None,
    vcpus: int | None = None,
    host: Host | str | os.PathLike[str] | None = None,
) -> Destination:
    """The destination that is given, whole or in its parts. Raises ValueError for both, and as `Destination` does."""
    if destination is None:
        return Destination(target, placement, l3_rule=l3_rule, vcpus=vcpus, host=host)
    parts = {"target": target, "placement": placement, "l3_rule": l3_rule, "vcpus": vcpus, "host": host}
    given = [name for name, part in parts.items() if part is not None]
    if given:
        raise ValueError(f"a destination is given, and {' and '.join(given)} beside it: {given[0]} belongs into it")
    return destination


class Checker:
    """Judge a stream that is fed in pieces.

    Parameters are those of `check`. Feed bytes as they come, then close.
    """

    def __init__(
        self,
        *,
        name: str = "-",
        destination: Destination | None = None,
        target: str | None = None,
        placement: str | None = None,
        vcpus: int | None = None,
        host: Host | str | os.PathLike[str] | None = None,
        select: Sequence[str] = (),
        ignore: Sequence[str] = (),
    ) -> None:
        from streams.feeder import Feeder

        self._destination = destination_of(destination, target, placement, vcpus=vcpus, host=host)
        self._selection = Selection(select, ignore)
        self.judgement = Judgement(None, name, self._destination.vcpus)
        self.judgement.watch_checkpoints([self._destination])
        self._feeder = Feeder(Decoder(self.judgement.restorer).run())
        self._report: Report | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the stream. Raises ValueError after `close`."""
        self._feeder.feed(data)

    def close(self) -> Report:
        """The stream is over: judge it. To close again gives the same report."""
        if self._report is None:
            self._feeder.close()
            self.judgement.finish(self._feeder.position)
            self._report = self.judgement.report(self._destination, self._selection)
        return self._report


def judge(
    source: Source,
    *,
    vcpus: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    questions: Sequence[Destination] = (),
    verify: bool = False,
    max_expansion: int = MAX_EXPANSION,
    offset: int = 0,
    then: Callable[[Judgement], Any],
) -> Any:
    """Read a stream once, and do something with the judgement while its bytes can still be read again.

    Parameters
    ----------
    questions:
        the destinations for which to judge each checkpoint of a checkpointed stream.
    verify:
        compare the pages of a VERIFY phase.
    then:
        gets the judgement; what it returns is returned.
    Others as for `check`.

    Raises
    ------
    OSError, TransportError
        for input that cannot be read or ends before `offset`, or standard input that is empty.
    """
    name = source if isinstance(source, str) else os.fspath(source) if isinstance(source, os.PathLike) else "-"
    with open_transport(source, max_expansion=max_expansion) as transport:
        judgement = Judgement(transport, name, vcpus)
        judgement.watch_checkpoints(questions)
        if verify:
            judgement.compare_verify_phase()
        drive(Decoder(judgement.restorer, offset=offset).run(), transport, progress)
        refuse_nothing(source, transport, offset)
        judgement.finish(transport.position)
        return then(judgement)


def refuse_nothing(source: Source, transport: Transport, offset: int = 0) -> None:
    """Raise TransportError where there was no stream to judge.

    That is a standard input that gave no byte, as nobody wrote one, and an input that ends before the byte where one
    is said to begin. An empty file is one that was cut: the receiver would read it, and refuse it.
    """
    if not transport.position and source in _STDIN:
        there = os.fstat(0)
        why = "the program that should have written the stream has written nothing"
        if stat.S_ISREG(there.st_mode):
            why = "standard input is a file at whose end reading began" if there.st_size else "the file is empty"
        raise TransportError(f"nothing came: {why}", 0)
    if offset and transport.position <= offset:
        raise ends_before(offset, transport.position)


def survey(
    source: Source,
    destinations: Sequence[Destination],
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    verify: bool = False,
    max_expansion: int = MAX_EXPANSION,
    offset: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[Report]:
    """Reports of one stream, one for each of several destinations, from one reading.

    Other parameters as for `check`. The destinations' number of vcpus has to be the same: a ValueError otherwise.
    """
    selection = Selection(select, ignore)
    counts = {destination.vcpus for destination in destinations}
    if len(counts) > 1:
        raise ValueError("destinations with different numbers of vcpus: ask for one number at a time")
    reports: list[Report] = judge(
        source,
        vcpus=next(iter(counts), None),
        progress=progress,
        verify=verify,
        max_expansion=max_expansion,
        offset=offset,
        questions=destinations,
        then=lambda judgement: [judgement.report(destination, selection) for destination in destinations],
    )
    return reports


def check(
    source: Source,
    destination: Destination | None = None,
    *,
    target: str | None = None,
    placement: str | None = None,
    vcpus: int | None = None,
    host: Host | str | os.PathLike[str] | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    l3_rule: str | None = None,
    verify: bool = False,
    max_expansion: int = MAX_EXPANSION,
    offset: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> Report:
    """Would this stream be restored?

    Parameters
    ----------
    source:
        a path, "-" for standard input, a file descriptor, the stream's bytes, or a file object that gives bytes.
    destination:
        where it would come back; else it is made of target, placement, vcpus, host and l3_rule.
    target, placement, vcpus, host, l3_rule:
        see `migrate.Destination`, whose release `target` is; `host` may be a host file's path.
    select, ignore:
        rules to tell of, by id, prefix or slug; the verdict always heeds all.
    verify:
        compare the pages of a VERIFY phase with those sent before it (XRC-46): every page is read.
    max_expansion:
        how many times its length compressed input may decode to, where that is more than 4 GiB; 0 for any.
    offset:
        byte at which the stream begins; what is before it is passed over, and counts in all offsets.
    progress:
        called now and then with the position and the total size in bytes, where known.

    Raises
    ------
    OSError, TransportError
        for input that cannot be read.
    ValueError
        for an unknown target, placement or rule, and a destination that is given twice.
    """
    destination = destination_of(destination, target, placement, l3_rule=l3_rule, vcpus=vcpus, host=host)
    return survey(
        source,
        [destination],
        select=select,
        ignore=ignore,
        verify=verify,
        max_expansion=max_expansion,
        offset=offset,
        progress=progress,
    )[0]


__all__ = ["Checker", "check", "judge", "survey"]
