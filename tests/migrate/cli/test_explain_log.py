"""`migrate explain --log` and `migrate explain MESSAGE` as their users meet them."""

import json
import os
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from migrate.building.builder import StreamBuilder
from migrate.cli.main import main
from migrate.rules.catalogue import RULES
from migrate.rules.messages.known import MESSAGES
from streams.counting import count

COMMAND = [sys.executable, "-m", "migrate"]
CONTEXT = "xc: error: Unable to restore HVM context (22 = Invalid argument): Internal error"
PIC = "(XEN) HVM restore d6: failed to check PIC:0 rc -22"
XL_LOG = f"""\
Loading new save file guest.xl (new xl fmt info 0x3/0x0/1512)
Parsing config from <saved>
xc: info: Found x86 HVM domain from Xen 4.17
{CONTEXT}
xc: error: Restore failed (22 = Invalid argument): Internal error
libxl: error: libxl_create.c:1695:domcreate_rebuild_done: Domain 6:cannot (re-)build domain: -3
libxl: error: libxl_domain.c:1060:domain_destroy_cb: Domain 6:Destruction of domain failed
(XEN) Xen version 4.20.0 (root@host) (gcc 12) debug=n
{PIC}
"""


def run(*args, stdin=None):
    return CliRunner().invoke(main, ["explain", *map(str, args)], input=stdin, prog_name="migrate")


def told(*args, stdin=None):
    result = run(*args, "--format", "json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "xl-guest.log"
    file.write_text(XL_LOG)
    return file


# -- a log --------------------------------------------------------------------------------------------


def test_the_rule_is_in_the_first_three_lines(log):
    result = run("--log", log)
    assert result.exit_code == 0
    assert (
        "HVM-16    An interrupt controller's state is none that a PC's can have" in result.output.splitlines()[:3][-1]
    )


def test_each_line_that_tells_of_it_is_shown_with_what_was_going_on(log):
    lines = run("--log", log).output.splitlines()
    at = lines.index(f"line 4    {CONTEXT}")
    assert lines[at + 1] == "          At END libxc hands the HVM context to Xen, which refuses it: EINVAL."
    assert f"line 9    {PIC}" in lines
    assert "line 7" not in "\n".join(lines)


def test_the_command_that_would_confirm_it_is_named_with_the_release_of_the_log(log):
    lines = run("--log", log).output.splitlines()
    assert "confirm   migrate check STREAM --target 4.20" in lines
    assert "more      migrate explain HVM-16" in lines


def test_a_log_from_standard_input_is_told_the_same(log):
    said = run("--log", "-", stdin=XL_LOG).output
    assert said.startswith("standard input: 1 restore that failed; 4 messages in 9 lines\n")
    assert said.partition("\n")[2] == run("--log", log).output.partition("\n")[2]


def test_json_has_every_line_with_its_own_rules_and_fields(log):
    (failure,) = told("--log", log)["failures"]
    assert [rule["id"] for rule in failure["rules"]] == ["HVM-16"]
    context, _, _, console = failure["lines"]
    assert len(context["rules"]) > 3
    assert console["fields"] == {
        "domain": "6",
        "phase": "check",
        "entry": "PIC",
        "instance": "0",
        "errno": "EINVAL",
        "error": "22",
    }
    assert (console["line"], console["by"], console["role"]) == (9, "Xen", "cause")
    assert failure["confirm"] == [["migrate", "check", "STREAM", "--target", "4.20"]]


def test_several_failures_are_told_the_last_one_first(tmp_path):
    file = tmp_path / "xl.log"
    file.write_text(f"{CONTEXT}\nxc: error: No STATIC_DATA_END seen: Internal error\n")
    lines = run("--log", file).output.splitlines()
    assert lines[0] == f"{file}: 2 kinds of failed restores, the last first; 2 messages in 2 lines"
    assert lines[2].startswith("ORD-04")


def test_at_most_three_rules_are_named_and_how_many_more_there_are():
    (failure,) = told("Failed to pin batch of pagetables (22 = Invalid argument)")["failures"]
    assert len(failure["rules"]) == 3
    said = run("Failed to pin batch of pagetables (22 = Invalid argument)").output
    assert f"also      {len(failure['less_likely'])} that are less likely" in said
    assert not set(failure["less_likely"]) & set(said.split())


@pytest.mark.parametrize("text", ["", "nothing to see here\n", "libxl: debug: Record: 1, length 0\n" * 3])
def test_a_log_without_a_known_message_exits_3_and_says_where_to_look(text, tmp_path):
    file = tmp_path / "xl.log"
    file.write_text(text)
    result = run("--log", file)
    assert result.exit_code == 3
    [said] = result.output.splitlines()
    assert f"{count(len(text.splitlines()), 'line')}, and " in said
    assert "a message of a failed restore that is known; look also at xl dmesg" in said
    assert said.endswith("; migrate rules --messages lists what is")
    result = run("--log", file, "--format", "json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["failures"] == []


def test_one_rule_that_is_less_likely_is_told_in_the_singular():
    assert len(told("Failed to localise pfn 7 (type 1)")["failures"][0]["less_likely"]) == 1
    assert "also      1 that is less likely;" in run("Failed to localise pfn 7 (type 1)").output


def test_consequences_without_a_cause_say_so():
    result = run("libxl: error: libxl_create.c:1695:domcreate_rebuild_done: Domain 5:cannot (re-)build domain: -3")
    assert result.exit_code == 0
    assert result.output.splitlines()[0] == "No line here names the cause."
    assert "confirm" not in result.output


def test_what_is_the_hosts_fault_names_no_rule():
    result = run("xc: error: Unable to allocate 4194304 bytes for record data (0x1, Page data)")
    assert result.output.splitlines()[0] == "No rule: nothing is said against the stream."


# -- a message ----------------------------------------------------------------------------------------


def test_a_message_is_explained_as_a_line_of_a_log():
    lines = run("Failed to set vcpu1's basic info (34 = Numerical result out of range)").output.splitlines()
    assert lines[0] == f"HYP-22    {RULES['HYP-22'].title} (l3-above-4g)"
    assert "confirm   migrate check STREAM --target RELEASE" in lines
    assert "          migrate show STREAM --vcpu 1" in lines


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("X86_PV_VCPU_BASIC record vcpu_id (9) exceeds domain max (1)", "--vcpus N"),
        ("Failed to update d5 address size to 32", "--host HOST"),
        ("No STATIC_DATA_END seen", ""),
    ],
)
def test_the_command_has_the_options_that_such_a_verdict_takes(text, options):
    assert f"confirm   {f'migrate check STREAM --target RELEASE {options}'.rstrip()}\n" in run(text).output


def test_several_lines_in_one_argument_belong_together():
    (failure,) = told(f"{CONTEXT}\n{PIC}")["failures"]
    assert [rule["id"] for rule in failure["rules"]] == ["HVM-16"]


def test_words_that_are_neither_a_rule_nor_a_message_exit_3_with_one_line():
    result = run("some words that say nothing")
    assert result.exit_code == 3
    assert result.output == (
        "migrate: no rule is called so, and it is no message of a failed restore that is known; "
        "migrate rules --messages lists what is\n"
    )


@pytest.mark.parametrize(
    ("word", "hint"), [("l3-above-4gb", "did you mean l3-above-4g"), ("truncated", "no rule is called")]
)
def test_a_single_word_is_a_rule_or_a_mistake(word, hint):
    result = run(word)
    assert result.exit_code == 2
    assert hint in result.output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["HYP-22", "--log", "x"], "--log reads messages from a file"),
        (["--log", "x", "--write", "y"], "--write takes a rule"),
        (["some message here", "--write", "y"], "--write takes a rule"),
        (["--log", "no/such/log"], "No such file or directory"),
        (["--log", "/"], "Is a directory"),
    ],
)
def test_wrong_usage_exits_2_without_a_traceback(args, said):
    result = run(*args)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("look", sorted({message.look for message in MESSAGES if message.look}))
def test_the_commands_that_show_something_are_commands(look):
    name, *words = look.format(pfn="0x7", vcpu="1").split()
    command = main.get_command(click.Context(main), name)
    assert command.make_context(
        name, [os.devnull if word == "STREAM" else word for word in words], resilient_parsing=False
    )


# -- any log ------------------------------------------------------------------------------------------


def test_control_sequences_do_not_reach_the_terminal(tmp_path):
    file = tmp_path / "xl\x1b[31m.log"
    file.write_bytes(f"\x1b[31m{CONTEXT}\x1b[0m\x07\r\n\u202e{PIC}\n".encode() + b"\xff\x00\x9b31m")
    said = run("--log", file).output
    assert f"line 1    {CONTEXT}\n" in said
    assert all(line.isprintable() for line in said.split("\n"))


def test_a_giant_line_is_cut_short_in_what_is_told(tmp_path):
    file = tmp_path / "xl.log"
    file.write_bytes(CONTEXT.encode() + b"x" * 10_000_000)
    assert len(run("--log", file).output) < 5000


def test_a_log_that_is_still_written_to_is_read_as_it_comes():
    with subprocess.Popen(
        [*COMMAND, "explain", "--log", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        for part in (CONTEXT.encode()[:30], CONTEXT.encode()[30:], b"\n" + PIC.encode()):
            running.stdin.write(part)
            running.stdin.flush()
            time.sleep(0.05)
        said, _ = running.communicate()
    assert running.returncode == 0
    assert b"1 restore that failed; 2 messages in 2 lines" in said
    assert b"HVM-16" in said


def test_the_log_of_a_real_fault_names_the_rule_that_check_finds(tmp_path):
    builder = StreamBuilder.pv()
    RULES["XRC-02"].violation(builder)
    file = tmp_path / "bad.libxc"
    file.write_bytes(builder.build())
    checked = CliRunner().invoke(main, ["check", str(file), "--placement", "source", "--format", "json"])
    (failure,) = told("xc: error: Start Info pfn 0x4 has bad type 1: Internal error")["failures"]
    assert json.loads(checked.output)["failure"]["rule"] == failure["rules"][0]["id"] == "XRC-02"


# -- what is loaded -----------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["check", os.devnull], ["explain", "HYP-22"], ["rules"]])
def test_other_commands_do_not_load_the_messages(args):
    code = (
        "import sys, migrate.cli.main\n"
        f"try: migrate.cli.main.main({args!r}, prog_name='migrate')\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('migrate.rules.messages')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_json_of_a_log_is_made_without_rich():
    code = (
        "import sys, migrate.cli.main\n"
        f"try: migrate.cli.main.main(['explain', {PIC!r}, '--format', 'json'], prog_name='migrate')\n"
        "except SystemExit as end: assert not end.code\n"
        "print('rich' in sys.modules, 'numpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False False"
