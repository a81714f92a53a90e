"""`migrate filter` as a process, the test being its sender and its receiver."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import at_once
import pytest

from migrate.building.builder import StreamBuilder
from streams.wire.framing import RECORD_HEADER, RecordType

COMMAND = [sys.executable, "-m", "migrate", "filter"]
END = RECORD_HEADER.pack(RecordType.END, 0)
WAIT = 30  # seconds, for what takes a moment
# Where the frames of these guests lay; a 32-bit one does not come back above 4 GiB.
ENVIRONMENT = {**os.environ, "MIGRATE_PLACEMENT": "source"}
MODES = pytest.mark.parametrize("mode", [[], ["--guard"]], ids=["observe", "guard"])


def bad_stream():
    b = StreamBuilder.pv(8)
    b.drop("X86_PV_VCPU_BASIC")
    return b.build()


GOOD = StreamBuilder.pv(8).build()
HVM = StreamBuilder.hvm().build()
BAD = bad_stream()


class Running:
    """A filter that runs; the test is sender and receiver."""

    def __init__(self, *args, command=COMMAND, **options):
        ends = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options = {**ends, "bufsize": 0, "env": ENVIRONMENT, **options}
        self.process = subprocess.Popen([*command, *map(str, args)], **options)
        self.came = b""

    def send(self, data):
        self.process.stdin.write(data)

    def all_of(self, data):
        """Send all there is; returns as `ends`."""
        sending = threading.Thread(target=self.send, args=(data,), daemon=True)
        sending.start()
        sending.join(WAIT)
        return self.ends()

    def arrives(self, size):
        """Read until there are so many bytes."""
        while len(self.came) < size:
            piece = self.process.stdout.read(size - len(self.came))
            assert piece, f"it ends after {len(self.came)} of {size} bytes"
            self.came += piece
        return self.came

    def ends(self):
        """Close the input and read the rest; returns (exit code, all output, stderr)."""
        process = self.process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None and pipe.closed:
                setattr(process, "stdin" if pipe is process.stdin else "stdout", None)
        try:
            rest, said = process.communicate(timeout=WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            pytest.fail("it hangs")
        self.came += rest or b""
        return process.returncode, self.came, no_traceback(said)


def no_traceback(said):
    said = (said or b"").decode()
    assert "Traceback" not in said
    assert "internal error" not in said
    return said


def run(*args, data=b"", **options):
    """A filter that is sent all of some bytes: (exit code, output, stderr)."""
    if "stdin" not in options:
        options["input"] = data
    done = at_once.run("filter", *args, **{"env": ENVIRONMENT, **options})
    return done.returncode, done.stdout, no_traceback(done.stderr)


def until(condition, what):
    """Wait for what another process is about to do."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


def judge_of(process):
    """The process id of the child that judges."""
    found = []

    def there():
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{name}/stat") as stat:
                if int(stat.read().rpartition(")")[2].split()[1]) == process.pid:
                    found.append(int(name))
        return found

    until(there, "the judge")
    return found[0]


def is_over(pid):
    """Whether a process is no more, or nothing but a number that its parent has not asked for."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@contextmanager
def undrained():
    """The writing end of a pipe that is full, and that nobody reads; and its reading end."""
    seen, sink = os.pipe()
    fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(sink, False)
    with suppress(BlockingIOError):
        while True:
            os.write(sink, b"x" * 4096)
    os.set_blocking(sink, True)
    try:
        yield sink, seen
    finally:
        os.close(seen)
        os.close(sink)


def collected(descriptor, into):
    """A thread that reads a descriptor to its end."""

    def read():
        while piece := os.read(descriptor, 1 << 16):
            into.extend(piece)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread
