"""What becomes of the workers, and of what is done, when a run is told to end, or is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpora import ACCEPTED, bad, corpus_run, expect, good, lines, started, streams

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks the kernel which processes there are")

# Seconds. Far more than anything here takes.
PATIENCE = 60
STREAMS = 6
DONE_BY = {"interrupt": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP}


@pytest.fixture
def folder(tmp_path):
    """A corpus of small streams, and two FIFOs that keep two workers waiting."""
    root = tmp_path / "corpus"
    root.mkdir()
    for number in range(STREAMS):
        (root / f"s{number}").write_bytes(good() if number % 2 else bad())
        expect(root, f"s{number}", ACCEPTED)
    for name in ("x", "y"):
        os.mkfifo(tmp_path / name)
    return root


def within(question):
    end = time.monotonic() + PATIENCE
    while not (answer := question()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
    return answer


def children(parent):
    """Processes that a process has started, and is the parent of."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(ppid) == parent and state != "Z":
            found.append(int(status.parent.name))
    return found


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Waiting:
    """A run whose six streams are done, and whose two workers wait for a FIFO each."""

    def __init__(self, folder, tmp_path, *options):
        self.results = tmp_path / "results"
        fifos = [tmp_path / name for name in ("x", "y")]
        self.process = started(folder, *fifos, "--jobs", "2", "--no-cache", "--jsonl", self.results, *options)
        self.ends = [os.open(fifo, os.O_WRONLY) for fifo in fifos]
        within(lambda: self.results.exists() and self.results.read_bytes().count(b"\n") == STREAMS)
        self.workers = children(self.process.pid)

    def ended(self, number):
        """Send a signal; returns the exit code, and what was said."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said

    def close(self):
        for end in self.ends:
            os.close(end)


@pytest.fixture
def waiting(folder, tmp_path):
    run = Waiting(folder, tmp_path, "--junit", tmp_path / "junit")
    yield run
    run.process.kill()
    run.close()


@pytest.mark.parametrize("number", [*DONE_BY.values(), signal.SIGKILL], ids=[*DONE_BY, "KILL"])
def test_no_worker_outlives_the_run(waiting, number):
    assert len(waiting.workers) == 2
    waiting.ended(number)
    within(lambda: not any(map(alive, waiting.workers)))


@pytest.mark.parametrize("number", DONE_BY.values(), ids=DONE_BY)
def test_a_signal_ends_a_run_with_what_is_done(waiting, folder, tmp_path, number):
    code, said = waiting.ended(number)
    assert code == 128 + number
    by = "" if number is signal.SIGINT else f" by {number.name}"
    assert said == (f"migrate: interrupted{by}: 6 of 8 streams judged; --resume {waiting.results} goes on from there\n")
    assert len(streams(waiting.results, folder)) == STREAMS
    junit = (tmp_path / "junit").read_text()
    assert f'tests="{STREAMS + 1}"' in junit
    assert f"interrupted{by}: 6 of 8 streams judged" in junit


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_a_run_goes_on_from_what_is_done(waiting, folder, tmp_path, number):
    waiting.ended(number)
    before = streams(waiting.results, folder)
    result = corpus_run(folder, "--no-cache", "--resume", waiting.results, "--jsonl", waiting.results)
    assert result.exit_code == 1
    assert streams(waiting.results, folder).keys() == before.keys()
    after = streams(waiting.results, folder)
    assert {name: line["seconds"] for name, line in after.items()} == {
        name: line["seconds"] for name, line in before.items()
    }
    assert lines(waiting.results)[-1]["kind"] == "end"


def test_a_run_that_goes_on_has_taken_over_what_was_done_before_it_begins(waiting, folder, tmp_path):
    waiting.ended(signal.SIGKILL)
    os.mkfifo(folder / "a")
    words = [folder / "a", folder, "--jobs", "1", "--no-cache", "--resume", waiting.results]
    again = started(*words, "--jsonl", waiting.results)
    end = os.open(folder / "a", os.O_WRONLY)
    again.kill()
    again.communicate(timeout=PATIENCE)
    os.close(end)
    assert len(streams(waiting.results, folder)) == STREAMS


def test_what_is_to_outlive_its_terminal_does(folder, tmp_path):
    command = [
        "nohup",
        sys.executable,
        "-m",
        "migrate",
        "corpus",
        "run",
        folder,
        tmp_path / "x",
        "-j",
        "2",
        "--no-cache",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    end = os.open(tmp_path / "x", os.O_WRONLY)
    os.killpg(process.pid, signal.SIGHUP)
    os.write(end, good())
    os.close(end)
    out, _ = process.communicate(timeout=PATIENCE)
    assert f"new       {tmp_path / 'x'}: accept".encode() in out
    assert process.returncode == 1
