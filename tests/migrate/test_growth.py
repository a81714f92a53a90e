"""Twice as many of something cost about twice as much: of each command the kinds that cost most, counted in calls.

Calls of functions, Python's and C's, are the same on any machine; `tests/bench/many_of.py` measures processor time and
instructions, too, and of every kind. What a command costs on an input with two of a kind is taken off.
"""

import math

import pytest
from costs import cost, prepare, put
from many import CORPORA, KINDS, LOGS, ORDERS

BOUND = 4**1.2  # for four times as many
LEAST = 200  # calls; fewer are lost among those that make no difference
INPUTS = KINDS | LOGS | CORPORA | ORDERS

WORST = {
    "check IN": ("a data page for each L2", "checkpoints", "refused streams", "HVM params behind as many save entries"),
    "check --verify IN": ("pages that differ in VERIFY", "self maps"),
    "check --format json IN": ("self maps", "records without data, PV"),
    "filter <IN": ("records of the other kind", "data pages for L1s"),
    "filter --guard <IN": ("self maps", "tables mapped writable"),
    "trace IN": ("clocks", "tables mapped writable"),
    "show IN": ("p2m lists", "HVM params, one by one"),
    "show --all IN": ("records of the other kind", "HVM save entries"),
    "show --record 1 IN": ("CPUID leaves", "self maps"),
    "show --tables IN": ("shared subtrees", "data pages for L1s"),
    "show --map IN": ("tables mapped writable", "records of one page, HVM"),
    "show --rounds IN": ("records of one page, PV", "empty checkpoints"),
    "show --p2m IN": ("p2m pages", "pages"),
    "show --pfn 2 IN": ("records of one page, PV", "tables mapped writable"),
    "show --walk 0xffffffff80000000 IN": ("self maps", "checkpoints"),
    "show --vcpu all IN": ("vcpus", "MSRs"),
    "show --config IN": ("pairs of xenopsd's", "xapi blocks"),
    "show --against IN IN": ("unknown libxl records", "sections of a device model"),
    "report -o OUT IN": ("shared subtrees", "tables that wait", "folders"),
    "extract --elf OUT IN": ("records of one page, PV", "tables"),
    "extract --raw OUT IN": ("records of one page, HVM", "tables that wait"),
    "extract --page 2 -o OUT IN": ("records without data, PV", "checkpoints"),
    "extract --record 1 -o OUT IN": ("clocks", "vcpus"),
    "corpus scrub -o OUT IN": ("data pages for L2s", "self maps"),
    "corpus shrink --target 4.13 -o OUT IN": ("vcpus", "unknown optional records"),
    "corpus run --no-cache -j 1 IN": ("bad subtrees", "expectations"),
    "corpus accept --no-cache -j 1 IN": ("folders", "refused streams"),
    "verify-stream-v2 -i IN": ("records of one page, HVM", "self maps"),
    "policy IN": ("CPUID leaves", "MSRs of a policy"),
    "policy --against IN IN": ("CPUID leaves", "xapi blocks"),
    "config IN": ("keys of a configuration", "elements of libvirt's XML"),
    "config --set b_info.max_vcpus=1 -o OUT IN": ("keys of a configuration", "xenstore pairs"),
    "explain --log IN": ("failed domains", "escapes", "messages on one line"),
    "synth OUT IN": ("vcpus of a guest", "pages of an HVM guest"),
}
COUNTS = {
    "vcpus": 20,
    "checkpoints": 20,
    "empty checkpoints": 50,
    "shared subtrees": 12,
    "p2m pages": 400,
    "tables that wait": 640,
    "tables mapped writable": 100,
    "folders": 8,
    "expectations": 8,
    "refused streams": 12,
    "vcpus of a guest": 10,
}
N = 60


@pytest.fixture(scope="module", autouse=True)
def _everything_is_imported():
    prepare()


@pytest.mark.parametrize(("command", "kind"), [(command, kind) for command, kinds in WORST.items() for kind in kinds])
def test_four_times_as_many_cost_little_more_than_four_times_as_much(command, kind, tmp_path):
    build, n = INPUTS[kind][1], COUNTS.get(kind, N)
    costs = [cost(command, put(build(count), tmp_path / "in"), tmp_path / "out", "calls") for count in (2, n, 4 * n)]
    assert None not in costs, "the command has nothing to do with such an input"
    none, some, many = costs
    assert many < math.inf, "the command failed, or took minutes"
    assert many - none <= BOUND * max(some - none, LEAST)
