"""Standard output that cannot be written: every command says the same of it, and none blames what it reads."""

import os
import subprocess
import sys

import at_once
import pytest
from project import SAMPLES

from migrate.building.builder import StreamBuilder

XL = str(SAMPLES / "x417-pv32.xl.zst")
LINES = [
    ["check", XL],
    ["show", XL],
    ["show", XL, "--format", "json"],
    ["config", XL],
    ["config", XL, "--set", "c_info.name=x", "-o", "-"],
    ["extract", XL, "--page", "0x13"],
    ["host", "HOST"],
    ["host", "HOST", "--json"],
    ["report", XL, "-o", "-"],
    ["trace", "BARE"],
    ["verify-stream-v2", "-v", "-i", "BARE"],
    ["rules"],
    ["--version"],
    ["check", "--help"],
]


@pytest.fixture
def migrate(tmp_path):
    (tmp_path / "HOST").write_text("xen_version : 4.18.3\ntotal_memory : 2048\n")
    (tmp_path / "BARE").write_bytes(StreamBuilder.pv(8).build())

    return lambda line, stdout: at_once.run(*line, stdout=stdout, cwd=tmp_path)


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_a_full_disk_is_told_of_standard_output(line, migrate):
    with open("/dev/full", "wb") as full:
        done = migrate(line, full)
    assert (done.returncode, done.stderr) == (2, b"migrate: writing standard output: No space left on device\n")


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_a_reader_that_is_gone_is_no_fault_of_the_input(line, migrate):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = migrate(line, closed)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nor_does_it_matter_whether_output_is_buffered(unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "migrate", "show", XL]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (2, b"migrate: writing standard output: No space left on device\n")
