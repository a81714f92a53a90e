"""The pipe filter: every byte goes on, and the stream is judged as it flows.

Observe mode never stands in the way. Guard mode holds back the END record until the replay has passed, and
closes the output where the stream is doomed: the receiver sees a truncated stream and starts no domain, the
sender resumes the guest. On a checkpointed stream that would be the wrong thing: there a broken channel makes
the secondary take over, so the guard stands down at the first CHECKPOINT.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from migrate.checker import Judgement
from migrate.rules.catalogue import Severity
from streams.decoder import Decoder, Give
from streams.forwarding import OutputError
from streams.transports import TransportError

if TYPE_CHECKING:
    from migrate.findings import Finding, Report
    from migrate.selection import Selection
    from migrate.targets import Target
    from streams.forwarding import ForwardingTransport


class Mode(Enum):
    """What the filter may do to a stream."""

    OBSERVE = "observe"
    GUARD = "guard"


@dataclass(slots=True)
class Stats:
    """What went through, and how fast."""

    bytes: int = 0
    seconds: float = 0.0
    spliced: int = 0
    rounds: list[dict[str, int]] = field(default_factory=list)
    resent_pages: int = 0
    page_tables: int = 0
    end_held_seconds: float | None = None


@dataclass(slots=True)
class Outcome:
    """How a filter run ended.

    Attributes
    ----------
    report:
        None where judging failed.
    stopped:
        why the guard closed the output, if it did.
    stood_down:
        why the guard did not guard, if it was asked to.
    failure:
        what went wrong in this program while judging, if anything.
    """

    report: Report | None
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
    """

    def __init__(
        self,
        transport: ForwardingTransport,
        *,
        mode: Mode,
        target: Target,
        placement: str,
        selection: Selection,
        vcpus: int | None = None,
        fail_on: Severity | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._mode = mode
        self._target = target
        self._placement = placement
        self._selection = selection
        self._fail_on = fail_on
        self._clock = clock
        self.judgement = Judgement(transport, "-", vcpus)
        self.judgement.watch_checkpoints([(target, placement, None)])
        self._heeded = 0  # findings looked at so far
        self._judged_at_end = False
        self._stood_down: str | None = None
        self._stopped: str | None = None
        self._failure: Exception | None = None
        self._held: float | None = None
        self.started = clock()

    # -- running -----------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Forward the stream to its end, or to where the guard stops it.

        Raises
        ------
        BrokenPipeError, OutputError, TransportError
            where the reader is gone, or reading or writing fails; what was read until then has been judged.
        """
        self._forward()
        if self._stopped is None:
            self._transport.drain()
        return self.outcome()

    def _forward(self) -> None:
        transport = self._transport
        decoding = Decoder(self.judgement.restorer, drain=False).run()
        try:
            request = next(decoding)
            done = False
            while not done and self._stopped is None:
                answer = transport.give(request.n) if request.__class__ is Give else transport.skip(request.n)
                try:
                    request = decoding.send(answer)
                except StopIteration:
                    done = True
                if self._mode is Mode.GUARD:
                    self._heed()
        except (BrokenPipeError, OutputError, TransportError):
            raise
        except Exception as error:
            self._failure = error
            if self._mode is Mode.GUARD and not self._stood_down:
                self._stopped = f"the filter itself failed: {type(error).__name__}: {error}"

    def _heed(self) -> None:
        """In guard mode, after the decoder has taken some bytes and before they are let go."""
        restorer = self.judgement.restorer
        if self._stood_down is not None:
            return
        if restorer.facts.checkpoints:
            self._stand_down("a checkpointed stream: there a broken channel makes the secondary take over")
            return
        if restorer.unjudged:
            self._stand_down(restorer.unjudged)
            return
        findings = self.judgement.collector.findings
        new, self._heeded = findings[self._heeded :], len(findings)
        for finding in new:
            if finding.in_force(self._target, self._placement) and self._stops(finding):
                self._stopped = f"{finding.message} ({finding.rule.id})"
                return
        if restorer.ended and not self._judged_at_end:
            self._judge_end()

    def _stops(self, finding: Finding) -> bool:
        if finding.fatal:
            return True
        wanted = self._fail_on is not None and self._selection.wants(finding.rule)
        return wanted and self._fail_on is not None and finding.severity.rank >= self._fail_on.rank

    def _judge_end(self) -> None:
        """END is here and held: let it go only if the replay passes."""
        started = self._clock()
        self._judged_at_end = True
        judgement = self.judgement
        judgement.complete()
        if self._fail_on is not None:
            judgement.finish(self._transport.position)
        report = judgement.report(self._target, self._placement, self._selection)
        if report.verdict == "refuse" and report.failure is not None:
            self._stopped = f"{report.failure.message} ({report.failure.rule})"
        elif self._fail_on is not None:
            worst = next((f for f in report.findings if self._stops(f)), None)
            if worst is not None:
                self._stopped = f"{worst.message} ({worst.rule.id})"
        if self._stopped is None:
            self._transport.release()
        self._held = self._clock() - started

    def _stand_down(self, why: str) -> None:
        self._stood_down = why
        self._transport.stop_holding()

    # -- telling -----------------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        """What there is to say now; also after reading or writing has failed."""
        report = None
        if self._failure is None:
            try:
                self.judgement.finish(self._transport.position)
                report = self.judgement.report(self._target, self._placement, self._selection)
            except Exception as error:
                self._failure = error
        return Outcome(report, self.stats(), self._stopped, self._stood_down, self._failure)

    def stats(self) -> Stats:
        """Figures so far."""
        facts = self.judgement.facts
        rounds = [{"pages": words, "bytes": size} for words, size in zip(facts.rounds, facts.round_bytes, strict=True)]
        return Stats(
            bytes=self._transport.written,
            seconds=self._clock() - self.started,
            spliced=self._transport.spliced,
            rounds=rounds,
            resent_pages=sum(facts.rounds[1:]),
            page_tables=self.judgement.page_tables,
            end_held_seconds=self._held,
        )

    def status(self) -> dict[str, Any]:
        """Where the stream is: for SIGUSR1 and for a progress display."""
        facts = self.judgement.facts
        seconds = max(self._clock() - self.started, 1e-9)
        return {
            "bytes": self._transport.written,
            "rate": self._transport.written / seconds,
            "round": len(facts.rounds),
            "dirty": facts.rounds[-1] if facts.rounds else 0,
            "findings": len(self.judgement.collector.findings),
        }
