"""What the command line says of itself: an example per command, what a mistyped word may have meant, and no colour."""

import os
import pty
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import at_once
import click
import pytest
from click.testing import CliRunner

from migrate.cli.explain import violating_stream
from migrate.cli.main import main
from migrate.cli.manual import commands
from migrate.rules.catalogue import RULES

EVERY = list(commands(main))

every_command = pytest.mark.parametrize("ctx", EVERY, ids=lambda ctx: ctx.command_path)


def run(*args):
    return CliRunner().invoke(main, args, prog_name="migrate", terminal_width=80)


def examples(ctx):
    return re.findall(r"^ *Example: (.*)$", ctx.command.help, re.MULTILINE)


def parsed(words):
    """The context of the command that words call, all its values converted; nothing is run."""
    program, *rest = words
    assert program == "migrate"
    command, ctx = main, click.Context(main, info_name=program)
    while isinstance(command, click.Group):
        name, command, rest = command.resolve_command(ctx, rest)
        ctx = click.Context(command, ctx, info_name=name) if isinstance(command, click.Group) else ctx
    return command.make_context(name, rest, parent=ctx)


# -- examples -----------------------------------------------------------------------------------------


def test_every_command_is_looked_at():
    assert {"migrate", "migrate check", "migrate corpus run", "migrate corpus shrink"} <= {
        ctx.command_path for ctx in EVERY
    }


@every_command
def test_a_command_has_an_example_of_itself(ctx):
    (example,) = examples(ctx)
    assert f"{example} ".startswith(f"{ctx.command_path} ")


@every_command
def test_the_example_can_be_parsed(ctx):
    (example,) = examples(ctx)
    called = parsed(shlex.split(re.split("[|<>]", example)[0]))
    assert isinstance(ctx.command, click.Group) or called.command is ctx.command


@every_command
def test_the_example_stands_in_the_help_as_it_is_typed(ctx):
    (example,) = examples(ctx)
    told = run(*ctx.command_path.split()[1:], "--help")
    assert told.exit_code == 0
    assert f"  Example: {example}" in told.output.splitlines()


@pytest.mark.parametrize(
    "wrong",
    ["migrate chek guest.xl", "migrate check guest.xl --targt 4.20", "migrate check guest.xl --target 3.1"],
)
def test_an_example_that_is_wrong_would_be_noticed(wrong):
    with pytest.raises(click.UsageError):
        parsed(wrong.split())


# -- mistyped words -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("chek", "'check'"),
        ("verify-stream", "'verify-stream-v2'"),
        ("corpus rnu guests", "'run'"),
        ("corpus shrnk guests", "'shrink'"),
        ("--versoin", "--version"),
        ("check --targt 4.20 x", "--target"),
        ("corpus run --junt out x", "--junit"),
        ("check --target 4.2O x", "4.2"),
        ("explain HPY-22", "HYP-22"),
        ("explain l3-above-4", "l3-above-4g"),
        ("check --select l3-above-4 x", "l3-above-4g"),
        ("check --ignore HYP-19,HPY-22 x", "HYP-22"),
        ("synth --damage xcr-09 x", "XRC-09"),
        ("corpus shrink --rule l3-abve-4g x", "l3-above-4g"),
    ],
)
def test_a_mistyped_word_is_answered_with_what_was_meant(typed, meant):
    result = run(*typed.split())
    assert result.exit_code == 2
    # "Possible options": older versions of click, where there are several.
    assert re.search(f"(did you mean|possible options:) .*{re.escape(meant)}", result.output, re.IGNORECASE)


@pytest.mark.parametrize("typed", ["qqqq", "corpus qqqq x", "check --qqqq x", "explain qqqq"])
def test_a_word_like_no_other_brings_no_guess(typed):
    result = run(*typed.split())
    assert result.exit_code == 2
    assert "mean" not in result.output


@pytest.mark.parametrize(
    ("typed", "known"),
    [
        ("check --format jsn x", "json"),
        ("check --l3-rule orignal x", "original"),
        ("check --placement hihg x", "high"),
        ("rules --layer hpy", "HYP"),
    ],
)
def test_a_mistyped_word_of_a_few_is_answered_with_all_of_them(tmp_path, monkeypatch, typed, known):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(b"no stream")
    result = run(*typed.split())
    assert result.exit_code == 2
    assert known.lower() in result.output.lower()


# -- terminals that cannot, people who do not want to -------------------------------------------------


def on_a_terminal(args, environment):
    master, terminal = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color"} | environment
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(at_once.run, *args, stdout=terminal, stderr=terminal, env=env)
        running.add_done_callback(lambda _: os.close(terminal))
        shown = b""
        with suppress(OSError):  # what a terminal says when nobody is at its other end any more
            while piece := os.read(master, 1 << 16):
                shown += piece
    os.close(master)
    assert running.result().returncode in (0, 1)
    return shown


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    path = tmp_path_factory.mktemp("terminal") / "bad.libxc"
    path.write_bytes(violating_stream(RULES["HYP-03"]))
    return str(path)


ON_SHOW = [["check"], ["check", "--target", "all"], ["trace", "--cost"], ["explain", "HYP-22"], ["rules"]]


@pytest.mark.parametrize("args", ON_SHOW, ids=" ".join)
@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_nothing_is_styled_where_no_colour_is_wanted(bad, args, environment):
    shown = on_a_terminal([*args, bad] if args[0] in ("check", "trace") else args, environment)
    assert len(shown) > 100
    assert b"\x1b" not in shown


@pytest.mark.parametrize("args", ON_SHOW, ids=" ".join)
def test_a_terminal_is_shown_styles_otherwise(bad, args):
    assert b"\x1b[1" in on_a_terminal([*args, bad] if args[0] in ("check", "trace") else args, {})
