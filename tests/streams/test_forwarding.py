"""The transport in a pipe: what is asked for is given and goes on, and nothing else is read."""

import array
import errno
import fcntl
import os
import socket
import termios
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import conduit
from streams.conduit import PIPE_SIZE, OutputError
from streams.forwarding import HELD, ForwardingTransport
from streams.transports import PIECE, TransportError

TEXT = bytes(range(256)) * 64


class Ends:
    """Both sides of a filter, each a pair (what the filter sees, what the world sees)."""

    def __init__(self, folder, source="pipe", sink="pipe"):
        self.folder = folder
        self.open = []
        self.feed = self.seen = None
        self.source = getattr(self, f"_{source}_source")()
        self.sink = getattr(self, f"_{sink}_sink")()

    def _keep(self, *fds):
        self.open += fds
        return fds

    def _pipe_source(self):
        source, self.feed = self._keep(*os.pipe())
        return source

    def _socket_source(self):
        source, self.feed = self._keep(*(end.detach() for end in socket.socketpair()))
        return source

    def _file_source(self):
        path = self.folder / "in"
        path.write_bytes(b"")
        self.feed = self._keep(os.open(path, os.O_WRONLY))[0]
        return self._keep(os.open(path, os.O_RDONLY))[0]

    def _pipe_sink(self):
        self.seen, sink = self._keep(*os.pipe())
        return sink

    def _socket_sink(self):
        self.seen, sink = self._keep(*(end.detach() for end in socket.socketpair()))
        return sink

    def _file_sink(self, flags=0):
        path = self.folder / "out"
        path.write_bytes(b"")
        self.seen = self._keep(os.open(path, os.O_RDONLY))[0]
        return self._keep(os.open(path, os.O_WRONLY | flags))[0]

    def _append_sink(self):
        return self._file_sink(os.O_APPEND)

    def write(self, data, last=True):
        os.write(self.feed, data)
        if last:
            self.close(self.feed)

    def arrived(self):
        """What is there to be read, and nothing that might come."""
        os.set_blocking(self.seen, False)
        pieces = []
        while True:
            try:
                piece = os.read(self.seen, PIECE)
            except BlockingIOError:
                break
            if not piece:
                break
            pieces.append(piece)
        return b"".join(pieces)

    def waiting(self):
        """Bytes that the filter has not read yet."""
        count = array.array("i", [0])
        fcntl.ioctl(self.source, termios.FIONREAD, count)
        return count[0]

    def close(self, fd):
        self.open.remove(fd)
        os.close(fd)


@pytest.fixture
def ends(tmp_path):
    made = []

    def make(*kinds):
        made.append(Ends(tmp_path, *kinds))
        return made[-1]

    yield make
    for one in made:
        for fd in list(one.open):
            one.close(fd)


SOURCES = ["pipe", "socket", "file"]
SINKS = ["pipe", "socket", "file", "append"]


def until(condition, what):
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.001)


# -- every byte goes on ---------------------------------------------------------------------------------


ASKED = ["give", "skip", "look", "peek"]
REQUESTS = st.lists(st.tuples(st.sampled_from(["give", "skip"]), st.integers(0, 5000)), max_size=12)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("sink", SINKS)
def test_whatever_is_asked_for_the_output_is_the_input(source, sink, tmp_path):
    @settings(max_examples=12, deadline=None, database=None)
    @given(requests=REQUESTS, size=st.integers(0, len(TEXT)), hold=st.booleans(), splice=st.booleans())
    def holds(requests, size, hold, splice):
        ends = Ends(tmp_path, source, sink)
        try:
            ends.write(TEXT[:size])
            transport = ForwardingTransport(ends.source, ends.sink, hold=hold, splice=splice)
            at = 0
            for what, n in requests:
                expected = TEXT[at : min(at + n, size)]
                if what == "give":
                    assert transport.give(n) == expected
                else:
                    assert transport.skip(n) == len(expected)
                at += len(expected)
                assert transport.position == at
                assert transport.written + transport.held == at
            transport.pass_all()
            assert (transport.position, transport.written, transport.held) == (size, size, 0)
            assert ends.arrived() == TEXT[:size]
        finally:
            for fd in list(ends.open):
                ends.close(fd)

    holds()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("sink", SINKS)
def test_what_goes_ahead_is_given_all_the_same(source, sink, tmp_path):
    @settings(max_examples=12, deadline=None, database=None)
    @given(
        requests=st.lists(
            st.tuples(st.sampled_from(["give", "skip", "look", "peek"]), st.integers(1, 5000)), max_size=8
        ),
        size=st.integers(0, len(TEXT)),
        ahead=st.integers(0, 6000),
    )
    def holds(requests, size, ahead):
        ends = Ends(tmp_path, source, sink)
        try:
            ends.write(TEXT[:size])
            transport = ForwardingTransport(ends.source, ends.sink, hold=False)
            transport.send_ahead(ahead)
            assert transport.written == min(ahead, size)
            at = 0
            for what, n in requests:
                expected = TEXT[at : min(at + n, size)]
                if what == "skip":
                    assert transport.skip(n) == len(expected)
                elif what == "peek":
                    seen = transport.peek(n)
                    assert expected.startswith(seen)
                    assert len(seen) == n or at + len(seen) >= min(ahead, size)
                    expected = b""
                else:
                    assert getattr(transport, what)(n) == expected
                at += len(expected)
                assert transport.position == transport.written == max(at, min(ahead, size))
            transport.pass_all()
            assert ends.arrived() == TEXT[:size]
        finally:
            for fd in list(ends.open):
                ends.close(fd)

    holds()


# Longer than what may be held: page contents.
LONG = bytes(range(251)) * 4000


def fed(ends, data):
    """A thread that writes what a pipe does not take at once."""
    thread = threading.Thread(target=lambda: (write_all(ends.feed, data), ends.close(ends.feed)))
    thread.start()
    return thread


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def drained(ends, into):
    def read():
        while piece := os.read(ends.seen, PIECE):
            into.append(piece)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("hold", [False, True])
def test_long_answers_are_what_went_on(source, sink, hold, ends):
    both = ends(source, sink)
    transport = ForwardingTransport(both.source, both.sink, hold=hold)
    writer, pieces = fed(both, LONG), []
    reader = drained(both, pieces) if sink in ("pipe", "socket") else None
    if source == "file":  # which has an end as soon as it is read to it
        writer.join()
    assert bytes(transport.give(100)) == LONG[:100]
    at = 100
    for n in (HELD + 1, PIECE, 7, PIECE):
        expected = LONG[at : at + n]
        assert bytes(transport.give(n)) == expected
        at += len(expected)
    assert (transport.position, transport.written + transport.held) == (len(LONG), len(LONG))
    transport.pass_all()
    writer.join()
    both.close(both.sink)
    if reader:
        reader.join()
    else:
        pieces.append(os.read(both.seen, 2 * PIECE))
    assert b"".join(pieces) == LONG


def test_long_answers_go_from_pipe_to_pipe_inside_the_kernel(ends):
    both = ends()
    transport = ForwardingTransport(both.source, both.sink, hold=True)
    writer, pieces = fed(both, LONG), []
    reader = drained(both, pieces)
    assert bytes(transport.give(PIECE)) == LONG
    assert transport.spliced == len(LONG)
    assert bytes(transport.give(1)) == b""
    writer.join()
    both.close(both.sink)
    reader.join()


def test_an_output_that_takes_no_splice_gets_what_the_pipe_still_holds(ends):
    both = ends("pipe", "append")
    transport = ForwardingTransport(both.source, both.sink, hold=False)
    both.write(LONG[: PIPE_SIZE // 2])
    assert bytes(transport.give(PIECE)) == LONG[: PIPE_SIZE // 2]
    assert transport.spliced == 0
    assert os.read(both.seen, PIECE) == LONG[: PIPE_SIZE // 2]


def test_a_reader_that_is_gone_is_told_of_long_answers_too(ends):
    both = ends()
    transport = ForwardingTransport(both.source, both.sink, hold=False)
    both.write(LONG[: PIPE_SIZE // 2])
    both.close(both.seen)
    with pytest.raises(BrokenPipeError):
        transport.give(PIECE)
    assert transport.written == 0


def test_what_is_larger_than_the_buffer_is_given_whole(ends):
    data = os.urandom(2 * PIECE + 17)
    for hold in (False, True):
        both = ends("file", "file")
        both.write(data)
        transport = ForwardingTransport(both.source, both.sink, hold=hold)
        assert transport.give(3 * PIECE) == data
        transport.release()
        assert both.arrived() == data


def test_a_huge_request_costs_no_more_than_what_is_there(ends):
    both = ends()
    both.write(TEXT)
    transport = ForwardingTransport(both.source, both.sink, hold=False)
    assert transport.give(1 << 40) == TEXT
    assert transport.skip(1 << 40) == 0


def test_nothing_is_read_that_was_not_asked_for(ends):
    both = ends()
    both.write(TEXT, last=False)
    transport = ForwardingTransport(both.source, both.sink, hold=False)
    transport.give(8)
    assert both.waiting() == len(TEXT) - 8
    transport.skip(100)
    assert both.waiting() == len(TEXT) - 108
    assert both.arrived() == TEXT[:108]


def test_a_file_is_read_from_where_it_stands(ends):
    both = ends("file", "pipe")
    both.write(TEXT)
    os.lseek(both.source, 1000, os.SEEK_SET)
    transport = ForwardingTransport(both.source, both.sink, hold=False)
    assert transport.give(10) == TEXT[1000:1010]
    transport.pass_all()
    assert both.arrived() == TEXT[1000:]


def test_an_appended_file_keeps_what_it_held(ends, tmp_path):
    both = ends("pipe", "append")
    (tmp_path / "out").write_bytes(b"before")
    both.write(TEXT)
    ForwardingTransport(both.source, both.sink, hold=False).pass_all()
    assert (tmp_path / "out").read_bytes() == b"before" + TEXT


# -- when it goes on --------------------------------------------------------------------------------------


def test_given_bytes_are_written_before_they_are_given(ends):
    both = ends()
    both.write(TEXT, last=False)
    transport = ForwardingTransport(both.source, both.sink, hold=False)
    transport.give(100)
    assert both.arrived() == TEXT[:100]


@pytest.mark.parametrize("follow", [lambda t: t.give(4), lambda t: t.skip(4), lambda t: t.release()])
def test_held_bytes_are_written_when_more_is_asked_for(ends, follow):
    both = ends()
    both.write(TEXT, last=False)
    transport = ForwardingTransport(both.source, both.sink, hold=True)
    transport.give(100)
    assert both.arrived() == b""
    assert transport.held == 100
    follow(transport)
    assert both.arrived()[:100] == TEXT[:100]


def test_asking_for_nothing_lets_nothing_go(ends):
    both = ends()
    both.write(TEXT, last=False)
    transport = ForwardingTransport(both.source, both.sink, hold=True)
    transport.give(100)
    assert transport.give(0) == b""
    assert transport.skip(0) == 0
    assert both.arrived() == b""


def test_held_bytes_are_written_when_the_rest_is_drained(ends):
    both = ends()
    both.write(TEXT)
    transport = ForwardingTransport(both.source, both.sink, hold=True)
    transport.give(100)
    transport.pass_all()
    assert both.arrived() == TEXT


def test_after_stop_holding_what_was_held_goes_on_and_nothing_is_held_again(ends):
    both = ends()
    both.write(TEXT, last=False)
    transport = ForwardingTransport(both.source, both.sink, hold=True)
    transport.give(100)
    transport.stop_holding()
    transport.give(100)
    assert both.arrived() == TEXT[:200]


@pytest.mark.parametrize("ask", [lambda t: t.give(1000), lambda t: t.skip(1000), lambda t: t.pass_all()])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_half_of_what_was_asked_for_goes_on_while_the_sender_pauses(ends, kind, ask):
    both = ends(kind, kind)
    both.write(TEXT[:300], last=False)
    transport = ForwardingTransport(both.source, both.sink, hold=False)
    thread = threading.Thread(target=ask, args=(transport,), daemon=True)
    thread.start()
    until(lambda: transport.written == 300, "what the sender has written")
    assert thread.is_alive()
    assert both.arrived() == TEXT[:300]
    both.write(TEXT[300:1000])
    thread.join(10)
    assert not thread.is_alive()
    assert both.arrived() == TEXT[300:1000]


def test_all_that_was_accepted_goes_on_before_a_holding_transport_waits(ends):
    both = ends()
    both.write(TEXT[:303], last=False)
    transport = ForwardingTransport(both.source, both.sink, hold=True)
    transport.give(300)
    thread = threading.Thread(target=transport.give, args=(8,), daemon=True)
    thread.start()
    until(lambda: transport.position == 303, "the beginning of what is asked for")
    assert both.arrived() == TEXT[:300]
    both.write(TEXT[303:308])
    thread.join(10)
    assert not thread.is_alive()


# -- inside the kernel --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "sink", "spliced"),
    [
        ("pipe", "pipe", True),
        ("file", "pipe", True),
        ("pipe", "file", True),
        ("pipe", "append", False),
        ("file", "file", True),
        ("socket", "socket", True),
    ],
)
def test_bytes_that_nobody_needs_stay_in_the_kernel_where_it_can_move_them(ends, source, sink, spliced):
    both = ends(source, sink)
    both.write(TEXT)
    transport = ForwardingTransport(both.source, both.sink, hold=False)
    assert transport.skip(len(TEXT)) == len(TEXT)
    assert transport.spliced == (len(TEXT) if spliced else 0)
    assert both.arrived() == TEXT


def test_pipes_are_enlarged(ends):
    both = ends()
    ForwardingTransport(both.source, both.sink, hold=False)
    assert fcntl.fcntl(both.source, fcntl.F_GETPIPE_SZ) == PIPE_SIZE
    assert fcntl.fcntl(both.sink, fcntl.F_GETPIPE_SZ) == PIPE_SIZE


def test_a_larger_pipe_is_not_made_smaller(ends, monkeypatch):
    both = ends()
    large = fcntl.fcntl(both.source, fcntl.F_GETPIPE_SZ)
    monkeypatch.setattr(conduit, "PIPE_SIZE", large // 2)
    ForwardingTransport(both.source, both.sink, hold=False)
    assert fcntl.fcntl(both.source, fcntl.F_GETPIPE_SZ) == large


# -- descriptors that do not block, or are small --------------------------------------------------------------


@pytest.mark.parametrize("splice", [True, False])
@pytest.mark.parametrize(("source", "sink"), [("pipe", "pipe"), ("socket", "socket"), ("pipe", "socket")])
def test_a_tiny_full_output_that_does_not_block_is_waited_for(ends, source, sink, splice):
    both = ends(source, sink)
    data = os.urandom(300_000)
    for fd in (both.source, both.sink):
        os.set_blocking(fd, False)
    transport = ForwardingTransport(both.source, both.sink, hold=False, splice=splice)
    if sink == "pipe":
        fcntl.fcntl(both.sink, fcntl.F_SETPIPE_SZ, 4096)
    got = []

    def feed():
        view = memoryview(data)
        while view:
            view = view[os.write(both.feed, view[:7777]) :]
        both.close(both.feed)

    def ask():
        got.append(bytes(transport.give(150_000)))
        transport.pass_all()
        both.close(both.sink)

    threads = [threading.Thread(target=work, daemon=True) for work in (feed, ask)]
    for thread in threads:
        thread.start()
    pieces = []
    while piece := os.read(both.seen, 5000):
        pieces.append(piece)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert got == [data[:150_000]]
    assert b"".join(pieces) == data


# -- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("splice", [True, False])
@pytest.mark.parametrize("sink", ["pipe", "socket"])
@pytest.mark.parametrize("ask", [lambda t: t.give(10), lambda t: t.skip(10), lambda t: t.pass_all()])
def test_a_reader_that_is_gone_is_a_broken_pipe(ends, sink, ask, splice):
    both = ends("pipe", sink)
    both.write(TEXT)
    both.close(both.seen)
    with pytest.raises(BrokenPipeError):
        ask(ForwardingTransport(both.source, both.sink, hold=False, splice=splice))


def test_a_socket_closed_with_bytes_unread_is_a_broken_pipe(ends):
    both = ends("pipe", "socket")
    both.write(TEXT)
    transport = ForwardingTransport(both.source, both.sink, hold=False)
    os.write(both.seen, b"never read")
    both.close(both.seen)
    with pytest.raises(BrokenPipeError):
        transport.pass_all()


@pytest.mark.parametrize("ask", [lambda t: t.give(10), lambda t: t.skip(10), lambda t: t.pass_all()])
def test_a_full_device_is_reported_with_the_bytes_written(ends, ask):
    both = ends()
    both.write(TEXT)
    with open("/dev/full", "wb", buffering=0) as full:
        transport = ForwardingTransport(both.source, full.fileno(), hold=False)
        with pytest.raises(OutputError, match="writing failed after 0 bytes: No space left on device") as caught:
            ask(transport)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("ask", [lambda t: t.give(10), lambda t: t.skip(10), lambda t: t.pass_all()])
def test_an_input_that_cannot_be_read_is_reported(ends, tmp_path, ask):
    both = ends()
    folder = os.open(tmp_path, os.O_RDONLY)
    both.open.append(folder)
    with pytest.raises(TransportError, match="reading failed at offset 0x0: Is a directory"):
        ask(ForwardingTransport(folder, both.sink, hold=False))


def test_nothing_can_be_read_again(ends):
    both = ends()
    both.write(TEXT)
    transport = ForwardingTransport(both.source, both.sink, hold=False)
    assert not transport.rereads
    assert transport.reread([(0, 1)]) is None
