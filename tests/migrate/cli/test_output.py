"""What a command writes never takes the place of what it reads (but for scrub, which is asked to by --force)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project import SAMPLES

SAMPLE = SAMPLES / "x417-pv32.plain.libxc.zst"
COMMANDS = {
    "extract --raw": ["extract", "IN", "--raw", "OUT", "--force"],
    "extract --elf": ["extract", "IN", "--elf", "OUT", "--force"],
    "extract --page": ["extract", "IN", "--page", "0x13", "-o", "OUT", "--force"],
    "extract --record": ["extract", "IN", "--record", "12", "-o", "OUT", "--force"],
    "report": ["report", "IN", "-o", "OUT", "--force"],
    "corpus shrink": ["corpus", "shrink", "IN", "-o", "OUT", "--force"],
}


def migrate(*arguments, **options):
    command = [sys.executable, "-m", "migrate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=120, **options)


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
    done = migrate(*(places.get(word, word) for word in COMMANDS[name]))
    assert done.returncode == 2
    assert b"what is read" in done.stderr
    assert stream.read_bytes() == SAMPLE.read_bytes()


def test_a_filter_does_not_report_into_its_stream(stream):
    with open(stream, "rb") as source:
        done = migrate("filter", "--report", stream, stdin=source)
    assert done.returncode == 2
    assert done.stdout == b""
    assert stream.read_bytes() == SAMPLE.read_bytes()


@pytest.mark.parametrize("command", [["show", "/dev/null"], ["report", "/dev/null", "-o", "-"]])
def test_a_device_that_holds_no_stream_is_no_internal_error(command):
    done = migrate(*command)
    assert done.returncode in (1, 3)
    assert b"internal error" not in done.stderr
