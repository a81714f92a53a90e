"""`migrate explain` as its users meet it: every rule explains itself, and the stream it writes breaks it."""

import json
import os
import pty
import shlex
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest
from click.testing import CliRunner

from migrate.cli import explain
from migrate.cli.explain import violating_stream
from migrate.cli.main import main
from migrate.destination.releases import NEWEST, resolve, version_3
from migrate.reports.rules.commands import Conditions, check_command, conditions
from migrate.reports.rules.pages import GUEST_SEES, releases
from migrate.rules.catalogue import NOT_RULES, RULES
from migrate.rules.declaring import Effect

COMMAND = [sys.executable, "-m", "migrate"]
SHOWN = [rule for rule in RULES.values() if rule.violation]
UNSHOWN = [rule for rule in RULES.values() if not rule.violation]

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
every_violation = pytest.mark.parametrize("rule", SHOWN, ids=lambda rule: rule.id)
no_violation = pytest.mark.parametrize("rule", UNSHOWN, ids=lambda rule: rule.id)


@pytest.fixture(scope="module")
def made_once():
    """The stream that breaks a rule is made and judged once for all tests that look at every rule."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("violating_stream", "show"):
            patch.setattr(explain, name, cache(getattr(explain, name)))
        yield


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def output(*args):
    result = run("explain", *args)
    assert result.exit_code == 0, result.output
    return result.output


def fact(text, key):
    """The value of one line of the page, joined where it is wrapped."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(f"{key} "))
    value = [lines[first][13:]]
    for line in lines[first + 1 :]:
        if not line.startswith(" " * 13):
            break
        value.append(line.strip())
    return " ".join(value)


# -- the page -----------------------------------------------------------------------------------------


@every_rule
def test_every_rule_explains_itself(rule, made_once):
    text = output(rule.id)
    assert text.splitlines()[0] == f"{rule.id}  {rule.slug}"
    assert text.splitlines()[1] == rule.title
    assert fact(text, "severity") == rule.severity.value
    assert fact(text, "effect") == rule.effect.meaning
    assert fact(text, "enforced by") == rule.enforced_by
    assert fact(text, "releases") == releases(rule).words
    assert fact(text, "the guest") == GUEST_SEES[rule.effect]
    assert (rule.errno is None) or fact(text, "errno") == rule.errno
    printed = " ".join(text.split())
    for heading, words in rule.sections.items():
        assert f"{heading} {' '.join(words.split())}" in printed


@every_violation
def test_every_rule_shows_the_finding_of_its_stream(rule, made_once):
    told = json.loads(output(rule.id, "--format", "json"))["shown"]
    assert told["message"]
    assert told["verdict"] == ("refuse" if rule.effect.fatal else "accept")


def test_page_shows_commands_finding_and_verdict():
    lines = output("HYP-22").splitlines()
    start = lines.index("To see it")
    assert lines[start + 1 : start + 3] == [
        "    migrate explain HYP-22 --write bad.libxc",
        "    migrate check bad.libxc --placement source",
    ]
    text = "\n".join(lines[start:])
    assert "lies above 4 GiB" in fact(text, "finding")
    assert fact(text, "verdict") == "refused"


def test_page_names_no_placement_where_a_rule_shows_under_the_usual_one():
    assert "    migrate check bad.libxc" in output("HYP-27").splitlines()


def test_a_rule_that_ended_is_shown_on_its_last_release():
    ended = replace(RULES["HYP-12"], until=version_3)
    assert conditions(ended).placement == "source"
    assert ended.in_force(resolve(conditions(ended).target))
    assert check_command(ended)[3:] == ("--placement", "source", "--target", conditions(ended).target)


def test_hvm_guests_and_what_high_frames_break_need_no_options():
    ended = {rule.id for rule in RULES.values() if not rule.in_force(NEWEST)}
    plain = {rule.id for rule in RULES.values() if conditions(rule) == Conditions()}
    assert plain == {id for id in RULES if id.startswith("HVM-")} - ended | {"HYP-27"}


@no_violation
def test_a_rule_that_no_stream_can_show_says_so(rule):
    assert output(rule.id).splitlines()[-1] == "No stream can show it, so there is none to write."


@pytest.mark.parametrize("word", ["HYP-22", "hyp-22", " Hyp-22 ", "l3-above-4g", "L3-Above-4G"])
def test_rule_is_meant_by_id_or_slug_in_any_case(word):
    assert output(word).startswith("HYP-22  l3-above-4g\n")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("l3-above-4gb", "did you mean l3-above-4g"),
        ("HYP-122", "or HYP-12"),
        ("no-such-rule-whatever", "no rule is called"),
        ("HYP-2", "HYP-22, HYP-27"),
        ("", "no rule is called"),
    ],
)
def test_a_word_that_means_no_single_rule_exits_2_with_a_hint(word, hint):
    result = run("explain", word)
    assert result.exit_code == 2
    assert hint in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("id", NOT_RULES)
def test_number_that_is_no_rule_says_why(id):
    assert output(id.lower()) == f"{id} is not a rule: {NOT_RULES[id]}\n"


def test_page_is_set_for_reading_where_no_terminal_gives_a_width():
    lines = output("HYP-22").splitlines()
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if line != line.rstrip()]
    assert "\x1b" not in "".join(lines)


def test_an_empty_line_in_an_explanation_starts_a_paragraph():
    rule = replace(RULES["HYP-12"], doc="Title.\n\nWhat: one\n    thing.\n\n    And another.\nWhy: because.")
    assert rule.sections == {"What": "one thing.\n\nAnd another.", "Why": "because."}


# -- JSON ---------------------------------------------------------------------------------------------


def test_json_has_all_parts():
    told = json.loads(output("HYP-27", "--format", "json"))
    assert told["rule"]["id"] == "HYP-27"
    assert list(told["sections"]) == ["what", "why", "repair", "source"]
    assert told["guest_sees"] == GUEST_SEES[Effect.REFUSED]
    assert told["shown"]["write"] == ["migrate", "explain", "HYP-27", "--write", "bad.libxc"]
    assert told["shown"]["check"] == ["migrate", "check", "bad.libxc"]
    assert told["shown"]["verdict"] == "refuse"


@no_violation
def test_json_of_a_rule_that_no_stream_can_show_has_null_for_it(rule):
    assert json.loads(output(rule.id, "--format", "json"))["shown"] is None


def test_json_of_a_number_that_is_no_rule_gives_the_reason():
    told = json.loads(output("HYP-14", "--format", "json"))
    assert told["rule"] is None
    assert told["not_a_rule"] == {"id": "HYP-14", "reason": NOT_RULES["HYP-14"]}


def test_json_does_not_import_rich():
    code = (
        "import sys, migrate.cli.main\n"
        "try: migrate.cli.main.main(['explain', 'HYP-22', '--format', 'json'], prog_name='migrate')\n"
        "except SystemExit as end: assert not end.code\n"
        "print('rich' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"


# -- writing ------------------------------------------------------------------------------------------


@every_violation
def test_written_stream_breaks_its_rule_under_the_command_that_is_told(rule, made_once, tmp_path):
    file = tmp_path / "bad.libxc"
    written = run("explain", rule.id, "--write", file)
    assert written.exit_code == 0
    program, command, *rest = shlex.split(written.output.split("to see it: ")[1])
    assert (program, command, rest[0]) == ("migrate", "check", str(file))
    result = run(command, *rest, "--format", "json", "--quiet")
    assert result.exit_code in (0, 1)
    assert rule.id in {finding["rule"] for finding in json.loads(result.output)["findings"]}


def test_writing_tells_size_and_what_to_do_next(tmp_path):
    file = tmp_path / "bad.libxc"
    told = output("HYP-27", "--write", file)
    assert told == f"{file}: {file.stat().st_size} bytes; to see it: migrate check {file}\n"


def test_written_streams_are_the_same_every_time(tmp_path):
    output("HYP-22", "--write", tmp_path / "first")
    output("HYP-22", "--write", tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes() == violating_stream(RULES["HYP-22"])


def test_existing_file_is_not_overwritten(tmp_path):
    file = tmp_path / "precious"
    file.write_bytes(b"precious")
    result = run("explain", "HYP-22", "--write", file)
    assert result.exit_code == 2
    assert "exists; --force overwrites it" in result.output
    assert file.read_bytes() == b"precious"


def test_force_overwrites(tmp_path):
    file = tmp_path / "worthless"
    file.write_bytes(b"worthless")
    output("HYP-22", "--write", file, "--force")
    assert file.read_bytes() == violating_stream(RULES["HYP-22"])


def test_dash_writes_the_stream_and_nothing_else_to_standard_output():
    done = subprocess.run([*COMMAND, "explain", "HYP-22", "--write", "-"], capture_output=True, check=True)
    assert done.stdout == violating_stream(RULES["HYP-22"])
    assert done.stderr == b""


def test_stream_can_be_piped_into_check():
    line = "{0} explain HYP-22 --write - | {0} check - --placement source --format json".format(shlex.join(COMMAND))
    done = subprocess.run(line, shell=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["failure"]["rule"] == "HYP-22"


def test_no_stream_is_written_to_a_terminal():
    master, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [*COMMAND, "explain", "HYP-22", "--write", "-"],
            stdout=terminal,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(master)
    assert done.returncode == 2
    assert b"not for a terminal" in done.stderr


@no_violation
def test_there_is_no_stream_to_write_where_none_can_break_the_rule(rule, tmp_path):
    file = tmp_path / "bad.libxc"
    result = run("explain", rule.id, "--write", file)
    assert result.exit_code == 2
    assert f"no stream can show {rule.id}" in result.output
    assert not file.exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Missing argument"),
        (["HYP-22", "--force"], "--force is for --write"),
        (["HYP-22", "--write", "x", "--format", "json"], "--write writes a stream"),
        (["HYP-14", "--write", "x"], "HYP-14 is not a rule"),
        (["HYP-22", "--write", "no/such/folder/x"], "No such file or directory"),
        (["HYP-22", "--write", "/", "--force"], "Is a directory"),
    ],
)
def test_wrong_usage_exits_2_without_a_traceback(args, said):
    result = run("explain", *args)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_hostile_file_names_are_escaped(tmp_path):
    told = output("HYP-22", "--write", tmp_path / "x\x1b[31m")
    assert "\x1b" not in told
    assert r"x\x1b[31m" in told


def test_a_full_disk_exits_2_with_a_message():
    done = subprocess.run(
        [*COMMAND, "explain", "HYP-22", "--write", "/dev/full", "--force"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "migrate: /dev/full: No space left on device\n"
    assert "Traceback" not in done.stderr
