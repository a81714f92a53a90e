"""Where the program starts. A filter has taken its place in a pipe by then: whatever fails must not cut the stream.

Nothing is imported up here but what the interpreter has loaded anyway.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

PROGRAM = "migrate"
_CALLED = (PROGRAM, "__main__.py")
# What this program is when it is called by these names: a link to it stands in for the original.
LINKS = frozenset({"verify-stream-v2"})
# A shell that wants a command line completed says so in this variable, whatever the program is called.
COMPLETE = "_MIGRATE_COMPLETE"
FILTER = "filter"
# Commands that are declared without click, and need it only for command lines that are not plain.
WITHOUT_CLICK = frozenset({"check", FILTER, *LINKS})
STDIN, STDOUT, STDERR = range(3)
JUDGE_LOST, INTERRUPTED = 4, 130  # ExitCode's; what declares them cannot be imported, perhaps
PIECE = 1 << 16
# What is imported stays: looking through it for garbage, as Python does after each 700 objects, finds none.
OBJECTS_BETWEEN_COLLECTIONS = 50_000
# numpy's threads help no step of a judge: they wait for work at the cost of processor time, and where none can be had
# OpenBLAS ends the process.
_NO_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
# Options with which the stream does not go from standard input to standard output, or not unjudged.
_OTHERWISE = ("--guard", "--listen", "--connect")


def main(prog_name: str | None = None) -> None:
    """Run the command that the arguments name."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    os.environ.update(dict.fromkeys(_NO_THREADS, "1"))
    try:
        _run(prog_name)
    except KeyboardInterrupt:  # while something is being imported
        sys.exit(INTERRUPTED)
    finally:
        gc.freeze()  # nor are they looked through at the end


def _run(prog_name: str | None) -> None:
    called = os.path.basename(sys.argv[0])
    words = [called] * (called in LINKS) + sys.argv[1:]
    if words[:1] == [FILTER]:
        # Who asks where the stream is need not wait until somebody can tell.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        _filter(bytearray(PIECE))
    elif not (words == ["--version"] and called in _CALLED and _version()):
        if words and words[0] in WITHOUT_CLICK:
            from migrate.cli.plain import run_plainly

            run_plainly(*words)
        from migrate.cli.main import main as run

        run(prog_name=prog_name)


def _version() -> bool:
    """Print the version, without all that reads a command line; returns whether that could be done."""
    from migrate.rules.version import version_line

    try:
        return os.write(STDOUT, f"{version_line()}\n".encode()) > 0
    except OSError:
        return False


def _filter(buffer: bytearray) -> None:
    """Run the filter; where it does not even come to begin, pass the stream on unjudged."""
    try:
        from migrate.cli.plain import outcome, plain

        command, line = plain(*sys.argv[1:])
        code = None if line is None else outcome(command, line)
        if code is None:
            from migrate.cli.command import made
            from migrate.cli.main import main as group

            made(command).main(sys.argv[2:], f"{PROGRAM} {FILTER}", **group.context_settings)
        sys.exit(code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception:
        failed = True
    else:
        failed = False  # not that it ever comes here
    if failed:  # and what was under way is forgotten, and its memory free
        _pass_on(memoryview(buffer))


def _pass_on(buffer: memoryview) -> None:
    """Pass on standard input, with nothing but what is there already."""
    try:
        os.set_blocking(STDERR, False)
        os.write(STDERR, b"migrate: the filter cannot begin: the stream goes on unjudged, unless it is guarded\n")
    except OSError:
        pass
    if not any(word.startswith(_OTHERWISE) for word in sys.argv):
        os.set_blocking(STDIN, True)
        os.set_blocking(STDOUT, True)
        while got := os.readv(STDIN, [buffer]):
            done = 0
            while done < got:
                done += os.write(STDOUT, buffer[done:got])
    os._exit(JUDGE_LOST)
