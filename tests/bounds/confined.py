"""The command line in a process that may take little more memory and processor time than its input is worth.

The law: the address space of a process that has judged a guest of each kind, plus SPARE_MEMORY, plus MEMORY_SHARE of
the input or of the guest's memory, whichever is more; and CPU_PER_MIB of processor time for each MiB of the input, plus
CPU_ALLOWANCE. The input's size is that of the file, and the guest's memory are the pages whose pfns its records name:
what is claimed counts for nothing.

RLIMIT_AS counts what is mapped, not what is used. So that little is mapped for nothing, OpenBLAS may have one thread
and malloc one arena, each of which would reserve tens of MiB; and the base line is what the kernel says (VmSize) once
everything is imported, not a figure written down here.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from project import ROOT

from migrate.building.builder import StreamBuilder
from migrate.cli.ending import ExitCode

SPARE_MEMORY = 64 << 20
MEMORY_SHARE = 0.01
CPU_PER_MIB = 2.0
# Where a machine is busy with other work a second of processor time gets less done.
CPU_ALLOWANCE = 10
# What takes no processor time for so many seconds hangs; how long it takes on a busy machine says nothing.
PATIENCE = 60
SESSION, UTIME, STIME = 3, 11, 12  # in /proc/PID/stat, behind the name

ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "NO_COLOR": "1", "COLUMNS": "200"}
ENDINGS = (ExitCode.FINE, ExitCode.FOUND, ExitCode.FAILED, ExitCode.UNJUDGED)

# Imports and judges once, and then forks for each command, so that a test need not wait for the imports.
SERVER = """
import contextlib, io, json, os, pkgutil, resource, sys, traceback
from importlib import import_module

import migrate, streams
from migrate.cli.main import main

for package in (migrate, streams):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith(("__main__", "pytest_plugin", "strategies")):
            with contextlib.suppress(ImportError):  # what only an optional package would bring
                import_module(module.name)
for form in ("text", "json", "sarif", "junit", "github"):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(["check", "--placement", "high", "--quiet", "--format", form, *sys.argv[1:]])

def confined(arguments, memory, seconds, *descriptors):
    for number, (path, flags) in enumerate(descriptors):
        os.dup2(os.open(path, flags, 0o600), number)
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    sys.argv = ["migrate", *arguments]
    main(arguments)

for line in sys.stdin:
    child = os.fork()
    if not child:
        code = 70
        try:
            confined(*json.loads(line))
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a confined command ended."""

    code: int
    out: str
    err: str


class Confinement:
    """Runs commands under the law, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # What is imported or built late is so before the base line is taken.
        guests = {
            "xl": StreamBuilder.pv(4),
            "xapi": StreamBuilder.pv(8, vcpus=2, roots=2),
            "libxl": StreamBuilder.hvm(),
        }
        for container, guest in guests.items():
            guest.wrap(container)
            folder.joinpath(container).write_bytes(guest.build())
        self._arguments = [str(folder / container) for container in guests]
        self._start()

    def _start(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,
        )

    def close(self) -> None:
        """End the server, and a command that hangs with it."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.communicate()

    def run(self, arguments: Iterable[str | os.PathLike[str]], size: int, stdin: str = os.devnull) -> Ended:
        """Run `migrate` under the law for an input of so many bytes; what breaks the law fails the test."""
        memory = SPARE_MEMORY + int(size * MEMORY_SHARE)
        seconds = math.ceil(CPU_ALLOWANCE + size / (1 << 20) * CPU_PER_MIB)
        out, err = self._folder / "out", self._folder / "err"
        write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        told = [[os.fspath(one) for one in arguments], memory, seconds, (stdin, os.O_RDONLY)]
        told += [(str(out), write), (str(err), write)]
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(told).encode() + b"\n")
        self._server.stdin.flush()
        before = -1
        while not select.select([self._server.stdout], [], [], PATIENCE)[0]:
            now = self._ticks()
            if now == before:
                self.close()
                self._start()  # for the next command, which would get this one's answer
                raise AssertionError("it hangs")
            before = now
        code = int(self._server.stdout.readline())
        said = err.read_text("utf-8", "replace")
        assert code not in (-signal.SIGXCPU, -signal.SIGKILL), f"more than {seconds} s of processor time"
        assert "MemoryError" not in said, f"more than {memory >> 20} MiB: {said[-600:]}"
        assert "Traceback" not in said, said[-2000:]
        assert "internal error" not in said, said[-600:]
        assert code in list(ENDINGS), (code, said[-600:])
        return Ended(code, out.read_text("utf-8", "replace"), said)

    def _ticks(self) -> int:
        """Processor time that the server, a command, and what that has started have taken."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[SESSION]) == self._server.pid:
                    ticks += int(fields[UTIME]) + int(fields[STIME])
        return ticks

    def check(self, stream: bytes, *options: str) -> Ended:
        """`migrate check` of some bytes in a file; by default with frames as on the source, and telling all."""
        path = self._folder / "stream"
        path.write_bytes(stream)
        where = [] if "--placement" in options else ["--placement", "source"]
        told = [] if "--format" in options else ["-v"]
        return self.run(["check", *where, *told, *options, path], len(stream))
