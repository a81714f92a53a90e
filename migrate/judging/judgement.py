"""What one pass over a stream leaves: enough to judge it for any destination."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from migrate.judging.report import CheckpointVerdict, Report, damages
from migrate.rules.declaring import GuestKind, Verdict
from migrate.rules.findings import Collector, Failure, Finding
from migrate.rules.selection import Selection
from migrate.toolstack.facts import StreamFacts
from migrate.toolstack.restore import Restorer
from migrate.toolstack.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.destination.destination import Destination
    from migrate.destination.placement import Placement
    from migrate.guest.memory import PvGuest
    from migrate.toolstack.restore import Kind
    from migrate.xen.answers import StepAnswer, Trace
    from migrate.xen.hypercalls import Step
    from migrate.xen.replay import PvTrace
    from streams.records import Place
    from streams.transports import Transport

# A checkpointed stream goes on for as long as it likes: of more checkpoints than so many, those in the middle are
# left out that fare as the one before.
CHECKPOINTS_KEPT = 1000


class _Calls:
    """Xen's answers at one destination to what was asked while records were read, as far as that has come."""

    def __init__(self, session: Session, destination: Destination) -> None:
        from migrate.xen.answers import Answering

        self._session = session
        self.answering = Answering(destination, session.facts.guest or GuestKind.HVM, session.vcpus)
        self._answers: list[tuple[int, StepAnswer]] = []

    def answers(self) -> list[tuple[int, StepAnswer]]:
        """Each with the number of findings that the restore had met before."""
        for step, after in self._session.calls[len(self._answers) :]:
            self._answers.append((after, self.answering.answer(step)))
        return self._answers


class Judgement:
    """What one pass over a stream leaves: enough to judge it for any destination."""

    def __init__(self, transport: Transport | None, name: str, vcpus: int | None) -> None:
        self.facts = StreamFacts(name, compression=None if transport is None else transport.compression)
        self.collector = Collector()
        self.session = Session(self.collector, self.facts, transport, vcpus)
        self.restorer = Restorer(self.session)
        self.steps: Sequence[Step] = []
        self.completed = False
        self._calls: dict[Destination, _Calls] = {}
        self._replayed: dict[Destination, list[Finding] | None] = {}
        self._placements: dict[str, Placement] = {}
        self._questions: tuple[Destination, ...] = ()
        self._at_checkpoints: dict[Destination, list[CheckpointVerdict]] = {}
        self._judged_at = -1  # records when a checkpoint was last judged
        self._unseen: dict[Destination, int] = {}  # a pfn that Xen reads as a table, and whose contents were not kept

    @property
    def pv_guest(self) -> PvGuest | None:
        """The reconstructed guest of a PV stream that has got so far as to say that it is one."""
        if self.facts.guest != GuestKind.PV or self.restorer.kind is None:
            return None
        from migrate.toolstack.pv import PvRestore

        kind = self.restorer.kind
        return kind.guest if isinstance(kind, PvRestore) else None

    def prepare(self) -> None:
        """Import what the end will need, while there is time."""
        if self.facts.guest == GuestKind.PV:
            from migrate.judging import other_placements  # noqa: F401
            from migrate.xen import replay, schedules  # noqa: F401

    # -- the end of the stream ---------------------------------------------------------------------

    def complete(self) -> None:
        """END has come, or never will: what libxc would do now."""
        self.completed = True
        self._placements.clear()
        self._replayed.clear()
        self.steps = self.restorer.complete()

    def finish(self, size: int) -> None:
        """The stream is over, or has broken off: gather what is left to say."""
        if not self.completed:
            self.complete()
        self.restorer.unchecked_faults()
        self.facts.bytes = size
        if (guest := self.pv_guest) is not None:
            from migrate.judging.pv_facts import tell

            tell(guest, self.facts)

    # -- Xen's answers -----------------------------------------------------------------------------

    def calls(self, destination: Destination) -> list[tuple[int, StepAnswer]]:
        """Answers to the calls made while records are read, each with the number of findings met before it."""
        return self._answering(destination).answers()

    def _answering(self, destination: Destination) -> _Calls:
        asked = destination.for_xen
        if asked not in self._calls:
            self._calls[asked] = _Calls(self.session, asked)
        return self._calls[asked]

    def replay(self, destination: Destination, schedule: str = "restore", *, exact: bool = True) -> Trace | None:
        """The restore from END on at one destination; None where the stream never got there.

        Parameters
        ----------
        schedule:
            the order of the hypercalls (a name of `migrate.xen.schedules.SCHEDULES`).
        exact:
            replay every page type; else leave out what a guest that is plainly sound cannot be refused for.
        """
        if not self.steps:
            return None
        if self.facts.guest == GuestKind.PV:
            return self.pv_replay(destination, schedule, exact=exact)
        from migrate.xen.answers import Trace

        self.calls(destination)
        answering = self._answering(destination).answering
        return Trace([answering.answer(step) for step in self.steps])

    def pv_replay(self, destination: Destination, schedule: str = "restore", *, exact: bool = True) -> PvTrace | None:
        """The same for a PV guest alone."""
        from migrate.toolstack.pv import PvRestore

        kind, where = self.restorer.kind, self.placement(destination.placement)
        if not self.steps or where is None or not isinstance(kind, PvRestore):
            return None
        from migrate.xen.program import Program
        from migrate.xen.replay import PvReplay
        from migrate.xen.schedules import SCHEDULES

        self.calls(destination)
        known = self.session.vcpus
        vcpus = known if known is not None else max(kind.guest.vcpus, default=-1) + 1
        replay = PvReplay(kind.guest, self._answering(destination).answering, where, vcpus)
        assert isinstance(self.steps, Program)
        trace = replay.run(SCHEDULES[schedule](self.steps), None if exact else kind.tally)
        if trace.hypervisor is not None and trace.hypervisor.unseen:
            self._unseen[destination.for_xen] = min(trace.hypervisor.unseen)
        return trace

    def placement(self, name: str) -> Placement | None:
        """Where a placement puts the guest's frames; None unless it is a PV guest."""
        guest = self.pv_guest
        if guest is None:
            return None
        if name not in self._placements:
            from migrate.destination.placement import place

            self._placements[name] = place(name, guest)
        return self._placements[name]

    def answers(self, destination: Destination, schedule: str = "restore") -> list[StepAnswer]:
        """The hypercalls of the restore in the order of a schedule, from the first to the last, past refusals."""
        trace = self.replay(destination, schedule)
        refused = self._not_created(destination)
        if refused is None:
            first = []
        else:
            from migrate.xen.answers import StepAnswer
            from migrate.xen.hypercalls import CreateDomain

            first = [StepAnswer(CreateDomain(), refused)]
        return first + [answer for _, answer in self.calls(destination)] + (trace.answers if trace else [])

    def _not_created(self, destination: Destination) -> Finding | None:
        """Why a known host has no such guests."""
        return self._answering(destination).answering.created() if self.facts.guest else None

    # -- the verdict -------------------------------------------------------------------------------

    def _while_reading(self, destination: Destination) -> Iterator[tuple[bool, Finding]]:
        """What the restore meets while it reads, in order; and whether that is certain whatever else comes."""
        findings, calls = self.collector.findings, self.calls(destination)
        course = self.session.course
        before_doubt = course.findings_before_doubt if course.doubt is not None else len(findings)
        if (refusal := self._not_created(destination)) is not None:
            yield True, refusal
        at = 0
        for number, finding in enumerate([*findings, None]):
            while at < len(calls) and calls[at][0] <= number:
                after, answer = calls[at]
                yield from ((after <= before_doubt, found) for found in answer.findings)
                at += 1
            if finding is not None and finding.in_force(destination):
                yield number < before_doubt, finding

    def refusal(self, destination: Destination) -> Finding | None:
        """The first thing that stops the restore, if any does: no more work than that takes."""
        return self._first(destination, harm=False)

    def guarded_against(self, destination: Destination) -> Finding | None:
        """The refusal; where there is none, the first thing that a host may go down for."""
        return self._first(destination, harm=True)

    def _first(self, destination: Destination, *, harm: bool) -> Finding | None:
        met = [finding for _, finding in self._while_reading(destination)]
        found = [finding for finding in met if self.session.course.in_time(finding)]
        if not any(finding.fatal for finding in found) and (trace := self.replay(destination, exact=False)) is not None:
            found += trace.findings
        found += [finding for finding in met if not self.session.course.in_time(finding)]
        first = next((finding for finding in found if finding.fatal), None)
        if first is None and harm:
            first = next((finding for finding in found if finding.effect.harms_host), None)
        return first

    def told_by_toolstack(self, destination: Destination) -> list[Finding]:
        """What is found while a stream is read, whatever Xen says to it; floods folded."""
        return _folded(finding for finding in self.collector.findings if finding.in_force(destination))

    def report(self, destination: Destination, selection: Selection) -> Report:
        """The report for one destination."""
        met = list(self._while_reading(destination))
        course = self.session.course
        findings = _folded(finding for _, finding in met if course.in_time(finding))
        replayed = self._replay_findings(destination)
        findings += replayed or []
        if (guest := self.pv_guest) is not None and replayed is not None:
            from migrate.judging.other_placements import other_placements

            findings += other_placements(guest, destination, self._refused_with)
        if (short := self._short_of_memory(destination)) is not None:
            findings.append(short)
        findings += [finding for _, finding in met if not course.in_time(finding)]
        fatal = next((finding for finding in findings if finding.fatal), None)
        certain = any(finding is fatal and sure for sure, finding in met)
        reason = self.unjudged_because(destination) if fatal is None or (course.doubt and not certain) else None
        verdict = Verdict.UNJUDGED if reason else Verdict.REFUSE if fatal else Verdict.ACCEPT
        return Report(
            stream=self.facts,
            destination=destination,
            verdict=verdict,
            failure=None if verdict != Verdict.REFUSE or fatal is None else _failure(fatal),
            findings=[finding for finding in findings if selection.wants(finding.rule)],
            unjudged_because=reason,
            damaged=verdict == Verdict.ACCEPT and any(map(damages, findings)),
            checkpoints=self._at_checkpoints.get(destination, []),
        )

    def _replay_findings(self, destination: Destination) -> list[Finding] | None:
        """What the replay finds, once for all hosts that are alike; None where the stream never got there."""
        asked = destination.for_xen
        if asked not in self._replayed:
            trace = self.replay(asked, exact=False)
            self._replayed[asked] = None if trace is None else _told_once(trace)
        return self._replayed[asked]

    def _refused_with(self, destination: Destination) -> str | None:
        """The rule by which the replay is refused at a destination."""
        found = self._replay_findings(destination) or []
        return next((finding.rule.id for finding in found if finding.fatal), None)

    def unjudged_because(self, destination: Destination | None = None) -> str | None:
        """Why no verdict can be given for a destination, or for one of those that were asked; None where one can."""
        if self.session.course.doubt:
            return self.session.course.doubt
        if self.restorer.containers.colo:
            return "a COLO stream: the secondary runs from the first checkpoint on"
        asked = self._unseen.keys() & (self._unseen.keys() if destination is None else {destination.for_xen})
        if asked:
            pfn = min(self._unseen[one] for one in asked)
            return (
                f"Xen reads pfn {pfn:#x} as a page table; it came as data and was not kept, as it can be of a file only"
            )
        return None

    def _short_of_memory(self, destination: Destination) -> Finding | None:
        """Whether a known host has less memory free than the guest needs."""
        kind, host, restored = self.facts.guest, destination.host, self.restorer.kind
        if host is None or kind is None or restored is None:
            return None
        from migrate.judging.room_on_host import short_of_memory
        from migrate.toolstack.hvm import HvmRestore

        guest = self.pv_guest
        if isinstance(restored, HvmRestore):
            pages = restored.guest.populated.pages
        else:
            pages = 0 if guest is None else guest.frames
        return short_of_memory(host, kind, pages, destination.vcpus or self.facts.vcpus or 1)

    @property
    def page_tables(self) -> int:
        """Page tables in hand; 0 for a guest that sends none."""
        guest = self.pv_guest
        return 0 if guest is None else len(guest.store.tables()[0])

    def compare_verify_phase(self) -> None:
        """Compare pages sent after VERIFY with what came before: every page is read, and a digest kept of each."""
        from migrate.toolstack.page_comparison import VerifyPhase

        self.restorer.verify = VerifyPhase(self.collector, self.session.transport)

    # -- checkpoints -------------------------------------------------------------------------------

    def watch_checkpoints(self, questions: Sequence[Destination]) -> None:
        """At each checkpoint of a checkpointed stream, judge what the secondary would have in hand.

        Has to be asked before the stream flows: state that the next checkpoint replaces is not kept.
        """
        # Hosts of which the same is known are the same destination.
        self._questions = tuple(dict.fromkeys(questions))
        self.restorer.on_checkpoint = self._checkpoint

    def _checkpoint(self, place: Place) -> None:
        kind = self.restorer.kind
        if kind is None or self.session.course.end_unknown:
            return
        unchanged, self._judged_at = self.facts.records == self._judged_at + 1, self.facts.records
        for question, failure in self._failures(kind, unchanged):
            verdict = Verdict.REFUSE if failure else Verdict.ACCEPT
            kept = self._at_checkpoints.setdefault(question, [])
            kept.append(CheckpointVerdict(self.facts.checkpoints, place.offset, verdict, failure))
            if len(kept) > CHECKPOINTS_KEPT:
                middle = range(CHECKPOINTS_KEPT // 2, CHECKPOINTS_KEPT)
                del kept[next((at for at in middle if kept[at].verdict == kept[at - 1].verdict), middle.start)]

    def _failures(self, kind: Kind, unchanged: bool) -> Iterator[tuple[Destination, Failure | None]]:
        """For each question what would fail if the stream ended here; as last time, where nothing has come since."""
        if unchanged:
            yield from [(question, kept[-1].failure) for question, kept in self._at_checkpoints.items()]
            return
        self._placements.clear()
        self._replayed.clear()
        with self.collector.trial() as found:
            self.steps = kind.complete()
        for destination in self._questions:
            fatal = self.refusal(destination)
            fatal = fatal or next((f for f in found if f.fatal and f.in_force(destination)), None)
            yield destination, _failure(fatal) if fatal else None
        self.steps = []


def _folded(findings: Iterable[Finding]) -> list[Finding]:
    """Floods of findings, of records and of calls alike, told in part and counted."""
    collector = Collector()
    for finding in findings:
        collector.add(finding)
    return collector.findings


def _told_once(trace: Trace) -> list[Finding]:
    """A table that is refused where it is first reached is refused again by later calls: told once."""
    seen: dict[object, Finding] = {}
    for finding in trace.findings:
        seen.setdefault((finding.rule.id, finding.pfn, finding.slot) if finding.pfn is not None else finding, finding)
    return _folded(seen.values())


def _failure(finding: Finding) -> Failure:
    return Failure(
        rule=finding.rule.id,
        step=finding.step,
        call=finding.call,
        message=finding.message,
        vcpu=finding.vcpu,
        pfn=finding.pfn,
        errno=finding.errno,
        signal=finding.signal,
        finding=finding,
    )
