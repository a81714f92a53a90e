"""What asks a filter where the stream is, and who does not listen to the answer: the stream takes no notice."""

import os
import signal
import time

import pytest
from running_filter import BAD, END, GOOD, MODES, Running, run, undrained

# In the place of the first package that the command imports: the question comes, then the package.
ASKED_EARLY = """
import importlib, os, signal, sys
signal.raise_signal(signal.SIGUSR1)
here = os.path.dirname(__file__)
sys.path[:] = [path for path in sys.path if path != here]
del sys.modules["click"]
importlib.import_module("click")
"""
IMPATIENT = """
import migrate.cli.filter, migrate.cli.piping.results
migrate.cli.filter.PATIENCE = migrate.cli.piping.results.PATIENCE = 0.5
"""
FIRST = 5000  # bytes of a stream; with them the judge has begun


@MODES
def test_a_question_before_anything_is_imported_harms_nothing(tmp_path, mode):
    (tmp_path / "click.py").write_text(ASKED_EARLY)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    running = Running("--placement", "low", *mode, env={**os.environ, "PYTHONPATH": path})
    code, came, said = running.all_of(GOOD)
    assert (code, came) == (0, GOOD)
    assert "cannot begin" not in said


def test_a_guard_whose_message_nobody_reads_stops_the_stream_all_the_same():
    with undrained() as (sink, _):
        code, came, _ = run("--guard", data=BAD, stderr=sink, first=IMPATIENT)
    assert code == 1
    assert BAD.removesuffix(END).startswith(came)


@MODES
@pytest.mark.parametrize("asked", [["--progress", "--interval", "0.1"], []], ids=["progress", "SIGUSR1"])
def test_answers_that_nobody_reads_hold_nothing_up(asked, mode):
    with undrained() as (sink, _):
        running = Running("--placement", "low", *asked, *mode, stderr=sink)
        running.send(GOOD[:FIRST])
        running.arrives(100)
        for _ in range(3):
            if not asked:
                running.process.send_signal(signal.SIGUSR1)
            time.sleep(0.15)
        running.send(GOOD[FIRST:])
        code, came, _ = running.ends()
    assert (code, came) == (0, GOOD)


def test_a_report_that_nobody_reads_is_given_up_once_the_stream_is_through(tmp_path):
    os.mkfifo(tmp_path / "report")
    code, came, said = run("--placement", "low", "--report", tmp_path / "report", data=GOOD, first=IMPATIENT)
    assert (code, came) == (2, GOOD)
    assert "nobody reads it" in said
