"""`migrate filter` as a process in a real pipe: whatever the others do, no wrong byte, no hang, no traceback."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress

import pytest
from project import ROOT, SAMPLES
from running_filter import BAD, COMMAND, END, GOOD, HVM, MODES, WAIT, Running, no_traceback, run

from migrate.building.builder import StreamBuilder
from migrate.judging.check import check
from streams.opening import open_transport

# A working directory of one's own, in which this project is found all the same.
INSTALLED = {**os.environ, "PYTHONPATH": str(ROOT)}


def sample(name):
    with open_transport(SAMPLES / f"{name}.zst") as transport:
        return bytes(transport.give(1 << 30))


# -- exit codes, and what is said ------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize(
    ("data", "code", "verdict"), [(GOOD, 0, "restores on "), (BAD, 1, "refused on "), (b"junk" * 9, 3, "not judged: ")]
)
def test_it_ends_as_check_does(mode, data, code, verdict):
    ended, came, said = run(*mode, data=data)
    assert ended == code
    assert came == (data.removesuffix(END) if mode and code == 1 else data)
    assert said.splitlines()[-1].startswith(f"migrate: {verdict}")


def test_a_finding_counts_as_asked_for():
    b = StreamBuilder.pv(8)
    b.image["reserved1"] = 1
    data = b.build()
    assert run(data=data)[:2] == (0, data)
    assert run("--fail-on", "warning", data=data)[:2] == (1, data)
    assert run("--fail-on", "warning", "--ignore", "HDR", data=data)[:2] == (0, data)


def test_it_is_silent_if_asked_to_be():
    assert run("--quiet", data=BAD)[2] == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--target", "3.0"], "3.0"),
        (["--placement", "nowhere"], "nowhere"),
        (["--placement", "file:/no/such/map"], "file:/no/such/map: No such file or directory"),
        (["--placement", f"file:{__file__}"], "line 1: expected 'pfn mfn'"),
        (["--select", "HYP-999"], "HYP-999"),
        (["--report-fd", "77"], "--report-fd 77 is not open"),
        (["--report-fd", "1"], "--report-fd"),
    ],
)
def test_wrong_usage_moves_no_byte(args, message):
    code, came, said = run(*args, data=GOOD)
    assert (code, came) == (2, b"")
    assert message in said


@MODES
@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("MIGRATE_TARGET", "4.99", "MIGRATE_TARGET: --target: Xen 4.99 is newer than any"),
        ("MIGRATE_PLACEMENT", "moon", "MIGRATE_PLACEMENT: --placement: unknown placement 'moon'"),
        ("MIGRATE_PLACEMENT", "file:/no/map", "MIGRATE_PLACEMENT: file:/no/map: No such file"),
        ("MIGRATE_HOST", "/no/such", "MIGRATE_HOST: --host: "),
        ("MIGRATE_HOST", __file__, "MIGRATE_HOST: "),
    ],
)
def test_a_wrong_variable_lets_even_a_doomed_stream_pass(mode, variable, value, why):
    code, came, said = run(*mode, data=BAD, env={**os.environ, variable: value})
    assert (code, came) == (3, BAD)
    assert f"nothing is judged: {why}" in said
    assert ("the guard stands down" in said) == bool(mode)


@MODES
@pytest.mark.parametrize("text", ["[tool", '[tool.xen-migrate]\ntarget = "4.99"', "[tool.xen-migrate]\ntarget = 4"])
def test_a_wrong_settings_file_lets_the_stream_pass(mode, text, tmp_path):
    (tmp_path / "migrate.toml").write_text(text)
    code, came, said = run(*mode, "--report", "-", "--quiet", data=BAD, cwd=tmp_path, env=INSTALLED)
    assert (code, came) == (3, BAD)
    report = json.loads(said[said.index("{") :])
    assert report["verdict"] == "unjudged"
    assert report["reason"].startswith("migrate.toml: ")
    assert report["stood_down"] == (report["reason"] if mode else None)


def test_a_wrong_command_line_is_refused_whatever_is_configured():
    environment = {**os.environ, "MIGRATE_TARGET": "4.99", "MIGRATE_PLACEMENT": "file:/no/map"}
    for wrong in (["--select", "HYP-999"], ["--placement", "moon"], ["--report-fd", "77"]):
        assert run(*wrong, data=GOOD, env=environment)[:2] == (2, b"")


def test_what_the_command_line_says_in_the_place_of_a_wrong_setting_counts():
    asked = ["--guard", "--target", "4.20", "--placement", "source"]
    environment = {**os.environ, "MIGRATE_TARGET": "4.99", "MIGRATE_PLACEMENT": "moon"}
    assert run(*asked, data=BAD, env=environment)[:2] == (1, BAD.removesuffix(END))


@pytest.mark.parametrize(("redirection", "which"), [("<&-", "input"), (">&-", "output")])
def test_a_closed_descriptor_is_told(redirection, which):
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *COMMAND], capture_output=True, check=False, timeout=WAIT
    )
    assert done.returncode == 2
    assert f"standard {which} is not open" in no_traceback(done.stderr)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_stderr_that_takes_nothing_disturbs_nothing(redirection):
    command = ["sh", "-c", f'"$@" {redirection}', "sh", *COMMAND]
    done = subprocess.run(command, input=BAD, stdout=subprocess.PIPE, check=False, timeout=WAIT)
    assert (done.returncode, done.stdout) == (1, BAD)


def test_a_stderr_whose_reader_is_gone_disturbs_nothing():
    running = Running()
    running.process.stderr.close()
    running.process.stderr = None
    running.send(BAD)
    assert running.ends()[:2] == (1, BAD)


# -- real streams ----------------------------------------------------------------------------------------


def test_a_real_guest_that_would_not_come_back_is_stopped_at_its_end():
    data = sample("x417-pv32.plain.libxc")
    code, came, said = run("--guard", "--target", "4.20", "--placement", "high", data=data)
    assert (code, came) == (1, data.removesuffix(END))
    assert "migrate: stopped the stream: " in said
    assert "(HYP-22)" in said


def test_a_real_guest_with_extended_cr3_passes_the_guard():
    data = sample("x417-pv32x.plain.libxc")
    assert run("--guard", "--target", "4.20", "--placement", "high", data=data)[:2] == (0, data)


def test_a_real_remus_stream_passes_and_the_guard_says_that_it_stood_down(tmp_path):
    data = sample("x417-pv32.remus.libxc")
    code, came, said = run("--guard", "--placement", "source", "--report", tmp_path / "report", data=data)
    assert (code, came) == (3, data)
    assert said.startswith("migrate: the guard stands down, and only observes from here on: a checkpointed stream")
    assert json.loads((tmp_path / "report").read_text())["stood_down"].startswith("a checkpointed stream")


def test_a_real_migration_passes_with_what_follows_its_end():
    data = sample("pv32.migrate.bin")
    running = Running("--guard", "--placement", "source")
    sender = threading.Thread(target=running.send, args=(data,), daemon=True)
    sender.start()
    assert running.arrives(len(data)) == data  # and the sender has not closed
    sender.join(WAIT)
    assert running.ends()[:2] == (0, data)


# -- report and figures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [GOOD, BAD, b"junk" * 9], ids=["good", "bad", "junk"])
def test_the_report_is_that_of_check(tmp_path, data):
    run("--report", tmp_path / "report", data=data)
    report = json.loads((tmp_path / "report").read_text())
    expected = check(data, placement="source").to_dict()
    assert (report.pop("stopped"), report.pop("stood_down")) == (None, None)
    report["stream"].pop("bytes"), expected["stream"].pop("bytes")  # check does not read on behind what it cannot judge
    assert report == expected


def test_a_report_goes_to_a_descriptor_on_one_line():
    source, sink = os.pipe()
    Running("--report-fd", sink, "--format", "jsonl", pass_fds=[sink]).all_of(BAD)
    os.close(sink)
    with open(source) as lines:
        (line,) = lines
    assert json.loads(line)["failure"] == check(BAD, placement="source").to_dict()["failure"]


@pytest.mark.parametrize("option", ["--report", "--stats"])
def test_what_cannot_be_written_is_told_and_not_taken_for_success(option):
    code, came, said = run(option, "/dev/full", data=GOOD)
    assert (code, came) == (2, GOOD)
    assert "migrate: /dev/full: No space left on device" in said
    assert run(option, "/dev/full", data=BAD)[0] == 1


def test_figures_are_one_object(tmp_path):
    b = StreamBuilder.pv(4)
    b.rounds = [[0, 2], [2]]
    data = b.build()
    run("--guard", "--stats", tmp_path / "stats", data=data)
    stats = json.loads((tmp_path / "stats").read_text())
    assert stats["bytes"] == len(data)
    assert [one["pages"] for one in stats["rounds"]] == [len(b.memory), 2, 1]
    assert stats["resent_pages"] == 3
    assert stats["page_tables"] == sum(page.is_table for page in b.memory.values())
    assert 0 < stats["end_held_seconds"] < stats["seconds"]


def test_the_receiver_need_not_wait_for_the_report(tmp_path):
    os.mkfifo(tmp_path / "report")  # opening it blocks until someone reads
    running = Running("--report", tmp_path / "report")
    running.send(GOOD)
    running.process.stdin.close()
    assert running.process.stdout.read(len(GOOD)) + running.process.stdout.read() == GOOD
    assert running.process.poll() is None
    assert json.loads((tmp_path / "report").read_text())["verdict"] == "accept"
    assert running.ends()[0] == 0


# -- where the others fail -------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("data", [GOOD, HVM], ids=["pv", "hvm"])
def test_a_receiver_that_goes_away_ends_it_quietly(mode, data):
    places = range(0, len(data) - 99, (len(data) - 100) // 7)
    assert len(places) == 8
    filters = [Running(*mode) for _ in places]  # side by side, for speed
    for running, at in zip(filters, places, strict=True):
        running.send(data[:at])
        if not mode:  # the guard holds back the last piece
            assert running.arrives(at) == data[:at]
        running.process.stdout.close()
        with suppress(BrokenPipeError):
            running.send(data[at:])
    for running in filters:
        code, _, said = running.ends()
        assert code == 141
        assert all(": broken off" in line or line.startswith("migrate: not judged") for line in said.splitlines())


@pytest.mark.parametrize("at", [3, 20, 24, 43, 57, 5000])
def test_everything_before_a_stall_has_come_out(at):
    running = Running()
    running.send(GOOD[:at])
    assert running.arrives(at) == GOOD[:at]
    running.send(GOOD[at:])
    assert running.ends()[:2] == (0, GOOD)


@MODES
@pytest.mark.parametrize("at", [30, len(GOOD) // 2, len(GOOD) - 4])
def test_a_sender_that_dies_in_a_record_is_reported(mode, at):
    code, came, said = run(*mode, data=GOOD[:at])
    assert code == 1
    assert GOOD[:at].startswith(came)
    assert mode or came == GOOD[:at]
    assert "migrate: refused on " in said


def test_a_guarded_sender_is_told_by_a_broken_pipe():
    b = StreamBuilder.pv(8)
    b.insert(0x4F, before="SHARED_INFO")
    running = Running("--guard")
    running.send(b.build())
    assert running.process.wait(WAIT) == 1
    with pytest.raises(BrokenPipeError):
        running.send(b"more")
    running.process.stdin = None
    assert b.build().startswith(running.ends()[1])


@MODES
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_ends_in_order_when_told_to(tmp_path, mode, number, code):
    running = Running(*mode, "--report", tmp_path / "report", "--stats", tmp_path / "stats")
    running.send(GOOD[:5000])
    running.arrives(100 if mode else 5000)
    running.process.send_signal(number)
    running.process.send_signal(number)  # as `timeout` does
    running.process.wait(WAIT)  # though the sender has not closed
    ended, came, said = running.ends()
    assert (ended, said) == (code, "")
    assert GOOD[:5000].startswith(came)
    assert mode or came == GOOD[:5000]
    report = json.loads((tmp_path / "report").read_text())
    assert report["verdict"] == "unjudged"
    assert report["reason"].endswith(f"the filter was told to end ({number.name})")
    assert {one["severity"] for one in report["findings"]} <= {"info"}
    # The signal may come between a write and its being counted.
    assert 0 < json.loads((tmp_path / "stats").read_text())["bytes"] <= len(came)


def test_a_full_device_is_told():
    with open("/dev/full", "wb") as full:
        code, _, said = run(data=GOOD, stdout=full)
    assert code == 2
    assert said.startswith("migrate: writing failed after 0 bytes: No space left on device\n")


def test_an_input_that_cannot_be_read_is_told(tmp_path):
    with open(tmp_path / "not for reading", "wb") as file:
        code, came, said = run(stdin=file)
    assert (code, came) == (2, b"")
    assert said.startswith("migrate: reading failed at offset 0x0: Bad file descriptor\n")


# -- descriptors of every kind ---------------------------------------------------------------------------


def larger():
    """A stream of some megabytes, more than pipes hold."""
    b = StreamBuilder.hvm()
    for n in range(700):
        b.new_page(content=bytes([n % 251]) * 4096)
    b.batch = 100
    return b.build()


@MODES
@pytest.mark.parametrize("guest", ["pv", "hvm"])
def test_tiny_pipes_that_do_not_block_carry_everything(mode, guest):
    data = GOOD if guest == "pv" else larger()
    running = Running(*mode)
    sender, receiver = running.process.stdin.fileno(), running.process.stdout.fileno()
    running.send(data[:100])
    running.arrives(24 if mode else 100)  # by now it has made its pipes larger
    for fd in (sender, receiver):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(fd, False)  # of the open file, which the filter shares: this end is waited for below
    view = memoryview(data)[100:]
    deadline = time.monotonic() + WAIT
    while len(running.came) < len(data):
        assert time.monotonic() < deadline, f"it hangs after {len(running.came)} bytes"
        moved = 0
        if len(view):
            with suppress(BlockingIOError):
                moved = os.write(sender, view[:3000])
            view = view[moved:]
            if not len(view):
                running.process.stdin.close()
        piece = b""
        with suppress(BlockingIOError):
            piece = os.read(receiver, 1777)
        running.came += piece
        if not moved and not piece:
            time.sleep(0.0005)
    assert running.ends()[:2] == (0, data)


@MODES
def test_descriptors_that_do_not_block_are_waited_for(mode):
    data = larger()
    source, feed = os.pipe()
    seen, sink = os.pipe()
    for fd in (source, sink):  # each end of a pipe is an open file of its own
        os.set_blocking(fd, False)
    running = Running(*mode, stdin=source, stdout=sink)
    os.close(source)
    os.close(sink)

    def send():
        with open(feed, "wb", 0) as pipe:
            view = memoryview(data)
            while view:
                view = view[pipe.write(view[:100_000]) :]

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    with open(seen, "rb") as pipe:
        time.sleep(0.3)  # the output is full by now, and the filter waits for it
        came = pipe.read()
    assert came == data
    assert running.ends()[0] == 0
    sender.join(WAIT)


@MODES
def test_single_bytes_make_a_stream(mode):
    running = Running(*mode)
    data = HVM
    reader = threading.Thread(target=running.arrives, args=(len(data),), daemon=True)
    reader.start()
    for at in range(len(data)):
        running.send(data[at : at + 1])
    running.process.stdin.close()
    reader.join(WAIT)
    assert not reader.is_alive()
    assert running.ends()[1] == data


@MODES
def test_files_on_both_sides_and_an_appended_one(tmp_path, mode):
    (tmp_path / "in").write_bytes(GOOD)
    (tmp_path / "out").write_bytes(b"before")
    for number in (1, 2):
        with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "ab") as sink:
            assert run(*mode, stdin=source, stdout=sink)[0] == 0
        assert (tmp_path / "out").read_bytes() == b"before" + GOOD * number


# -- where we are ----------------------------------------------------------------------------------------


def test_sigusr1_shows_where_the_stream_is():
    b = StreamBuilder.pv(8)
    b.rounds = [[0, 2, 3]]
    data = b.build()
    running = Running()
    running.send(data[:-5000])
    running.arrives(len(data) - 5000)
    running.process.send_signal(signal.SIGUSR1)
    line = running.process.stderr.readline().decode()
    assert re.fullmatch(r"migrate: \d+(\.\d)? KiB, \d+(\.\d)? [KM]iB/s, pass 2 \(3 pages\), \d findings?\n", line)
    running.send(data[-5000:])
    assert running.ends()[:2] == (0, data)


def test_progress_is_a_line_a_second_where_there_is_no_terminal():
    running = Running("--progress")
    running.send(HVM[:200])
    # Before the first page; what is found by now does not count at the newest release.
    assert re.fullmatch(r"migrate: 0\.2 KiB, \S+ [KM]iB/s, 0 findings\n", running.process.stderr.readline().decode())
    running.send(HVM[200:])
    assert running.ends()[:2] == (0, HVM)


@pytest.mark.parametrize("asked", [[], ["--target", "4.17"], ["--ignore", "ORD,CON,HDR,REC"]], ids=" ".join)
def test_progress_counts_nothing_that_the_report_will_not_have(asked):
    running = Running("--progress", "--report", "-", *asked)
    running.send(HVM[:-8])
    running.arrives(len(HVM) - 8)
    told = running.process.stderr.readline().decode()
    running.send(HVM[-8:])
    _, _, said = running.ends()
    report = json.loads(said[said.index("{") :])
    assert int(re.search(r", (\d+) findings?\n", told).group(1)) <= len(report["findings"])


def test_of_a_file_it_tells_per_cent_and_the_time_that_is_left(tmp_path):
    (tmp_path / "given").write_bytes(GOOD)
    with open(tmp_path / "given", "rb") as given:
        code, came, said = run("--progress", "--interval", "0.1", "--name", "db1", "-L", len(GOOD), "-q", stdin=given)
    assert (code, came) == (0, GOOD)
    gone = r"migrate: db1: \d+(\.\d)? KiB of \d+(\.\d)? KiB \(\d+%\), \d+(\.\d)? [KM]iB/s, 0:00:0\d left"
    assert re.search(gone + r"(, pass \d \(\d+ pages?\))?, \d findings?\n", said), said


def test_of_a_pipe_it_tells_them_where_the_size_is_given():
    running = Running("--progress", "--interval", "0.1", "--size", "1M")
    running.send(GOOD[:5000])
    assert b" KiB of 1 MiB (0%), " in running.process.stderr.readline()
    running.send(GOOD[5000:])
    assert running.ends()[:2] == (0, GOOD)


@pytest.mark.parametrize("mode", [[], ["--guard"]], ids=["observe", "guard"])
def test_a_limit_of_the_rate_is_kept(mode):
    started = time.monotonic()
    code, came, _ = run("--rate-limit", len(GOOD), *mode, data=GOOD)
    assert (code, came) == (0, GOOD)
    assert time.monotonic() - started > 0.8  # of a second, but for the last piece


def test_a_terminal_gets_no_stream():
    seen, terminal = pty.openpty()
    code, _, said = run(data=GOOD, stdout=terminal)
    os.set_blocking(seen, False)
    with pytest.raises(BlockingIOError):
        os.read(seen, 1)
    os.close(seen)
    os.close(terminal)
    assert code == 2
    assert "redirect standard output" in said


def test_a_report_to_a_dash_goes_to_standard_error(tmp_path):
    code, came, said = run("--report", "-", data=GOOD, cwd=tmp_path)
    assert (code, came) == (0, GOOD)
    assert json.loads(said)["verdict"] == "accept"
    assert os.listdir(tmp_path) == []


@MODES
def test_of_a_stream_that_was_cut_the_text_says_that_no_vcpu_has_come(mode):
    code, _, said = run(*mode, "--report", "-", "--format", "text", data=GOOD[: len(GOOD) // 2])
    said = said if isinstance(said, str) else said.decode()
    assert code == 1
    assert "no vcpu has come" in said
    assert "0 vcpus" not in said


# -- faults of our own, and what is imported -------------------------------------------------------------


BROKEN = """
import sys
from migrate.cli.main import main
from migrate.toolstack.restore import Restorer

def record(self, record):
    raise ZeroDivisionError("a fault of ours")

Restorer.record = record
main(["filter", *sys.argv[1:]], prog_name="migrate")
"""


@MODES
def test_a_fault_of_our_own_is_owned_up_to(tmp_path, mode):
    running = Running(*mode, "--report", tmp_path / "report", command=[sys.executable, "-c", BROKEN])
    running.send(GOOD)
    code, came, said = running.ends()
    assert code == 4
    assert GOOD.removesuffix(END).startswith(came) if mode else came == GOOD
    assert said.startswith("migrate: stopped judging: ZeroDivisionError: a fault of ours\n")
    report = json.loads((tmp_path / "report").read_text())
    assert report["verdict"] == "unjudged"
    assert report["reason"] == "the filter stopped judging: ZeroDivisionError: a fault of ours"
    assert (report["stopped"] is not None) == bool(mode)


BROKEN_AFTER_END = BROKEN.replace("def record(self, record)", "def finish(self, size)").replace(
    "Restorer.record = record", "from migrate.judging.judgement import Judgement; Judgement.finish = finish"
)


@MODES
def test_a_fault_that_comes_when_the_stream_has_passed_is_said_to(mode):
    running = Running(*mode, command=[sys.executable, "-c", BROKEN_AFTER_END])
    running.send(GOOD)
    code, came, said = running.ends()
    assert (code, came) == (4, GOOD)
    assert said.startswith("migrate: stopped judging after the stream had ended: ZeroDivisionError: a fault of ours\n")


IMPORTED = [sys.executable, "-X", "importtime", *COMMAND[1:]]


def heavy(said):
    """What of weight is in a list of imports."""
    weighty = {"numpy", "construct", "rich", "backports", "click", "typing"}
    return weighty & {line.split("|")[-1].strip() for line in said.splitlines()}


@MODES
def test_in_front_of_an_hvm_guest_nothing_heavy_is_imported(mode):
    running = Running("--quiet", *mode, command=IMPORTED)
    running.send(HVM)
    code, came, said = running.ends()
    assert (code, came, heavy(said)) == (0, HVM, set())
    assert "migrate.toolstack.hvm" in said  # it is the list


@MODES
@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("sound", [True, False], ids=["sound", "refused"])
def test_in_front_of_a_pv_guest_end_waits_for_numpy_and_no_more(mode, width, sound):
    b = StreamBuilder.pv(width, extended=True)
    if not sound:
        b.vcpus[0].root = b.absent_pfn
    running = Running("--quiet", "--target", "4.17", *mode, command=IMPORTED)
    running.send(b.build())
    code, came, said = running.ends()
    names = {line.split("|")[-1].strip() for line in said.splitlines()}
    assert code == (0 if sound else 1)
    assert came == b.build() or not sound
    assert heavy(said) == {"numpy", "typing"}
    assert "numpy.ma" not in names  # which some of its functions import when they are first called


FIRST_BYTE = """
import os, sys
from streams import conduit
from migrate.cli.main import main

class Watching:
    def __getattr__(self, name):
        return getattr(os, name)
    def splice(self, source, sink, n):
        if sink == 1 and seen:
            seen.pop()
            os.write(2, b"numpy %d\\n" % ("numpy" in sys.modules))
        return os.splice(source, sink, n)

seen = [True]
conduit.os = Watching()
main(["filter", "--quiet"], prog_name="migrate")
"""


def first_byte(*pieces):
    """Whether numpy was there before the first byte went on; the pieces come as they are asked for."""
    running = Running(command=[sys.executable, "-c", FIRST_BYTE])
    for piece in pieces:
        running.send(piece)
        running.arrives(len(running.came) + len(piece))
    code, came, said = running.ends()
    assert (code, came) == (0, b"".join(pieces))
    return said.startswith("numpy 1\n")


def test_what_a_pv_guest_needs_is_imported_before_the_first_byte_goes_on():
    assert first_byte(GOOD)
    assert not first_byte(HVM)


# A judge that cannot even be imported before somebody writes to the descriptor that is named last.
WAITING = """
import os, sys
from migrate.cli.start import main

class Waiting:
    def find_spec(self, name, path=None, target=None):
        if name == "migrate.judging":
            os.read(gate, 1)

gate = int(sys.argv.pop())
sys.meta_path.insert(0, Waiting())
sys.argv[0] = "migrate"
main()
"""
SOON = 0.3  # seconds in which nothing comes


@pytest.mark.parametrize(
    ("stream", "args", "early"),
    [
        (HVM, ["--placement", "low"], True),
        (GOOD, [], False),
        (HVM, ["--guard"], False),
        (HVM, ["--ignore", "REC"], False),
        (HVM[:20], [], False),
    ],
)
def test_an_hvm_guest_that_is_only_observed_does_not_wait_for_the_judge(stream, args, early):
    gate, opens = os.pipe()
    with tempfile.TemporaryFile() as source:
        source.write(stream)
        source.seek(0)
        words = ["filter", "--quiet", *args, gate]
        running = Running(*words, command=[sys.executable, "-c", WAITING], stdin=source, pass_fds=[gate])
        if early:
            running.arrives(len(stream))
        else:
            assert select.select([running.process.stdout], [], [], SOON)[0] == []
        os.write(opens, b".")
        code, came, said = running.ends()
    assert (came, said) == (stream, "")
    assert code == (0 if len(stream) > 20 else 1)
    os.close(gate)
    os.close(opens)


def test_where_the_first_bytes_do_not_tell_the_guest_all_is_imported_that_any_needs():
    assert first_byte(HVM[:10], HVM[10:])
