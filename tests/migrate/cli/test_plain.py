"""Command lines are read with click or without, and say the same either way."""

import os
import subprocess
import sys

import click
import pytest
from hypothesis import example, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from migrate.building.builder import StreamBuilder
from migrate.cli.command import made
from migrate.cli.main import main
from migrate.cli.plain import plain
from migrate.cli.settings import ENVIRONMENT, SETTINGS_FILE, settings
from migrate.cli.start import WITHOUT_CLICK

COMMANDS = {name: plain(name)[0] for name in sorted(WITHOUT_CLICK)}
NAMES = {name: [word for one in command.parameters for word in one.words] for name, command in COMMANDS.items()}
# Values that some option takes, that none does, and that look like something else.
VALUES = (
    *("4.20", "newest", "all", "4.99", "high", "file:map", "L3V-2", "no-l3-rule", "json", "jsonl", "libxl", "error"),
    *(
        "REC",
        "HYP-22,ORD",
        "no-rule",
        "0",
        "1",
        "007",
        "-1",
        "+1",
        "1_0",
        " 1",
        "0x10",
        "1e1",
        "nan",
        "0.5",
        "8M",
        "8X",
    ),
    *("there", "nowhere", "folder", ".", "-", "--", "", "[::1]:80", "host:0", "host:80", "-q", "-qv", "--quiet=1"),
)


@pytest.fixture(scope="module", autouse=True)
def somewhere(tmp_path_factory):
    """A folder with something in it, and nothing configured."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "there").write_bytes(StreamBuilder.hvm().build())
    (folder / "folder").mkdir()
    before, here = dict(os.environ), os.getcwd()
    for variable in ENVIRONMENT.values():
        os.environ.pop(variable, None)
    os.environ["XDG_CONFIG_HOME"] = str(folder / "user")
    os.chdir(folder)
    yield folder
    os.chdir(here)
    os.environ.clear()
    os.environ.update(before)


@st.composite
def lines(draw):
    """A command and words that may follow it."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    option = st.sampled_from(NAMES[name])
    value = st.sampled_from(VALUES)
    words = st.one_of(
        st.builds(lambda *words: list(words), option),
        st.builds(lambda *words: list(words), option, value),
        st.builds(lambda option, value: [f"{option}={value}"], option, value),
        st.builds(lambda *words: list(words), value),
        st.builds(lambda word: [word[:-1]], option),
    )
    return name, [word for some in draw(st.lists(words, max_size=5)) for word in some]


def with_click(command, words):
    """What click makes of the words: values and the names of those that were given; None for an error."""
    try:
        ctx = made(command).make_context(command.name, list(words))
    except (click.ClickException, click.exceptions.Exit):
        return None
    given = {name for name in ctx.params if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    return ctx.params, given


@limits(deadline=None)
@given(lines())
@example(("check", ["there", "--host", "there", "there"]))
@example(("check", ["--select", "REC", "there", "--select=HYP", "--any"]))
@example(("verify-stream-v2", ["-i", "there", "-f", "libxl", "-q"]))
@example(("filter", ["--interval", "nan"]))
def test_a_plain_line_says_what_click_says(line):
    name, words = line
    read = COMMANDS[name].plain(words, settings)
    if read is not None:
        assert with_click(COMMANDS[name], words) == (read.values, read.said)


@pytest.mark.parametrize(
    "line",
    [
        "check there",
        "check there there --target 4.20 --placement=high -q",
        "check --format json --ignore REC-113 --vcpus 2 --fail-on warning -",
        "check folder --verify --all",
        "filter",
        "filter --guard --target 4.20",
        "filter --stats nowhere --report - --progress --interval 0.5 --size 8M -L 40M --name x",
        "filter --listen [::1]:0 --connect host:80",
        "verify-stream-v2",
        "verify-stream-v2 -q -i there",
        "verify-stream-v2 --in=0 -v -f xl --syslog",
    ],
)
def test_lines_that_are_written_every_day_are_plain(line):
    name, *words = line.split()
    assert COMMANDS[name].plain(words, settings) is not None


@pytest.mark.parametrize(
    "line",
    [
        "check",
        "check --help",
        "check there --no-such",
        "check there --targ 4.20",
        "check there -qv",
        "check there --host there",
        "filter loose",
        "filter --quiet=1",
        "verify-stream-v2 -q --help",
    ],
)
def test_what_is_not_plain_is_left_to_click(line):
    name, *words = line.split()
    assert COMMANDS[name].plain(words, settings) is None


def test_what_is_configured_counts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / SETTINGS_FILE).write_text('[tool.xen-migrate]\ntarget = "4.19"\nvcpus = 3\n')
    monkeypatch.setenv("MIGRATE_PLACEMENT", "low")
    for words in (["x"], ["x", "--placement", "high"]):
        read = COMMANDS["check"].plain(words, settings)
        assert read is not None
        assert with_click(COMMANDS["check"], words) == (read.values, read.said)
        assert (read.values["target"], read.values["vcpus"]) == ("4.19", 3)
    monkeypatch.setenv("MIGRATE_HOST", "x")
    assert COMMANDS["check"].plain(["x"], settings) is None
    (tmp_path / SETTINGS_FILE).write_text('[tool.xen-migrate]\ntarget = "4.99"\n')
    assert COMMANDS["check"].plain(["x"], settings) is None


def test_every_command_is_declared_where_it_is_looked_for():
    for name, command in COMMANDS.items():
        found = main.get_command(click.Context(main), name)
        assert found is not None
        assert [param.name for param in found.params] == [one.name for one in command.parameters]


@pytest.mark.parametrize(
    "words",
    [
        ["check", "--format", "markdown", "there"],  # nobody can tell before the command runs
        ["check", "folder"],
        ["filter", "--ignore", "no-rule"],
        ["filter", "--stats", "folder/no/such"],
    ],
)
def test_what_a_command_cannot_be_asked_is_said_as_click_says_it(words, somewhere):
    command = [sys.executable, "-m", "migrate", *words]
    said = subprocess.run(command, cwd=somewhere, capture_output=True, text=True, input="", check=False)
    assert (said.returncode, said.stdout) == (2, "")
    usage, hint, empty, error = said.stderr.splitlines()
    assert usage.startswith("Usage: ")
    assert f"migrate {words[0]} [OPTIONS]" in usage
    assert hint.startswith("Try ")
    assert (empty, error[:7]) == ("", "Error: ")
