"""Two checkers that are fed in turns, in any pieces: each says what `check` says of the same bytes; so with feeders."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from migrate import Checker, check
from migrate.building.builder import StreamBuilder
from migrate.judging.report_json import report_object
from streams.decoder import drive
from streams.encoder import Recorder, encode
from streams.feeder import Feeder
from streams.transports import BytesTransport
from streams.wire.legacy import UINT32

UNKNOWN = 0x4F  # a type of no record


def _checkpointed(b: StreamBuilder) -> None:
    b.checkpoints = 2
    b.wrap("libxl")


def _live(b: StreamBuilder) -> None:
    b.rounds, b.batch = [[1, 2], [2]], 3


def _followed(b: StreamBuilder) -> None:
    b.wrap("xl")
    b.trailing = b"go ahead"


def _refused(b: StreamBuilder) -> None:
    b.insert(UNKNOWN)


def _lying(b: StreamBuilder) -> None:
    b.record("X86_TSC_INFO").length = 0x7FF_FFF0


def _in_xapi(b: StreamBuilder) -> None:
    b.wrap("xapi")


EDITS = {
    "as built": lambda b: None,
    "checkpointed": _checkpointed,
    "live": _live,
    "followed": _followed,
    "refused": _refused,
    "lying": _lying,
    "in xapi": _in_xapi,
}
GUESTS = {
    "pv32": lambda: StreamBuilder.pv(4, vcpus=2, roots=2),
    "pv64": lambda: StreamBuilder.pv(8),
    "hvm": StreamBuilder.hvm,
}
OTHERS = {
    "nothing": b"",
    "no stream": b"\x7fELF" + bytes(60),
    "an old stream": UINT32.pack(0x800) + b"\xff" * 4 + UINT32.pack(0) + bytes(5000),
}
QUESTIONS = ({}, {"target": "4.20", "placement": "high"}, {"target": "4.13", "placement": "low", "vcpus": 1})
ASKED = st.sampled_from(QUESTIONS)


@cache
def built(guest: str, edit: str) -> bytes:
    b = GUESTS[guest]()
    EDITS[edit](b)
    return b.build()


INPUTS = st.sampled_from(list(OTHERS)).map(OTHERS.__getitem__) | st.builds(
    built, st.sampled_from(list(GUESTS)), st.sampled_from(list(EDITS))
)
SIZES = st.integers(1, 24) | st.integers(25, 5000) | st.integers(5001, 60_000)
FORMS = st.sampled_from([bytes, bytearray, memoryview])


class _Fed:
    """An input on its way into something that is fed."""

    def __init__(self, data: bytes, sink: Any) -> None:
        self.data = data
        self.sink = sink
        self.sent = 0
        self.closed = False

    def feed(self, size: int, form: Any) -> None:
        """The next bytes, in a buffer that is used for something else afterwards."""
        piece = self.data[self.sent : self.sent + size]
        self.sent += len(piece)
        lent = bytearray(piece)
        self.sink.feed(lent if form is bytearray else form(lent))
        lent[:] = b"\xa5" * len(lent)

    @property
    def so_far(self) -> bytes:
        return self.data[: self.sent]


class Checkers(RuleBasedStateMachine):
    """Two checkers; the bytes that each was fed decide what it says, and nothing else does."""

    def __init__(self) -> None:
        super().__init__()
        self.fed: list[_Fed] = []
        self.asked: list[dict[str, Any]] = []
        self.said: dict[int, dict[str, Any]] = {}

    @initialize(
        inputs=st.tuples(INPUTS, INPUTS), asked=st.tuples(st.sampled_from(QUESTIONS), st.sampled_from(QUESTIONS))
    )
    def begin(self, inputs: tuple[bytes, bytes], asked: tuple[dict[str, Any], dict[str, Any]]) -> None:
        self.asked = list(asked)
        self.fed = [_Fed(data, Checker(**options)) for data, options in zip(inputs, asked, strict=True)]

    @rule(which=st.integers(0, 1), size=SIZES, form=FORMS)
    def feed(self, which: int, size: int, form: Any) -> None:
        fed = self.fed[which]
        if not fed.closed:
            fed.feed(size, form)

    @rule(which=st.integers(0, 1), form=FORMS)
    def feed_all_that_is_left(self, which: int, form: Any) -> None:
        fed = self.fed[which]
        if not fed.closed:
            fed.feed(len(fed.data), form)

    @rule(which=st.integers(0, 1))
    def feed_nothing(self, which: int) -> None:
        fed = self.fed[which]
        if not fed.closed:
            fed.sink.feed(b"")

    @rule(which=st.integers(0, 1))
    def close(self, which: int) -> None:
        fed = self.fed[which]
        said = report_object(fed.sink.close())
        assert said == report_object(check(fed.so_far, **self.asked[which]))
        assert self.said.setdefault(which, said) == said
        fed.closed = True

    @precondition(lambda self: self.said)
    @rule(piece=st.binary(max_size=8))
    def feed_a_closed_one(self, piece: bytes) -> None:
        for which in self.said:
            with pytest.raises(ValueError, match="closed"):
                self.fed[which].sink.feed(piece)

    @invariant()
    def a_report_does_not_change(self) -> None:
        for which, said in self.said.items():
            assert report_object(self.fed[which].sink.close()) == said

    def teardown(self) -> None:
        for which in range(len(self.fed)):
            self.close(which)


class Feeders(RuleBasedStateMachine):
    """A feeder of a recorder: what it has recorded in the end is what is in the bytes it was fed."""

    def __init__(self) -> None:
        super().__init__()
        self.recorder = Recorder()
        self.fed = _Fed(b"", Feeder(self.recorder.run()))

    @initialize(data=INPUTS)
    def begin(self, data: bytes) -> None:
        self.fed.data = data

    @precondition(lambda self: not self.fed.closed)
    @rule(size=SIZES, form=FORMS)
    def feed(self, size: int, form: Any) -> None:
        self.fed.feed(size, form)

    @precondition(lambda self: not self.fed.closed)
    @rule()
    def feed_nothing(self) -> None:
        before = self.fed.sink.position
        self.fed.sink.feed(b"")
        assert self.fed.sink.position == before

    @rule()
    def close(self) -> None:
        self.fed.sink.close()
        self.fed.closed = True

    @precondition(lambda self: self.fed.closed)
    @rule(piece=st.binary(max_size=8))
    def feed_after_the_end(self, piece: bytes) -> None:
        before = list(self.recorder.items)
        with pytest.raises(ValueError, match="closed"):
            self.fed.sink.feed(piece)
        assert self.recorder.items == before

    @invariant()
    def it_is_never_ahead_of_what_it_was_fed(self) -> None:
        assert self.fed.sink.position <= self.fed.sent

    def teardown(self) -> None:
        self.close()
        whole = Recorder()
        transport = BytesTransport(self.fed.so_far)
        drive(whole.run(), transport)
        assert self.fed.sink.position == transport.position
        assert encode(self.recorder.items) == encode(whole.items)
        assert str(self.recorder.broken) == str(whole.broken)


machines = settings(max_examples=40, stateful_step_count=15, deadline=None)
TestCheckers = Checkers.TestCase
TestCheckers.settings = machines
TestFeeders = Feeders.TestCase
TestFeeders.settings = machines
