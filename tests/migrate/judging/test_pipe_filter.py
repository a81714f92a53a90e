"""The filter in a pipe: what goes in comes out, and what is said of it is what `check` says."""

import os
import socket
import threading
import time
from itertools import chain, repeat

import pytest
from asking import WHERE_IT_WAS, check
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laws import image_of
from project import SAMPLES
from trying import examples

from migrate.building.builder import StreamBuilder
from migrate.cli.explain import violating_stream
from migrate.destination.destination import Destination
from migrate.judging.judgement import Judgement
from migrate.judging.pipe_filter import Filter, Mode, rehearse
from migrate.reports.rules.commands import conditions
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Severity, Stage
from migrate.rules.selection import Selection
from migrate.testing.strategies import damaged_streams, streams
from migrate.toolstack import headers
from migrate.toolstack.containers import ContainerChecks
from migrate.toolstack.passes import Round
from migrate.toolstack.pv import PvRestore
from migrate.toolstack.restore import Restorer
from streams.compression import CODECS
from streams.forwarding import ForwardingTransport
from streams.opening import open_transport
from streams.transports import TransportError
from streams.wire.framing import IMAGE_HEADER, RECORD_HEADER, LibxlRecordType, RecordType

END = RECORD_HEADER.pack(RecordType.END, 0)
UNKNOWN = 0x4F  # a type of no record, in libxc's streams and in libxl's
PAIRS = ["pipe/pipe", "pipe/file", "file/pipe", "socket/socket", "pipe/append"]
WAIT = 20  # seconds, for what takes a moment


class Channel:
    """Sender, filter and receiver, each in a thread of its own, joined by real descriptors."""

    def __init__(self, folder, pair="pipe/pipe", **options):
        source, sink = pair.split("/")
        self.folder = folder
        self.came = bytearray()
        self.error = self.outcome = None
        self.said = []
        self.source, self.feed = self._ends(source, "in")
        self.seen, self.sink = self._ends(sink, "out")
        self._file_input = source == "file"
        self._receiver = [self.receive] if sink in ("pipe", "socket") else []  # of a file, once it is written
        options = {"mode": Mode.OBSERVE, **options}
        options.setdefault("placement", WHERE_IT_WAS)
        asked = {name: options.pop(name) for name in ("placement", "vcpus") if name in options}
        options["destination"] = Destination(options.pop("target", "newest"), **asked)
        options.setdefault("selection", Selection())
        splice = options.pop("splice", True)
        transport = ForwardingTransport(self.source, self.sink, hold=options["mode"] is Mode.GUARD, splice=splice)
        self.filter = Filter(transport, tell=lambda message, error: self.said.append(message), **options)

    def _ends(self, kind, name):
        """A descriptor to read from, and one to write to."""
        if kind == "pipe":
            return os.pipe()
        if kind == "socket":
            return tuple(end.detach() for end in socket.socketpair())
        path = self.folder / name
        path.write_bytes(b"")
        append = os.O_APPEND if kind == "append" else 0
        return os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY | append)

    def send(self, data, chunks=()):
        """As a sender does: in chunks of these sizes, and then as fast as it goes."""
        view = memoryview(data)
        try:
            for size in chain(chunks, repeat(1 << 16)):
                if not len(view):
                    break
                view = view[os.write(self.feed, view[:size]) :]
        except (BrokenPipeError, ConnectionResetError):
            pass  # the guard has hung up
        finally:
            os.close(self.feed)

    def receive(self):
        while piece := os.read(self.seen, 1 << 16):
            self.came += piece

    def work(self):
        try:
            self.outcome = self.filter.run()
        except BaseException as error:  # whatever it is, the test should tell of it
            self.error = error
        finally:
            os.close(self.sink)
            os.close(self.source)

    def start(self, *stages):
        """Let the filter run, and whoever else is in the pipe."""
        self.threads = [threading.Thread(target=stage, daemon=True) for stage in (self.work, *stages)]
        for thread in self.threads:
            thread.start()

    def join(self):
        for thread in self.threads:
            thread.join(WAIT)
            assert not thread.is_alive(), "it hangs"
        if self.error is not None:
            raise self.error

    def run(self, data, chunks=()):
        """Send all of it; returns what came out, and what was said of it."""
        if self._file_input:
            self.send(data)
            self.start(*self._receiver)
        else:
            self.start(lambda: self.send(data, chunks), *self._receiver)
        self.join()
        if not self._receiver:
            self.receive()
        os.close(self.seen)
        return bytes(self.came), self.outcome

    def arrives(self, size):
        """Wait until the receiver has so many bytes."""
        until(lambda: len(self.came) >= size, f"{size} bytes, not {len(self.came)}")


def until(condition, what):
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.001)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ends")


@pytest.fixture
def channel(folder):
    """A pipe with a filter that runs, and a receiver; the sender is the test."""

    def channel(**options):
        made = Channel(folder, **options)
        made.start(made.receive)
        return made

    return channel


@pytest.fixture(scope="module")
def send(folder):
    """Send a stream through a filter: (what came out, the outcome)."""

    def send(data, pair="pipe/pipe", chunks=(), **options):
        return Channel(folder, pair, **options).run(data, chunks)

    return send


def sample(name):
    with open_transport(SAMPLES / f"{name}.zst") as transport:
        return bytes(transport.give(1 << 30))


def facts(report):
    """What a finding is about, of all findings."""
    return [(f.rule.id, f.offset, f.message, f.count) for f in report.findings]


# -- any input, any chunks, any descriptors -------------------------------------------------------------


@st.composite
def inputs(draw):
    """Streams of every kind: good, bad, cut, bent, followed by something, or none at all."""
    kind = draw(st.sampled_from(["valid", "damaged", "checkpointed", "random"]))
    if kind == "random":
        # check would decompress it; the filter passes on what it is given.
        return draw(st.binary(max_size=200).filter(lambda data: not any(c.fits(data) for c in CODECS)))
    if kind == "valid":
        data = bytes(draw(streams(containers=("libxc", "libxl", "xl", "xapi"), vcpus=2, max_tables=4)))
    elif kind == "damaged":
        data = bytes(draw(damaged_streams(vcpus=2, max_tables=4))[0])
    else:
        b = StreamBuilder.pv(draw(st.sampled_from([4, 8]))) if draw(st.booleans()) else StreamBuilder.hvm()
        b.checkpoints = draw(st.integers(1, 3))
        b.wrap(draw(st.sampled_from(["libxc", "libxl"])))
        data = b.build()
    what = draw(st.sampled_from(["whole", "whole", "cut", "bent", "followed"]))
    if what == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if what == "bent":
        bent = bytearray(data)
        for _ in range(draw(st.integers(1, 3))):
            bent[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
        return bytes(bent)
    return data + draw(st.binary(min_size=1, max_size=50)) if what == "followed" else data


CHUNKS = st.lists(st.integers(1, 300) | st.integers(1, 1 << 16), max_size=20)
TARGETS = st.sampled_from(["4.13", "4.17", "4.20", "newest"])
PLACEMENTS = st.sampled_from(["source", "high", "low"])
quickly = settings(
    max_examples=examples(25),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@quickly
@given(data=inputs(), chunks=CHUNKS, pair=st.sampled_from(PAIRS), target=TARGETS, placement=PLACEMENTS)
def test_an_observed_stream_comes_out_as_it_went_in_and_is_judged_as_by_check(
    send, data, chunks, pair, target, placement
):
    came, outcome = send(data, pair, chunks, target=target, placement=placement)
    checked = check(data, target=target, placement=placement)
    assert came == data
    assert outcome.failure is None
    assert facts(outcome.report) == facts(checked)
    assert (outcome.report.verdict, outcome.report.failure) == (checked.verdict, checked.failure)
    assert outcome.report.checkpoints == checked.checkpoints
    assert outcome.stats.bytes == len(data)


@quickly
@given(data=inputs(), chunks=CHUNKS, pair=st.sampled_from(PAIRS), target=TARGETS, placement=PLACEMENTS)
def test_a_guarded_stream_comes_out_whole_unless_check_refuses_it(send, data, chunks, pair, target, placement):
    came, outcome = send(data, pair, chunks, mode=Mode.GUARD, target=target, placement=placement)
    checked = check(data, target=target, placement=placement)
    assert outcome.failure is None
    if checked.verdict != "refuse" or outcome.stood_down is not None:
        checkpointed = checked.stream.checkpoints or any(f.rule.id == "ORD-19" for f in checked.findings)
        assert (outcome.stood_down is not None) == bool(checkpointed or checked.verdict == "unjudged")
        assert came == data
        assert outcome.stopped is None
        assert facts(outcome.report) == facts(checked)
    elif outcome.stopped is None:  # for what follows the image's END, and would be taken for zeros if it did not come
        image = check(image_of(data), target=target, placement=placement)
        assert image.failure is None or image.failure.step is Stage.DEVICE_MODEL
        assert came == data
        assert outcome.report.failure == checked.failure
    else:
        assert data.startswith(came)
        # Of some, too little has come by then to tell a stream by.
        assert check(came, target=target, placement=placement).verdict != "accept"
        assert outcome.stopped.endswith(f"({checked.failure.rule})")
        assert outcome.report.failure == checked.failure


# -- real streams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["pv32.migrate.bin", "x417-pv32.xl", "x417-pv32x.live4.libxc", "x417-pv64.verify.libxc", "x417-pvh.xl"]
)
def test_of_real_streams_the_filter_finds_what_check_finds(send, name):
    data = sample(name)
    came, outcome = send(data, target="4.20")
    checked = check(data, target="4.20")
    assert came == data
    assert facts(outcome.report) == facts(checked)
    assert outcome.report.verdict == checked.verdict


def test_a_real_guest_that_would_not_come_back_is_stopped_at_its_end(send):
    data = sample("x417-pv32.plain.libxc")
    came, outcome = send(data, mode=Mode.GUARD, target="4.20", placement="high")
    assert data.endswith(END)
    assert came == data.removesuffix(END)
    assert outcome.stopped.endswith("(HYP-22)")


def test_a_real_guest_with_extended_cr3_passes_the_guard(send):
    data = sample("x417-pv32x.plain.libxc")
    came, outcome = send(data, mode=Mode.GUARD, target="4.20", placement="high")
    assert came == data
    assert (outcome.stopped, outcome.stood_down) == (None, None)


@pytest.mark.parametrize("name", ["x417-pv32.remus.libxc", "x417-pvh.remus.libxc"])
def test_a_real_remus_stream_is_never_guarded(send, name):
    data = sample(name)
    came, outcome = send(data, mode=Mode.GUARD, target="4.20", placement="high")
    assert came == data
    assert outcome.stood_down.startswith("a checkpointed stream")


def test_what_follows_the_end_of_a_real_migration_passes_the_guard(send):
    data = sample("pv32.migrate.bin")
    came, outcome = send(data, mode=Mode.GUARD)
    assert came == data
    assert "44 bytes follow the end of the stream" in {f.message for f in outcome.report.findings}


BEHIND = {
    "a few words": b"go ahead",
    "some zeros": bytes(5),
    "many zeros": bytes(100_000),
    "zeros and no zeros": bytes(70_000) + b"x",
    "another stream": StreamBuilder.hvm().build(),
}


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("behind", BEHIND)
def test_what_follows_the_end_is_looked_at_as_check_does(send, mode, behind):
    b = StreamBuilder.pv(4)
    b.trailing = BEHIND[behind]
    data = b.build()
    came, outcome = send(data, mode=mode)
    assert came == data
    assert sorted(facts(outcome.report)) == sorted(facts(check(data)))


@pytest.mark.parametrize("mode", Mode)
def test_what_follows_the_end_goes_on_as_it_comes(channel, mode):
    data = StreamBuilder.pv(4).build()
    channel = channel(mode=mode)
    os.write(channel.feed, data)
    for passed in range(3):
        channel.arrives(len(data) + passed)
        os.write(channel.feed, b"x")
    os.close(channel.feed)
    channel.join()
    os.close(channel.seen)
    assert channel.came == data + b"xxx"
    assert channel.outcome.report.verdict == "accept"


def test_pages_of_a_real_hvm_guest_never_leave_the_kernel(send):
    data = sample("x417-pvh.live4.libxc")
    _, outcome = send(data)
    contents = sum(one.bytes - 8 * one.pages for one in outcome.stats.rounds)
    assert outcome.stats.spliced > 0.99 * contents


# -- when bytes go on ---------------------------------------------------------------------------------------


def good(container="libxc", guest=StreamBuilder.pv):
    b = guest()
    b.wrap(container)
    return b


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("container", ["libxc", "libxl", "xl"])
def test_a_sound_stream_is_through_before_the_sender_closes(channel, container, mode):
    data = good(container).build()
    running = channel(mode=mode)
    os.write(running.feed, data)
    running.arrives(len(data))
    os.write(running.feed, b"go ahead")
    running.arrives(len(data) + 8)
    os.close(running.feed)
    running.join()
    assert running.came == data + b"go ahead"


def test_an_observed_stream_may_pause_after_any_byte(channel):
    data = good("xl").build()
    running = channel()
    for at in [*range(0, 300, 7), *range(300, len(data), 2503), len(data)]:
        os.write(running.feed, data[len(running.came) : at])
        running.arrives(at)
    os.close(running.feed)
    running.join()


def test_a_guarded_stream_may_pause_after_any_record(channel):
    b = good()
    running = channel(mode=Mode.GUARD)
    os.write(running.feed, b.headers())
    for rec in b.records[:-1]:
        os.write(running.feed, rec.build())
    # The last piece that was given is held until the next is asked for, and the decoder does that at once.
    running.arrives(len(b.build()) - len(END))
    os.write(running.feed, END)
    os.close(running.feed)
    running.join()
    assert running.came == b.build()


# -- the guard ------------------------------------------------------------------------------------------------


def test_the_guard_holds_back_nothing_but_the_eight_bytes_of_end(send):
    b = good()
    b.drop("X86_PV_VCPU_BASIC")
    data = b.build()
    came, outcome = send(data, mode=Mode.GUARD)
    assert came == data.removesuffix(END)
    assert outcome.report.verdict == "refuse"
    assert outcome.stats.end_held_seconds is not None


def test_a_record_that_libxc_refuses_ends_the_stream_at_once(channel):
    b = good()
    b.insert(UNKNOWN, b"never heard of", before="SHARED_INFO")
    data = b.build()
    running = channel(mode=Mode.GUARD)
    os.write(running.feed, data.removesuffix(END))
    running.join()  # though the sender has not closed, and END has not come
    os.close(running.feed)
    assert data.startswith(running.came)
    assert running.outcome.stopped.endswith("(FRM-05)")
    assert running.said == [f"stopped the stream: {running.outcome.stopped}"]


def test_a_checkpoint_makes_the_guard_stand_down_at_once(channel):
    b = good()
    b.checkpoints = 2
    data = b.build()
    first = data.index(RECORD_HEADER.pack(RecordType.CHECKPOINT, 0)) + RECORD_HEADER.size
    running = channel(mode=Mode.GUARD)
    os.write(running.feed, data[:first])
    until(lambda: running.said, "the guard's word")
    assert running.said[0].startswith("the guard stands down, and only observes from here on: a checkpointed stream")
    running.arrives(first)
    os.write(running.feed, data[first:])
    os.close(running.feed)
    running.join()
    assert running.came == data
    assert len(running.said) == 1


def test_after_a_checkpoint_even_a_refused_record_passes(send):
    b = good()
    b.checkpoints = 2
    b.insert(UNKNOWN, b"never heard of", after="CHECKPOINT")
    data = b.build()
    came, outcome = send(data, mode=Mode.GUARD)
    assert came == data
    assert outcome.stopped is None


@pytest.mark.parametrize("data", [b"no stream at all " * 9, b"xl migration receiver ready, send binary domain data.\n"])
def test_what_cannot_be_judged_is_not_guarded(send, data):
    came, outcome = send(data, mode=Mode.GUARD)
    assert came == data
    assert outcome.stood_down == outcome.report.reason
    assert outcome.report.verdict == "unjudged"


@pytest.mark.parametrize("fail_on", [None, Severity.WARNING])
def test_what_libxl_refuses_after_the_image_goes_on_for_it_to_refuse(send, fail_on):
    b = good("libxl", lambda: StreamBuilder.pv(8))
    b.libxl_after[0].type = UNKNOWN
    data = b.build()
    came, outcome = send(data, mode=Mode.GUARD, fail_on=fail_on)
    assert check(data[: -RECORD_HEADER.size]).verdict == "accept"  # as which libxl takes it, were it stopped
    assert (came, outcome.stopped, outcome.stood_down) == (data, None, None)
    assert outcome.report.failure.rule == "CON-12"


# -- the guard with a threshold ---------------------------------------------------------------------------------


def late(container="libxc"):
    """Restored by every Xen, but with a finding that nobody can make before END."""
    b = good(container, lambda: StreamBuilder.pv(8))
    b.drop("SHARED_INFO")
    return b.build()


def early():
    """Restored by every Xen, with a finding in the middle of the stream."""
    b = good(guest=lambda: StreamBuilder.pv(8))
    b.image["reserved1"] = 1
    return b.build()


@pytest.mark.parametrize("container", ["libxc", "xl"])
def test_a_finding_stops_a_guarded_stream_only_if_asked_for(send, container):
    data = late(container)
    assert [f.rule.id for f in check(data).findings if f.severity is Severity.ERROR] == ["ORD-14"]
    came, outcome = send(data, mode=Mode.GUARD)
    assert (came, outcome.stopped) == (data, None)
    came, outcome = send(data, mode=Mode.GUARD, fail_on=Severity.ERROR)
    assert came == data[: data.rindex(END, 0, -8 if container == "xl" else None)]
    assert outcome.stopped.endswith("(ORD-14)")
    assert "ORD-14" in {f.rule.id for f in outcome.report.findings}


def test_a_warning_in_the_middle_stops_a_stream_there(send):
    data = early()
    came, outcome = send(data, mode=Mode.GUARD, fail_on=Severity.ERROR)
    assert (came, outcome.stopped) == (data, None)
    came, outcome = send(data, mode=Mode.GUARD, fail_on=Severity.WARNING)
    assert data.startswith(came)
    assert len(came) < IMAGE_HEADER.size  # which is what the warning is about
    assert outcome.stopped.endswith("(HDR-07)")
    assert outcome.report.verdict == "unjudged"
    assert outcome.report.reason.endswith(outcome.stopped)


def test_an_ignored_warning_does_not_stop_a_guarded_stream(send):
    data = late()
    came, outcome = send(data, mode=Mode.GUARD, fail_on=Severity.ERROR, selection=Selection(ignore=["ORD-14"]))
    assert (came, outcome.stopped) == (data, None)


@pytest.mark.parametrize("harm", [rule.id for rule in RULES.values() if rule.effect.harms_host])
def test_no_option_lets_pass_what_a_host_goes_down_for(send, harm):
    rule = RULES[harm]
    data, target = violating_stream(rule), conditions(rule).target
    options = {"mode": Mode.GUARD, "target": target, "selection": Selection(ignore=[harm])}
    for fail_on in (None, Severity.ERROR):
        came, outcome = send(data, fail_on=fail_on, **options)
        assert came == data.removesuffix(END)
        assert outcome.stopped.endswith(f"({harm})")


@pytest.mark.parametrize("container", ["libxc", "libxl", "xl"])
@pytest.mark.parametrize("guest", [lambda: StreamBuilder.pv(8), StreamBuilder.hvm])
def test_a_threshold_neither_doubles_nor_invents_findings(send, container, guest):
    data = good(container, guest).build()
    came, outcome = send(data, mode=Mode.GUARD, fail_on=Severity.WARNING)
    assert (came, outcome.stopped) == (data, None)
    assert facts(outcome.report) == facts(check(data))


def test_what_a_container_lacks_is_told_and_stops_nothing_once_the_image_has_gone_on(send):
    b = good("xl", StreamBuilder.hvm)
    b.libxl_after.pop(0)  # the device model's state
    data = b.build()
    came, outcome = send(data, mode=Mode.GUARD, fail_on=Severity.WARNING)
    assert (came, outcome.stopped) == (data, None)
    assert outcome.report.failure.rule == "CON-23"


def test_a_judge_that_fails_behind_the_image_cuts_nothing_off(send, monkeypatch):
    whole = ContainerChecks.libxl_record

    def libxl_record(self, record, **options):
        if record.type == LibxlRecordType.EMULATOR_CONTEXT:
            raise FAULT
        whole(self, record, **options)

    def rehearsed(head):
        rehearse(head)  # as much of it as of a whole stream
        monkeypatch.setattr(ContainerChecks, "libxl_record", libxl_record)

    monkeypatch.setattr("migrate.judging.pipe_filter.rehearse", rehearsed)
    data = good("libxl", StreamBuilder.hvm).build()
    came, outcome = send(data, mode=Mode.GUARD)
    assert (came, outcome.stopped) == (data, None)
    assert isinstance(outcome.failure, ZeroDivisionError)


# -- a fault of our own ---------------------------------------------------------------------------------------------


FAULT = ZeroDivisionError("a fault of ours")


@pytest.fixture
def fault(monkeypatch):
    """Make a method of the judging code raise, from its nth call on."""

    def fault(owner, name, after=0, error=FAULT):
        calls = iter(range(after))
        whole = getattr(owner, name)

        def broken(*args, **kwargs):
            if next(calls, None) is None:
                raise error
            return whole(*args, **kwargs)

        monkeypatch.setattr(owner, name, broken)

    return fault


FAULTS = [
    (Restorer, "event", 0),
    (headers, "domain_header", 0),
    (Restorer, "wants_body", 5),
    (Restorer, "wants_pages", 0),
    (Restorer, "pages", 0),
    (Restorer, "record", 0),
    (Restorer, "record", 7),
    (Restorer, "complete", 0),
    (Judgement, "report", 0),
    (Judgement, "replay", 0),
    (PvRestore, "__init__", 0),
]


@pytest.mark.parametrize(("owner", "name", "after"), FAULTS)
def test_an_observed_stream_goes_on_where_judging_fails(send, fault, owner, name, after):
    fault(owner, name, after)
    data = good().build() + b"and more"
    came, outcome = send(data)
    assert came == data
    assert isinstance(outcome.failure, ZeroDivisionError)
    assert outcome.report.verdict == "unjudged"
    assert outcome.report.reason == "the filter stopped judging: ZeroDivisionError: a fault of ours"
    assert outcome.stats.bytes == len(data)


# What the guard asks while END is held; the report is made when END has gone on.
GUARD_FAULTS = [
    (Judgement, "guarded_against", 0) if name == "report" else (owner, name, after) for owner, name, after in FAULTS
]


@pytest.mark.parametrize(("owner", "name", "after"), GUARD_FAULTS)
def test_no_unjudged_end_passes_the_guard_where_judging_fails(send, fault, owner, name, after):
    fault(owner, name, after)
    data = good().build()
    came, outcome = send(data, mode=Mode.GUARD)
    assert data.removesuffix(END).startswith(came)
    assert isinstance(outcome.failure, ZeroDivisionError)
    assert outcome.stopped is not None
    assert outcome.report.verdict == "unjudged"


@pytest.mark.parametrize(
    "error", [BrokenPipeError("not the receiver's"), TransportError("no read", 0), OSError(28, "full")]
)
def test_an_error_of_the_judging_code_is_never_taken_for_one_of_the_pipe(send, fault, error):
    fault(Restorer, "record", 3, error)
    data = good().build()
    came, outcome = send(data)
    assert (came, outcome.failure) == (data, error)


def test_a_fault_after_a_checkpoint_does_not_break_the_channel(send, fault):
    fault(Judgement, "_checkpoint", 1)
    b = good()
    b.checkpoints = 3
    came, outcome = send(b.build(), mode=Mode.GUARD)
    assert came == b.build()
    assert isinstance(outcome.failure, ZeroDivisionError)


def test_a_fault_at_the_first_checkpoint_does_not_break_the_channel(send, fault):
    fault(Judgement, "_checkpoint")
    b = good()
    b.checkpoints = 2
    came, outcome = send(b.build(), mode=Mode.GUARD)
    assert came == b.build()
    assert outcome.stopped is None
    assert outcome.stood_down.startswith("a checkpointed stream")


def test_what_was_found_before_the_fault_is_told(send, fault):
    fault(Restorer, "complete")
    _, outcome = send(early())
    assert [f.rule.id for f in outcome.report.findings] == ["HDR-07"]


# -- broken off ---------------------------------------------------------------------------------------------------


def test_a_stream_that_is_broken_off_is_not_accepted(folder):
    data = good().build()
    running = Channel(folder)
    os.close(running.seen)
    running.start()
    os.write(running.feed, data)
    with pytest.raises(BrokenPipeError):
        running.join()
    os.close(running.feed)
    outcome = running.filter.outcome("the receiver is gone")
    assert outcome.report.verdict == "unjudged"
    assert outcome.report.reason == "it was broken off after 0 bytes: the receiver is gone"
    assert {f.severity for f in outcome.report.findings} <= {Severity.INFO}
    assert outcome.failure is None


def test_an_interruption_waits_for_what_is_being_judged(folder):
    class Interruption(BaseException):
        pass

    data = good().build()
    running = Channel(folder, mode=Mode.GUARD)
    replay = Judgement.replay

    def interrupted(*args, **kwargs):
        running.filter.interrupt(Interruption())
        return replay(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Judgement, "replay", interrupted)
        with pytest.raises(Interruption):
            running.run(data)
    assert running.came == data.removesuffix(END)
    assert running.filter.outcome("interrupted").failure is None


# -- figures --------------------------------------------------------------------------------------------------------


def live():
    """Three passes over memory, with as many pfns in the later ones as `again` says."""
    b = good()
    present = sorted(pfn for pfn, page in b.memory.items() if page.has_data)
    b.rounds = [present[:5], present[1:3]]
    return b


def test_figures_tell_of_each_pass_over_the_guests_memory(send):
    b = live()
    bodies = [len(rec.body) for rec in b.records if rec.type == RecordType.PAGE_DATA]
    data = b.build()
    _, outcome = send(data)
    stats = outcome.stats
    kinds = ["first", "dirty", "final"]
    assert stats.rounds == [Round(*one) for one in zip(kinds, [len(b.memory), 5, 2], bodies, strict=True)]
    assert stats.resent_pages == 7
    assert stats.page_tables == sum(page.is_table for page in b.memory.values())
    assert stats.bytes == len(data)
    assert stats.end_held_seconds is None


def test_the_time_that_end_is_held_is_measured(send):
    ticks = iter(range(100))
    _, outcome = send(good().build(), mode=Mode.GUARD, clock=lambda: next(ticks))
    assert outcome.stats.end_held_seconds == 1
    assert outcome.stats.seconds == 3


def test_where_the_stream_is_can_be_asked_at_any_time(channel):
    b = live()
    b.record("PAGE_DATA", 2).padding = b""
    pause = sum(len(rec.build()) for rec in b.records[: b._find("X86_TSC_INFO")]) + len(b.headers())
    data = b.build()
    running = channel()
    assert running.filter.status()["bytes"] == 0
    os.write(running.feed, data[:pause])
    running.arrives(pause)
    until(lambda: running.filter.status()["round"] == 3, "the third pass")
    status = running.filter.status()
    assert (status["bytes"], status["dirty"]) == (pause, 2)
    assert status["rate"] > 0
    os.write(running.feed, data[pause:])
    os.close(running.feed)
    running.join()
