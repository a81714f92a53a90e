"""What the kernel refuses a filter, for good: an observed stream comes out whole, a guarded one never to a doomed END.

Unlike in `test_filter_faults.py` nothing of Python is wrapped: the interpreter and all libraries are refused, too.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from kernel import ANY, UNABLE
from running_filter import BAD, COMMAND, END, GOOD, HVM, MODES, WAIT, no_traceback

pytestmark = pytest.mark.slow

CODE = """
import sys
from kernel import refuse
from migrate.cli.start import main
refuse(*{refusals!r})
sys.argv[0] = "migrate"
main()
"""
HERE = str(Path(__file__).parent)
FINE, FOUND, FAILED, LOST = 0, 1, 2, 4


def filtered(*args, refusals=(), data=GOOD, stdin=None, **options):
    """A filter to whom calls are refused: (exit code, output, stderr)."""
    path = os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", CODE.format(refusals=refusals)] if refusals else COMMAND[:-1]
    options = {"input": data} if stdin is None else {"stdin": stdin} | options
    done = subprocess.run(
        [*command, "filter", "--placement", "low", *map(str, args)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        timeout=WAIT * 2,
        check=False,
        **options,
    )
    if done.returncode == UNABLE:
        pytest.skip("the kernel does not let processes refuse calls")
    return done.returncode, done.stdout, done.stderr


# -- calls ------------------------------------------------------------------------------------------------

NO_CHILD = tuple((name, "EAGAIN", ANY) for name in ("clone", "clone3", "fork", "vfork"))
# A filter does without these.
SPARED = {
    "splice": [("splice", "EINVAL", ANY)],
    "splice and tee": [("splice", "ENOSYS", ANY), ("tee", "ENOSYS", ANY)],
    "tee": [("tee", "EINVAL", ANY)],
    "room for a copy": [("tee", "ENOMEM", ANY)],
    "another process": NO_CHILD,
    "settings of descriptors": [("fcntl", "EPERM", ANY)],
    "signals to others": [("kill", "EPERM", ANY)],
}
# These it needs to judge.
NEEDED = {
    "pipes": [("pipe2", "EMFILE", ANY)],
    "memory": [("mmap", "ENOMEM", ANY)],
    "memory and another process": [("mmap", "ENOMEM", ANY), *NO_CHILD],
    "files": [("openat", "ENOENT", ANY)],
    "more files": [("openat", "EMFILE", ANY)],
    "waiting": [("poll", "ENOMEM", ANY)],
    "pipes and another process": [("pipe2", "EMFILE", ANY), *NO_CHILD],
}


@MODES
@pytest.mark.parametrize("data", [GOOD, HVM], ids=["pv", "hvm"])
@pytest.mark.parametrize("what", SPARED)
def test_what_a_filter_can_do_without_it_is_not_missed(what, data, mode):
    code, came, said = filtered(*mode, data=data, refusals=SPARED[what])
    assert (code, came) == (FINE, data), no_traceback(said)


@MODES
@pytest.mark.parametrize("data", [GOOD, HVM], ids=["pv", "hvm"])
@pytest.mark.parametrize("what", NEEDED)
def test_what_a_filter_needs_to_judge_costs_the_judge_alone(what, data, mode):
    code, came, _ = filtered(*mode, data=data, refusals=NEEDED[what])
    assert code in (FINE, LOST)
    if code == FINE or not mode:
        assert came == data
    else:
        assert data.removesuffix(END).startswith(came)


@pytest.mark.parametrize("what", [*SPARED, *NEEDED])
def test_no_doomed_end_passes_a_guard_whatever_is_refused(what):
    code, came, _ = filtered("--guard", data=BAD, refusals=(SPARED | NEEDED)[what])
    assert code in (FOUND, LOST)
    assert BAD.removesuffix(END).startswith(came)


@MODES
def test_an_output_that_takes_nothing_ends_it(mode):
    refusals = [("write", "EIO", 1), ("splice", "EINVAL", ANY)]
    code, came, said = filtered(*mode, refusals=refusals)
    assert (code, came) == (FAILED, b"")
    assert "writing failed after 0 bytes" in no_traceback(said)


@MODES
def test_an_input_that_gives_nothing_ends_it(mode):
    refusals = [("readv", "EIO", 0), ("splice", "EINVAL", ANY)]
    code, came, said = filtered(*mode, refusals=refusals)
    assert (code, came) == (FAILED, b"")
    assert "reading failed at offset 0x0" in no_traceback(said)


@MODES
def test_an_output_that_fails_when_it_is_closed_is_told(mode):
    code, came, said = filtered(*mode, refusals=[("close", "EIO", 1)])
    assert (code, came) == (FAILED, GOOD)
    assert "closing the output" in no_traceback(said)


# -- limits -----------------------------------------------------------------------------------------------


def limited(which, value):
    return {"preexec_fn": lambda: resource.setrlimit(which, (value, value))}


def test_a_report_that_may_not_become_so_long_is_told(tmp_path):
    out = tmp_path / "report"
    code, came, said = filtered("--report", out, stdin=given(tmp_path), **limited(resource.RLIMIT_FSIZE, 100))
    assert (code, came) == (FAILED, GOOD)
    assert f"{out}: File too large" in no_traceback(said)
    assert os.listdir(tmp_path) == ["given"]


@MODES
@pytest.mark.parametrize("descriptors", range(5, 16))
def test_no_number_of_descriptors_cuts_a_stream(tmp_path, mode, descriptors):
    code, came, _ = filtered(*mode, stdin=given(tmp_path), **limited(resource.RLIMIT_NOFILE, descriptors))
    assert code in (FINE, LOST)
    if code == FINE or not mode:
        assert came == GOOD
    else:
        assert GOOD.removesuffix(END).startswith(came)


def given(tmp_path):
    (tmp_path / "given").write_bytes(GOOD)
    return open(tmp_path / "given", "rb")
