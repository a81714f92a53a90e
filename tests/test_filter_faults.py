"""Every system call of the filter fails in turn: what comes out is always the beginning of what went in."""

import errno
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache

import at_once
import pytest
from faulty_os import EAGAIN, END, ERRORS, SHORT, SIGNAL, Fault, FaultyOs, FaultyPoll

from migrate.building.builder import StreamBuilder
from migrate.destination.destination import Destination
from migrate.judging.check import check
from migrate.judging.pipe_filter import Filter, Mode
from migrate.rules.selection import Selection
from streams import conduit
from streams.conduit import OutputError
from streams.forwarding import ForwardingTransport
from streams.transports import TransportError
from streams.wire.framing import RECORD_HEADER, RecordType

WAIT = 30  # seconds, for what takes a moment
SAMPLED = 8  # calls of each kind of run at which each fault is tried by default
PASSING = (SIGNAL, SHORT, EAGAIN)
LAST = RECORD_HEADER.pack(RecordType.END, 0)


def doomed():
    b = StreamBuilder.pv(8)
    b.drop(RecordType.X86_PV_VCPU_BASIC)
    return b.build()


def large():
    """With more pages in a row than are read and written: they go on inside the kernel and are looked at there."""
    b = StreamBuilder.pv(4)
    for n in range(40):
        b.new_page(content=bytes([n + 1]) * 4096)
    return b.build()


STREAMS = {
    "pv": StreamBuilder.pv(8).build(),
    "hvm": StreamBuilder.hvm().build(),
    "doomed": doomed(),
    "large": large(),
}
SMALL = ["pv", "hvm", "doomed"]
PIPE = 1 << 20
# Observed inside the kernel, observed where the kernel moves nothing, and guarded.
WAYS = {"observe": (Mode.OBSERVE, True), "copy": (Mode.OBSERVE, False), "guard": (Mode.GUARD, True)}
every_run = pytest.mark.parametrize(("name", "way"), [(name, way) for name in STREAMS for way in WAYS])


class Terminated(BaseException):
    """What the handler of a signal raises."""


class Run:
    """One run of a filter over a stream that lies in a pipe, all of it; the output is a pipe as well."""

    def __init__(self, data, way, fault=None, *, raising=False):
        source, feed = os.pipe()
        seen, sink = os.pipe()
        try:
            fcntl.fcntl(feed, fcntl.F_SETPIPE_SZ, PIPE)
            os.set_blocking(feed, False)
            assert os.write(feed, data) == len(data)  # it fits
            os.close(feed)
            reader = threading.Thread(target=self._receive, args=(seen,), daemon=True)
            reader.start()
            self.said = []
            self.faulty = FaultyOs(fault, self._terminate if raising else lambda: None)
            with pytest.MonkeyPatch.context() as patch:
                self.faulty.install(conduit, patch.setattr)
                self.error = self._run(source, sink, *WAYS[way])
            os.close(sink)
            reader.join(WAIT)
        finally:
            os.close(source)
            os.close(seen)
        self.outcome = self.filter.outcome(None if self.error is None else repr(self.error))
        del self.filter  # and its buffer, and its pipe: they would wait for the garbage collector

    def _run(self, source, sink, mode, splice):
        self.filter = Filter(
            ForwardingTransport(source, sink, hold=mode is Mode.GUARD, splice=splice),
            mode=mode,
            destination=Destination(placement="low"),
            selection=Selection(),
            tell=lambda message, error: self.said.append(message),
        )
        try:
            self.filter.forward()
        except (BrokenPipeError, OutputError, TransportError, Terminated) as error:
            return error
        return None

    def _receive(self, seen):
        with open(seen, "rb", closefd=False) as pipe:
            self.came = pipe.read()

    def _terminate(self):
        self.filter.interrupt(Terminated())


@cache
def clean(name, way):
    """A run without fault."""
    return Run(STREAMS[name], way)


def places(name, way, kinds, sampled):
    """(call number, kind) at which to try a fault: all, or a sample that never changes."""
    calls = [(index, kind) for index, kind in enumerate(clean(name, way).faulty.calls) if kind in kinds]
    if not sampled or len(calls) <= SAMPLED:
        return calls
    return sorted({*random.Random(20).sample(calls, SAMPLED - 2), calls[0], calls[-1]})


SCOPES = [True, pytest.param(False, marks=pytest.mark.slow)]
scopes = pytest.mark.parametrize("sampled", SCOPES, ids=["sample", "all"])


def assert_same_as_clean(run, name, way):
    expected = clean(name, way)
    assert run.error is None
    assert run.came == expected.came
    assert run.outcome.failure is None
    assert run.outcome.stopped == expected.outcome.stopped
    assert run.outcome.report.verdict == expected.outcome.report.verdict
    assert [f.message for f in run.outcome.report.findings] == [f.message for f in expected.outcome.report.findings]
    assert run.outcome.stats.bytes == len(run.came)


def assert_a_beginning(run, name, way):
    """What holds of every run: a prefix came out, it was counted, and a guard let no END of a doomed stream go."""
    data = STREAMS[name]
    assert data.startswith(run.came)
    assert run.outcome.stats.bytes == len(run.came)
    assert run.outcome.failure is None
    if way == "guard" and name == "doomed":
        assert data.removesuffix(LAST).startswith(run.came)


@every_run
def test_without_a_fault_the_stream_comes_out_whole_unless_it_is_stopped(name, way):
    run = clean(name, way)
    stopped = way == "guard" and name == "doomed"
    assert run.error is None
    assert run.came == (STREAMS[name].removesuffix(LAST) if stopped else STREAMS[name])
    assert run.outcome.report.verdict == check(STREAMS[name], placement="low").verdict
    expected = {"readv", "splice", "tee"} if way == "observe" else {"readv", "write"}
    if way == "guard":
        expected |= {"tee"} if stopped else {"splice", "tee"}  # what comes first is looked at where it lies
    # A guarded PV stream may be looked at as a copy from its first pages on.
    assert expected - ({"splice"} if way == "guard" and name == "pv" else set()) <= set(run.faulty.calls) <= expected


# -- faults that pass ---------------------------------------------------------------------------------


@scopes
@pytest.mark.parametrize("what", PASSING)
@every_run
def test_a_fault_that_passes_changes_nothing(name, way, what, sampled):
    for index, _ in places(name, way, ERRORS, sampled):
        assert_same_as_clean(Run(STREAMS[name], way, Fault(index, what)), name, way)


# Byte by byte takes long; the guards', where it matters most, and the shortest of the others are enough by default.
EVERY_CALL = [
    pytest.param(name, way, what, marks=[pytest.mark.slow] * (what == SHORT and way != "guard" and name != "hvm"))
    for name in SMALL
    for way in WAYS
    for what in (SIGNAL, SHORT)
]


@pytest.mark.parametrize(("name", "way", "what"), EVERY_CALL)
def test_a_fault_at_every_call_changes_nothing(name, way, what):
    for index in range(3):  # each kind of call is among the first, or fails with those
        run = Run(STREAMS[name], way, Fault(index, what, lasting=True))
        assert_same_as_clean(run, name, way)


@scopes
@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("kind", ["splice", "tee"])
@every_run
def test_bytes_that_the_kernel_does_not_move_are_copied(name, way, kind, lasting, sampled):
    for index, _ in places(name, way, [kind], sampled):
        for what in ("EINVAL", "ENOMEM", "EIO"):
            assert_same_as_clean(Run(STREAMS[name], way, Fault(index, what, lasting)), name, way)


@pytest.mark.parametrize("number", range(4))
def test_a_pipe_that_may_not_grow_is_left_as_it_is(monkeypatch, number):
    calls = iter(range(100))

    class Refusing:
        def __getattr__(self, name):
            return getattr(fcntl, name)

        def fcntl(self, *arguments):
            if next(calls) == number:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            return fcntl.fcntl(*arguments)

    monkeypatch.setattr(conduit, "fcntl", Refusing())
    assert_same_as_clean(Run(STREAMS["hvm"], "guard"), "hvm", "guard")


@pytest.mark.parametrize("name", STREAMS)
def test_a_copy_that_cannot_be_read_costs_the_judge_alone(name):
    for index, _ in places(name, "observe", ["readv"], True):
        run = Run(STREAMS[name], "observe", Fault(index, "EIO"))
        assert run.error is None
        assert run.came == STREAMS[name]
        assert run.outcome.report.verdict == "unjudged"


# -- faults that do not --------------------------------------------------------------------------------


@scopes
@pytest.mark.parametrize("what", ERRORS["readv"])
@every_run
def test_an_input_that_fails_for_good_ends_with_a_beginning(name, way, what, sampled):
    calls = [*ERRORS]
    for index, _ in places(name, way, calls, sampled)[:-1]:
        run = Run(STREAMS[name], way, Fault(index, what, of_input=True))
        assert_a_beginning(run, name, way)
        if way == "guard" and run.outcome.stopped:
            continue  # it had seen enough
        assert isinstance(run.error, TransportError)
        assert f"reading failed at offset 0x{run.error.offset:x}: {os.strerror(getattr(errno, what))}" == str(run.error)
        assert run.outcome.report.verdict != "accept" or run.came == STREAMS[name]


@scopes
@pytest.mark.parametrize("what", ERRORS["write"])
@every_run
def test_an_output_that_fails_for_good_ends_with_a_beginning(name, way, what, sampled):
    for index, _ in places(name, way, ["write"], sampled):
        run = Run(STREAMS[name], way, Fault(index, what, lasting=True))
        assert_a_beginning(run, name, way)
        assert_output_failed(run, what)


def assert_output_failed(run, what):
    if what in ("EPIPE", "ECONNRESET"):
        assert isinstance(run.error, BrokenPipeError)
    else:
        assert isinstance(run.error, OutputError)
        assert run.error.errno == getattr(errno, what)
        assert str(run.error).startswith(f"writing failed after {len(run.came)} bytes: ")


@pytest.mark.parametrize("what", ["EPIPE", "ENOSPC"])
@every_run
def test_an_output_that_fails_inside_the_kernel_ends_with_a_beginning(name, way, what):
    for index, _ in places(name, way, ["splice"], True):
        run = Run(STREAMS[name], way, Fault(index, what, lasting=True))
        assert_a_beginning(run, name, way)
        # A splice that fails over the output has moved nothing: only copying can tell why, if there is anything left.
        if run.error is not None or what == "EPIPE":
            assert_output_failed(run, what)
        else:
            assert run.came == clean(name, way).came


@scopes
@every_run
def test_a_sender_that_stops_anywhere_leaves_a_beginning(name, way, sampled):
    for index, _ in places(name, way, ["readv", "splice", "tee"], sampled):
        run = Run(STREAMS[name], way, Fault(index, END, lasting=True))
        assert run.error is None
        assert_a_beginning(run, name, way)
        report = run.outcome.report
        assert report.verdict == "refuse" or run.came == STREAMS[name]
        if way != "guard":
            assert report.stream.bytes == len(run.came)


@scopes
@every_run
def test_a_handler_that_ends_the_filter_at_any_call_leaves_a_beginning(name, way, sampled):
    for index, _ in places(name, way, ERRORS, sampled):
        run = Run(STREAMS[name], way, Fault(index, SIGNAL), raising=True)
        assert isinstance(run.error, Terminated)
        assert_a_beginning(run, name, way)
        assert run.outcome.report.verdict != "accept" or run.came == STREAMS[name]


def test_no_fault_near_it_lets_a_doomed_end_go():
    name, way = "doomed", "guard"
    for index, kind in list(enumerate(clean(name, way).faulty.calls))[-6:]:
        for what in (*PASSING, *ERRORS[kind], *([END] if kind == "readv" else [])):
            for lasting in (False, what != EAGAIN):
                assert_a_beginning(Run(STREAMS[name], way, Fault(index, what, lasting)), name, way)


# -- waiting ----------------------------------------------------------------------------------------------


@every_run
def test_a_wait_that_comes_back_with_nothing_is_repeated(monkeypatch, name, way):
    monkeypatch.setattr(conduit, "select", FaultyPoll(None))
    for index, _ in places(name, way, ERRORS, True):
        assert_same_as_clean(Run(STREAMS[name], way, Fault(index, EAGAIN)), name, way)


# -- the command: exit code and message ---------------------------------------------------------------------

FAULTY = """
import json, os
fault, poll, splice = json.loads({told!r})
if not splice:
    del os.splice
from faulty_os import Fault, FaultyOs, FaultyPoll
from streams import conduit
FaultyOs(Fault(**fault)).install(conduit)
if poll is not None:
    conduit.select = FaultyPoll(poll)
"""


def command(data, way, fault, *arguments, poll=None):
    """The command with a fault in it: (exit code, output, stderr)."""
    mode, splice = WAYS[way]
    told = json.dumps([vars(fault), poll, splice])
    guard = ["--guard"] if mode is Mode.GUARD else []
    words = ["filter", "--placement", "low", *guard, *arguments]
    done = at_once.run(*words, input=data, first=FAULTY.format(told=told))
    said = done.stderr.decode()
    assert "Traceback" not in said
    assert "internal error" not in said
    return done.returncode, done.stdout, said


ENDINGS = [
    ("readv", "EIO", 2, "migrate: reading failed at offset 0x"),
    ("readv", END, 1, "migrate: refused on "),
    ("write", "EPIPE", 141, "the receiver closed the pipe"),
    ("write", "ECONNRESET", 141, "the receiver closed the pipe"),
    ("write", "ENOSPC", 2, "migrate: writing failed after "),
    ("write", "EIO", 2, "migrate: writing failed after "),
]
KERNEL_ENDINGS = [
    ("tee", END, 1, "migrate: refused on "),
    ("splice", "EPIPE", 141, "the receiver closed the pipe"),
    ("splice", "ENOSPC", 2, "migrate: writing failed after "),
]


@pytest.mark.parametrize(
    ("way", "kind", "what", "code", "message"),
    [("observe", *one) for one in KERNEL_ENDINGS] + [(way, *one) for way in ("copy", "guard") for one in ENDINGS],
)
def test_the_command_ends_as_its_help_says(way, kind, what, code, message):
    data = STREAMS["pv"]
    ended, came, said = command(data, way, Fault(9, what, lasting=True, kind=kind))
    assert data.startswith(came)
    assert came != data
    assert (ended, message in said) == (code, True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", PASSING)
def test_the_command_takes_no_notice_of_what_passes(what, way):
    data = STREAMS["hvm"]
    for kind in set(clean("hvm", way).faulty.calls):
        assert command(data, way, Fault(0, what, kind=kind))[:2] == (0, data)


@pytest.mark.parametrize("kind", ["readv", "write"])
def test_a_wait_that_fails_is_told_and_reported(tmp_path, kind):
    report = tmp_path / "report"
    fault = Fault(9, EAGAIN, kind=kind)
    code, came, said = command(STREAMS["pv"], "copy", fault, "--report", str(report), poll=errno.ENOMEM)
    assert STREAMS["pv"].startswith(came)
    assert code == 2
    assert "Cannot allocate memory" in said
    assert json.loads(report.read_text())["verdict"] == "unjudged"


# -- with real descriptors --------------------------------------------------------------------------------------


def started(*arguments, **options):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    return subprocess.Popen(
        [sys.executable, "-m", "migrate", "filter", "--placement", "low", *arguments], **{**pipes, **options}
    )


def ended(process):
    """(exit code, output, stderr), the input closed."""
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.stdin = None
    try:
        came, said = process.communicate(timeout=WAIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail("it hangs")
    assert b"Traceback" not in said
    return process.returncode, came, said.decode()


guards = pytest.mark.parametrize("guard", [[], ["--guard"]], ids=["observe", "guard"])


@guards
def test_signals_at_every_moment_of_a_trickle_change_nothing(guard):
    data = STREAMS["hvm"]
    process = started(*guard)
    came = bytearray()

    def receive():
        while piece := process.stdout.read(4096):
            came.extend(piece)

    reader = threading.Thread(target=receive, daemon=True)
    reader.start()
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    process.stdin.write(data[:30])
    deadline = time.monotonic() + WAIT
    while not came:  # from now on it knows what to do with SIGUSR1
        assert time.monotonic() < deadline
        time.sleep(0.001)
    drain.start()
    for at in range(30, len(data), 97):
        process.send_signal(signal.SIGUSR1)
        process.stdin.write(data[at : at + 97])
    process.stdin.close()
    assert process.wait(WAIT) == 0
    reader.join(WAIT)
    assert bytes(came) == data


@guards
def test_a_receiver_that_is_gone_before_it_begins_is_told(guard):
    process = started(*guard)
    process.stdout.close()
    process.stdout = None
    with suppress(BrokenPipeError):
        process.stdin.write(STREAMS["pv"])
    code, _, said = ended(process)
    assert code == 141
    assert "the receiver closed the pipe" in said


@guards
def test_a_device_without_room_is_told(guard):
    with open("/dev/full", "wb", buffering=0) as full:
        process = started(*guard, stdout=full)
        with suppress(BrokenPipeError):
            process.stdin.write(STREAMS["pv"])
        code, _, said = ended(process)
    assert code == 2
    assert said.startswith("migrate: writing failed after 0 bytes: No space left on device\n")


@guards
def test_pipes_that_do_not_block_are_waited_for_at_every_byte(guard):
    data = STREAMS["hvm"]
    source, feed = os.pipe()
    seen, sink = os.pipe()
    for fd in (source, sink):
        os.set_blocking(fd, False)
    process = started(*guard, stdin=source, stdout=sink)
    os.close(source)
    os.close(sink)
    came = bytearray()
    with open(seen, "rb", buffering=0) as pipe, open(feed, "wb", buffering=0) as out:
        reader = threading.Thread(target=lambda: came.extend(pipe.read()), daemon=True)
        reader.start()
        for at in range(0, len(data), 1009):
            out.write(data[at : at + 1009])
            time.sleep(0.0005)
        out.close()
        process.communicate(timeout=WAIT)
        reader.join(WAIT)
    assert process.returncode == 0
    assert bytes(came) == data
