"""The same results in every output: for people, for CI servers, for code scanning, for a pull request."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import schemas
from corpora import ACCEPTED, REFUSED, bad, corpus, corpus_run, expect, good, lines, streams

from migrate.building.builder import StreamBuilder
from migrate.judging.report_json import report_from
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, Severity
from migrate.xen.replay import PvReplay

# Rules of several layers, each of which makes libxc or Xen refuse its violation.
BROKEN = ("HDR-03", "FRM-04", "ORD-01", "ORD-02", "REC-30", "HYP-03", "HYP-22")

OUTPUTS = ("text", "markdown", "jsonl", "junit", "sarif")


@pytest.fixture
def folder(tmp_path):
    """One stream of every fate."""
    root = tmp_path / "corpus"
    root.mkdir()
    fates = {
        "fine": (good(), ACCEPTED),
        "differs": (bad(), ACCEPTED),
        "deviates": (bad(), ACCEPTED),
        "host": (bad(), "host_dependent = true\n" + ACCEPTED),
        "unreadable": (b"\x28\xb5\x2f\xfd no zstd after all", REFUSED),
        "new": (bad(), None),
        "unjudged": (b"not a stream at all\n" * 9, ACCEPTED),
    }
    for name, (data, text) in fates.items():
        (root / name).write_bytes(data)
        if text is not None:
            expect(root, name, text)
    expect(root, "gone", ACCEPTED)
    (root / "known.toml").write_text('[[known]]\nstream = "deviates"\nreason = "so it is"\n')
    return root


class Outputs:
    """All outputs of one run."""

    def __init__(self, folder, tmp_path, *options):
        files = {name: tmp_path / f"out.{name}" for name in ("junit", "sarif", "markdown", "jsonl")}
        words = [word for name, file in files.items() for word in (f"--{name}", file)]
        self.folder = folder
        self.result = corpus_run(folder, *words, *options)
        self.texts = {name: file.read_text() for name, file in files.items()}
        self.lines = lines(files["jsonl"])
        self.sarif = schemas.sarif(self.texts["sarif"])["runs"][0]
        self.junit = schemas.junit(self.texts["junit"])

    def differing(self):
        """The names of the streams that differ, as each output has them."""
        told = re.findall(r"^differs   (.*)$", self.result.output, re.M)
        table = re.findall(r"^\| differs \| `(.*?)` ", self.texts["markdown"], re.M)
        results = [one["locations"][0]["physicalLocation"] for one in self.of("corpus-differs")]
        return {
            "text": {Path(path).name for path in told},
            "markdown": {Path(path).name for path in table},
            "jsonl": {Path(told["stream"]).name for told in self.lines if told.get("status") == "differs"},
            "junit": {Path(name).name for name, case in self.junit.items() if schemas.outcome(case) == "failure"},
            "sarif": {Path(place["artifactLocation"]["uri"]).name for place in results},
        }

    def of(self, rule):
        return [one for one in self.sarif["results"] if one["ruleId"] == rule]


@pytest.fixture
def outputs(folder, tmp_path):
    return Outputs(folder, tmp_path)


def test_every_stream_is_a_test_case(outputs):
    found = {Path(name).name: schemas.outcome(case) for name, case in outputs.junit.items()}
    assert found == {
        "fine": "passed",
        "differs": "failure",
        "gone": "failure",
        "deviates": "skipped",
        "host": "skipped",
        "new": "skipped",
        "unreadable": "error",
        "unjudged": "error",
    }


def test_sarif_tells_what_is_not_as_expected_and_nothing_else(outputs):
    found = {
        one["ruleId"]: Path(one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]).name
        for one in outputs.sarif["results"]
    }
    assert found == {
        "corpus-differs": "differs",
        "corpus-deviates": "deviates",
        "corpus-host": "host",
        "corpus-unjudged": "unjudged",
        "corpus-failed": "unreadable",
        "corpus-missing": "gone",
    }


def test_a_known_deviation_is_suppressed_in_sarif_with_its_reason(outputs):
    (deviation,) = outputs.of("corpus-deviates")
    assert deviation["suppressions"] == [{"kind": "external", "justification": "known: so it is"}]


def test_a_difference_in_sarif_points_at_the_byte_that_the_verdict_is_of(outputs):
    (difference,) = outputs.of("corpus-differs")
    told = next(told for told in outputs.lines if told.get("status") == "differs")
    report = report_from(json.dumps(told["checks"][0]))
    decisive = next(finding for finding in report.findings if finding.fatal)
    region = difference["locations"][0]["physicalLocation"].get("region", {})
    assert region.get("byteOffset") == decisive.offset


def test_markdown_has_what_fails_first(outputs):
    rows = re.findall(r"^\| (\w+) \| `(.*?)` \|", outputs.texts["markdown"], re.M)
    assert [word for word, _ in rows] == ["missing", "differs", "unjudged", "failed", "deviates", "host", "new"]
    assert outputs.texts["markdown"].startswith("### Corpus: 2 not as expected\n")


def test_a_line_of_json_has_the_reports_the_comparison_and_what_came_of_it(outputs):
    told = next(told for told in outputs.lines if told.get("status") == "differs")
    (check,), (comparison,) = told["checks"], told["comparisons"]
    assert check["stream"]["name"] == told["stream"]
    assert (check["verdict"], comparison["observed"]["verdict"]) == ("refuse", "refuse")
    assert comparison["differences"] == [{"aspect": "verdict", "expected": "accept", "observed": "refuse"}]
    assert told["expected"]["expect"][0]["outcome"]["verdict"] == "accept"
    assert told["seconds"] > 0


def test_the_last_line_says_that_all_have_been_judged(outputs):
    last = {"kind": "end", "schema": 1, "streams": 7, "missing": 1, "shard": None, "unmatched": [], "gaps": []}
    assert outputs.lines[-1] == last


def test_merged_results_make_the_same_outputs(folder, tmp_path, outputs):
    (tmp_path / "merged").mkdir()
    words = [word for name in ("junit", "sarif", "markdown") for word in (f"--{name}", tmp_path / "merged" / name)]
    merged = corpus("merge", tmp_path / "out.jsonl", *words)
    assert (merged.exit_code, merged.output) == (outputs.result.exit_code, outputs.result.output)
    for name in ("junit", "sarif", "markdown"):
        assert (tmp_path / "merged" / name).read_text() == outputs.texts[name]


def test_markdown_shows_names_as_they_are(tmp_path):
    name = "a`b|c <img> @all *x*"
    (tmp_path / name).write_bytes(bad())
    expect(tmp_path, name, ACCEPTED)
    text = Outputs(tmp_path, tmp_path).texts["markdown"]
    (row,) = re.findall(r"^\| differs \| (.*?) \| `4", text, re.M)
    assert row == f"``{tmp_path}/{name}``".replace("|", "\\|")


def test_a_table_that_github_would_not_take_is_cut_short(tmp_path):
    for number in range(60):
        (tmp_path / f"s{number}").write_bytes(b"")
        expect(tmp_path, f"s{number}", ACCEPTED)
    text = Outputs(tmp_path, tmp_path).texts["markdown"]
    assert len(re.findall("^\\| differs ", text, re.M)) == 50
    assert "… and 10 more" in text


def test_a_run_that_is_not_complete_is_green_in_no_output(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "good").write_bytes(good())
    expect(tmp_path / "corpus", "good", ACCEPTED)
    corpus_run(tmp_path / "corpus", "--jsonl", tmp_path / "results")
    (line, *_) = (tmp_path / "results").read_text().splitlines(keepends=True)
    (tmp_path / "results").write_text(line)
    words = [word for name in ("junit", "sarif", "markdown") for word in (f"--{name}", tmp_path / name)]
    assert corpus("merge", tmp_path / "results", *words).exit_code == 3
    why = f"{tmp_path / 'results'}: the run was interrupted"
    cases = schemas.junit((tmp_path / "junit").read_text())
    assert [schemas.outcome(case) for case in cases.values()] == ["passed", "error"]
    (invocation,) = schemas.sarif((tmp_path / "sarif").read_text())["runs"][0]["invocations"]
    assert not invocation["executionSuccessful"]
    assert [note["message"]["text"] for note in invocation["toolExecutionNotifications"]] == [f"incomplete: {why}"]
    assert (tmp_path / "markdown").read_text().startswith("### Corpus: not all could be judged\n")


def test_a_new_stream_that_fails_is_red_in_every_output(tmp_path):
    (tmp_path / "bad").write_bytes(bad())
    outputs = Outputs(tmp_path, tmp_path, "--fail-on", "error")
    assert outputs.result.exit_code == 1
    assert {schemas.outcome(case) for case in outputs.junit.values()} == {"failure"}
    assert [one["level"] for one in outputs.of("corpus-fails")] == ["error"]
    assert outputs.texts["markdown"].startswith("### Corpus: 1 not as expected\n")
    assert outputs.lines[0]["status"] == "fails"
    assert corpus("merge", tmp_path / "out.jsonl").output == outputs.result.output


# -- one rule broken on purpose -----------------------------------------------------------------------


@pytest.fixture
def violations(tmp_path):
    """A stream per rule that breaks it and no other, sound ones, and what they come out as."""
    root = tmp_path / "violations"
    root.mkdir()
    for id in BROKEN:
        builder = StreamBuilder.pv(4)
        RULES[id].violation(builder)
        (root / id).write_bytes(builder.build())
    (root / "sound32").write_bytes(good())
    (root / "sound64").write_bytes(StreamBuilder.pv(8).build())
    (root / "hvm").write_bytes(StreamBuilder.hvm().build())
    placements = ("--placement", "source", "--placement", "high")
    assert corpus("accept", root, "--yes", "--target", "4.20", *placements).exit_code == 0
    return root


def concerned(violations, tmp_path, id):
    """The streams in which findings of a rule were counted."""
    corpus_run(violations, "--jsonl", tmp_path / "before")
    found = streams(tmp_path / "before", violations)
    return {name for name, told in found.items() if any(id in one["rules"] for one in told["comparisons"])}


def break_rule(monkeypatch, id):
    """A breach of a rule does no harm any more, as if somebody had got it wrong."""
    refusal = PvReplay._refusal

    def harmless(*args):
        finding = refusal(*args)
        return replace(finding, effect=Effect.TOLERATED, severity=Severity.INFO) if finding.rule.id == id else finding

    monkeypatch.setattr(PvReplay, "_refusal", harmless)
    monkeypatch.setitem(RULES, id, replace(RULES[id], effect=Effect.TOLERATED, severity=Severity.INFO))


@pytest.mark.parametrize("id", BROKEN)
def test_a_rule_that_loses_its_teeth_shows_in_exactly_the_streams_that_it_concerns(
    violations, tmp_path, monkeypatch, id
):
    expected = concerned(violations, tmp_path, id)
    assert id in expected
    break_rule(monkeypatch, id)
    outputs = Outputs(violations, tmp_path, "--jobs", "1", "--no-cache")
    assert outputs.result.exit_code == 1
    assert outputs.differing() == dict.fromkeys(OUTPUTS, expected)


def test_nothing_differs_while_no_rule_is_broken(violations, tmp_path):
    outputs = Outputs(violations, tmp_path)
    assert outputs.result.exit_code == 0
    assert outputs.differing() == {name: set() for name in OUTPUTS}
