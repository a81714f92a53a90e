"""Which host would take which stream: as text, Markdown, JSON and HTML, and what makes the exit code."""

import json

import pytest
from click.testing import CliRunner
from host_texts import AMD, SMALL_AMD, info, real, version, without_features, xen_cpuid, xl_info
from lxml import html
from project import SAMPLES

from migrate.cli.main import main

PV64, PV32 = SAMPLES / "x417-pv64.plain.libxc.zst", SAMPLES / "x417-pv32.plain.libxc.zst"


@pytest.fixture
def no32(tmp_path):
    path = tmp_path / "no|32.txt"
    path.write_text(version("4.20.1") + info(virt_caps="pv", xen_caps="xen-3.0-x86_64", total_memory="2048"))
    return path


def run(*args):
    return CliRunner().invoke(main, list(map(str, args)))


def lines(*args):
    return [line.split() for line in run("check", *args).stdout.splitlines()]


def test_one_stream_has_a_line_per_host_with_the_reason(no32):
    shown = run("check", PV32, "--host", AMD, no32).stdout.splitlines()
    assert shown[1].split() == [str(AMD), "4.17.7", "takes", "it"]
    assert shown[2].endswith("refuses   the host runs no 32-bit PV guests (xen_caps has no xen-3.0-x86_32p) (REC-32)")
    assert shown[-1] == f"{PV32}: 1 of 2 hosts would take it: {AMD}"


def test_several_streams_make_a_matrix_and_each_answer_is_told_once(no32):
    shown = lines(PV64, PV32, "--host", AMD, SMALL_AMD)
    assert shown[0] == ["stream", "amd-4.17.txt", "small-amd-4.17.txt"]
    assert shown[1] == [str(PV64), "takes", "it", "refuses", "REC-106"]
    assert shown[2] == [str(PV32), "takes", "it", "refuses", "REC-106"]
    assert shown[5][:3] == ["refuses", "REC-106", "2"]


def test_what_there_is_more_of_goes_down_the_side(no32):
    shown = lines(PV64, PV32, "--host", AMD, SMALL_AMD, no32)
    assert shown[0] == ["host", PV64.name, PV32.name]
    assert shown[1] == [str(AMD), "takes", "it", "takes", "it"]
    assert shown[3] == [str(no32), "takes", "it", "refuses", "REC-32"]


def test_streams_of_one_name_are_told_apart_by_their_folders(no32, tmp_path):
    other = tmp_path / PV64.name
    other.write_bytes(PV64.read_bytes())
    assert lines(PV64, other, "--host", AMD, SMALL_AMD, no32)[0] == ["host", str(PV64), str(other)]


def test_markdown_escapes_what_a_file_may_be_called(no32):
    shown = run("check", PV32, "--format", "markdown", "--host", AMD, no32).stdout
    assert "| host | Xen | answer | why |\n| --- | --- | --- | --- |\n" in shown
    assert "no\\|32.txt | 4.20.1 | refuses |" in shown
    assert shown.splitlines()[-1].startswith("- ")


def test_json_is_a_report_per_host(no32):
    told = json.loads(run("check", PV32, "--format", "json", "--host", AMD, no32).stdout)
    assert [(one["destination"]["host"], one["verdict"]) for one in told] == [
        (str(AMD), "accept"),
        (str(no32), "refuse"),
    ]


def test_html_has_the_hosts_of_each_stream(no32, tmp_path):
    page = tmp_path / "page.html"
    result = run("report", PV32, "-o", page, "--host", AMD, no32)
    assert result.exit_code == 0
    text = page.read_text()
    assert "1 of 2 hosts would take it" in text
    assert "xen_caps has no xen-3.0-x86_32p" in text
    assert run("report", PV32, "-o", page, "--force", "--all", "--host", AMD, no32).exit_code == 1


def test_an_overview_of_streams_says_which_hosts_take_each_and_whose_the_verdict_is(no32, tmp_path):
    page = tmp_path / "page.html"
    assert run("report", PV32, PV64, "-o", page, "--host", no32, AMD).exit_code == 0
    overview = html.document_fromstring(page.read_text()).get_element_by_id("overview")
    assert overview.find("h2").text == "1 refused, 1 restores"
    assert "Each verdict is that of the first host" in overview.find_class("note")[-1].text
    told = {row[0].text: row.find_class("why")[-1].text for row in overview.iter("li")}
    assert told == {
        PV32.name: f"1 of 2 hosts would take it: {AMD}",
        PV64.name: f"2 of 2 hosts would take it: {no32}, {AMD}",
    }


@pytest.mark.parametrize(
    ("streams", "choice", "code"),
    [
        ([PV32], "--any", 0),
        ([PV32], "--all", 1),
        ([PV64], "--all", 0),
        ([PV64, PV32], "--any", 0),
        ([PV64, PV32], "--all", 1),
    ],
)
def test_one_host_is_enough_or_all_are_wanted(no32, streams, choice, code):
    assert run("check", *streams, choice, "--host", AMD, no32).exit_code == code


def test_a_stream_that_no_host_takes_ends_with_1(no32):
    assert run("check", PV64, PV32, "--host", no32, SMALL_AMD).exit_code == 1


def test_files_after_a_stream_and_host_are_hosts_wherever_options_stand(no32):
    told = run("check", "--format", "jsonl", "-q", PV32, "--all", "--host", AMD, no32).stdout
    assert [json.loads(line)["destination"]["host"] for line in told.splitlines()] == [str(AMD), str(no32)]


def test_an_option_that_is_written_as_one_word_is_no_stream(no32):
    """-qo names a file that is written, so no stream has come before --host, which is one file then."""
    shown = run("report", "-qo", "never.html", "--host", AMD, "missing", "--exit-zero")
    assert (shown.exit_code, "missing: No such file or directory" in shown.output) == (2, True)


def test_unfolded_each_host_answers_before_the_table(no32):
    told = run("check", "-v", PV32, "--host", AMD, no32).stdout
    assert "explain: migrate explain REC-32" in told
    assert [f" on {host} (Xen " in told for host in (AMD, no32)] == [True, True]
    assert told.splitlines()[-1] == f"{PV32}: 1 of 2 hosts would take it: {AMD}"


def test_concise_and_verdict_lines_name_the_host(no32):
    (refused,) = run("check", "-q", PV32, "--host", AMD, no32).stdout.splitlines()
    assert refused.startswith(f"refused: {PV32} on {no32} (Xen 4.")
    concise = run("check", "--concise", PV32, "--host", AMD, no32).stdout.splitlines()
    (line,) = (line for line in concise if ": REC-32 error: " in line)
    assert line.endswith(f" [{no32}]")


def test_before_the_streams_a_host_is_one_file():
    told = json.loads(run("check", "--host", AMD, PV32, "--format", "json").stdout)
    assert (told["stream"]["name"], told["destination"]["host"]) == (str(PV32), str(AMD))


@pytest.mark.parametrize("command", [["check"], ["report", "-o", "never.html"]])
def test_a_second_host_before_the_streams_is_told_from_a_stream(command, no32):
    shown = run(*command, "--host", AMD, no32, PV32)
    assert shown.exit_code == 2
    assert f"{no32} is no stream, but tells of a host; for several hosts repeat --host before each" in shown.output


def test_text_that_tells_of_no_host_is_judged_as_a_stream(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("nothing of a host\n")
    assert run("check", "--host", AMD, text).stdout.startswith(f"not judged: {text} ")


def test_a_host_of_which_too_little_is_known_leaves_it_open(tmp_path):
    """Xen 4.17 compares the policy's leaves with the host's, which `xl info` does not tell."""
    alone = tmp_path / "alone.txt"
    alone.write_text(xl_info(real("amd 4.17")))
    shown = run("check", PV64, "--host", AMD, alone)
    answers = [line.rstrip() for line in shown.stdout.splitlines()]
    assert answers[2].startswith(f"{alone} ")
    assert " open " in answers[2]
    assert answers[2].endswith("(REC-113)")
    assert answers[-1] == f"{PV64}: 1 of 2 hosts would take it: {AMD}"
    assert (shown.exit_code, run("check", PV64, "--all", "--host", AMD, alone).exit_code) == (0, 3)


def test_what_a_host_takes_away_is_told_beside_its_answer(tmp_path):
    path = tmp_path / "less.txt"
    path.write_text(xl_info(real("amd 4.17")) + xen_cpuid(without_features(real("amd 4.17"), "pv", "aes")))
    shown = [line.rstrip() for line in run("check", PV64, "--host", AMD, path).stdout.splitlines()]
    assert shown[1].endswith("takes it")
    assert shown[2].endswith("takes it  promised to the guest, and not in the PV Max policy of the host: aes (REC-114)")


def test_of_one_host_nothing_is_counted():
    shown = run("check", PV32, PV64, "--format", "markdown", "--host", AMD).stdout
    assert "of 1 host" not in shown
    assert shown.splitlines()[-1].startswith("| ")
