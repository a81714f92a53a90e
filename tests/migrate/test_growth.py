"""Twice as many of something cost about twice as much: of each command the kinds that cost most, counted in calls.

Calls of functions, Python's and C's, are the same on any machine; `tests/bench/many_of.py` measures processor time, of
every kind. What a command costs on the same stream with two of a kind is taken off.
"""

import contextlib
import io
import sys

import pytest
from click.testing import CliRunner
from many import KINDS

from migrate.cli.main import main

BOUND = 4**1.2  # for four times as many

WORST = {
    "check": ("a data page for each L2", "checkpoints"),
    "check --verify": ("pages that differ in VERIFY", "records of one page, PV"),
    "trace": ("clocks", "tables mapped writable"),
    "show": ("p2m lists", "HVM params, one by one"),
    "show --all": ("unknown mandatory records", "HVM save entries"),
    "show --tables": ("shared subtrees", "data pages for L1s"),
    "show --rounds": ("records of one page, PV", "empty checkpoints"),
    "show --p2m": ("p2m pages", "pages"),
    "show --pfn 2": ("records of one page, PV", "tables mapped writable"),
    "show --vcpu all": ("vcpus", "MSRs"),
    "report -o OUT": ("shared subtrees", "tables that wait"),
    "extract -o OUT": ("records of one page, PV", "pages"),
    "corpus scrub -o OUT": ("data pages for L2s", "vcpus"),
    "corpus run --no-cache -j 1": ("bad subtrees", "xapi blocks"),
    "verify-stream-v2": ("records of one page, HVM", "unknown libxl records"),
    "policy": ("CPUID leaves", "MSRs of a policy"),
    "config": ("keys of a configuration", "pairs of xenopsd's"),
}
COUNTS = {"vcpus": 40, "checkpoints": 20, "shared subtrees": 20, "p2m pages": 400}
N = 100


def calls(command, stream, tmp_path):
    """How many functions are called while a command runs."""
    path, out = tmp_path / "stream", tmp_path / "out"
    path.write_bytes(stream)
    out.unlink(missing_ok=True)
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    arguments = [str(out) if one == "OUT" else one for one in command.split()]
    runner = CliRunner()
    sys.setprofile(note)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            ended = runner.invoke(main, [*arguments, str(path)], catch_exceptions=False)
    finally:
        sys.setprofile(None)
    assert ended.exit_code in (0, 1, 2, 3)
    return count


@pytest.mark.parametrize(("command", "kind"), [(command, kind) for command, kinds in WORST.items() for kind in kinds])
def test_four_times_as_many_cost_little_more_than_four_times_as_much(command, kind, tmp_path):
    flood = KINDS[kind][1]
    n = COUNTS.get(kind, N)
    calls(command, flood(2), tmp_path)  # which imports what it needs
    none, some, many = (calls(command, flood(count), tmp_path) for count in (2, n, 4 * n))
    assert many - none <= BOUND * max(some - none, 200)
