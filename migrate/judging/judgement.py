"""What one pass over a stream leaves: enough to judge it under any target and placement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from migrate.judging.report import CheckpointVerdict, Report
from migrate.rules.findings import Collector, Failure, Finding
from migrate.rules.selection import Selection
from migrate.toolstack.facts import StreamFacts
from migrate.toolstack.restore import Restorer

if TYPE_CHECKING:
    from migrate.destination.destination import Destination
    from migrate.destination.placement import Placement
    from migrate.toolstack.restore import Kind
    from migrate.xen.hypercalls import Step
    from migrate.xen.replay import StepAnswer, Trace
    from streams.records import Place
    from streams.transports import Transport


# A checkpointed stream goes on for as long as it likes: of more checkpoints than so many, those in the middle are
# left out that fare as the one before.
CHECKPOINTS_TOLD = 1000


class Judgement:
    """What one pass over a stream leaves: enough to judge it under any target and placement."""

    def __init__(self, transport: Transport | None, name: str, vcpus: int | None) -> None:
        self.facts = StreamFacts(name)
        self.collector = Collector()
        self.restorer = Restorer(self.collector, self.facts, transport, vcpus)
        self.steps: list[Step] = []
        self.completed = False
        self._placements: dict[str, Placement] = {}
        self._questions: tuple[Destination, ...] = ()
        self._at_checkpoints: dict[Destination, list[CheckpointVerdict]] = {}
        self._judged_at = -1  # records when a checkpoint was last judged

    def prepare(self) -> None:
        """Import what the end will need, while there is time."""
        if self.facts.guest == "pv":
            from migrate.judging import other_placements, pv_facts  # noqa: F401
            from migrate.xen import replay, schedules  # noqa: F401

    def complete(self) -> None:
        """END has come, or never will: what libxc would do now."""
        self.completed = True
        self._placements.clear()
        self.steps = self.restorer.complete()

    def finish(self, size: int) -> None:
        """The stream is over, or has broken off: gather what is left to say."""
        if not self.completed:
            self.complete()
        self.restorer.unchecked_faults()
        self.facts.bytes = size
        if self.facts.guest == "pv" and self.restorer.kind is not None:
            from migrate.judging.pv_facts import fill

            fill(self)

    def replay(
        self,
        destination: Destination,
        schedule: str = "restore",
        *,
        exact: bool = True,
    ) -> Trace | None:
        """The restore from END on at one destination; None where the stream never got there.

        Parameters
        ----------
        schedule:
            the order of the hypercalls (a name of `migrate.xen.schedules.SCHEDULES`).
        exact:
            replay every page type; else leave out what a guest that is plainly sound cannot be refused for.
        """
        if not self.steps or self.facts.guest != "pv":
            return None
        from migrate.judging.pv_facts import vcpu_count
        from migrate.toolstack.pv import PvRestore
        from migrate.xen.replay import PvReplay
        from migrate.xen.schedules import SCHEDULES

        kind, where = self.restorer.kind, self.placement(destination.placement)
        assert isinstance(kind, PvRestore)
        assert where is not None
        replay = PvReplay(kind.guest, destination, where, vcpu_count(self))
        return replay.run(SCHEDULES[schedule](self.steps), None if exact else kind.tally)

    def placement(self, name: str) -> Placement | None:
        """Where a placement puts the guest's frames; None unless it is a PV guest."""
        from migrate.toolstack.pv import PvRestore

        if not isinstance(self.restorer.kind, PvRestore):
            return None
        if name not in self._placements:
            from migrate.destination.placement import place

            self._placements[name] = place(name, self.restorer.kind.guest)
        return self._placements[name]

    def refusal(self, destination: Destination) -> Finding | None:
        """The first thing that stops the restore, if any does: no more work than that takes."""
        fatal = [f for f in self.collector.findings if f.fatal and f.in_force(destination)]
        first = next(filter(self._in_time, fatal), None)
        if first is None and (trace := self.replay(destination, exact=False)) is not None:
            first = next((f for f in trace.findings if f.fatal), None)
        return first or next(iter(fatal), None)

    def _in_time(self, finding: Finding) -> bool:
        """Whether the restore meets a finding by END: what a container says of later bytes comes after the replay."""
        end = self.restorer.end_offset
        return end is None or finding.offset is None or finding.offset <= end

    def report(self, destination: Destination, selection: Selection) -> Report:
        """The report for one destination."""
        findings = [f for f in self.collector.findings if f.in_force(destination)]
        trace = self.replay(destination, exact=False)
        if trace is not None:
            findings += _folded(trace)
            from migrate.judging.other_placements import other_placements

            findings += other_placements(self, destination)
        fatal = next((f for f in findings if f.fatal and self._in_time(f)), None)
        fatal = fatal or next((f for f in findings if f.fatal), None)
        certain = any(f is fatal for f in self.collector.findings[: self.restorer.certain])
        reason = self.unjudged_because() if fatal is None or (self.restorer.unjudged and not certain) else None
        verdict = "unjudged" if reason else "refuse" if fatal else "accept"
        return Report(
            stream=self.facts,
            destination=destination,
            verdict=verdict,
            failure=None if verdict != "refuse" or fatal is None else _failure(fatal),
            findings=[f for f in findings if selection.wants(f.rule)],
            reason=reason,
            checkpoints=self._at_checkpoints.get(destination, []),
        )

    @property
    def page_tables(self) -> int:
        """Page tables in hand; 0 for a guest that sends none."""
        if self.facts.guest != "pv" or self.restorer.kind is None:
            return 0
        from migrate.judging.pv_facts import pv_guest

        return len(pv_guest(self).store.tables)

    def answers(self, destination: Destination, schedule: str = "restore") -> list[StepAnswer]:
        """The hypercalls of the restore in the order of a schedule, from the first to the last, past refusals."""
        from migrate.xen.replay import StepAnswer

        def answered(step: Step, finding: Finding | None) -> StepAnswer:
            return StepAnswer(step, finding if finding is not None and finding.in_force(destination) else None)

        done = [answered(asked, asked.finding) for asked in self.restorer.calls]
        trace = self.replay(destination, schedule)
        if trace is not None:
            return done + trace.outcomes
        # A guest that needs no replay: what is known of its last steps the checks have found already.
        failed = (f for f in self.collector.findings if f.step == "context" and f.fatal)
        first = next((f for f in failed if f.in_force(destination)), None)
        return done + [StepAnswer(step, first) for step in self.steps]

    def unjudged_because(self) -> str | None:
        """Why no verdict can be given; None where one can."""
        if self.restorer.unjudged:
            return self.restorer.unjudged
        if self.restorer.containers.colo:
            return "a COLO stream: the secondary runs from the first checkpoint on"
        return None

    def compare_verify_phase(self) -> None:
        """Compare pages sent after VERIFY with what came before: every page is read, and a digest kept of each."""
        from migrate.toolstack.page_comparison import VerifyPhase

        self.restorer.verify = VerifyPhase(self.collector, self.restorer.transport)

    def watch_checkpoints(self, questions: Sequence[Destination]) -> None:
        """At each checkpoint of a checkpointed stream, judge what the secondary would have in hand.

        Has to be asked before the stream flows: state that the next checkpoint replaces is not kept.
        """
        self._questions = tuple(questions)
        self.restorer.on_checkpoint = self._checkpoint

    def _checkpoint(self, place: Place) -> None:
        kind = self.restorer.kind
        if kind is None or self.restorer.spoiled:
            return
        unchanged, self._judged_at = self.facts.records == self._judged_at + 1, self.facts.records
        for question, failure in self._failures(kind, unchanged):
            verdict = "refuse" if failure else "accept"
            told = self._at_checkpoints.setdefault(question, [])
            told.append(CheckpointVerdict(self.facts.checkpoints, place.offset, verdict, failure))
            if len(told) > CHECKPOINTS_TOLD:
                middle = range(CHECKPOINTS_TOLD // 2, CHECKPOINTS_TOLD)
                del told[next((at for at in middle if told[at].verdict == told[at - 1].verdict), middle.start)]

    def _failures(self, kind: Kind, unchanged: bool) -> Iterator[tuple[Destination, Failure | None]]:
        """For each question what would fail if the stream ended here; as last time, where nothing has come since."""
        if unchanged:
            yield from [(question, told[-1].failure) for question, told in self._at_checkpoints.items()]
            return
        self._placements.clear()
        with self.collector.trial() as found:
            self.steps = kind.complete()
        for destination in self._questions:
            fatal = self.refusal(destination)
            fatal = fatal or next((f for f in found if f.fatal and f.in_force(destination)), None)
            yield destination, _failure(fatal) if fatal else None
        self.steps = []


def _folded(trace: Trace) -> list[Finding]:
    """A table that is refused where it is first reached is refused again by later calls: told once."""
    collector = Collector()
    told: set[object] = set()
    for finding in trace.findings:
        what = (finding.rule.id, finding.pfn, finding.slot) if finding.pfn is not None else finding
        if what not in told:
            told.add(what)
            collector.add(finding)
    return collector.findings


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
    )
