"""`migrate check` as its users meet it: options, exit codes, output."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import at_once
import pytest
from click.testing import CliRunner
from project import SAMPLES

from migrate.building.builder import StreamBuilder
from migrate.cli.check import BADNESS, ending_of
from migrate.cli.ending import ExitCode
from migrate.cli.main import main
from migrate.cli.progress import PATIENCE, ProgressBar
from migrate.destination.destination import Destination
from migrate.destination.releases import RELEASES, distinct, spans, version_3
from migrate.judging.report import Report
from migrate.judging.report_json import report_from
from migrate.rules.catalogue import NOT_RULES, RULES
from migrate.rules.declaring import Effect, Severity
from migrate.rules.extended_cr3 import L3_RULES
from migrate.rules.findings import Finding
from migrate.rules.selection import resolve_rules
from migrate.toolstack.facts import StreamFacts

COMMAND = [sys.executable, "-m", "migrate"]


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def report_of(path, *args):
    return json.loads(run("check", "--format", "json", path, *args).output)


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    """One stream of each fate: the restore of `good` succeeds, `bad` has no vcpu state, `junk` is no stream."""
    folder = tmp_path_factory.mktemp("streams")
    bad = StreamBuilder.pv(8)
    bad.drop("X86_PV_VCPU_BASIC")
    (folder / "good").write_bytes(StreamBuilder.pv(8).build())
    (folder / "bad").write_bytes(bad.build())
    (folder / "junk").write_bytes(b"no stream at all " * 8)
    return folder


# -- start-up and usage -------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["--version"], ["--help"], ["check", "--help"]])
def test_version_and_help_import_nothing_heavy(args):
    code = (
        "import sys, migrate.cli.main\n"
        f"try: migrate.cli.main.main({args!r}, prog_name='migrate')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'rich', 'numpy', 'construct', 'backports'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_version_names_the_program():
    assert run("--version").output.startswith("migrate ")


def test_help_documents_the_exit_codes():
    text = " ".join(run("check", "--help").output.split())
    assert "the worst counts: 2, then 1, then 3, then 0" in text


@pytest.mark.parametrize(
    "args",
    [
        ["check"],
        ["check", "x", "--no-such-option"],
        ["check", "x", "--target", "5.1"],
        ["check", "x", "--format", "yaml"],
        ["check", "x", "--vcpus", "0"],
        ["check", "x", "--fail-on", "info"],
        ["check", "x", "--select", "NOPE"],
        ["check", "-", "-"],
        ["no-such-command"],
    ],
)
def test_wrong_usage_exits_2_without_a_traceback(args):
    result = run(*args)
    assert result.exit_code == 2
    assert "Error" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["--select", "HYP-222"], "did you mean HYP-22"),
        (["--ignore", RULES["HYP-22"].slug + "x"], f"did you mean {RULES['HYP-22'].slug}"),
        (["--target", "4.2"], "did you mean"),
        (["--select", next(iter(NOT_RULES))], next(iter(NOT_RULES.values()))),
    ],
)
def test_unknown_words_get_a_hint(args, hint):
    output = run("check", "x", *args).output
    assert hint in " ".join(output.split())


def test_rules_are_meant_by_id_slug_and_beginning():
    assert resolve_rules(["HYP-22"]) == ("HYP-22",)
    assert resolve_rules([RULES["HYP-22"].slug]) == ("HYP-22",)
    assert set(resolve_rules(["hyp-2"])) == {id for id in RULES if id.startswith("HYP-2")}
    assert set(resolve_rules(["HYP"])) == {id for id in RULES if id.startswith("HYP-")}


def test_rules_are_joined_by_commas_or_repetition():
    assert resolve_rules(["HYP-22, ORD-01", "HYP-22"]) == resolve_rules(["HYP-22", "ORD-01"]) == ("HYP-22", "ORD-01")


def test_an_id_does_not_mean_the_ids_that_it_begins():
    assert resolve_rules(["REC-10"]) == ("REC-10",)


# -- what makes the exit code -------------------------------------------------------------------------


def report(verdict, *severities):
    findings = [Finding(RULES["HYP-22"], "m", severity, Effect.SPEC) for severity in severities]
    return Report(StreamFacts("x"), Destination("4.20", "source"), verdict, None, findings)


@pytest.mark.parametrize(
    ("verdict", "severities", "fail_on", "ending"),
    [
        ("accept", [], "error", ExitCode.FINE),
        ("accept", [Severity.WARNING], "error", ExitCode.FINE),
        ("accept", [Severity.WARNING], "warning", ExitCode.FOUND),
        ("accept", [Severity.INFO], "warning", ExitCode.FINE),
        ("accept", [Severity.ERROR], "error", ExitCode.FOUND),
        ("refuse", [], "error", ExitCode.FOUND),
        ("unjudged", [], "error", ExitCode.UNJUDGED),
        ("unjudged", [Severity.ERROR], "error", ExitCode.FOUND),
    ],
)
def test_exit_code_of_one_stream(verdict, severities, fail_on, ending):
    assert ending_of(report(verdict, *severities), fail_on) == ending


def test_the_worst_exit_code_is_2_then_1_then_3_then_0():
    assert sorted([0, 1, 2, 3], key=BADNESS.index, reverse=True) == [2, 1, 3, 0]


def test_accepted_stream_exits_0(streams):
    result = run("check", streams / "good")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0].startswith(f"restores: {streams / 'good'} on Xen ")


def test_refused_stream_exits_1(streams):
    result = run("check", streams / "bad")
    assert result.exit_code == 1
    first, cause, *_ = result.output.splitlines()
    assert first.startswith(f"refused: {streams / 'bad'} on Xen ")
    assert ": libxc refuses it (migrate explain " in cause


def test_unreadable_stream_exits_2_and_says_why(streams):
    result = run("check", streams / "missing")
    assert result.exit_code == 2
    assert result.output == f"migrate: {streams / 'missing'}: No such file or directory\n"


def test_bad_placement_is_wrong_usage(streams):
    result = run("check", streams / "good", "--placement", "nowhere")
    assert result.exit_code == 2
    assert "Error" in result.output


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["good", "bad"], 1),
        (["bad", "good"], 1),
        (["missing", "bad", "good"], 2),
        (["good", "missing"], 2),
    ],
)
def test_the_worst_stream_makes_the_exit_code(streams, names, code):
    assert run("check", *(streams / name for name in names)).exit_code == code


def test_no_stream_stops_the_others(streams):
    names = [streams / name for name in ("missing", "bad", "good")]
    output = run("check", "--format", "jsonl", *names).output
    told = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert [one.get("verdict") for one in told] == [None, "refuse", "accept"]


@pytest.mark.parametrize("names", [["missing"], ["missing", "good"], ["good", "missing"]])
def test_a_list_has_an_entry_for_each_path_those_that_cannot_be_read_too(streams, names):
    told = json.loads(run("check", "--format", "json", *(streams / name for name in names)).stdout)
    told = told if names[1:] else [told]
    assert [one["stream"]["name"] for one in told] == [str(streams / name) for name in names]
    lost = told[names.index("missing")]
    assert (lost["error"], lost["schema"], "verdict" in lost) == ("No such file or directory", 2, False)


def test_an_entry_without_a_report_is_not_taken_for_one(streams):
    told = run("check", "--format", "json", streams / "missing").stdout
    with pytest.raises(ValueError, match=r"missing could not be read: No such file or directory"):
        report_from(told)


def test_a_file_that_is_no_stream_is_never_accepted(streams):
    result = run("check", streams / "junk")
    assert result.exit_code in (ExitCode.FOUND, ExitCode.UNJUDGED)
    assert "internal error" not in result.output


def test_the_target_decides(streams):
    result = run("check", streams / "good", "--target", "4.20", "--format", "json")
    assert json.loads(result.output)["target"] in ("4.20", "4.20.0")


def test_ignored_rules_are_not_told_but_the_verdict_stays(streams):
    found = json.loads(run("check", streams / "bad", "--format", "json").output)
    rules = ",".join({finding["rule"] for finding in found["findings"]})
    ignored = json.loads(run("check", streams / "bad", "--format", "json", "--ignore", rules).output)
    assert ignored["findings"] == []
    assert ignored["verdict"] == "refuse"


# -- output -------------------------------------------------------------------------------------------


def test_all_releases_are_told_by_those_that_answer_alike(tmp_path):
    path = tmp_path / "eflags"
    b = StreamBuilder.pv(4)
    b.image["version"], b.domain["xen_minor"] = 2, 13
    RULES["REC-66"].violation(b)
    path.write_bytes(b.build())
    result = run("check", path, "--target", "all", "--placement", "low")
    lines = [line.rstrip() for line in result.output.splitlines()]
    assert lines == [
        str(path),
        "releases       verdict   warnings  rule    where",
        "4.6.0–4.21.0   restores  0–2",
        "4.21.1–4.22.0  refused   2         REC-66  context: vcpu 0 setvcpucontext EINVAL",
        "",
        "what makes the difference:",
        "  - a 32-bit context with eflags.VM is refused: 4.21.1–4.22.0",
    ]
    assert result.exit_code == 1


def test_releases_that_all_answer_alike_have_no_difference(tmp_path):
    path = tmp_path / "sound"
    b = StreamBuilder.pv(8)
    b.image["version"], b.domain["xen_minor"] = 2, 13
    for number in range(8, 16):
        setattr(b.vcpus[0].basic.user_regs, f"r{number}", 0)
    path.write_bytes(b.build())
    result = run("check", path, "--target", "all", "--placement", "low")
    assert [line.rstrip() for line in result.output.splitlines()[1:]] == [
        "releases      verdict   warnings  rule  where",
        "4.6.0–4.22.0  restores  0",
    ]
    assert result.exit_code == 0


def test_other_forms_tell_each_release_on_its_own(streams):
    result = run("check", streams / "good", "--target", "all", "--format", "jsonl")
    targets = [json.loads(line)["destination"]["release"] for line in result.output.splitlines()]
    assert targets == [release.name for release in distinct()]


@pytest.mark.parametrize("target", ["4.23", "4.22.1", "5.0"])
def test_a_target_newer_than_all_is_wrong_usage_that_names_the_newest(streams, target):
    result = run("check", streams / "good", "--target", target)
    assert result.exit_code == 2
    assert "the newest is 4.22.0" in result.output


def test_json_is_one_object_for_one_stream(streams):
    one = json.loads(run("check", "--format", "json", streams / "good").output)
    assert one["stream"]["name"] == str(streams / "good")


def test_json_is_an_array_for_more(streams):
    more = json.loads(run("check", "--format", "json", streams / "good", streams / "bad").output)
    assert [one["verdict"] for one in more] == ["accept", "refuse"]


def test_json_lines_are_objects_even_for_one(streams):
    (line,) = run("check", "--format", "jsonl", streams / "good").output.splitlines()
    assert json.loads(line)["verdict"] == "accept"


def test_json_does_not_import_rich(streams):
    code = (
        "import sys, migrate.cli.main\n"
        f"try: migrate.cli.main.main(['check', '--format', 'jsonl', {str(streams / 'good')!r}])\n"
        "except SystemExit: pass\n"
        "print('rich' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"


def test_quiet_says_nothing_of_what_is_fine(streams):
    assert run("check", "--quiet", streams / "good").output == ""


def test_quiet_gives_the_verdict_line_of_what_is_not(streams):
    (line,) = run("check", "--quiet", streams / "good", streams / "bad").output.splitlines()
    assert line.startswith("refused: ")


def test_standard_input_is_a_stream(streams):
    with (streams / "good").open("rb") as source:
        result = at_once.run("check", "-", stdin=source, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0].startswith("restores: - on Xen ")


def test_unfolded_every_finding_and_all_facts_are_told(streams):
    folded, unfolded = run("check", streams / "good").output, run("check", "-v", streams / "good").output
    assert "explain: migrate explain REC-113" not in folded
    assert "explain: migrate explain REC-113" in unfolded
    assert ("cr3 " in folded, "cr3 " in unfolded) == (False, True)


def test_concise_is_a_line_per_finding_with_its_place_and_severity(streams):
    lines = run("check", "--concise", streams / "bad", streams / "good").output.splitlines()
    expected = [
        f"{streams / name}:{finding['offset'] or 0:#x}: {finding['rule']} {finding['severity']}: {finding['message']}"
        for name in ("bad", "good")
        for finding in report_of(streams / name)["findings"]
    ]
    assert sorted(lines) == sorted(expected)
    assert any(":0x0: " in line for line in lines)


def test_concise_lines_name_the_releases_that_they_are_about(tmp_path):
    path = tmp_path / "guest"
    path.write_bytes(StreamBuilder.pv(4, vcpus=2, roots=2).build())
    lines = run("check", "--concise", "--target", "all", path).output.splitlines()
    assert all(re.search(r" \[\d[\d., –]*\]$", line) for line in lines)
    (old,) = (line for line in lines if ": HDR-04 " in line)
    assert old.endswith(" [4.6.0–4.13.5]")
    moved = {line.rpartition(" [")[2] for line in lines if ": HYP-27 " in line}
    assert moved == {f"{spans([release for release in RELEASES if RULES['HYP-27'].in_force(release)])}]"}


def test_concise_lines_name_the_forms_of_a_rule_that_they_are_about(tmp_path):
    path = tmp_path / "guest"
    path.write_bytes(StreamBuilder.pv(4, vcpus=2, roots=2).build())
    lines = run("check", "--concise", "--target", "4.20", "--l3-rule", "all", path).output.splitlines()
    assert {form for line in lines for form in re.findall(r"L3V-\d", line.rpartition("[")[2])} == set(L3_RULES)


def test_statistics_count_over_all_streams(streams):
    lines = run("check", "--statistics", streams / "bad", streams / "good").output.splitlines()
    counted = {line.split()[3]: (int(line.split()[0]), int(line.split()[1])) for line in lines[1:-2]}
    expected = {}
    for name in ("bad", "good"):
        for rule, number in Counter(finding["rule"] for finding in report_of(streams / name)["findings"]).items():
            findings, found_in = expected.get(rule, (0, 0))
            expected[rule] = (findings + number, found_in + 1)
    assert counted == expected
    assert lines[-1] == "2 streams: 1 refused, 1 restores"


def test_statistics_of_all_releases_count_streams_and_not_answers(streams):
    names = [streams / "bad", streams / "good", streams / "missing"]
    *table, _, last = run("check", "--statistics", "--target", "all", *names).stdout.splitlines()
    asked = len(distinct())
    assert last.startswith(f"2 streams, {2 * asked} answers: ")
    assert last.endswith("; 1 cannot be read")
    assert table[0].split() == ["findings", "streams", "answers", "severity", "rule"]
    (row,) = (line.split() for line in table if "HDR-04" in line)
    before_version_3 = sum(not release.has(version_3) for release in distinct())
    assert row[:3] == ["2", "2", str(2 * before_version_3)]


@pytest.mark.parametrize("way", [["--target", "all"], ["--l3-rule", "all"]])
def test_unfolded_a_table_of_answers_comes_after_them(streams, way):
    table = run("check", *way, streams / "good").output.splitlines()
    told = run("check", "-v", *way, streams / "good").output
    assert "explain: migrate explain REC-113" in told
    assert told.splitlines()[-len(table) :] == table


@pytest.mark.parametrize(
    "args",
    [["-q", "-v"], ["--concise", "--statistics"], ["--concise", "--format", "json"], ["-v", "--format", "sarif"]],
)
def test_ways_of_telling_exclude_each_other(streams, args):
    assert run("check", streams / "good", *args).exit_code == 2


def test_a_directory_is_all_streams_in_it_and_below(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("one", "inner/two"):
        (tmp_path / name).write_bytes(StreamBuilder.pv(8).build())
    (tmp_path / "README.md").write_text("no stream")
    told = json.loads(run("check", "--format", "json", tmp_path).output)
    assert [one["stream"]["name"] for one in told] == [str(tmp_path / "one"), str(tmp_path / "inner" / "two")]


def test_of_a_directory_with_one_stream_json_is_an_array(tmp_path):
    (tmp_path / "one").write_bytes(StreamBuilder.pv(8).build())
    assert isinstance(json.loads(run("check", "--format", "json", tmp_path).output), list)
    assert isinstance(json.loads(run("check", "--format", "json", tmp_path / "one").output), dict)


def test_a_directory_without_a_stream_is_wrong_usage(tmp_path):
    result = run("check", tmp_path)
    assert result.exit_code == 2
    assert "there is no stream in" in result.output


@pytest.mark.parametrize("choice", ["--any", "--all"])
def test_what_is_about_several_hosts_needs_a_host(streams, choice):
    result = run("check", choice, streams / "good")
    assert (result.exit_code, f"{choice} is about hosts" in result.output) == (2, True)


@pytest.mark.parametrize("command", [["check"], ["trace"], ["show"], ["report", "-o", "out.html"]])
def test_standard_input_without_a_byte_is_unreadable_and_an_empty_file_a_stream_that_was_cut(
    tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    nothing = at_once.run(*command, "-", stdin=subprocess.DEVNULL, text=True)
    assert (nothing.returncode, "nothing came" in nothing.stderr) == (2, True)
    (tmp_path / "empty").touch()
    cut = at_once.run(*command, "empty", text=True)
    assert (cut.returncode != 2, "nothing came" in cut.stderr) == (True, False)
    (tmp_path / "out.html").unlink(missing_ok=True)
    with open("empty", "rb") as empty:
        redirected = at_once.run(*command, "-", stdin=empty, text=True)
    assert redirected.returncode == 2
    assert redirected.stderr == "migrate: -: nothing came: the file is empty\n"


def test_where_nobody_says_more_frames_land_above_4_gib(tmp_path):
    path = tmp_path / "guest"
    path.write_bytes(StreamBuilder.pv(4, vcpus=2, roots=2).build())
    assert report_of(path, "--target", "4.20")["failure"]["rule"] == "HYP-22"
    assert report_of(path, "--target", "4.20", "--placement", "low")["verdict"] == "accept"


def test_a_32_bit_guest_is_asked_about_both_sides_of_4_gib_at_all_releases(tmp_path):
    path = tmp_path / "guest"
    path.write_bytes(StreamBuilder.pv(4, vcpus=2, roots=2).build())
    lines = run("check", path, "--target", "all").output.splitlines()
    assert lines[1].split("  ")[0] == "releases"
    assert "frames above 4 GiB  frames below 4 GiB  warnings" in lines[1]
    (row,) = (line for line in lines if "4.19.0" in line and "HYP-22" in line)
    assert "refused (HYP-22)" in row
    assert "restores" in row


def test_piped_input_gives_the_same_verdict(streams):
    result = subprocess.run(
        [*COMMAND, "check", "-q", "-"], input=(streams / "bad").read_bytes(), capture_output=True, timeout=60
    )
    assert result.returncode == 1
    assert result.stdout.startswith(b"refused: - on Xen ")


def test_output_to_a_pipe_is_plain_and_not_wrapped(streams):
    long = streams / ("n" * 200)
    long.write_bytes((streams / "bad").read_bytes())
    result = at_once.run("check", long, text=True, env={**os.environ, "COLUMNS": "80"})
    assert "\x1b" not in result.stdout
    assert len(result.stdout.splitlines()[0]) > 200


def test_hostile_file_names_are_escaped(streams):
    hostile = streams / "\x1b[31m[bold]evil"
    hostile.write_bytes((streams / "good").read_bytes())
    for name in (hostile, streams / "\x1b]0;gone"):
        result = at_once.run("check", name, text=True)
        assert "\x1b" not in result.stdout + result.stderr
        assert r"\x1b" in result.stdout + result.stderr


def test_file_names_need_not_be_utf8(streams):
    name = os.fsencode(streams) + b"/caf\xe9"
    with open(name, "wb") as file:
        file.write((streams / "good").read_bytes())
    for form in ("text", "jsonl"):
        result = subprocess.run([*COMMAND, "check", "--format", form, name], capture_output=True, timeout=60)
        assert result.returncode == 0, result.stderr
        assert b"xe9" in result.stdout


def test_output_that_cannot_show_a_character_shows_an_escape(streams):
    name = streams / "ä"
    name.write_bytes((streams / "good").read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run([*COMMAND, "check", name], capture_output=True, env=environment, timeout=60)
    assert result.returncode == 0
    assert rb"\xe4" in result.stdout


# -- ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json", "jsonl"])
def test_a_reader_that_is_gone_ends_it_quietly_with_141(streams, form):
    end, pipe = os.pipe()
    os.close(end)
    result = at_once.run("check", "--format", form, streams / "bad", stdout=pipe)
    os.close(pipe)
    assert (result.returncode, result.stderr) == (141, b"")


def test_closed_stdout_ends_it_quietly_with_141(streams):
    result = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" >&-', *COMMAND, "check", streams / "bad"], stderr=subprocess.PIPE, timeout=60
    )
    assert (result.returncode, result.stderr) == (141, b"")


def test_a_full_disk_exits_2_with_a_message(streams):
    with open("/dev/full", "wb") as full:
        result = at_once.run("check", streams / "good", stdout=full)
    assert result.returncode == 2
    assert b"No space left" in result.stderr
    assert b"Traceback" not in result.stderr


def open_for_writing(fifo, process):
    """Open a named pipe as soon as the process reads from it."""
    while process.poll() is None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.01)
    pytest.fail("it ended without reading its stream")


def test_interrupt_exits_130_without_a_traceback(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([*COMMAND, "check", str(fifo)], stderr=subprocess.PIPE) as process:
        end = open_for_writing(fifo, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        os.close(end)
    assert process.returncode == 130
    assert b"Traceback" not in errors


@pytest.mark.parametrize(("debug", "shown"), [(None, False), ("0", False), ("1", True)])
def test_traceback_is_shown_in_debug_mode_only(streams, debug, shown):
    env = {name: value for name, value in os.environ.items() if name != "MIGRATE_DEBUG"}
    env |= {"MIGRATE_DEBUG": debug} if debug else {}
    result = at_once.run("check", streams / "missing", text=True, env=env)
    assert result.returncode == 2
    assert ("Traceback" in result.stderr) == shown


def test_an_internal_error_is_owned_up_to_without_a_traceback(streams):
    code = (
        "import migrate.cli.check as command\n"
        "command.ending_of = lambda *_: 1 / 0\n"
        "from migrate.cli.main import main\n"
        f"main(['check', {str(streams / 'good')!r}])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "internal error: ZeroDivisionError" in result.stderr
    assert "Traceback" not in result.stderr


# -- progress -----------------------------------------------------------------------------------------


def test_short_work_shows_no_progress():
    with ProgressBar("x") as bar:
        bar(1, 2)
        assert bar._bar is None


def test_long_work_shows_progress_by_an_escaped_name(monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with ProgressBar("[red]\x1bname") as bar:
        time.sleep(PATIENCE)
        bar(10, None)
        bar(20, 100)
    shown = capsys.readouterr().err
    assert "[red]" in shown
    assert "\x1bname" not in shown


def test_progress_is_drawn_without_colour_where_none_is_wanted(monkeypatch, capsys):
    for name, value in {"TERM": "xterm", "FORCE_COLOR": "1", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    with ProgressBar("name") as bar:
        time.sleep(PATIENCE)
        bar(20, 100)
    shown = capsys.readouterr().err
    assert "name" in shown
    assert not re.search(r"\x1b\[[0-9;]*m", shown)


def test_progress_is_not_drawn_into_a_pipe(streams):
    assert at_once.run("check", streams / "good").stderr == b""


def test_a_report_is_about_a_directory_as_well(tmp_path):
    (tmp_path / "streams").mkdir()
    for name in ("one", "two"):
        (tmp_path / "streams" / name).write_bytes(StreamBuilder.pv(8).build())
    out = tmp_path / "report.html"
    assert run("report", tmp_path / "streams", "-o", out).exit_code == 0
    assert all(re.search(rf"\b{name}<", out.read_text()) for name in ("one", "two"))


def test_what_the_host_decides_is_told_in_full_where_nothing_else_decides():
    result = CliRunner().invoke(main, ["check", str(SAMPLES / "x417-pvh.plain.libxc.zst"), "--target", "4.22.0"])
    assert result.exit_code == 0
    assert "the CPU vendor is AuthenticAMD, and has to be the host's" in result.output


ASKING_FROM = [
    ["check"],
    ["check", "--target", "all"],
    ["show"],
    ["trace"],
    ["config"],
    ["extract", "--page", "0"],
    ["extract", "--raw", "OUT"],
    ["report", "-o", "OUT"],
]


@pytest.mark.parametrize("words", ASKING_FROM, ids=" ".join)
def test_a_stream_is_not_blamed_for_an_offset_behind_the_end(words, tmp_path):
    stream = tmp_path / "guest.xl"
    b = StreamBuilder.pv(8)
    b.wrap("xl")
    stream.write_bytes(b.build())
    size = stream.stat().st_size
    command = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    done = at_once.run(*command, "--offset", str(size + 1), stream)
    told = f"migrate: {stream}: the file ends before byte {size + 1}: it has {size} bytes\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", told)


def test_a_stream_of_no_bytes_is_not_blamed_for_an_offset_at_the_end(tmp_path):
    stream = tmp_path / "guest.libxc"
    stream.write_bytes(StreamBuilder.pv(8).build())
    done = at_once.run("check", "--offset", str(stream.stat().st_size), stream)
    assert (done.returncode, b"the file ends before byte" in done.stderr) == (2, True)
