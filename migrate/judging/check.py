"""One stream, judged: bytes in, a report out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from migrate.destination.placement import check_name
from migrate.destination.releases import resolve
from migrate.judging.judgement import Judgement, Question
from migrate.judging.report import Report
from migrate.rules.selection import Selection
from streams.compression import MAX_EXPANSION
from streams.decoder import Decoder, drive
from streams.transports import open_transport

Source = str | os.PathLike[str] | int | bytes | bytearray | memoryview


class Checker:
    """Judge a stream that is fed in pieces.

    Parameters are those of `check`. Feed bytes as they come, then close.
    """

    def __init__(
        self,
        *,
        name: str = "-",
        target: str = "newest",
        placement: str = "source",
        vcpus: int | None = None,
        select: Sequence[str] = (),
        ignore: Sequence[str] = (),
    ) -> None:
        from streams.feeder import Feeder

        self._target = resolve(target)
        self._placement = check_name(placement)
        self._selection = Selection(select, ignore)
        self.judgement = Judgement(None, name, vcpus)
        self.judgement.watch_checkpoints([(self._target, self._placement, None)])
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
            self._report = self.judgement.report(self._target, self._placement, self._selection)
        return self._report


def judge(
    source: Source,
    *,
    vcpus: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    questions: Sequence[Question] = (),
    verify: bool = False,
    max_expansion: int = MAX_EXPANSION,
    then: Callable[[Judgement], Any],
) -> Any:
    """Read a stream once, and do something with the judgement while its bytes can still be read again.

    Parameters
    ----------
    questions:
        what to judge each checkpoint of a checkpointed stream by.
    verify:
        compare the pages of a VERIFY phase.
    then:
        gets the judgement; what it returns is returned.
    Others as for `check`.

    Raises
    ------
    OSError, TransportError
        for input that cannot be read.
    """
    name = source if isinstance(source, str) else os.fspath(source) if isinstance(source, os.PathLike) else "-"
    with open_transport(source, max_expansion=max_expansion) as transport:
        judgement = Judgement(transport, name, vcpus)
        judgement.watch_checkpoints(questions)
        if verify:
            judgement.compare_verify_phase()
        drive(Decoder(judgement.restorer).run(), transport, progress)
        judgement.finish(transport.position)
        return then(judgement)


def survey(
    source: Source,
    *,
    targets: Sequence[str] = ("newest",),
    variants: Sequence[str | None] = (None,),
    placement: str = "source",
    vcpus: int | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    verify: bool = False,
    max_expansion: int = MAX_EXPANSION,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[Report]:
    """Reports of one stream for several releases and forms of the 4 GiB rule, from one reading.

    Parameters
    ----------
    targets, variants:
        every target is combined with every variant (None: the target's own form of the rule).
    Others as for `check`.
    """
    releases = [resolve(target) for target in targets]
    check_name(placement)
    selection = Selection(select, ignore)
    reports: list[Report] = judge(
        source,
        vcpus=vcpus,
        progress=progress,
        verify=verify,
        max_expansion=max_expansion,
        questions=[(release, placement, variant) for release in releases for variant in variants],
        then=lambda judgement: [
            judgement.report(release, placement, selection, variant) for release in releases for variant in variants
        ],
    )
    return reports


def check(
    source: Source,
    *,
    target: str = "newest",
    placement: str = "source",
    vcpus: int | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    l3_rule: str | None = None,
    verify: bool = False,
    max_expansion: int = MAX_EXPANSION,
    progress: Callable[[int, int | None], None] | None = None,
) -> Report:
    """Would this stream be restored?

    Parameters
    ----------
    source:
        a path, "-" for standard input, a file descriptor, or the stream's bytes.
    target:
        the Xen release that restores it: "4.20", "4.20.3", "newest".
    placement:
        where the guest's frames land: source, high, low, identity or file:MAP.
    vcpus:
        the domain's vcpu count; by default what an xl file's config says, else the stream is believed.
    select, ignore:
        rules to tell of, by id, prefix or slug; the verdict always heeds all.
    l3_rule:
        a form of the 4 GiB rule to try instead of the target's own: L3V-1 … (`migrate.rules.extended_cr3`).
    verify:
        compare the pages of a VERIFY phase with those sent before it (XRC-46): every page is read.
    max_expansion:
        how many times its length compressed input may decode to, where that is more than 4 GiB; 0 for any.
    progress:
        called now and then with the position and the total size in bytes, where known.

    Raises
    ------
    OSError, TransportError
        for input that cannot be read.
    ValueError
        for an unknown target, placement or rule.
    """
    return survey(
        source,
        targets=[target],
        variants=[l3_rule],
        placement=placement,
        vcpus=vcpus,
        select=select,
        ignore=ignore,
        verify=verify,
        max_expansion=max_expansion,
        progress=progress,
    )[0]


__all__ = ["Checker", "check", "judge", "survey"]
