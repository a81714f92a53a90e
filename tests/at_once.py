"""`migrate` as a process of its own that need not be started: it is forked from one that has imported everything.

For what a command prints, writes and ends with. What is about its start, or what it imports, starts one.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from project import ROOT

PATIENCE = 120  # seconds; against hanging

# A child goes on behind the loop, and ends as Python ends: with what is still to be written, and what that may fail of.
SERVER = """
import json, os, runpy, socket, sys

sys.path[:0] = sys.argv[1:3]
import costs

costs.prepare()
gate = socket.socket(fileno=int(sys.argv[3]))
child = 1
while child:
    asked, given, _, _ = socket.recv_fds(gate, 1 << 20, 3)
    if not asked:
        os._exit(0)
    child = os.fork()
    if child:
        for descriptor in given:
            os.close(descriptor)
        gate.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
gate.close()
for number, descriptor in enumerate(given):
    os.dup2(descriptor, number)
    os.close(descriptor)
words, directory, environment, first = json.loads(asked)
os.chdir(directory)
os.environ.clear()
os.environ.update(environment)
for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
    was = getattr(sys, name)
    now = open(number, mode, encoding=was.encoding, errors=was.errors, closefd=False)
    setattr(sys, name, now)
    setattr(sys, f"__{name}__", now)
sys.stderr.reconfigure(line_buffering=True)
sys.argv = ["migrate", *words]
exec(first, {})
runpy.run_module("migrate", run_name="__main__", alter_sys=True)
"""


@cache
def _gate() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    told = [str(ROOT), str(ROOT / "tests"), str(theirs.fileno())]
    # What it compiles, other processes may use.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    server = subprocess.Popen([sys.executable, "-c", SERVER, *told], pass_fds=[theirs.fileno()], env=environment)
    theirs.close()
    ours.settimeout(PATIENCE)
    atexit.register(server.kill)
    return ours


def code_of(
    words: Sequence[str],
    *ends: int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    first: str = "",
) -> int:
    """Run `migrate` with these arguments, and descriptors for its standard input, output and error.

    Parameters
    ----------
    first:
        code that runs in its process before.

    Returns
    -------
    int
        its exit code, or minus the number of the signal that ended it.
    """
    asked = [words, str(cwd or Path.cwd()), dict(os.environ if env is None else env), first]
    socket.send_fds(_gate(), [json.dumps(asked).encode()], ends)
    return int(_gate().recv(16))


class _Read(threading.Thread):
    """All that comes out of a pipe."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.came = b""
        self._from, self.into = os.pipe()
        self.start()

    def run(self) -> None:
        with open(self._from, "rb") as pipe:
            self.came = pipe.read()

    def whole(self) -> bytes:
        os.close(self.into)
        self.join(PATIENCE)
        assert not self.is_alive(), "it hangs"
        return self.came


def _fed(data: bytes) -> int:
    """A pipe that gives some bytes, if they are asked for."""
    source, feed = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(feed, "wb", buffering=0) as pipe:
            view = memoryview(data)
            while view:
                view = view[pipe.write(view) :]

    threading.Thread(target=write, daemon=True).start()
    return source


def run(
    *words: object,
    input: bytes | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    text: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    first: str = "",
) -> subprocess.CompletedProcess[Any]:
    """As `subprocess.run` of the command, with what it takes of the same names."""
    told = [str(word) for word in words]
    with contextlib.ExitStack() as stack:

        def opened(given: int | IO[bytes], mode: int) -> int:
            if given == subprocess.DEVNULL:
                given = os.open(os.devnull, mode)
                stack.callback(os.close, given)
            return given if isinstance(given, int) else given.fileno()

        if input is None:
            source = opened(stdin, os.O_RDONLY)
        else:
            source = _fed(input)
            stack.callback(os.close, source)
        read = [_Read() if given == subprocess.PIPE else None for given in (stdout, stderr)]
        ends = [
            opened(given, os.O_WRONLY) if reader is None else reader.into
            for given, reader in zip((stdout, stderr), read, strict=True)
        ]
        code = code_of(told, source, *ends, env=env, cwd=cwd, first=first)
        out, err = (None if reader is None else reader.whole() for reader in read)
    if text:
        out, err = (None if came is None else came.decode() for came in (out, err))
    return subprocess.CompletedProcess(["migrate", *told], code, out, err)
