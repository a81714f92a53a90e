"""The hooks that other repositories may use: they name real commands, and see the files that they are about."""

import re
import shlex
import subprocess
import sys

import pytest
from project import ROOT

from migrate.building.builder import StreamBuilder

FILE = ROOT / ".pre-commit-hooks.yaml"
ACCEPTED = """
[[expect]]
target = "4.20"
placement = "source"
verdict = "accept"
"""


def hooks():
    """The file is flat: `key: value` in every line of a hook."""
    blocks = re.split("^- ", FILE.read_text(), flags=re.MULTILINE)[1:]
    told = [dict(line.strip().split(": ", 1) for line in block.splitlines()) for block in blocks]
    return {hook["id"]: hook for hook in told}


def called(id, *files, cwd):
    hook = hooks()[id]
    program, *words = shlex.split(hook["entry"])
    assert program == "migrate"
    words += re.findall(r"[^\[\], ]+", hook.get("args", ""))
    command = [sys.executable, "-m", "migrate", *words, *files]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "guests").mkdir()
    broken = StreamBuilder.pv(8)
    broken.drop("X86_PV_VCPU_BASIC")
    (tmp_path / "guests" / "good.libxc").write_bytes(StreamBuilder.pv(8).build())
    (tmp_path / "guests" / "bad.libxc").write_bytes(broken.build())
    (tmp_path / "guests" / "good.libxc.expect.toml").write_text(ACCEPTED)
    return tmp_path


def test_there_is_one_hook_for_streams_and_one_for_corpora():
    assert {id: hook["language"] for id, hook in hooks().items()} == {
        "migrate-check": "python",
        "migrate-corpus": "python",
    }


def test_the_check_passes_streams_that_restore(repository):
    done = called("migrate-check", "guests/good.libxc", cwd=repository)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_check_fails_for_a_stream_that_does_not(repository):
    done = called("migrate-check", "guests/good.libxc", "guests/bad.libxc", cwd=repository)
    assert done.returncode == 1
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["refused:", "guests/bad.libxc"]]


def test_the_corpus_is_judged_as_a_whole(repository):
    assert hooks()["migrate-corpus"]["pass_filenames"] == "false"
    assert called("migrate-corpus", cwd=repository).returncode == 0
    (repository / "guests" / "bad.libxc.expect.toml").write_text(ACCEPTED)
    done = called("migrate-corpus", cwd=repository)
    assert done.returncode == 1
    assert "guests/bad.libxc" in done.stdout


@pytest.mark.parametrize(
    ("file", "ids"),
    [
        ("guest.libxc", {"migrate-check", "migrate-corpus"}),
        ("guests/guest.xl.zst", {"migrate-check", "migrate-corpus"}),
        ("guest.libxl.gz", {"migrate-check", "migrate-corpus"}),
        ("guests/guest.libxc.expect.toml", {"migrate-corpus"}),
        ("guests/expect.toml", {"migrate-corpus"}),
        ("known.toml", {"migrate-corpus"}),
        ("unexpect.toml", set()),
        ("README.md", set()),
        ("guest.xls", set()),
    ],
)
def test_hooks_see_streams_and_what_is_expected_of_them(file, ids):
    assert {id for id, hook in hooks().items() if re.search(hook["files"], file)} == ids
