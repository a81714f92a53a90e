"""A filter where toolstacks have a place for it: between TCP connections, alone or with socat, and sockets of theirs.

Everything is on loopback, and the test is sender and receiver.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
from running_filter import BAD, COMMAND, END, GOOD, HVM, MODES, WAIT, no_traceback

from migrate.building.builder import StreamBuilder

LOOPBACK = "127.0.0.1"
NOBODY = (LOOPBACK, 1)  # no port that anybody listens on


def long_stream():
    b = StreamBuilder.pv(8)
    b.trailing = bytes(16 << 20)
    return b.build()


LONG = long_stream()


class Receiver:
    """Takes one connection, says something if asked to, and takes all that comes, or so many bytes."""

    def __init__(self, answer=b"", most=1 << 40):
        self._listening = socket.create_server((LOOPBACK, 0))
        self._listening.settimeout(WAIT)
        self._answer, self._most = answer, most
        self._came = bytearray()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    @property
    def port(self):
        return self._listening.getsockname()[1]

    @property
    def address(self):
        return f"{LOOPBACK}:{self.port}"

    def _receive(self):
        connection, _ = self._listening.accept()
        with connection, self._listening:
            connection.sendall(self._answer)
            while len(self._came) < self._most and (piece := connection.recv(1 << 16)):
                self._came += piece

    def came(self):
        """All that has come, once the sender has ended."""
        self._thread.join(WAIT)
        assert not self._thread.is_alive(), "the receiver sees no end"
        return bytes(self._came)


class Hop:
    """A filter that listens."""

    def __init__(self, *args, **options):
        command = [*COMMAND, "--placement", "low", "--listen", f"{LOOPBACK}:0", *map(str, args)]
        self.process = subprocess.Popen(command, **{"stderr": subprocess.PIPE, **options})
        line = self.process.stderr.readline().decode()
        self.port = int(re.fullmatch(rf"migrate: listening on {LOOPBACK}:(\d+)\n", line)[1])

    def ends(self):
        """(exit code, what it said, beyond where it listens)."""
        _, said = self.process.communicate(timeout=WAIT)
        return self.process.returncode, no_traceback(said)


def send(port, data):
    """Send all of it, and wait until the other side has ended; whether it has taken it all."""
    with socket.create_connection((LOOPBACK, port), WAIT) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
        except (BrokenPipeError, ConnectionResetError):
            return False
    return True


def through(data, *args, receiver=None, **options):
    """A stream through a hop: (exit code, what came, what was said, whether the sender was rid of all)."""
    receiver = receiver or Receiver()
    hop = Hop("--connect", receiver.address, *args, **options)
    sent = send(hop.port, data)
    code, said = hop.ends()
    return code, receiver.came(), said, sent


# -- of its own -----------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("data", [GOOD, HVM, LONG], ids=["pv", "hvm", "long"])
def test_a_stream_passes_a_hop_whole(mode, data):
    code, came, _, sent = through(data, *mode)
    assert (code, came == data, sent) == (0, True, True)


def test_between_connections_bytes_stay_in_the_kernel(tmp_path):
    code, came, _, _ = through(LONG, "--stats", tmp_path / "stats")
    assert (code, came == LONG) == (0, True)
    stats = json.loads((tmp_path / "stats").read_text())
    assert stats["spliced"] == stats["bytes"] == len(LONG)


def test_a_guarded_hop_ends_both_connections_of_a_doomed_stream():
    code, came, said, _ = through(BAD, "--guard")
    assert code == 1
    assert BAD.removesuffix(END).startswith(came)
    assert "stopped the stream" in said


def test_an_observing_hop_passes_a_doomed_stream_and_says_so():
    code, came, _, _ = through(BAD)
    assert (code, came) == (1, BAD)


@MODES
def test_what_a_receiver_says_is_dropped_and_nothing_is_lost(mode):
    code, came, _, _ = through(LONG, *mode, receiver=Receiver(answer=b"go ahead" * 4096))
    assert (code, came == LONG) == (0, True)


@MODES
def test_a_receiver_that_goes_away_ends_the_hop(mode):
    code, came, _, sent = through(LONG, *mode, receiver=Receiver(most=100))
    assert (code, sent) == (141, False)
    assert LONG.startswith(came)


def test_a_hop_without_a_judge_passes_the_stream_on(tmp_path):
    (tmp_path / "numpy.py").write_text("import os; os._exit(1)")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    code, came, said, _ = through(LONG, env={**os.environ, "PYTHONPATH": path})
    assert (code, came == LONG) == (4, True)
    assert "goes on unjudged" in said


@MODES
def test_a_hop_whom_nobody_answers_lets_the_sender_know(mode):
    hop = Hop("--connect", f"{NOBODY[0]}:{NOBODY[1]}", *mode)
    send(hop.port, LONG)  # and does not wait for ever
    code, said = hop.ends()
    assert code == 2
    assert "connecting to 127.0.0.1:1: Connection refused" in said


@MODES
def test_a_hop_may_stand_at_one_end_of_a_pipe(mode):
    hop = Hop(*mode, stdout=subprocess.PIPE)
    came = bytearray()
    reading = threading.Thread(target=lambda: came.extend(hop.process.stdout.read()), daemon=True)
    reading.start()
    assert send(hop.port, GOOD)
    reading.join(WAIT)
    assert (hop.process.wait(WAIT), came) == (0, GOOD)
    hop.process.stderr.close()
    receiver = Receiver()
    command = [*COMMAND, "--placement", "low", *mode, "--connect", receiver.address]
    assert subprocess.run(command, input=GOOD, timeout=WAIT, check=False).returncode == 0
    assert receiver.came() == GOOD


# -- with socat -----------------------------------------------------------------------------------------


def free_port():
    with socket.create_server((LOOPBACK, 0)) as there:
        return there.getsockname()[1]


def sent_to(port, data):
    """`send`, once somebody listens."""
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        with contextlib.suppress(ConnectionRefusedError):
            return send(port, data)
        time.sleep(0.05)
    raise AssertionError("nobody listens")


@pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")
@pytest.mark.parametrize(("data", "mode", "code"), [(GOOD, "", 0), (GOOD, "--guard", 0), (BAD, "--guard", 1)])
def test_between_two_socats_it_is_a_filter_in_a_pipe(data, mode, code):
    port, receiver = free_port(), Receiver()
    line = (
        f"socat -u TCP-LISTEN:{port},bind={LOOPBACK},reuseaddr - | {sys.executable} -m migrate filter --placement low "
        f"{mode} | socat -u - TCP:{receiver.address}"
    )
    hop = subprocess.Popen(["bash", "-o", "pipefail", "-c", line], stderr=subprocess.PIPE)
    sent_to(port, data)
    _, said = hop.communicate(timeout=WAIT)
    assert hop.returncode == code, no_traceback(said)
    came = receiver.came()
    assert BAD.removesuffix(END).startswith(came) if code else came == data


# -- descriptors of another program's -------------------------------------------------------------------


@MODES
def test_a_suspend_image_passes_between_sockets_of_another_program(mode):
    b = StreamBuilder.hvm()
    b.container = "xapi"
    data = b.build()
    (source, feed), (seen, sink) = socket.socketpair(), socket.socketpair()
    process = subprocess.Popen([*COMMAND, *mode], stdin=source, stdout=sink, stderr=subprocess.PIPE)
    source.close()
    sink.close()
    with feed, seen:
        feed.sendall(data)
        feed.shutdown(socket.SHUT_WR)
        came = b"".join(iter(lambda: seen.recv(1 << 16), b""))
    _, said = process.communicate(timeout=WAIT)
    assert (process.returncode, came) == (0, data), no_traceback(said)
