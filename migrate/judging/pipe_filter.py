"""The pipe filter: every byte goes on, and the stream is judged as it flows.

Observe mode never stands in the way. Guard mode holds back the END record until the replay has passed, and
closes the output where the stream is doomed: the receiver sees a truncated stream and starts no domain, the
sender resumes the guest. On a checkpointed stream that would be the wrong thing: there a broken channel makes
the secondary take over, so the guard stands down at the first CHECKPOINT.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from migrate.judging.judgement import Judgement
from migrate.judging.report import Report
from migrate.rules.declaring import Severity, Verdict
from streams.decoder import Decoder
from streams.requests import Give

if TYPE_CHECKING:
    from migrate.destination.destination import Destination
    from migrate.rules.findings import Finding
    from migrate.rules.selection import Selection
    from migrate.toolstack.passes import Round
    from streams.forwarding import ForwardingTransport
    from streams.requests import Answer, Decoding, Request


class Mode(Enum):
    """What the filter may do to a stream."""

    OBSERVE = "observe"
    GUARD = "guard"


@dataclass(slots=True)
class Stats:
    """What went through, and how fast.

    Attributes
    ----------
    bytes, spliced:
        written to the output, and how many of them inside the kernel.
    rounds:
        the passes over the guest's memory.
    resent_pages:
        pfn words after the first pass, which named every pfn.
    page_tables:
        page tables in hand at the end; 0 for a guest that sends none.
    end_held_seconds:
        how long the guard took over END; None where it did not get there.
    """

    bytes: int = 0
    seconds: float = 0.0
    spliced: int = 0
    rounds: list[Round] = field(default_factory=list)
    resent_pages: int = 0
    page_tables: int = 0
    end_held_seconds: float | None = None


@dataclass(slots=True)
class FilterResult:
    """How a filter run ended.

    Attributes
    ----------
    report:
        the verdict is "unjudged" where judging failed or the stream was broken off; the reason says which.
    stopped:
        why the guard closed the output, if it did.
    stood_down:
        why the guard did not guard, if it was asked to.
    failure:
        what went wrong in this program while judging, if anything.
    """

    report: Report
    stats: Stats
    stopped: str | None = None
    stood_down: str | None = None
    failure: Exception | None = None


class Filter:
    """One stream on its way from a sender to a receiver.

    Parameters
    ----------
    transport:
        between the two; it holds what was given last where the mode is guard.
    fail_on:
        in guard mode, also stop for findings of this severity or worse.
    tell:
        called at once with what people should know while the stream still flows: that the guard stands down, or
        stops the stream, or that judging failed (with the error). It must not raise.
    """

    def __init__(
        self,
        transport: ForwardingTransport,
        *,
        mode: Mode,
        destination: Destination,
        selection: Selection,
        fail_on: Severity | None = None,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str, Exception | None], None] = lambda message, error: None,
    ) -> None:
        self._transport = transport
        self._guards = mode is Mode.GUARD
        self._destination = destination
        self._selection = selection
        self._fail_on = fail_on
        self._clock = clock
        self._tell = tell
        self.judgement = Judgement(transport, "-", destination.vcpus)
        self.judgement.watch_checkpoints([destination])
        self._decoder = Decoder(self.judgement.restorer, drain=False)
        self._found = 0  # findings so far
        self._calls_heeded = 0
        self._judged_at_end = False
        self._prepared = False  # to judge without a pause for imports
        self._over = False  # the decoder has nothing more to ask for
        self._stood_down: str | None = None
        self._stopped: str | None = None
        self._failure: Exception | None = None
        self._judging = False
        self._interruption: BaseException | None = None
        self._held: float | None = None
        self.started = clock()

    # -- running -----------------------------------------------------------------------------------

    def run(self) -> FilterResult:
        """Forward the stream, and say how it ended. Raises as `forward` does."""
        self.forward()
        return self.outcome()

    def forward(self) -> None:
        """Forward the stream to its end, or to where the guard stops it.

        Raises
        ------
        BrokenPipeError, OutputError, TransportError
            where the reader is gone, or reading or writing fails; `outcome` judges what was read until then.
        BaseException
            what `interrupt` was given.
        """
        transport = self._transport
        decoding = self._decoder.run()
        request: Request | None = next(decoding)  # it has not looked at anything yet
        while request is not None:
            answer = transport.give(request.n) if request.__class__ is Give else transport.skip(request.n)
            request = self._judge_on(decoding, answer)
        if self._stopped is None:
            transport.drain()

    def _judge_on(self, decoding: Decoding, answer: Answer) -> Request | None:
        """Let the decoder have an answer; its next request, or None where it has none, or shall have no more."""
        request = None
        self._judging = True
        # No descriptor of the pipe is touched in here: whatever is raised is a fault of ours.
        try:
            try:
                request = decoding.send(answer)
            except StopIteration:
                self._over = True
            self._heed()
        except Exception as error:
            self._fail(error)
        self._judging = False
        if self._interruption is not None:
            raise self._interruption
        return request if self._failure is None and self._stopped is None else None

    def interrupt(self, error: BaseException) -> None:
        """For signal handlers: have `forward` raise this, at once where it waits, and else after what it is judging."""
        if not self._judging:
            raise error
        self._interruption = error

    def _fail(self, error: Exception) -> None:
        self._failed(error)
        if not self._guards or self._stood_down is not None:
            return
        if self.judgement.facts.checkpoints:
            self._stand_down(_CHECKPOINTED)
        else:
            self._stop("the filter itself failed, and nothing passes unjudged")

    def _failed(self, error: Exception) -> None:
        self._failure = error
        self._tell(f"stopped judging: {_named(error)}", error)

    # -- guarding ----------------------------------------------------------------------------------

    def _heed(self) -> None:
        """After the decoder has taken some bytes; in guard mode they are still held."""
        findings = self.judgement.collector.findings
        heeded, self._found = self._found, len(findings)
        if not self._guards or self._stood_down is not None:
            return
        if not self._prepared and self.judgement.facts.records:
            self._prepared = True
            self.judgement.prepare()
        course = self.judgement.session.course
        if self.judgement.facts.checkpoints:
            self._stand_down(_CHECKPOINTED)
        elif course.doubt:
            self._stand_down(course.doubt)
        elif not self._stops_for(self._new(findings[heeded:])) and (course.ended or self._over):
            started = self._clock()
            at_end, self._judged_at_end = not self._judged_at_end, True
            if at_end:
                self._judge_end()
            if (at_end or self._over) and self._fail_on is not None and self._stopped is self._stood_down is None:
                self._look_closer()
            if at_end:
                self._held = self._clock() - started

    def _new(self, findings: list[Finding]) -> list[Finding]:
        """What has been found since, Xen's answers to the calls made by now among it."""
        answers = self.judgement.calls(self._destination)
        heeded, self._calls_heeded = self._calls_heeded, len(answers)
        return findings + [finding for _, answer in answers[heeded:] for finding in answer.findings]

    def _stops_for(self, findings: list[Finding]) -> bool:
        """Whether any of some findings stops the stream; if so it is stopped."""
        for finding in findings:
            if finding.in_force(self._destination) and self._minds(finding):
                self._stop(f"{finding.message} ({finding.rule.id})")
                return True
        return False

    def _minds(self, finding: Finding) -> bool:
        if finding.fatal:
            return True
        if self._fail_on is None or not self._selection.wants(finding.rule):
            return False
        return finding.severity.rank >= self._fail_on.rank

    def _judge_end(self) -> None:
        """END is here and held: let it go only if the replay passes."""
        judgement = self.judgement
        judgement.complete()
        refusal = judgement.refusal(self._destination)
        if refusal is not None:
            self._stop(f"{refusal.message} ({refusal.rule.id})")
        elif reason := judgement.unjudged_because():
            self._stand_down(reason)
        elif self._fail_on is not None:
            self._stops_for(judgement.report(self._destination, self._selection).findings)

    def _look_closer(self) -> None:
        """What changes no verdict is told last of all; whether there is any must be known while END is held."""
        restorer = self.judgement.restorer
        with self.judgement.collector.trial() as found:
            if self._over:
                restorer.unchecked_faults()
            elif self.judgement.steps and restorer.kind is not None:  # the container's own end is yet to come
                restorer.kind.unchecked_faults()
        self._stops_for(found)

    def _stop(self, why: str) -> None:
        self._stopped = why
        self._tell(f"stopped the stream: {why}", None)

    def _stand_down(self, why: str) -> None:
        self._stood_down = why
        self._transport.stop_holding()
        self._tell(f"the guard stands down, and only observes from here on: {why}", None)

    # -- telling -----------------------------------------------------------------------------------

    def outcome(self, broken_off: str | None = None) -> FilterResult:
        """What there is to say once nothing more will come. To be called once.

        Parameters
        ----------
        broken_off:
            why forwarding ended before the stream did, if it did.
        """
        report = None
        if self._failure is None:
            try:
                report = self._judge(broken_off)
            except Exception as error:
                self._failed(error)
        if self._failure is not None or report is None:
            report = self._unjudged(f"the filter stopped judging: {_named(self._failure)}")
        return FilterResult(report, self._stats(), self._stopped, self._stood_down, self._failure)

    def _judge(self, broken_off: str | None) -> Report:
        judgement, decoder, position = self.judgement, self._decoder, self._transport.position
        judgement.session.course.broke_off |= not self._over
        if decoder.ended and position > decoder.position:
            judgement.restorer.trailing(decoder.position, position - decoder.position)
        judgement.finish(position)
        report = judgement.report(self._destination, self._selection)
        # A checkpointed stream has no other end than to be broken off.
        held = self._transport.held  # END, where it was to go on and could not
        if (held or not self._over) and not judgement.facts.checkpoints and report.verdict == Verdict.ACCEPT:
            why = self._stopped or broken_off
            report = replace(
                report, verdict=Verdict.UNJUDGED, reason=f"it was broken off after {position - held} bytes: {why}"
            )
        return report

    def _unjudged(self, why: str) -> Report:
        """A report that says so, with what was found until then."""
        facts = self.judgement.facts
        facts.bytes = self._transport.position
        found = self.judgement.collector.findings
        return Report(
            stream=facts,
            destination=self._destination,
            verdict=Verdict.UNJUDGED,
            failure=None,
            findings=[f for f in found if f.in_force(self._destination) and self._selection.wants(f.rule)],
            reason=why,
        )

    def _stats(self) -> Stats:
        facts = self.judgement.facts
        return Stats(
            bytes=self._transport.written,
            seconds=self._clock() - self.started,
            spliced=self._transport.spliced,
            rounds=facts.rounds,
            resent_pages=sum(done.pages for done in facts.rounds[1:]),
            page_tables=self.judgement.page_tables if self.judgement.restorer.kind is not None else 0,
            end_held_seconds=self._held,
        )

    def status(self) -> dict[str, Any]:
        """Where the stream is. Only looks: it may be called from a signal handler or another thread."""
        facts = self.judgement.facts
        seconds = max(self._clock() - self.started, 1e-9)
        return {
            "bytes": self._transport.written,
            "rate": self._transport.written / seconds,
            "round": len(facts.rounds),
            "dirty": facts.rounds[-1].pages if facts.rounds else 0,
            "findings": self._found,
        }


def _named(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


_CHECKPOINTED = "a checkpointed stream: there a broken channel makes the secondary take over"
