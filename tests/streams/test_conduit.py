"""From one descriptor to another: whoever holds the same descriptors can go on wherever the first one broke off."""

import mmap
import os
import random
import signal
import socket
import threading

import pytest
from faulty_os import LATE, SIGNAL, Fault, FaultyOs

from streams import conduit
from streams.conduit import CALLING, EMPTY, HANDS, Conduit, OutputError
from streams.forwarding import ForwardingTransport
from streams.transports import PIECE

WAIT = 20  # seconds, for what takes a moment
DATA = random.Random(18).randbytes(90_000)
# What a decoder might ask for.
ASKED = [(8, 8), (16, 3000), (8, 0), (70_000, 5)]


def pair(kind, folder, name):
    """A descriptor to read from, and one to write to."""
    if kind == "pipe":
        return os.pipe()
    if kind == "unix":
        return tuple(end.detach() for end in socket.socketpair())
    if kind == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as server:
            sender = socket.create_connection(server.getsockname())
            receiver, _ = server.accept()
        return receiver.detach(), sender.detach()
    path = folder / name
    path.write_bytes(b"")
    return os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY | (os.O_APPEND if kind == "append" else 0))


class Line:
    """A sender, a conduit and a receiver."""

    def __init__(self, folder, source, sink, data=DATA):
        self.source, self.feed = pair(source, folder, "in")
        self.seen, self.sink = pair(sink, folder, "out")
        self.came = bytearray()
        self._sends = threading.Thread(target=self._send, args=(data,), daemon=True)
        self._receives = threading.Thread(target=self._receive, daemon=True)
        self._file = source in ("file", "append"), sink in ("file", "append")
        self._sends.start()
        if self._file[0]:
            self._sends.join()
        if not self._file[1]:
            self._receives.start()

    def _send(self, data):
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.feed, view[:5000]) :]
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            os.close(self.feed)

    def _receive(self):
        while piece := os.read(self.seen, 1 << 16):
            self.came += piece

    def over(self):
        """All that came out, once both sides are closed."""
        os.close(self.sink)
        os.close(self.source)
        if self._file[1]:
            self._receive()
        else:
            self._receives.join(WAIT)
            assert not self._receives.is_alive(), "it hangs"
        self._sends.join(WAIT)
        os.close(self.seen)
        return bytes(self.came)


def ask(transport):
    """What the process does that breaks off: give and skip in turn, and then no more."""
    for give, skip in ASKED:
        transport.give(give)
        transport.skip(skip)


def broken_off(line, fault):
    """Run a conduit in a child that ends at a fault, and go on here; the exit code of the child, and the state then."""
    transport = ForwardingTransport(line.source, line.sink, hold=False)
    transport.share(memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q"))
    child = os.fork()
    if not child:
        code = 1
        try:
            FaultyOs(fault, lambda: os.kill(os.getpid(), signal.SIGKILL)).install(conduit)
            ask(transport)
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    state = transport.state[HANDS]
    if state == EMPTY:
        transport.pass_all()
    transport.close()
    return code, state


def calls(folder, source, sink):
    """How many calls there are to break off at."""
    line = Line(folder, source, sink)
    transport = ForwardingTransport(line.source, line.sink, hold=False)
    with pytest.MonkeyPatch.context() as patch:
        counting = FaultyOs()
        counting.install(conduit, patch.setattr)
        ask(transport)
    transport.pass_all()
    assert line.over() == DATA
    return len(counting.calls)


INSIDE = [("pipe", "pipe"), ("unix", "unix"), ("tcp", "tcp"), ("file", "pipe"), ("pipe", "unix"), ("tcp", "file")]


@pytest.mark.parametrize("what", [SIGNAL, LATE])
@pytest.mark.parametrize(("source", "sink"), INSIDE)
def test_another_process_goes_on_wherever_the_first_is_killed(tmp_path, source, sink, what):
    places = calls(tmp_path, source, sink)
    killed = 0
    for index in range(places):
        line = Line(tmp_path, source, sink)
        code, state = broken_off(line, Fault(index, what))
        assert state == EMPTY
        assert line.over() == DATA
        killed += code == -signal.SIGKILL
    assert killed >= len(ASKED)  # there are fewer calls where the bytes come in larger pieces


@pytest.mark.parametrize("what", [SIGNAL, LATE])
def test_where_bytes_are_copied_another_process_goes_on_or_knows_that_it_cannot(tmp_path, what):
    states = set()
    for index in range(calls(tmp_path, "pipe", "append")):
        line = Line(tmp_path, "pipe", "append")
        _, state = broken_off(line, Fault(index, what))
        came = line.over()
        assert came == DATA if state == EMPTY else DATA.startswith(came)
        states.add(state)
    assert EMPTY in states
    assert CALLING in states


def test_a_copy_that_broke_off_in_a_call_is_not_gone_on_with(tmp_path):
    line = Line(tmp_path, "pipe", "append")
    one = Conduit(line.source, line.sink, splice=False)
    one.state[HANDS] = CALLING
    with pytest.raises(OutputError, match="a copy broke off in the middle"):
        one.pass_all()
    assert line.over() == b""


def test_what_was_read_and_not_written_goes_first(tmp_path):
    line = Line(tmp_path, "pipe", "pipe")
    one = Conduit(line.source, line.sink)
    assert one.take(0, 100) == 100
    one.pass_all()
    assert line.over() == DATA


# -- looking ahead ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sink", ["pipe", "append"])
@pytest.mark.parametrize("source", ["pipe", "unix", "tcp", "file"])
def test_what_is_peeked_at_stays_where_it_is(tmp_path, source, sink):
    line = Line(tmp_path, source, sink)
    one = Conduit(line.source, line.sink)
    head = one.peek(4000)
    assert head
    assert DATA.startswith(head)
    assert (one.position, one.written) == (0, 0)
    one.pass_all()
    assert line.over() == DATA


def test_an_empty_input_shows_nothing(tmp_path):
    line = Line(tmp_path, "pipe", "pipe", b"")
    assert Conduit(line.source, line.sink).peek(100) == b""
    assert line.over() == b""


def test_a_socket_that_does_not_block_is_waited_for(tmp_path):
    source, feed = pair("unix", tmp_path, "in")
    seen, sink = os.pipe()
    os.set_blocking(source, False)
    one = Conduit(source, sink)
    threading.Timer(0.05, os.write, (feed, b"late")).start()
    assert one.peek(10) == b"late"
    for fd in (source, feed, seen, sink):
        os.close(fd)


# -- inside the kernel ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "sink"), INSIDE)
def test_what_is_shown_has_gone_on_inside_the_kernel(tmp_path, source, sink):
    line = Line(tmp_path, source, sink)
    one = Conduit(line.source, line.sink)
    at = 0
    while got := one.show(0, 7000):
        assert one.buffer[:got] == DATA[at : at + got]
        at += got
    assert one.spliced == one.written == len(DATA)
    assert line.over() == DATA


def test_without_descriptors_for_pipes_of_its_own_it_copies(tmp_path, monkeypatch):
    def none(flags):
        raise OSError(24, "Too many open files")

    line = Line(tmp_path, "pipe", "pipe")
    monkeypatch.setattr(os, "pipe2", none)
    one = Conduit(line.source, line.sink)
    one.pass_all()
    assert one.spliced == 0
    assert line.over() == DATA


def test_a_large_piece_over_a_bridge_comes_whole(tmp_path):
    data = random.Random(1).randbytes(3 * PIECE + 5)
    line = Line(tmp_path, "unix", "unix", data)
    one = ForwardingTransport(line.source, line.sink, hold=False)
    assert bytes(one.give(PIECE)) == data[:PIECE]
    assert one.skip(PIECE) == PIECE
    one.pass_all()
    assert line.over() == data
