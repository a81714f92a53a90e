"""A judge is lost, in any way and at any stage: an observed stream comes out whole, a guarded one never to its END.

What takes the judge is the kernel's: limits of memory, signals, exits. Its fault is none of the stream's.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from project import SAMPLES
from running_filter import COMMAND, END, GOOD, HVM, MODES, WAIT, Running, is_over, judge_of, no_traceback, until

from streams.opening import open_transport

pytestmark = pytest.mark.slow

MIB = 1 << 20
SPARING = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}  # else the limits are used up by what is never used
LOST = 4
# Longer than a judge may be at one step, until it is given up: without memory Python may be for ever at an exception.
GIVEN_UP = 180


def sample(name):
    with open_transport(SAMPLES / f"{name}.zst") as transport:
        return bytes(transport.give(1 << 30))


LARGE = sample("x417-pv64.plain.libxc")


def filtered(*args, data=LARGE, code=None, limits=(), environment=(), said=no_traceback):
    """A filter under limits of the kernel: (exit code, output, stderr)."""

    def limit():
        for which, value in limits:
            resource.setrlimit(which, (value, value))

    done = subprocess.run(
        [*(COMMAND if code is None else [sys.executable, "-c", code]), "--placement", "low", *args],
        input=data,
        capture_output=True,
        preexec_fn=limit,
        env={**os.environ, **SPARING, **dict(environment)},
        timeout=GIVEN_UP,
        check=False,
    )
    return done.returncode, done.stdout, said(done.stderr)


# -- memory -----------------------------------------------------------------------------------------------


def least_memory():
    """Bytes of address space with which the interpreter comes to run a module at all."""
    for mib in range(8, 64):
        start = [sys.executable, "-m", "migrate", "explain", "--help"]
        limited = {"preexec_fn": lambda mib=mib: resource.setrlimit(resource.RLIMIT_AS, (mib * MIB, mib * MIB))}
        done = subprocess.run(start, capture_output=True, check=False, **limited)
        if b"runpy" not in done.stderr and done.returncode == 0:
            return mib
    raise AssertionError("no memory is enough")


def with_memory(mib, *args):
    return filtered(*args, limits=[(resource.RLIMIT_AS, int(mib * MIB))])


# Where the command, numpy, OpenBLAS, a page buffer and a report do not find room; what has room lies far above.
STAGES = [20, 40, 90, 105]


@pytest.mark.parametrize("mib", STAGES)
def test_a_judge_without_memory_does_not_cut_the_stream(mib):
    code, came, said = with_memory(mib)
    assert (code, came == LARGE) == (LOST, True)
    assert "the judge was lost" in said or "stopped judging" in said or "cannot begin" in said


@pytest.mark.parametrize("mib", STAGES)
def test_a_guard_without_memory_lets_no_end_go(mib):
    code, came, _ = with_memory(mib, "--guard")
    assert code == LOST
    assert LARGE.removesuffix(END).startswith(came)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], ["--guard"]], ids=["observe", "guard"])
def test_no_amount_of_memory_cuts_an_observed_stream_or_lets_a_guarded_end_go_unjudged(mode):
    codes = []
    for mib in range(least_memory(), 150):
        code, came, said = with_memory(mib, *mode)
        codes.append(code)
        assert code in (0, LOST)
        # A guard may find room for its verdict, and none to tell it.
        if code == 0 or not mode or "after the stream had ended" in said:
            assert came == LARGE, f"{len(came)} bytes with {mib} MiB"
        else:
            assert LARGE.removesuffix(END).startswith(came)
    assert codes[0] == LOST
    assert codes[-1] == 0
    assert codes == sorted(codes, reverse=True)


HOG = """
import sys
from migrate.cli.main import main
from migrate.toolstack.restore import Restorer

kept = []
whole = Restorer.record

def record(self, record):
    "Take all memory there is, down to the last object, keep it, and say nothing."
    whole(self, record)
    for size in (1 << 24, 1 << 20, 1 << 16, 1 << 12, 512, 256, 128, 64, 32, 16):
        try:
            while True:
                kept.append(bytearray(size))
        except MemoryError:
            pass
    try:
        n = 1 << 40
        while True:
            n += 1
            kept.append(n)
    except MemoryError:
        pass

Restorer.record = record
main(["filter", *sys.argv[1:]], prog_name="migrate")
"""


@MODES
def test_a_judge_that_keeps_all_memory_to_itself_does_not_cut_the_stream(mode):
    code, came, _ = filtered(*mode, data=HVM, code=HOG, limits=[(resource.RLIMIT_AS, 120 * MIB)], said=bytes)
    assert code == LOST
    assert HVM.removesuffix(END).startswith(came) if mode else came == HVM


NO_MEMORY = """
import sys
from _testcapi import set_nomemory
from migrate.cli.main import main
from streams.decoder import Decoder

run = Decoder.run

def failing(self):
    set_nomemory({allocations}, {allocations} + 100_000)  # with no end to it, Python may be for ever at an exception
    return (yield from run(self))

from migrate.judging import pipe_filter
rehearse = pipe_filter.rehearse

def rehearsed(head):
    rehearse(head)
    Decoder.run = failing

pipe_filter.rehearse = rehearsed
main(["filter", *sys.argv[1:]], prog_name="migrate")
"""


@pytest.mark.parametrize("allocations", [0, 10, 100, 1000, 5000])
def test_an_interpreter_that_gets_no_memory_for_long_does_not_cut_the_stream(allocations):
    pytest.importorskip("_testcapi")
    code = NO_MEMORY.format(allocations=allocations)
    ended, came, _ = filtered(data=GOOD, code=code, said=bytes)
    assert (ended, came == GOOD) == (LOST, True)


# -- ends of a process ------------------------------------------------------------------------------------


def lost(number, *mode):
    """A filter whose judge is sent a signal in the middle of a stream: (exit code, output, stderr)."""
    running = Running("--placement", "low", *mode)
    middle = len(GOOD) // 2
    running.send(GOOD[:middle])
    running.arrives(100 if mode else middle)  # a guard holds back what is not yet complete
    os.kill(judge_of(running.process), number)
    if not mode:
        running.send(GOOD[middle:])
    return running.ends()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGXCPU])
def test_a_judge_that_is_killed_leaves_the_stream_to_another_process(number):
    code, came, said = lost(number)
    assert (code, came) == (LOST, GOOD)
    assert said == f"migrate: the judge was lost (killed by {number.name}): the stream goes on unjudged\n"


def test_a_guard_that_is_killed_stops_the_stream():
    code, came, said = lost(signal.SIGKILL, "--guard")
    assert code == LOST
    assert GOOD.removesuffix(END).startswith(came)
    assert said.endswith("(killed by SIGKILL): stopped the stream, for nothing passes unjudged\n")


def test_a_killed_guard_that_stood_down_leaves_the_stream_to_another_process():
    data = sample("x417-pv32.remus.libxc")
    running = Running("--placement", "low", "--guard")
    middle = len(data) - 10_000
    sending = threading.Thread(target=running.send, args=(data[:middle],), daemon=True)
    sending.start()
    running.arrives(middle)
    sending.join()
    assert running.process.stderr.readline().startswith(b"migrate: the guard stands down")
    os.kill(judge_of(running.process), signal.SIGKILL)
    running.send(data[middle:])
    assert running.ends()[:2] == (LOST, data)


def test_nothing_is_left_behind_when_the_filter_is_killed():
    running = Running()
    running.send(GOOD[:5000])
    running.arrives(5000)
    judge = judge_of(running.process)
    running.process.kill()
    until(lambda: is_over(judge), "the end of the judge")
    running.ends()


def test_the_kernel_is_told_whom_to_take_first():
    running = Running()
    running.send(GOOD[:5000])
    running.arrives(5000)
    pids = judge_of(running.process), running.process.pid
    scores = [Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in pids]
    running.send(GOOD[5000:])
    assert running.ends()[:2] == (0, GOOD)
    assert scores[0] == "1000\n" != scores[1]


# Whatever the judge does, the stream is none of its business.
DEEDS = {
    "os._exit(0)": "os._exit(0)",
    "os._exit(1)": "os._exit(1)",  # as OpenBLAS does where it gets no memory
    "abort": "os.abort()",
    "endless recursion in C": "a = []\n    for _ in range(10**6): a = [a]\n    hash(str(a))",
    "SystemExit": "sys.exit(0)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "BdbQuit": "import bdb; raise bdb.BdbQuit",
    "GeneratorExit": "raise GeneratorExit",
    "MemoryError": "raise MemoryError",
    "RecursionError": "record(self, thing)",
    "SIGINT": "import signal; signal.raise_signal(signal.SIGSEGV)",
    "a full stderr": "while True: raise Warning(print('x' * 99, file=sys.stderr))",
    "closed descriptors": "os.closerange(0, 99); raise OSError(9, 'Bad file descriptor')",
}
DOING = """
import os, sys
from migrate.cli.main import main
from migrate.toolstack.restore import Restorer

whole = Restorer.record

def record(self, thing):
    whole(self, thing)
    {deed}

def armed(head):
    rehearse(head)
    Restorer.record = record

from migrate.judging import pipe_filter
rehearse, pipe_filter.rehearse = pipe_filter.rehearse, armed
main(["filter", *sys.argv[1:]], prog_name="migrate")
"""


@MODES
@pytest.mark.parametrize("deed", DEEDS)
def test_whatever_the_judge_does_is_none_of_the_streams_business(deed, mode):
    code, came, _ = filtered(*mode, data=GOOD, code=DOING.format(deed=DEEDS[deed]))
    assert code == LOST
    assert GOOD.removesuffix(END).startswith(came) if mode else came == GOOD


ENDLESS = """
from migrate.cli.piping import understudy
understudy.LOOK, understudy.LOOKS = 0.05, 20
"""


@MODES
def test_a_judge_that_comes_to_no_end_is_given_up(mode):
    code, came, said = filtered(*mode, data=GOOD, code=ENDLESS + DOING.format(deed="while True: pass"))
    assert code == LOST
    assert GOOD.removesuffix(END).startswith(came) if mode else came == GOOD
    assert "(it came to no end)" in said


def test_a_receiver_that_takes_its_time_is_none_of_the_judges_doing():
    seen, sink = socket.socketpair()
    sink.setblocking(False)
    filling = 0
    with suppress(BlockingIOError):
        while True:
            filling += sink.send(b"x" * 4096)
    sink.setblocking(True)
    command = [sys.executable, "-c", ENDLESS + "from migrate.cli.start import main\nmain()", "filter", "--quiet"]
    with tempfile.TemporaryFile() as source:
        source.write(HVM)
        source.seek(0)
        running = Running(command=command, stdin=source, stdout=sink)
    sink.close()
    time.sleep(2)  # twice the time that the judge has for a step
    came = b""
    with seen:
        while piece := seen.recv(1 << 16):
            came += piece
    assert came[filling:] == HVM
    assert running.process.wait(WAIT) == 0
    assert no_traceback(running.process.stderr.read()) == ""


# -- imports ----------------------------------------------------------------------------------------------


NUMPYS = {
    "is missing": "raise ModuleNotFoundError('no numpy')",
    "is broken": "raise ImportError('\\n\\nIMPORTANT: undefined symbol\\n')",
    "exits": "import sys; sys.exit(3)",
    "ends the process": "import os; os._exit(1)",
    "is interrupted": "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(1)",
    "knows nothing": "",
}


@MODES
@pytest.mark.parametrize("fault", NUMPYS)
def test_a_numpy_that_cannot_be_imported_costs_the_judge_alone(tmp_path, fault, mode):
    (tmp_path / "numpy.py").write_text(NUMPYS[fault])
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    code, came, _ = filtered(*mode, data=GOOD, environment={"PYTHONPATH": path})
    if fault == "is interrupted":
        assert code == 130
    else:
        assert code == LOST
        assert came == (b"" if mode else GOOD)


def test_a_command_that_cannot_be_imported_passes_the_stream_on(tmp_path):
    (tmp_path / "mmap.py").write_text("raise ImportError('no mmap')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    for mode in ([], ["--guard"]):
        code, came, said = filtered(*mode, environment={"PYTHONPATH": path})
        assert (code, came == (b"" if mode else LARGE)) == (LOST, True)
        assert said.startswith("migrate: the filter cannot begin")


def test_no_step_of_the_judge_has_threads():
    running = Running("--placement", "low")
    running.send(GOOD[:-5])
    running.arrives(len(GOOD) - 5)
    judge = judge_of(running.process)
    assert "numpy" in Path(f"/proc/{judge}/maps").read_text()
    assert len(os.listdir(f"/proc/{judge}/task")) == 1
    running.send(GOOD[-5:])
    assert running.ends()[0] == 0


def test_without_a_second_process_the_stream_is_judged_all_the_same():
    code = "import os\ndef none(): raise BlockingIOError\nos.fork = none\n" + DOING.format(deed="pass")
    assert filtered(data=GOOD, code=code)[:2] == (0, GOOD)
    code = code.replace("    pass", "    sys.exit(7)")
    assert filtered(data=GOOD, code=code)[:2] == (LOST, GOOD)
