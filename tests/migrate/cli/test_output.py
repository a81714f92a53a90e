"""What a command writes appears whole or not at all, and never takes the place of what it reads.

(But for scrub, which is asked to by --force.)
"""

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import at_once
import pytest
from click.testing import CliRunner
from project import SAMPLES

from migrate.cli.main import main

SAMPLE = SAMPLES / "x417-pv32.xl.zst"
# Seconds. Far more than anything here takes.
PATIENCE = 60
COMMANDS = {
    "extract --raw": ["extract", "IN", "--raw", "OUT", "--force"],
    "extract --elf": ["extract", "IN", "--elf", "OUT", "--force"],
    "extract --page": ["extract", "IN", "--page", "0x13", "-o", "OUT", "--force"],
    "extract --record": ["extract", "IN", "--record", "12", "-o", "OUT", "--force"],
    "report": ["report", "IN", "-o", "OUT", "--force"],
    "config": ["config", "IN", "--set", "c_info.name=x", "-o", "OUT", "--force"],
    "corpus shrink": ["corpus", "shrink", "IN", "--placement", "high", "-o", "OUT", "--force", "--seconds", "0"],
}


@pytest.fixture
def stream(tmp_path):
    return Path(shutil.copy(SAMPLE, tmp_path / "guest.zst"))


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a link"])
@pytest.mark.parametrize("name", COMMANDS)
def test_the_input_is_never_overwritten(name, linked, stream, tmp_path):
    out = stream
    if linked:
        out = tmp_path / "link"
        os.link(stream, out)
    places = {"IN": stream, "OUT": out}
    done = at_once.run(*(places.get(word, word) for word in COMMANDS[name]))
    assert done.returncode == 2
    assert b"what is read" in done.stderr
    assert stream.read_bytes() == SAMPLE.read_bytes()


def test_a_filter_does_not_report_into_its_stream(stream):
    with open(stream, "rb") as source:
        done = at_once.run("filter", "--report", stream, stdin=source)
    assert done.returncode == 2
    assert done.stdout == b""
    assert stream.read_bytes() == SAMPLE.read_bytes()


@pytest.mark.parametrize("command", [["show", "/dev/null"], ["report", "/dev/null", "-o", "-"]])
def test_a_device_that_holds_no_stream_is_no_internal_error(command):
    done = at_once.run(*command)
    assert done.returncode in (1, 3)
    assert b"internal error" not in done.stderr


# -- whole or not at all ------------------------------------------------------------------------------

# Those that read a pipe as they write, so that they can be stopped in the middle of it.
STOPPED = {name: COMMANDS[name] for name in ("extract --raw", "extract --elf", "report", "corpus shrink")}
WRITTEN = {
    **COMMANDS,
    "corpus scrub": ["corpus", "scrub", "IN", "-o", "OUT", "--force"],
    "synth": ["synth", "OUT", "--force"],
    "synth --size": ["synth", "OUT", "--size", "64M", "--force"],
    **{f"corpus run {option}": ["corpus", "run", "IN", option, "OUT"] for option in ("--junit", "--sarif", "--jsonl")},
    "corpus run --markdown": ["corpus", "run", "IN", "--markdown", "OUT"],
}
# One of each way to write.
LIMITED = ("extract --raw", "report", "corpus shrink", "corpus scrub", "synth --size", *list(WRITTEN)[-4:-1])
# What they write may hold the guest's memory, or registers.
PRIVATE = {
    name for name in WRITTEN if name.startswith(("extract", "report", "config", "corpus shrink", "corpus scrub"))
}


def invoked(*arguments):
    """A command in this process: its exit code, and all that it said."""
    done = CliRunner().invoke(main, [*map(str, arguments)])
    return done.exit_code, done.output


def named(words, **places):
    return [str(places.get(word, word)) for word in words]


def started(words):
    """A command of its own, as a shell would start it."""
    command = [sys.executable, "-m", "migrate", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def stopped(name, number, folder, out):
    """The exit code of a command that got a signal while it was writing, and what it said."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    running = started(named(STOPPED[name], IN=fifo, OUT=out))
    data = subprocess.run(["zstd", "-dc", SAMPLE], capture_output=True, check=True).stdout
    with open(fifo, "wb", buffering=0) as end:
        end.write(data[: len(data) // 2])  # returns once most of it has been read
        running.send_signal(number)
    said = running.communicate(timeout=PATIENCE)[1]
    fifo.unlink()
    return running.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("name", STOPPED)
def test_a_signal_leaves_nothing_behind(name, number, tmp_path):
    code, said = stopped(name, number, tmp_path, tmp_path / "out")
    assert code == 128 + number
    assert b"Traceback" not in said
    assert os.listdir(tmp_path) == []


def test_a_signal_takes_back_the_pages_of_a_report_that_are_written(tmp_path, monkeypatch):
    monkeypatch.setitem(STOPPED, "pages", ["report", str(SAMPLE), "IN", "-o", f"{tmp_path}/out/"])
    code, said = stopped("pages", signal.SIGTERM, tmp_path, None)
    assert code == 128 + signal.SIGTERM
    assert b"Traceback" not in said
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("name", STOPPED)
def test_a_signal_leaves_what_was_there(name, number, tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    stopped(name, number, tmp_path, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"old"


def test_what_is_to_outlive_its_terminal_does(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    words = named(STOPPED["extract --raw"], IN=fifo, OUT=tmp_path / "out")
    command = ["nohup", sys.executable, "-m", "migrate", *words]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    data = subprocess.run(["zstd", "-dc", SAMPLE], capture_output=True, check=True).stdout
    with open(fifo, "wb", buffering=0) as end:
        end.write(data[: len(data) // 2])
        running.send_signal(signal.SIGHUP)
        end.write(data[len(data) // 2 :])
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    assert (tmp_path / "out").stat().st_size > 0


@pytest.mark.parametrize("name", LIMITED)
def test_a_disk_that_is_full_leaves_nothing_and_exits_with_2(name, stream, tmp_path):
    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

    out = tmp_path / "out" / "file"
    out.parent.mkdir()
    command = [sys.executable, "-m", "migrate", *named(WRITTEN[name], IN=stream, OUT=out)]
    # Of a module that is compiled, half would stay, too.
    environment = {**os.environ, "TMPDIR": "/dev/shm", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, preexec_fn=full, env=environment, timeout=PATIENCE)
    assert done.returncode == 2
    full_file = stream if name == "report" else out  # a report's stream is decoded to a file without a name first
    assert f"migrate: {full_file}: File too large\n" in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    # Results are written as they come, and may be cut off.
    assert os.listdir(out.parent) == (["file"] if name.endswith("--jsonl") else [])


@pytest.mark.parametrize("option", ["--junit", "--jsonl"])
def test_a_device_that_is_full_is_told(option, stream):
    done = at_once.run("corpus", "run", stream, option, "/dev/full")
    assert done.returncode == 2
    assert b"migrate: /dev/full: No space left on device\n" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "synth /dev/full --force",
        "corpus scrub IN -o /dev/full --force",
        "report IN -o /dev/full --force",
        "extract IN --record image -o /dev/full --force",
    ],
)
def test_a_full_device_is_told_by_its_name(words, stream):
    done = at_once.run(*named(words.split(), IN=stream))
    assert (done.returncode, done.stderr) == (2, b"migrate: /dev/full: No space left on device\n")


def test_a_full_device_is_not_told_of_the_image_whose_configuration_is_changed():
    image = str(SAMPLE)
    done = at_once.run("config", image, "--set", "c_info.name=a", "-o", "/dev/full")
    assert (done.returncode, done.stderr) == (2, b"migrate: /dev/full: No space left on device\n")


@pytest.mark.parametrize("name", WRITTEN)
def test_only_the_owner_may_read_what_shows_what_the_guest_holds(name, stream, tmp_path):
    before = os.umask(0o022)
    try:
        invoked(*named(WRITTEN[name], IN=stream, OUT=tmp_path / "out"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "out").st_mode) == (0o600 if name in PRIVATE else 0o644)


def test_only_the_owner_may_read_a_report_of_many_pages(stream, tmp_path):
    before = os.umask(0o022)
    try:
        invoked("report", stream, "-o", f"{tmp_path / 'pages'}/")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "pages").st_mode) == 0o700
    pages = list((tmp_path / "pages").iterdir())
    assert {stat.S_IMODE(page.stat().st_mode) for page in pages} == {0o600}


# -- two outputs --------------------------------------------------------------------------------------

OUTPUTS = ("--junit", "--sarif", "--markdown", "--jsonl")


@pytest.mark.parametrize("there", ["nowhere", "itself", "by a link", "by another name"])
@pytest.mark.parametrize("option", OUTPUTS[1:])
def test_two_outputs_to_one_file_are_refused(option, there, stream, tmp_path):
    one, other = tmp_path / "out", tmp_path / "out"
    if there != "nowhere":
        one.write_bytes(b"old")
    if there == "by a link":
        other = tmp_path / "link"
        other.symlink_to("out")
    if there == "by another name":
        other = tmp_path / "." / "hard"
        os.link(one, other)
    code, said = invoked("corpus", "run", stream, "--junit", one, option, other)
    assert code == 2
    assert f"--junit and {option} are one file: {other}" in said
    assert one.read_bytes() == b"old" if there != "nowhere" else not one.exists()


@pytest.mark.parametrize("option", OUTPUTS)
def test_no_output_takes_the_place_of_a_stream(option, stream):
    code, said = invoked("corpus", "run", stream, option, stream)
    assert code == 2
    assert f"{option} would overwrite a stream: {stream}" in said
    assert stream.read_bytes() == SAMPLE.read_bytes()


@pytest.mark.parametrize("option", OUTPUTS[:3])
def test_no_document_takes_the_place_of_results_that_are_read(option, stream, tmp_path):
    results = tmp_path / "results"
    invoked("corpus", "run", stream, "--jsonl", results)
    before = results.read_bytes()
    for words in (("corpus", "merge", results), ("corpus", "run", stream, "--resume", results)):
        code, said = invoked(*words, option, results)
        assert code == 2
        assert f"{option} would overwrite " in said
    assert results.read_bytes() == before


def test_all_outputs_may_go_nowhere(stream):
    words = [word for option in OUTPUTS for word in (option, os.devnull)]
    assert invoked("corpus", "run", stream, *words)[0] == 0
