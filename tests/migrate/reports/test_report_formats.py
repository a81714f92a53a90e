"""`migrate check` for code scanning, for CI servers and for GitHub's annotations."""

import re
from functools import cache

import pytest
import schemas
from asking import check
from project import SAMPLES
from violating import violating

from migrate.building.builder import StreamBuilder
from migrate.cli.main import main
from migrate.judging.report_json import dumps, report_from
from migrate.reports.folding import folds
from migrate.reports.verdict import github, junit, sarif
from migrate.rules.catalogue import RULES, rule_set_version
from migrate.rules.declaring import Severity

NO_ZSTD = b"\x28\xb5\x2f\xfd no zstd after all"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    builder = StreamBuilder.pv(4)
    builder.drop("X86_PV_VCPU_BASIC")
    (tmp_path / "bad").write_bytes(builder.build())
    (tmp_path / "good").write_bytes(StreamBuilder.pv(8).build())
    (tmp_path / "unreadable").write_bytes(NO_ZSTD)
    return tmp_path


@pytest.fixture
def ran(folder, capsys):
    """`migrate check`, as its exit code and standard output alone."""

    def run(*args):
        with pytest.raises(SystemExit) as ended:
            main(["check", *args])
        return ended.value.code, capsys.readouterr().out

    return run


@cache
def broken(id):
    return check(violating(id))


# -- SARIF --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [rule.id for rule in RULES.values() if rule.violation])
def test_every_rule_s_finding_makes_sound_sarif_with_the_rule_s_help(id):
    report = broken(id)
    (run,) = schemas.sarif(dumps(sarif.document([report])))["runs"]
    rules = run["tool"]["driver"]["rules"]
    causes = [(entry.rule.id, cause) for entry in folds(report) for cause in entry.causes]
    assert [rules[one["ruleIndex"]]["id"] for one in run["results"]] == [rule for rule, _ in causes]
    assert [len(one["locations"]) for one in run["results"]] == [len(cause.findings) for _, cause in causes]
    assert all(RULES[rule["id"]].title in rule["help"]["text"] for rule in rules)


def test_sarif_names_the_byte_and_the_record(ran):
    code, output = ran("bad", "--format", "sarif", "--placement", "source")
    assert code == 1
    (run,) = schemas.sarif(output)["runs"]
    places = [place for one in run["results"] for place in one["locations"]]
    assert [place["physicalLocation"].get("region", {}).get("byteOffset") for place in places] == [
        finding.offset for entry in folds(check("bad")) for finding in entry.findings
    ]
    assert {one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in run["results"]} == {"bad"}


def test_sarif_names_the_rule_set():
    (run,) = schemas.sarif(dumps(sarif.document([broken("ORD-14")])))["runs"]
    assert run["tool"]["driver"]["properties"] == {"ruleSet": rule_set_version()}


def test_sarif_tells_of_a_stream_that_cannot_be_read(ran):
    code, output = ran("good", "unreadable", "--format", "sarif")
    assert code == 2
    (invocation,) = schemas.sarif(output)["runs"][0]["invocations"]
    assert not invocation["executionSuccessful"]
    (note,) = invocation["toolExecutionNotifications"]
    assert "zstd" in note["message"]["text"]


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("a b/c%d", "a%20b/c%25d"),
        ("/x/ü", "file:///x/%C3%BC"),
        ("a:b", "./a:b"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("\udcff", "%5Cxff"),
    ],
)
def test_a_path_becomes_a_uri(name, uri):
    assert sarif.uri(name) == uri


def test_a_finding_is_known_again_when_it_has_moved():
    def prints(report):
        return [one["partialFingerprints"] for one in sarif.document([report])["runs"][0]["results"]]

    streams = []
    for container in ("libxc", "libxl"):
        builder = StreamBuilder.pv(4)
        RULES["ORD-02"].violation(builder)
        builder.wrap(container)
        streams.append(builder.build())
    plain, later = map(check, streams)
    assert {finding.offset for finding in plain.findings} != {finding.offset for finding in later.findings}
    assert prints(plain) == prints(later)


# -- JUnit --------------------------------------------------------------------------------------------


def test_junit_has_a_case_per_stream_and_question(ran):
    code, output = ran("good", "bad", "unreadable", "--format", "junit", "--target", "4.20")
    assert code == 2
    cases = schemas.junit(output)
    assert {name: schemas.outcome(case) for name, case in cases.items()} == {
        "./good (4.20, high)": "passed",
        "./bad (4.20, high)": "failure",
        "./unreadable": "error",
    }


def test_junit_fails_by_the_threshold_of_the_exit_code(folder, ran):
    builder = StreamBuilder.pv(4)  # a 32-bit guest depends on the host
    (folder / "warned").write_bytes(builder.build())
    outcomes = {}
    for threshold in ("error", "warning"):
        code, output = ran("warned", "--format", "junit", "--fail-on", threshold, "--placement", "low")
        (case,) = schemas.junit(output).values()
        outcomes[threshold] = (code, schemas.outcome(case))
    assert outcomes == {"error": (0, "passed"), "warning": (1, "failure")}


def test_what_no_xml_can_hold_becomes_an_escape():
    text = junit.document("s", [junit.Trial("c", "a\x00\x1b\udcff<&\"'\ufffe", failure=junit.TestCase("t", "m\x01"))])
    (name,) = schemas.junit(text)
    assert name == "c/a\\x00\\x1b\\xff<&\"'\\ufffe"


def test_junit_skips_what_is_not_judged():
    report = check(b"no stream at all, but long enough to look like one" * 4)
    (case,) = junit.from_reports([report], Severity.ERROR)
    expected = "skipped" if report.verdict == "unjudged" else "failure"
    assert schemas.outcome(*schemas.junit(junit.document("s", [case])).values()) == expected


# -- GitHub -------------------------------------------------------------------------------------------


def test_findings_of_one_cause_are_one_result_one_annotation_and_one_line():
    report = check(SAMPLES / "x417-pv32.plain.libxc.zst", target="4.20", placement="high")
    assert len([finding for finding in report.findings if finding.rule.id == "HYP-22"]) == 7
    (result,) = (one for one in sarif.document([report])["runs"][0]["results"] if one["ruleId"] == "HYP-22")
    assert (len(result["locations"]), result["occurrenceCount"]) == (7, 7)
    (line,) = (line for line in github.workflow_commands(report) if "title=HYP-22" in line)
    assert "(7 times: pfn 0x19 (vcpu 1), 0x13, 0x14, 0x15, 0x18, 0x1a, 0x115)" in line
    (case,) = junit.from_reports([report], Severity.ERROR)
    assert len([line for line in case.failure.text.splitlines() if line.startswith("HYP-22")]) == 1


def test_annotations_are_one_line_per_cause(ran):
    code, output = ran("bad", "--format", "github", "--placement", "source")
    report = check("bad")
    commands = {"error": "error", "warning": "warning", "info": "notice"}
    assert code == 1
    assert [re.match(r"::(\w+) file=bad,title=(\S+) ", line).groups() for line in output.splitlines()] == [
        (commands[entry.severity.value], entry.rule.id) for entry in folds(report) for _ in entry.causes
    ]


def test_an_annotation_cannot_be_broken_out_of():
    line = github.workflow_command("error", "a,b:c%\n", "t:u", "m%\r\n::error::x")
    assert line == "::error file=a%2Cb%3Ac%25\\x0a,title=t%3Au::m%25\\x0d\\x0a::error::x"


def test_annotations_tell_of_a_stream_that_cannot_be_read(ran):
    code, output = ran("unreadable", "--format", "github")
    assert code == 2
    assert output.startswith("::error file=unreadable,title=cannot be read::")


# -- and back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [rule.id for rule in RULES.values() if rule.violation])
def test_a_report_comes_back_from_its_json_object(id):
    text = dumps(broken(id).to_dict())
    assert dumps(report_from(text).to_dict()) == text


@pytest.mark.parametrize("text", ["{}", "[]", "3", "no json", '{"stream": {"name": "x"}, "target": "4.20"}'])
def test_what_is_no_report_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011
        report_from(text)
