"""`pytest --streams`: streams and what is expected of them as tests, run by pytest's own pytester."""

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points

import pytest
from project import ROOT

# pytester forgets whatever a run within this process imports: what is imported here is not imported each time.
from migrate.building.builder import StreamBuilder

pytest_plugins = ["pytester"]

PLUGIN = "migrate.testing.pytest_plugin"
# Where the package is installed with its entry point, pytest loads the plugin by itself.
INSTALLED = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
LOADED = ("-p", "no:hypothesispytest", *(() if INSTALLED else ("-p", PLUGIN)))

ACCEPTED = '[[expect]]\ntarget = "4.20"\nplacement = "low"\nverdict = "accept"\n'
HIGH = '[[expect]]\ntarget = "4.20"\nplacement = "high"\nverdict = "accept"\n'


@pytest.fixture
def streams(pytester):
    """A directory for streams, within the directory that pytest runs in."""
    return pytester.mkdir("streams")


def put(folder, name, expected=None, **shape):
    """A guest that passes everywhere; of a shape, one of 32 bits, which with two roots must not land high."""
    (folder / name).write_bytes(StreamBuilder.pv(4 if shape else 8, **shape).build())
    if expected is not None:
        (folder / f"{name}.expect.toml").write_text(expected)


def run(pytester, *args):
    return pytester.runpytest_inprocess(*LOADED, "--streams", "streams", *args)


def test_the_plugin_is_declared_as_an_entry_point():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert PLUGIN in declared["entry-points"]["pytest11"].values()


def test_the_plugin_alone_imports_nothing_heavy():
    code = f"import pytest, sys, {PLUGIN}; print([m for m in ('numpy', 'construct', 'rich') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_without_the_option_nothing_is_collected(pytester, streams):
    put(streams, "good", ACCEPTED)
    pytester.makepyfile("def test_own(): pass")
    pytester.runpytest_inprocess(*LOADED).assert_outcomes(passed=1)


def test_a_stream_that_is_as_expected_passes_once_per_expectation(pytester, streams):
    put(streams, "good", ACCEPTED + HIGH)
    result = run(pytester, "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*streams/good::4.20-low PASSED*", "*streams/good::4.20-high PASSED*"])


def test_streams_of_directories_below_are_found(pytester, streams):
    (streams / "deeper").mkdir()
    put(streams / "deeper", "good", ACCEPTED)
    run(pytester).assert_outcomes(passed=1)


def test_own_tests_run_beside_the_streams(pytester, streams):
    put(streams, "good", ACCEPTED)
    pytester.makepyfile("def test_own(): pass")
    run(pytester).assert_outcomes(passed=2)


def test_the_marker_picks_the_streams_alone(pytester, streams):
    put(streams, "good", ACCEPTED)
    pytester.makepyfile("def test_own(): pass")
    run(pytester, "-m", "stream", "--strict-markers").assert_outcomes(passed=1, deselected=1)


def test_one_expectation_can_be_asked_for_by_its_name(pytester, streams):
    put(streams, "good", ACCEPTED + HIGH)
    run(pytester, "streams/good::4.20-high").assert_outcomes(passed=1)


def test_a_directory_within_another_argument_is_tested_once(pytester, streams):
    put(streams, "good", ACCEPTED)
    run(pytester, ".").assert_outcomes(passed=1)


def test_a_failure_shows_what_differs_the_failing_call_and_the_command(pytester, streams):
    put(streams, "bad", HIGH, vcpus=2, roots=2)
    result = run(pytester)
    result.assert_outcomes(failed=1)
    root = StreamBuilder.pv(4, vcpus=2, roots=2).roots[1]
    result.stdout.fnmatch_lines(
        [
            "streams/bad: not as expected under Xen 4.20, placement high",
            "*verdict: expected accept, found refuse*",
            "HYP-22*l3-above-4g*",
            "calls that fail:",
            f"*setvcpucontext(vcpu 1, cr3 pfn {root:#x}) * -ERANGE (HYP-22)",
            "see it:  migrate check streams/bad --target 4.20 --placement high",
        ]
    )


def test_the_command_has_the_vcpus_that_the_expectation_has(pytester, streams):
    put(streams, "bad", "[options]\nvcpus = 3\n" + HIGH, vcpus=2, roots=2)
    run(pytester).stdout.fnmatch_lines(["*migrate check streams/bad*--vcpus 3"])


def test_findings_that_are_as_expected_are_not_shown_with_a_failure(pytester, streams):
    put(streams, "counted", ACCEPTED + "rules = { HYP-22 = 1, L3C-1 = 1, REC-32 = 1 }\n", vcpus=2, roots=2)
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*rules: expected HYP-22 ×1, L3C-1 ×1, REC-32 ×1, found L3C-1 ×1, REC-32 ×1"])
    result.stdout.no_fnmatch_line("L3C-1*l3-may-land-high*")


def test_a_stream_of_which_nothing_is_expected_is_judged_and_skipped(pytester, streams):
    put(streams, "fresh")
    result = run(pytester, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*nothing is expected of it yet; found accept*"])


def test_a_difference_that_depends_on_the_host_fails_as_expected(pytester, streams):
    put(streams, "host", "host_dependent = true\n" + HIGH, vcpus=2, roots=2)
    run(pytester).assert_outcomes(xfailed=1)


@pytest.mark.parametrize(("expires", "outcome"), [("2999-01-01", {"xfailed": 1}), ("2001-01-01", {"failed": 1})])
def test_a_known_deviation_fails_as_expected_until_it_expires(pytester, streams, expires, outcome):
    put(streams, "bad", HIGH, vcpus=2, roots=2)
    (streams / "known.toml").write_text(f'[[known]]\nstream = "bad"\nreason = "we know"\nexpires = {expires}\n')
    run(pytester).assert_outcomes(**outcome)


def test_a_stream_that_is_missing_fails(pytester, streams):
    (streams / "gone.expect.toml").write_text(ACCEPTED)
    (streams / "expect.toml").write_text(ACCEPTED.replace("[[expect]]", '[["also.gone".expect]]'))
    result = run(pytester)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*also.gone: expected, but not there", "*/gone: expected, but not there"])


def test_expectations_that_cannot_be_used_fail_their_stream(pytester, streams):
    put(streams, "good", '[[expect]]\ntarget = "9.99"\n')
    put(streams, "other", ACCEPTED)
    result = run(pytester)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*good.expect.toml*9.99*"])


def test_a_file_of_expectations_that_is_a_mistake_as_a_whole_is_a_usage_error(pytester, streams):
    (streams / "expect.toml").write_text("[good\n")
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*expect.toml: not TOML*"])


def test_a_directory_that_is_not_there_is_a_usage_error(pytester):
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--streams streams: no such file or directory*"])


def test_workers_of_xdist_share_the_streams(pytester, streams):
    pytest.importorskip("xdist")
    put(streams, "bad", ACCEPTED + HIGH, vcpus=2, roots=2)
    put(streams, "good", ACCEPTED + HIGH)
    result = pytester.runpytest_subprocess(*LOADED, "--streams", "streams", "-n", "2")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["see it:  migrate check streams/bad --target 4.20 --placement high"])
