"""The pipe filter: every byte goes on, and the stream is judged as it flows.

Observe mode never stands in the way: the judge is a passenger, and whatever happens to it, the bytes go on. Guard mode
holds back the END record until the replay has passed, and closes the output where the stream is doomed: the receiver
sees a truncated stream and starts no domain, the sender resumes the guest. On a checkpointed stream that would be the
wrong thing: there a broken channel makes the secondary take over, so the guard stands down at the first CHECKPOINT.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum

from migrate.judging.judgement import Judgement
from migrate.judging.report import Report
from migrate.rules.declaring import Severity, Verdict
from streams.conduit import STEPS, OutputError
from streams.counting import count
from streams.decoder import LOOKED_BEHIND, Decoder, drive
from streams.requests import Give
from streams.transports import BytesTransport, TransportError
from streams.values import dataclass, field, replace
from streams.wire.framing import DOMAIN_HEADER, IMAGE_HEADER, IMAGE_ID, IMAGE_MARKER, PAGE_SHIFT, GuestType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from migrate.destination.destination import Destination
    from migrate.rules.findings import Finding
    from migrate.rules.selection import Selection
    from migrate.toolstack.passes import Round
    from streams.forwarding import ForwardingTransport
    from streams.requests import Answer, Decoding, Request


# Bytes that are free again as soon as the judge is lost: memory may have been the reason.
RESERVE = 4 << 20
# What is looked at before the first byte goes on. What stands before the header that tells the kind of guest is short,
# but for an xl file's configuration.
HEAD = 64 << 10
_ANY_PV_GUEST = b"".join(
    (
        IMAGE_HEADER.pack(IMAGE_MARKER, IMAGE_ID, 3, 0, 0, 0),
        DOMAIN_HEADER.pack(GuestType.PV, PAGE_SHIFT, 0, 4, 17),
    )
)


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
    failure: BaseException | None = None


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
        stops the stream, or that judging failed (with the error). It must neither raise nor block.
    unjudged_because:
        why the stream shall pass as it is, guarded or not; empty for one that is to be judged.
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
        tell: Callable[[str, BaseException | None], None] = lambda message, error: None,
        unjudged_because: str = "",
    ) -> None:
        self._reserve: bytearray | None = bytearray(RESERVE)
        self._transport = transport
        self._guards = mode is Mode.GUARD
        self._destination = destination
        self._selection = selection
        self._fail_on = fail_on
        self._clock = clock
        self._tell = tell
        self._unjudged_because = unjudged_because
        self.judgement = Judgement(transport, "-", destination.vcpus)
        self.judgement.watch_checkpoints([destination])
        self._decoder = Decoder(self.judgement.restorer, drain=False)
        self._decoding: Decoding | None = None
        self._facts = self.judgement.facts  # this and what was found survive the judge
        self._findings = self.judgement.collector.findings
        self._found = 0  # findings so far
        self._calls_heeded = 0
        self._end_may_go = False
        self._prepared = False  # to judge without a pause for imports
        self._over = False  # the decoder has nothing more to ask for
        self._behind = b""  # the end: what follows begins with it
        self._stood_down: str | None = None
        self._stopped: str | None = None
        self._failure: BaseException | None = None
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
        if self._unjudged_because:
            self._look_away()
            transport.pass_all()
            return
        try:
            request = self._consult(self._begin, transport.peek(HEAD))
            while request is not None:
                answer = transport.give(request.n) if request.__class__ is Give else transport.skip(request.n)
                request = self._consult(self._go_on, answer)
        except (BrokenPipeError, OutputError, TransportError):
            raise
        except BaseException as error:
            # What the judge asked for cannot be brought to it: it is as lost as by a fault of its own.
            if error is self._interruption:
                raise
            self._fail(error)
        if self._stopped is None:
            if self._failure is None and self._decoder.ended:
                self._look_behind()
            transport.pass_all()

    def _look_away(self) -> None:
        """Judge nothing, and guard nothing."""
        if self._guards:
            self._stood_down = self._unjudged_because
            self._transport.stop_holding()
        what = "the guard stands down, and nothing is judged" if self._guards else "nothing is judged"
        self._tell(f"{what}: {self._unjudged_because}", None)

    def _consult(self, judge: Callable[[Answer], Request | None], answer: Answer) -> Request | None:
        """Let the judge have an answer; its next request, or None where it has none, or shall have no more."""
        request = None
        self._judging = True
        state = self._transport.state
        # No descriptor of the pipe is touched in here: whatever is raised, of any kind at all, is a fault of ours.
        try:
            state[STEPS] += 1
            request = judge(answer)
        except BaseException as error:
            self._fail(error)
        state[STEPS] += state[STEPS] % 2  # not where even that failed: without any memory the interpreter itself hangs
        self._judging = False
        if self._interruption is not None:
            raise self._interruption
        if self._end_may_go or self._stood_down is not None:
            self._transport.release()
        return request if self._failure is None and self._stopped is None else None

    def _begin(self, head: Answer) -> Request:
        """Before the first byte goes on, import what this guest needs."""
        assert isinstance(head, bytes)
        rehearse(head)
        self._decoding = self._decoder.run()
        return next(self._decoding)  # it has not looked at anything yet

    def _go_on(self, answer: Answer) -> Request | None:
        assert self._decoding is not None
        try:
            request: Request | None = self._decoding.send(answer)
        except StopIteration:
            request, self._over = None, True
        self._heed()
        return request

    def _look_behind(self) -> None:
        """Pass on what follows the end, and keep how it begins. All that the guard decides is decided."""
        try:
            self._behind = bytes(self._transport.look(LOOKED_BEHIND))
        except (BrokenPipeError, OutputError, TransportError):
            raise
        except BaseException as error:
            if error is self._interruption:
                raise
            self._failed(error, late=True)

    def interrupt(self, error: BaseException) -> None:
        """For signal handlers: have `forward` raise this, at once where it waits, and else after what it is judging.

        A second time it is raised at once wherever it is.
        """
        again, self._interruption = self._interruption is not None, error
        if again or not self._judging:
            raise error

    def _fail(self, error: BaseException) -> None:
        checkpointed = bool(self._facts.checkpoints)
        self._failed(error)
        if not self._guards or self._end_may_go or self._stood_down is not None:
            return
        if checkpointed:
            self._stand_down(_CHECKPOINTED)
        else:
            self._stop("the filter itself failed, and nothing passes unjudged")

    def _failed(self, error: BaseException, *, late: bool = False) -> None:
        """The judge is lost: let go of all it holds, what it has found excepted.

        Parameters
        ----------
        late:
            whether END was there and has gone on: of a guard, since the replay had passed.
        """
        self._reserve = None
        if self._failure is None:
            del self.judgement, self._decoder
        self._decoding = None
        self._failure = error
        when = " after the stream had ended" if late else ""
        self._tell(f"stopped judging{when}: {_named(error)}", error)
        error.__traceback__ = error.__context__ = error.__cause__ = None  # they hold what was under way

    # -- guarding ----------------------------------------------------------------------------------

    def _heed(self) -> None:
        """After the decoder has taken some bytes; in guard mode they are still held."""
        findings = self.judgement.collector.told
        heeded, self._found = self._found, len(findings)
        if not self._guards or self._end_may_go or self._stood_down is not None:
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
            self._judge_end()
            if self._fail_on is not None and self._stopped is self._stood_down is None:
                self._look_closer()
            self._held = self._clock() - started
            if self._stopped is self._stood_down is None:
                self._let_end_go()

    def _let_end_go(self) -> None:
        """Guard nothing from here on: a libxl stream that is cut behind END is taken for a whole one (CON-35).

        What libxl refuses there it refuses only if it gets to see it.
        """
        self._end_may_go = True
        self._transport.stop_holding()

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
        if finding.fatal or finding.effect.harms_host:
            return True
        if self._fail_on is None or not self._selection.wants(finding.rule):
            return False
        return finding.severity.rank >= self._fail_on.rank

    def _judge_end(self) -> None:
        """END is here and held: let it go only if the replay passes."""
        judgement = self.judgement
        judgement.complete()
        reason_to_stop = judgement.guarded_against(self._destination)
        if reason_to_stop is not None:
            self._stop(f"{reason_to_stop.message} ({reason_to_stop.rule.id})")
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
        if self._failure is None and not self._unjudged_because:
            try:
                report = self._judge(broken_off)
            except BaseException as error:
                if error is self._interruption:
                    raise
                self._failed(error, late=self._over and not self._transport.held)
        if self._unjudged_because:
            report = self._unjudged(self._unjudged_because)
        elif self._failure is not None or report is None:
            report = self._unjudged(f"the filter stopped judging: {_named(self._failure)}")
        return FilterResult(report, self._stats(), self._stopped, self._stood_down, self._failure)

    def _judge(self, broken_off: str | None) -> Report:
        judgement, decoder, position = self.judgement, self._decoder, self._transport.position
        judgement.session.course.broke_off |= not self._over
        if decoder.ended and position > decoder.position:
            judgement.restorer.trailing(decoder.position, position - decoder.position, self._behind)
        judgement.finish(position)
        report = judgement.report(self._destination, self._selection)
        # A checkpointed stream has no other end than to be broken off.
        held = self._transport.held  # END, where it was to go on and could not
        if (held or not self._over) and not judgement.facts.checkpoints and report.verdict == Verdict.ACCEPT:
            why = self._stopped or broken_off
            report = replace(
                report,
                verdict=Verdict.UNJUDGED,
                damaged=False,
                unjudged_because=f"it was broken off after {count(position - held, 'byte')}: {why}",
            )
        return report

    def _unjudged(self, why: str) -> Report:
        """A report that says so, with what was found until then."""
        facts = self._facts
        facts.bytes = self._transport.position
        found = self._findings
        return Report(
            stream=facts,
            destination=self._destination,
            verdict=Verdict.UNJUDGED,
            failure=None,
            findings=[f for f in found if f.in_force(self._destination) and self._selection.wants(f.rule)],
            unjudged_because=why,
        )

    def _stats(self) -> Stats:
        facts = self._facts
        lost = self._failure is not None or self.judgement.restorer.kind is None
        return Stats(
            bytes=self._transport.written,
            seconds=self._clock() - self.started,
            spliced=self._transport.spliced,
            rounds=facts.rounds,
            resent_pages=sum(done.pages for done in facts.rounds[1:]),
            page_tables=0 if lost else self.judgement.page_tables,
            end_held_seconds=self._held,
        )

    def status(self) -> dict[str, Any]:
        """Where the stream is. Only looks: it may be called from a signal handler or another thread."""
        facts = self._facts
        seconds = max(self._clock() - self.started, 1e-9)
        return {
            "bytes": self._transport.written,
            "rate": self._transport.written / seconds,
            "round": len(facts.rounds),
            "dirty": facts.rounds[-1].pages if facts.rounds else 0,
            "findings": sum(
                found.in_force(self._destination) and self._selection.wants(found.rule)
                for found in list(self._findings)  # which may grow meanwhile
            ),
        }


def rehearse(head: bytes) -> None:
    """Import what the guest that a stream begins with needs, by judging that beginning.

    Where it does not tell which kind of guest follows, all is imported that any needs: once bytes have gone on,
    nothing large shall be.
    """
    if not _rehearsed(head):
        _rehearsed(_ANY_PV_GUEST)


def _rehearsed(head: bytes) -> bool:
    """Judge the beginning of a stream, as it were; whether it is known now what that takes."""
    judgement = Judgement(None, "-", None)
    drive(Decoder(judgement.restorer).run(), BytesTransport(head))
    judgement.prepare()
    return judgement.facts.guest is not None or judgement.unjudged_because() is not None


def _named(error: BaseException | None) -> str:
    try:
        text = str(error).strip().partition("\n")[0]
    except Exception:  # it is a fault of ours: nothing about it is sure
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_CHECKPOINTED = "a checkpointed stream: there a broken channel makes the secondary take over"
