"""Expectations, and `migrate corpus run` over them."""

import re
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from corpora import ACCEPTED, REFUSED, bad, corpus_run, expect, good
from project import SAMPLES

from migrate.building.builder import StreamBuilder
from migrate.corpus.agreement import agreement, total
from migrate.corpus.discovery import discover
from migrate.corpus.expectations import ExpectationError, load_own, load_shared
from migrate.corpus.expected_verdict import ExpectedVerdict, serious
from migrate.corpus.results import Status
from migrate.corpus.runner import InProcess, run
from migrate.judging.check import check
from migrate.rules.catalogue import RULES

MEASURED_REFUSAL = (
    '[[expect]]\ntarget = "4.20"\nplacement = "low"\nmeasured.verdict = "refuse"\nmeasured.step = "pin"\n'
    'measured.errno = "EINVAL"\nmeasured.error = "Failed to pin"\nmeasured.xen_log = ["mm.c: Bad L3 flags"]\n'
)
# A rule whose breach is a warning, whatever the target.
WARNING = "FRM-04"
# No vcpu came with a context: libxc's own complaint, after all records are in.
WITHOUT_CONTEXT = 'step = "context"\ncall = "libxc"\nvcpu = 0\n'


@pytest.fixture
def folder(tmp_path):
    """A directory with one stream that comes back, and one that does not."""
    (tmp_path / "good").write_bytes(good())
    (tmp_path / "bad").write_bytes(bad())
    return tmp_path


# -- what a file says ---------------------------------------------------------------------------------


def test_what_real_xen_did_is_what_is_expected(tmp_path):
    entry = load_own(expect(tmp_path, "x", MEASURED_REFUSAL))
    assert entry.expect[0].outcome == ExpectedVerdict("refuse", step="pin", errno="EINVAL")
    assert entry.expect[0].measured.xen_log == ("mm.c: Bad L3 flags",)


def test_an_opinion_of_its_own_is_expected_in_the_place_of_what_real_xen_did(tmp_path):
    entry = load_own(expect(tmp_path, "x", MEASURED_REFUSAL + 'verdict = "unjudged"\n'))
    assert entry.expect[0].outcome == ExpectedVerdict("unjudged")
    assert entry.expect[0].measured.outcome == ExpectedVerdict("refuse", step="pin", errno="EINVAL")


def test_free_tables_are_handed_on_as_they_are(tmp_path):
    entry = load_own(expect(tmp_path, "x", '[provenance]\nwho = "me"\n[guest]\nroots = [{ pfn = 0x13 }]\n' + ACCEPTED))
    assert (entry.provenance, entry.guest) == ({"who": "me"}, {"roots": [{"pfn": 0x13}]})


def test_the_manual_shows_files_that_are_read(tmp_path):
    paper = (SAMPLES / "README.md").read_text()
    (text,) = (block for block in re.findall(r"^```toml\n(.*?)^```", paper, re.M | re.S) if "[defaults]" in block)
    shutil.copy(SAMPLES / "hosts" / "h417-max.txt", tmp_path / "a.txt")
    (tmp_path / "expect.toml").write_text(text)
    shared = load_shared(tmp_path / "expect.toml")["web.libxc.zst"]
    asked = [(one.outcome.verdict, one.host and Path(one.host.path).name) for one in shared.expect]
    assert (asked, shared.vcpus, shared.host_dependent) == ([("refuse", None), ("refuse", "a.txt")], 2, True)
    alone = text.partition('["web.libxc.zst"]')[2].partition("\n")[2].replace('"web.libxc.zst".', "")
    (tmp_path / "web.libxc.expect.toml").write_text(alone)
    assert load_own(tmp_path / "web.libxc.expect.toml").expect == shared.expect


def test_defaults_hold_for_every_stream_that_does_not_say_otherwise(tmp_path):
    expectation = 'expect = [{ target = "4.20", placement = "low", verdict = "accept" }]\n'
    file = tmp_path / "expect.toml"
    file.write_text(
        '[defaults]\noptions.vcpus = 2\nprovenance.saved_by = "4.17"\n'
        f"[a]\n{expectation}[b]\noptions.vcpus = 7\nprovenance.layer = 'tables'\n{expectation}"
    )
    entries = load_shared(file)
    assert [entry.vcpus for entry in entries.values()] == [2, 7]
    assert entries["b"].provenance == {"saved_by": "4.17", "layer": "tables"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[expect]\n", "not TOML: "),
        ("[provenance]\n", "expect: missing"),
        ("expect = 3\n", "expect: expected an array, found 3"),
        ("expect = [3]\n", "expect 1: expected a table, found 3"),
        (ACCEPTED.replace("accept", "ok"), "expect 1: verdict: expected accept, refuse or unjudged, found 'ok'"),
        (ACCEPTED.replace("verdict", "verdikt"), "expect 1: verdict: missing"),
        (ACCEPTED + 'stpe = "pin"\n', "expect 1: stpe: unknown key; did you mean step?"),
        (ACCEPTED + 'step = "pin"\n', "expect 1: step: only a refusal has one"),
        (ACCEPTED.replace("4.20", "5.1"), "expect 1: target: Xen 5.1 is newer than any that is known here"),
        (ACCEPTED.replace("low", "lower"), "expect 1: placement: expected source, high, low or identity"),
        (ACCEPTED.replace('"4.20"', "4.20"), "expect 1: target: expected a string, found 4.2"),
        (
            REFUSED + 'step = "later"\n',
            "expect 1: step: expected create, headers, record, context, pin, p2m or device-model",
        ),
        (REFUSED + "vcpu = true\n", "expect 1: vcpu: expected a number, found True"),
        (REFUSED + "vcpu = -1\n", "expect 1: vcpu: expected at least 0, found -1"),
        (REFUSED + "rules = { HYP-220 = 1 }\n", "expect 1: rules.HYP-220: no such rule; did you mean HYP-22?"),
        (MEASURED_REFUSAL.replace("refuse", "unjudged"), "expect 1: measured.verdict: expected accept or refuse"),
        (MEASURED_REFUSAL.replace('["mm.c', '[1, "mm.c'), "expect 1: measured.xen_log: expected strings only"),
        (ACCEPTED + ACCEPTED, "expect 2: 4.20 under low is there twice"),
        (ACCEPTED + ACCEPTED.replace("4.20", "4.20.0"), "expect 2: 4.20 under low is there twice"),
        ("options.vcpus = 0\n" + ACCEPTED, "options.vcpus: expected at least 1, found 0"),
        ("option.vcpus = 1\n" + ACCEPTED, "option: unknown key; did you mean options?"),
        ("a = " + "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path, text, complaint):
    file = expect(tmp_path, "x", text)
    with pytest.raises(ExpectationError) as raised:
        load_own(file)
    assert f"{file}: {complaint}" in str(raised.value)


def test_a_mistake_in_a_shared_file_names_the_stream(tmp_path):
    (tmp_path / "expect.toml").write_text("['one.zst']\nexpect = []\n")
    wrong = load_shared(tmp_path / "expect.toml")["one.zst"]
    assert str(wrong) == f"{tmp_path / 'expect.toml'}: 'one.zst': expect: missing; at least one is needed"


def test_a_file_that_is_not_text_is_an_error(tmp_path):
    (tmp_path / "x.expect.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ExpectationError, match="not UTF-8 at byte 0"):
        load_own(tmp_path / "x.expect.toml")


# -- how it is compared -------------------------------------------------------------------------------


def aspects(expected, observed):
    return [difference.aspect for difference in expected.differences(observed)]


def test_what_is_not_expected_is_not_compared():
    assert aspects(ExpectedVerdict("refuse"), ExpectedVerdict("refuse", "pin", "mmuext_op", None, "EINVAL")) == []


def test_each_aspect_that_is_expected_is_compared():
    expected = ExpectedVerdict("refuse", "pin", "mmuext_op", 0, "EINVAL")
    assert aspects(expected, ExpectedVerdict("refuse", "p2m", "libxc", 1, None)) == ["step", "call", "vcpu", "errno"]


def test_dying_is_not_another_way_of_saying_no():
    assert aspects(ExpectedVerdict("refuse", "pin"), ExpectedVerdict("refuse", "pin", signal=signal.SIGSEGV)) == [
        "signal"
    ]


def test_two_verdicts_that_differ_are_one_difference():
    assert aspects(ExpectedVerdict("refuse", "pin"), ExpectedVerdict("accept")) == ["verdict"]


def test_rules_are_counted_from_warning_on():
    report = check(bad(), target="4.20", placement="low")
    assert report.findings
    assert set(serious(report)) == {f.rule.id for f in report.findings if f.severity.value in ("error", "warning")}


# -- which streams ------------------------------------------------------------------------------------


def names(corpus):
    return [Path(case.path).name for case in corpus.cases]


def test_a_directory_means_all_streams_below_it_by_name(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "c").write_bytes(good())
    (folder / ".hidden").write_bytes(good())
    (folder / "README.md").write_text("not a stream")
    expect(folder, "good", ACCEPTED)
    assert names(discover([str(folder)])) == ["bad", "good", "c"]


def test_a_pattern_means_what_it_matches(folder):
    assert names(discover([str(folder / "g*")])) == ["good"]


def test_a_stream_named_twice_is_judged_once(folder):
    assert names(discover([str(folder / "good"), str(folder)])) == ["good", "bad"]


def test_expectations_are_found_beside_a_compressed_stream(folder):
    (folder / "good").rename(folder / "good.zst")
    expect(folder, "good", ACCEPTED)
    (case,) = discover([str(folder / "good.zst")]).cases
    assert case.entry.file == str(folder / "good.expect.toml")


def test_two_files_about_one_stream_are_a_fault_of_it(folder):
    expect(folder, "good", ACCEPTED)
    (folder / "expect.toml").write_text(f"[good]\n{ACCEPTED.replace('[[expect]]', '[[good.expect]]')}")
    faults = {case.path: case.fault for case in discover([str(folder)]).cases}
    assert faults[str(folder / "bad")] is None
    assert "expect.toml speaks of the same stream; only one of them may" in faults[str(folder / "good")]


# -- the run ------------------------------------------------------------------------------------------


def test_all_as_expected_exits_with_0(folder):
    expect(folder, "good", ACCEPTED)
    expect(folder, "bad", REFUSED + WITHOUT_CONTEXT)
    result = corpus_run(folder, "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert "2 streams, 2 expectations: 2 as expected" in result.output


def test_a_wrong_expectation_exits_with_1_and_names_the_stream(folder):
    expect(folder, "good", ACCEPTED)
    expect(folder, "bad", ACCEPTED)
    result = corpus_run(folder, "--jobs", "1")
    assert result.exit_code == 1
    assert f"differs   {folder / 'bad'}" in result.output
    assert "4.20, low" in result.output
    assert "verdict: expected accept, found refuse" in result.output
    assert str(folder / "good") not in result.output


def test_a_disagreement_comes_with_what_real_xen_logged(folder):
    expect(folder, "good", MEASURED_REFUSAL)
    result = corpus_run(folder / "good")
    assert result.exit_code == 1
    assert "real Xen: refuse at step pin, EINVAL: Failed to pin" in result.output
    assert "mm.c: Bad L3 flags" in result.output


def test_a_known_disagreement_is_told_but_is_as_expected(folder):
    expect(folder, "good", MEASURED_REFUSAL + 'verdict = "accept"\n')
    result = corpus_run(folder / "good")
    assert result.exit_code == 0
    assert f"known     {folder / 'good'}" in result.output
    assert "verdict: real Xen refuse, found accept" in result.output


def test_wrong_counts_of_rules_are_a_difference(folder):
    expect(folder, "good", ACCEPTED + "rules = { HYP-22 = 3 }\n")
    result = corpus_run(folder / "good")
    assert result.exit_code == 1
    assert "rules: expected HYP-22 ×3, found" in result.output


def test_where_the_answer_depends_on_the_host_a_difference_is_no_failure(folder):
    expect(folder, "bad", "host_dependent = true\n" + ACCEPTED)
    result = corpus_run(folder / "bad")
    assert result.exit_code == 0
    assert f"host      {folder / 'bad'}" in result.output


def test_a_new_stream_is_told_with_its_verdict(folder):
    result = corpus_run(folder / "good")
    assert result.exit_code == 0
    assert f"new       {folder / 'good'}: accept" in result.output


def test_a_stream_that_is_expected_but_not_there_exits_with_1(folder):
    expect(folder, "gone", ACCEPTED)
    result = corpus_run(folder)
    assert result.exit_code == 1
    assert f"missing   {folder / 'gone'}" in result.output


def test_a_stream_that_cannot_be_read_exits_with_3(folder):
    (folder / "good").write_bytes(b"\x28\xb5\x2f\xfd no zstd after all")
    expect(folder, "good", ACCEPTED)
    result = corpus_run(folder / "good")
    assert result.exit_code == 3
    assert f"failed    {folder / 'good'}: " in result.output


def test_a_difference_weighs_more_than_a_stream_that_cannot_be_read(folder):
    (folder / "good").write_bytes(b"\x28\xb5\x2f\xfd no zstd after all")
    expect(folder, "bad", ACCEPTED)
    assert corpus_run(folder).exit_code == 1


@pytest.mark.parametrize("content", [b"\xff\xfe", b"verdict", b"[[expect]]\nverdict = 'yes'\n"])
def test_expectations_that_cannot_be_used_cost_their_stream_and_exit_with_3(folder, content):
    (folder / "good.expect.toml").write_bytes(content)
    expect(folder, "bad", REFUSED)
    result = corpus_run(folder)
    assert result.exit_code == 3
    assert f"failed    {folder / 'good'}: {folder / 'good.expect.toml'}: " in result.output
    assert "2 streams, 1 expectation: 1 as expected; 1 could not be tried" in result.output


def test_a_mistake_about_one_stream_of_a_directory_costs_that_one(folder):
    right, wrong = REFUSED.replace("expect", "bad.expect"), ACCEPTED.replace("[[expect]]", "[[good.expects]]")
    (folder / "expect.toml").write_text(right + wrong)
    result = corpus_run(folder)
    assert result.exit_code == 3
    assert f"failed    {folder / 'good'}: {folder / 'expect.toml'}: 'good': expects: unknown key" in result.output
    assert "2 streams, 1 expectation: 1 as expected; 1 could not be tried" in result.output


def test_a_file_that_is_a_mistake_as_a_whole_costs_the_streams_beside_it_and_no_other(folder):
    (folder / "expect.toml").write_text("[good\n")
    (folder / "README.md").write_text("not a stream")
    (folder / "below").mkdir()
    (folder / "below" / "good").write_bytes(good())
    expect(folder / "below", "good", ACCEPTED)
    expect(folder, "bad", REFUSED)
    result = corpus_run(folder)
    assert result.exit_code == 3
    assert f"incomplete: {folder / 'expect.toml'}: not TOML: " in result.output
    assert f"failed    {folder / 'good'}: {folder / 'expect.toml'}: not TOML: " in result.output
    assert "3 streams, 2 expectations: 2 as expected; 1 could not be tried" in result.output


def test_a_mistake_about_a_stream_that_is_not_there_is_told(folder):
    (folder / "expect.toml").write_text(ACCEPTED)  # as if it were about one stream
    result = corpus_run(folder)
    assert result.exit_code == 3
    assert f"incomplete: {folder / 'expect.toml'}: expect: expected a table, found [" in result.output


def test_a_file_that_is_a_mistake_is_told_where_no_stream_is(tmp_path):
    (tmp_path / "expect.toml").write_text("[good\n")
    result = corpus_run(tmp_path)
    assert result.exit_code == 3
    assert f"incomplete: {tmp_path / 'expect.toml'}: not TOML: " in result.output


def test_a_difference_weighs_more_than_expectations_that_cannot_be_used(folder):
    expect(folder, "good", "nothing")
    expect(folder, "bad", ACCEPTED)
    assert corpus_run(folder).exit_code == 1


@pytest.mark.parametrize("expected", [None, ACCEPTED, "host_dependent = true\n" + ACCEPTED])
def test_what_is_no_stream_is_not_judged_and_exits_with_3(tmp_path, expected):
    (tmp_path / "junk").write_bytes(b"not a stream at all\n" * 9)
    if expected:
        expect(tmp_path, "junk", expected)
    result = corpus_run(tmp_path)
    assert result.exit_code == 3
    (line,) = (line for line in result.output.splitlines() if line.startswith("unjudged  "))
    assert line.startswith(f"unjudged  {tmp_path / 'junk'}" + ("" if expected else ": not a Xen stream: "))


def test_what_is_not_to_be_judged_is_as_expected(tmp_path):
    (tmp_path / "junk").write_bytes(b"not a stream at all\n" * 9)
    expect(tmp_path, "junk", ACCEPTED.replace("accept", "unjudged"))
    assert corpus_run(tmp_path).exit_code == 0


def test_of_streams_that_nothing_is_expected_of_the_run_says_how_many_there_are(folder):
    (folder / "junk").write_bytes(b"not a stream at all\n" * 9)
    expect(folder, "good", ACCEPTED)
    (folder / "good2").write_bytes(good())
    result = corpus_run(folder)
    assert "nothing is expected of 3 streams: 1 refused, 1 restores, 1 not judged\n" in result.output


def test_by_fail_on_a_new_stream_that_is_refused_exits_with_1(folder):
    expect(folder, "good", ACCEPTED)
    assert corpus_run(folder).exit_code == 0
    result = corpus_run(folder, "--fail-on", "error")
    assert result.exit_code == 1
    assert f"fails     {folder / 'bad'}: refuse at step context" in result.output


def test_fail_on_is_for_what_nothing_is_expected_of(folder):
    expect(folder, "bad", REFUSED)
    assert corpus_run(folder, "--fail-on", "error").exit_code == 0


@pytest.mark.parametrize(("threshold", "code"), [("error", 0), ("warning", 1)])
def test_fail_on_has_a_threshold(tmp_path, threshold, code):
    builder = StreamBuilder.pv(8)
    RULES[WARNING].violation(builder)
    (tmp_path / "stream").write_bytes(builder.build())
    assert corpus_run(tmp_path, "--fail-on", threshold).exit_code == code


@pytest.mark.parametrize("args", [[], ["/nowhere/at/all"], ["/nowhere/*"], ["--jobs", "0", "."]])
def test_wrong_usage_exits_with_2(args):
    assert corpus_run(*args).exit_code == 2


def test_a_directory_without_streams_is_wrong_usage(tmp_path):
    result = corpus_run(tmp_path)
    assert result.exit_code == 2
    assert "there is no stream in" in result.output


# -- workers ------------------------------------------------------------------------------------------


def test_results_are_the_same_and_in_the_same_order_however_many_workers(folder):
    for number in range(6):
        (folder / f"more{number}").write_bytes(good() if number % 2 else bad())
        expect(folder, f"more{number}", ACCEPTED)
    cases = discover([str(folder)]).cases
    with ProcessPoolExecutor(2) as pool:
        assert run(cases, pool) == run(cases, InProcess())


def test_every_finished_stream_is_told(folder):
    finished = []
    run(discover([str(folder)]).cases, InProcess(), finished.append)
    assert [Path(result.case.path).name for result in finished] == ["bad", "good"]


def test_a_worker_that_dies_is_told_as_a_failure(folder):
    with ProcessPoolExecutor(1, initializer=signal.raise_signal, initargs=(signal.SIGKILL,)) as pool:
        results = run(discover([str(folder)]).cases, pool)
    assert {result.status for result in results} == {Status.FAILED}


# -- agreement ----------------------------------------------------------------------------------------


def test_only_what_real_xen_stands_behind_counts_as_agreement(folder):
    expect(folder, "good", MEASURED_REFUSAL + ACCEPTED.replace("4.20", "4.19"))
    expect(folder, "bad", REFUSED)
    tallies = agreement(run(discover([str(folder)]).cases, InProcess()))
    assert total(tallies).streams == 1
    assert total(tallies).verdict_share == (0, 1)


def test_a_step_is_compared_where_both_refuse(folder):
    expect(folder, "bad", MEASURED_REFUSAL + "[provenance]\nlayer = 'vcpu'\n")
    tally = agreement(run(discover([str(folder / "bad")]).cases, InProcess()))["vcpu"]
    assert (tally.verdict_share, tally.step_share, tally.errno_share) == ((1, 1), (0, 1), (0, 1))
