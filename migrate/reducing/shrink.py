"""The smallest stream that still shows a finding.

    shrunk = shrink(data, "HYP-22", placement="high")
    Path("small.libxc").write_bytes(shrunk.stream)

A stream is taken apart into its items, which are left out as long as the finding and the verdict stay, and no
other reason comes up for which a restore would fail: the container, vcpus, records and rounds, pages together with
all that refers to them, pfns; at last words of the pages that are left become zero. Every step is tried on the
validator itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from migrate.destination.destination import DEFAULT_PLACEMENT
from migrate.judging.check import check
from migrate.reducing.items import Contents, Items, contents, taken_apart
from migrate.reducing.stream_memory import Memory
from migrate.rules.declaring import Severity
from streams.bodies import Body, P2mFrames, PvInfo, SharedInfo, VcpuBasic, VcpuExtended, VcpuMsrs, VcpuXsave
from streams.encoder import Item, encode
from streams.records import DomainStart, ImageStart, LibxlRecord, PageData, Trailing, XapiBlock
from streams.wire.framing import PAGE_SIZE
from streams.wire.shared_info import SHARED_INFO
from streams.wire.views import view

if TYPE_CHECKING:
    from migrate.judging.report import Report
    from migrate.rules.findings import Finding

# Beyond so many words that are not zero, pages alone are made zero.
WORDS_TRIED = 1 << 16
# Where pfns cannot all go, groups of at least this share of them are tried.
PFN_GROUPS = 32


class NothingToShowError(ValueError):
    """The stream does not show the finding that is to be kept."""


class _OutOfTime(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The outcome.

    Attributes
    ----------
    finding:
        the finding that was kept, as the small stream shows it.
    tried:
        how many streams were judged.
    finished:
        whether nothing more can be left out, rather than time having run out.
    """

    stream: bytes
    report: Report
    finding: Finding
    before: Contents
    after: Contents
    tried: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What has to stay.

    Attributes
    ----------
    kinds:
        what the finding is, wherever it is: rule, effect, step, call and errno; one of these is enough.
    first:
        id of the rule that the restore has to fail of; None where the finding is not the reason of its failure.
    allowed:
        rules that may be broken, of those that count.
    clean:
        whether warnings and errors count, or only what fails a restore.
    """

    kinds: frozenset[tuple[object, ...]]
    verdict: str
    first: str | None
    allowed: frozenset[str]
    clean: bool

    @classmethod
    def of(cls, report: Report, rule: str, *, clean: bool) -> Wanted:
        """What a report shows of a rule. Raises NothingToShowError where it shows nothing."""
        kinds = frozenset(_kind(finding) for finding in report.findings if finding.rule.id == rule)
        if not kinds:
            raise NothingToShowError(
                f"the stream shows no {rule} under Xen {report.target}, placement {report.placement}"
            )
        first = rule if report.failure and report.failure.rule == rule else None
        return cls(kinds, report.verdict, first, _broken(report, clean=clean) | {rule}, clean)

    def is_shown_by(self, report: Report) -> bool:
        """Whether a report has the finding with all that goes with it."""
        if report.verdict != self.verdict or not _broken(report, clean=self.clean) <= self.allowed:
            return False
        if self.first is not None and (report.failure is None or report.failure.rule != self.first):
            return False
        return any(_kind(finding) in self.kinds for finding in report.findings)

    def finding_in(self, report: Report) -> Finding:
        """The finding, in a report that shows it."""
        return next(finding for finding in report.findings if _kind(finding) in self.kinds)


def _kind(finding: Finding) -> tuple[object, ...]:
    return finding.rule.id, finding.effect, finding.step, finding.call, finding.errno


def _broken(report: Report, *, clean: bool) -> frozenset[str]:
    serious = (f for f in report.findings if f.fatal or (clean and f.severity.rank >= Severity.WARNING.rank))
    return frozenset(finding.rule.id for finding in serious)


def shrink(
    data: bytes,
    rule: str | None = None,
    *,
    target: str = "newest",
    placement: str = DEFAULT_PLACEMENT,
    vcpus: int | None = None,
    verify: bool = False,
    clean: bool = False,
    seconds: float = 60.0,
) -> Shrunk:
    """Leave out of a stream what a finding does not need.

    The same stream gives the same outcome, unless time runs out.

    Parameters
    ----------
    data:
        a whole stream, uncompressed.
    rule:
        id of the rule whose finding is to stay; by default the one that the restore fails of.
    target, placement, vcpus, verify:
        as for `migrate.check`.
    clean:
        break no rule on the way that the stream does not break already, infos apart. Otherwise only what would fail
        a restore is kept out.
    seconds:
        how long to try.

    Raises
    ------
    NothingToShowError
        for a stream without such a finding.
    ValueError
        for an unknown target or placement.
    """

    def judge(stream: bytes) -> Report:
        return check(stream, target=target, placement=placement, vcpus=vcpus, verify=verify)

    report = judge(data)
    if rule is None and report.failure is None:
        raise NothingToShowError(report.unjudged_because or "the restore does not fail: say which finding is to stay")
    rule = rule or (report.failure.rule if report.failure else "")
    wanted = Wanted.of(report, rule, clean=clean)
    items = taken_apart(data)
    work = _Shrinker(items, report, judge, wanted, time.monotonic() + seconds)
    finished = work.run()
    return Shrunk(
        stream=encode(work.best),
        report=work.report,
        finding=wanted.finding_in(work.report),
        before=contents(items),
        after=contents(work.best),
        tried=work.tried,
        finished=finished,
    )


class _Shrinker:
    """The smallest stream found so far, and the ways to a smaller one."""

    def __init__(
        self, items: Items, report: Report, judge: Callable[[bytes], Report], wanted: Wanted, deadline: float
    ) -> None:
        self.best = items
        self.report = report  # of the best
        self.tried = 0
        self._judge = judge
        self._wanted = wanted
        self._deadline = deadline

    def run(self) -> bool:
        """Go all ways until none leads on; returns whether there was time for that."""
        ways = (
            self._containers,
            self._vcpus,
            self._records,
            self._pages,
            self._versions,
            self._pfns,
            self._max_pfn,
            self._joined,
            self._contents,
            self._tail,
        )
        try:
            while True:
                before = self.best
                for way in ways:
                    way()
                if self.best is before and not self._became_readable():
                    return True
        except _OutOfTime:
            return False

    def _try(self, items: Items) -> bool:
        """Whether these items will do; if so they are the best."""
        if time.monotonic() >= self._deadline:
            raise _OutOfTime
        self.tried += 1
        report = self._judge(encode(items))
        good = self._wanted.is_shown_by(report)
        if good:
            self.best, self.report = items, report
        return good

    def _became_readable(self) -> bool:
        """Whether what could not be read can be, now that something before it is gone; it is items from now on."""
        items = taken_apart(encode(self.best))
        if list(map(type, items)) == list(map(type, self.best)):
            return False
        self.best = items
        return True

    # -- whole items -------------------------------------------------------------------------------

    def _containers(self) -> None:
        """Take the image out of its containers."""
        bare = tuple(i for i in self.best if isinstance(i, ImageStart | DomainStart | Body | PageData | Trailing))
        if len(bare) < len(self.best):
            self._try(bare)

    def _vcpus(self) -> None:
        """Leave out all records of a vcpu, the last one first."""
        ids = sorted({item.vcpu_id for item in self.best if isinstance(item, _VCPU)}, reverse=True)
        items = self.best

        def still(kept: list[int]) -> bool:
            gone = set(ids).difference(kept)
            return self._try(tuple(i for i in items if not (isinstance(i, _VCPU) and i.vcpu_id in gone)))

        ddmin(ids, still)

    def _records(self) -> None:
        """Leave out records, of the image and around it."""
        items = self.best
        loose = [at for at, item in enumerate(items) if isinstance(item, Body | PageData | LibxlRecord | XapiBlock)]

        def still(kept: list[int]) -> bool:
            gone = set(loose).difference(kept)
            return self._try(tuple(item for at, item in enumerate(items) if at not in gone))

        ddmin(loose, still)

    def _tail(self) -> None:
        """Cut short what follows the records."""
        match self.best:
            case (*items, Trailing() as last):
                length = 0
                while length < len(last.content) and not self._try(
                    (*items, replace(last, content=last.content[:length]))
                ):
                    length = length * 2 or 1

    # -- memory ------------------------------------------------------------------------------------

    def _pages(self) -> None:
        """Take pages out of the guest, with every page-table entry that names them."""
        memory = Memory(self.best)
        ddmin(memory.data_pfns(), lambda kept: self._try(memory.without_pages_but(kept)))

    def _pfns(self) -> None:
        """Leave out pfns that come without a page; all at once, or in groups."""
        memory = Memory(self.best)
        empty = memory.empty_words()
        if len(empty):
            finest = max(1, len(empty) // PFN_GROUPS)
            ddmin(empty, lambda kept: self._try(memory.without_words(set(empty).difference(kept))), finest=finest)

    def _versions(self) -> None:
        """Send a page once, where it is sent in several rounds."""
        memory = Memory(self.best)
        again = memory.repeated_words()
        ddmin(again, lambda kept: self._try(memory.without_words(set(again).difference(kept))))

    def _max_pfn(self) -> None:
        """Take away the end of the guest's memory, where there is no page."""
        width = next((item.guest_width for item in self.best if isinstance(item, PvInfo)), None)
        lists = [item for item in self.best if isinstance(item, P2mFrames)]
        if width not in SHARED_INFO or len(lists) != 1 or lists[0].start_pfn:
            return
        memory = Memory(self.best)
        last = max(memory.data_pfns(), default=-1)
        if not 0 <= last < lists[0].end_pfn:
            return
        pages = last // (PAGE_SIZE // width) + 1
        shorter: list[Item] = []
        for item in memory.without_pfns_beyond(last):
            if isinstance(item, P2mFrames):
                item = replace(item, end_pfn=last, pfns=item.pfns[:pages])
            elif isinstance(item, SharedInfo):
                content = bytearray(item.content)
                view(SHARED_INFO[width], content)["arch"]["max_pfn"] = last + 1
                item = replace(item, content=bytes(content))
            shorter.append(item)
        self._try(tuple(shorter))

    def _joined(self) -> None:
        """Put PAGE_DATA records that follow one another into one."""
        joined = Memory(self.best).joined()
        if len(joined) < len(self.best):
            self._try(joined)

    def _contents(self) -> None:
        """Make pages zero, and then words of those that are left."""
        memory = Memory(self.best)
        pages = memory.pages_in_use()
        ddmin(pages, lambda kept: self._try(memory.with_zeros_but_pages(kept)))
        memory = Memory(self.best)
        words = memory.words_in_use()
        if 0 < len(words) <= WORDS_TRIED:
            ddmin(words, lambda kept: self._try(memory.with_zeros_but_words(kept)))


_VCPU = VcpuBasic | VcpuExtended | VcpuXsave | VcpuMsrs


T = TypeVar("T")


def ddmin(things: Sequence[T], still: Callable[[list[T]], bool], *, finest: int = 1) -> list[T]:
    """Leave out what can be left out; what stays is in its order.

    Parameters
    ----------
    still:
        whether some of the things are enough. It holds of all of them, and is not asked that.
    finest:
        the least number of things that are left out at a time. With 1, no single one of what stays can go.

    Returns
    -------
    list
        of n things with k that stay, after about 2 k log2(n / k) questions; 2 n where all stay.
    """
    kept = list(things)
    chunk = len(kept)
    while kept and chunk >= max(finest, 1):
        before = len(kept)
        at = 0
        while at < len(kept):
            candidate = kept[:at] + kept[at + chunk :]
            if still(candidate):
                kept = candidate
            else:
                at += chunk
        if chunk == 1:
            # Something that could not go may have become free by what went after it.
            if len(kept) == before:
                break
        else:
            chunk //= 2
    return kept
