"""What all commands have in common: options count once, defaults may be configured, help fits its window."""

import json
import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from migrate.building.builder import StreamBuilder
from migrate.cli.command import Command
from migrate.cli.ending import ExitCode
from migrate.cli.main import COMMANDS, main
from migrate.cli.settings import SETTINGS_FILE


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    for name in ("MIGRATE_TARGET", "MIGRATE_PLACEMENT", "MIGRATE_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def guest(tmp_path):
    path = tmp_path / "guest"
    path.write_bytes(StreamBuilder.pv(4).build())
    return str(path)


def run(*args):
    return CliRunner().invoke(main, args)


def asked(guest, *args):
    """Release and placement that a stream is judged by."""
    told = json.loads(run("check", "--format", "json", guest, *args).output)["destination"]
    return told["release"], told["placement"]


def commands():
    context = click.Context(main)
    for name in COMMANDS:
        found = main.get_command(context, name)
        if isinstance(found, click.Group):
            for inner in found.list_commands(context):
                yield f"{name} {inner}", found.get_command(context, inner)
        else:
            yield name, found


def test_every_command_is_one_of_them():
    assert [name for name, command in commands() if not isinstance(command, Command)] == []


@pytest.mark.parametrize(
    "args",
    [
        ["check", "x", "--target", "4.20", "--target", "4.19"],
        ["check", "x", "--format", "json", "--format", "json"],
        ["show", "x", "--record", "1", "--record", "2"],
        ["filter", "--placement", "low", "--placement", "high"],
        ["synth", "x", "--size", "8M", "--size", "16M"],
        ["report", "x", "-o", "a", "--output", "b"],
    ],
)
def test_an_option_that_means_one_thing_may_not_be_given_twice(args):
    result = run(*args)
    assert result.exit_code == 2
    assert re.search(r"--?[a-z]+ is given more than once", result.output)


def test_options_that_add_up_may(guest):
    assert run("check", guest, "--ignore", "REC", "--ignore", "HYP", "--placement", "low").exit_code == 0


# -- configuration ------------------------------------------------------------------------------------


def configure(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / SETTINGS_FILE).write_text(f"[tool.xen-migrate]\n{text}\n")


def test_the_environment_says_where_a_guest_would_come_back(guest, monkeypatch):
    monkeypatch.setenv("MIGRATE_TARGET", "4.19")
    monkeypatch.setenv("MIGRATE_PLACEMENT", "low")
    assert asked(guest) == ("4.19.0", "low")
    assert asked(guest, "--target", "4.20") == ("4.20.0", "low")


def test_a_host_may_be_configured(guest, tmp_path, monkeypatch):
    (tmp_path / "host").write_text("xen_version : 4.18.3\ntotal_memory : 2048\n")
    monkeypatch.setenv("MIGRATE_HOST", str(tmp_path / "host"))
    assert asked(guest) == ("4.18.3", "low")


def test_a_host_that_is_named_decides_over_what_is_configured(guest, tmp_path, monkeypatch):
    (tmp_path / "host").write_text("xen_version : 4.18.3\ntotal_memory : 2048\n")
    monkeypatch.setenv("MIGRATE_TARGET", "4.20")
    assert asked(guest, "--host", "host") == ("4.18.3", "low")
    assert asked(guest, "--host", "host", "--target", "4.19") == ("4.19.0", "low")


def test_files_say_it_too_the_nearer_one_first(guest, tmp_path, monkeypatch):
    configure(tmp_path / "user", 'target = "4.18"\nplacement = "identity"')
    assert asked(guest) == ("4.18.0", "identity")
    configure(tmp_path, 'target = "4.19"')
    assert asked(guest) == ("4.19.0", "identity")
    monkeypatch.setenv("MIGRATE_TARGET", "4.20")
    assert asked(guest) == ("4.20.0", "identity")


def test_what_is_configured_is_not_called_an_assumption(guest, tmp_path):
    assert "assumed" in run("check", guest).output
    configure(tmp_path, 'placement = "high"')
    assert "assumed" not in run("check", guest).output


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('tarjet = "4.20"', "did you mean target?"),
        ("target = 4.20", "expected a text"),
        ('vcpus = "two"', "expected a number"),
        ('target = "4.99"', "newer than any"),
        ("[broken", "migrate.toml"),
    ],
)
def test_a_file_that_cannot_be_used_is_wrong_usage(guest, tmp_path, text, complaint):
    configure(tmp_path, text)
    result = run("check", guest)
    assert result.exit_code == 2
    assert complaint in result.output


@pytest.mark.parametrize(
    ("variable", "value"), [("MIGRATE_TARGET", "4.99"), ("MIGRATE_PLACEMENT", "moon"), ("MIGRATE_HOST", "no/such")]
)
def test_a_wrong_value_is_told_with_the_variable_that_has_it(guest, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    result = run("check", guest)
    assert result.exit_code == 2
    assert f"\nError: {variable}: --{variable.removeprefix('MIGRATE_').lower()}: " in result.output


@pytest.mark.parametrize("line", ['target = "4.99"', "vcpus = 0", 'l3-rule = "L3V-9"'])
def test_a_wrong_value_is_told_with_the_file_that_has_it(guest, tmp_path, line):
    configure(tmp_path, line)
    result = run("check", guest)
    assert result.exit_code == 2
    assert f"\nError: migrate.toml: --{line.split()[0]}: " in result.output
    assert "Invalid value for '--vcpus'" in run("check", guest, "--vcpus", "0").output


def test_help_is_given_whatever_is_configured(tmp_path):
    (tmp_path / SETTINGS_FILE).write_text("[tool.xen-migrate\n")
    done = subprocess.run(
        [sys.executable, "-m", "migrate", "check", "--help"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")


def test_an_interruption_while_something_is_imported_ends_as_any_other(monkeypatch):
    from migrate.cli import start

    def interrupted(prog_name):
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "_run", interrupted)
    with pytest.raises(SystemExit) as ended:
        start.main()
    assert ended.value.code == ExitCode.INTERRUPTED


@pytest.mark.parametrize("text", ['target = "4.19"', '[tool.other]\ntarget = "4.19"', '[migrate]\ntarget = "4.19"'])
def test_a_file_without_a_table_for_this_program_is_told_of_once(guest, tmp_path, text):
    (tmp_path / SETTINGS_FILE).write_text(text)
    command = [sys.executable, "-m", "migrate", "check", guest]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stderr == "migrate: migrate.toml: nothing counts but what stands below [tool.xen-migrate]\n"
    assert "4.19" not in done.stdout


def test_a_table_that_is_configured_stops_no_command_that_answers_of_one_release(guest, tmp_path):
    configure(tmp_path, 'target = "all"\nl3-rule = "all"')
    assert run("check", guest).output.splitlines()[1].startswith("releases ")
    assert run("trace", guest).output == run("trace", guest, "--target", "newest").output
    assert "Error" in run("trace", guest, "--target", "all").output
    command = [sys.executable, "-m", "migrate", "filter"]
    with open(guest, "rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, cwd=tmp_path, check=False)
    with open(guest, "rb") as stream:
        assert done.stdout == stream.read()


def test_commands_that_ask_for_no_destination_do_not_mind(tmp_path):
    configure(tmp_path, 'target = "4.20"')
    assert run("rules").exit_code == 0


# -- help ---------------------------------------------------------------------------------------------


def help_of(name):
    """What --help prints, of the group for no name."""
    group = main.context_class(main, info_name="migrate", **main.context_settings)
    command = main.get_command(group, name) if name else main
    return command.get_help(command.context_class(command, parent=group, info_name=name) if name else group)


@pytest.mark.parametrize("columns", [80, 120, 160])
def test_help_uses_the_width_it_has(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    widest = max(len(line) for line in help_of("check").splitlines())
    assert columns - 12 < widest <= columns


@pytest.mark.parametrize("columns", [60, 70, 80, 93])
def test_no_name_is_broken_at_its_hyphens(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in ("", "check", "filter", "extract"):
        text = help_of(name)
        assert text.count("-") > 5
        assert not re.search(r"\w-\n", text)
        assert "\u2011" not in text


def test_formats_are_the_same_everywhere():
    for name in ("check", "trace", "show", "filter", "policy"):
        command = main.get_command(click.Context(main), name)
        (option,) = (param for param in command.params if "--format" in param.opts)
        assert list(option.type.choices)[:3] == ["text", "json", "jsonl"]
