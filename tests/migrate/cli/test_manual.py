"""The manual page holds what the commands say of themselves, and roff takes all of it."""

import inspect
import os
import pty
import re
import shutil
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from migrate.cli.ending import ExitCode
from migrate.cli.main import main
from migrate.cli.manual import commands, page

EVERY = list(commands(main))
groff = pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
man = pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")

every_command = pytest.mark.parametrize("ctx", EVERY[1:], ids=lambda ctx: ctx.command_path)


def section(text, heading, mark):
    """The lines between a heading and the next one that is no lower."""
    lines = text.splitlines()
    start = lines.index(f"{mark} {heading}") + 1
    marks = (".SH ",) if mark == ".SH" else (".SH ", ".SS ")
    return "\n".join(lines[start : next((n for n in range(start, len(lines)) if lines[n].startswith(marks)), None)])


def plain(roff):
    for escape, char in {
        r"\-": "-", r"\(aq": "'", r"\(ga": "`", r"\(ha": "^", r"\(ti": "~", r"\(dq": '"', r"\fB": "", r"\fR": "",
        r"\&": "", r"\e": "\\",
    }.items():  # fmt: skip
        roff = roff.replace(escape, char)
    return roff


@every_command
def test_a_command_has_a_section_with_all_its_options(ctx):
    told = plain(section(page(main), ctx.command_path.replace("-", r"\-"), ".SS"))
    for param in ctx.command.params:
        for name in param.opts if isinstance(param, click.Option) and not param.hidden else ():
            assert re.search(rf"^(.*, )?{re.escape(name)}\b", told, re.MULTILINE), name


@every_command
def test_a_section_ends_with_the_command_s_exit_codes(ctx):
    told = plain(section(page(main), ctx.command_path.replace("-", r"\-"), ".SS"))
    for paragraph in inspect.cleandoc(ctx.command.epilog or "").split("\n\n"):
        assert " ".join(paragraph.removeprefix("\b").split()) in " ".join(told.split())


@every_command
def test_an_example_stands_as_it_is_typed(ctx):
    told = plain(section(page(main), ctx.command_path.replace("-", r"\-"), ".SS"))
    example = re.search("Example: .*", ctx.command.help)[0]
    assert f"\n{example}\n.fi" in told


def test_every_exit_code_is_told():
    told = section(page(main), "EXIT STATUS", ".SH")
    assert [int(code) for code in re.findall(r"^\\fB(\d+)\\fR$", told, re.MULTILINE)] == sorted(ExitCode)


def test_the_page_goes_into_a_file_as_roff():
    result = CliRunner().invoke(main, ["manual"])
    assert (result.exit_code, result.output) == (0, page(main))
    assert result.output.startswith(".TH MIGRATE 1 ")


@groff
@pytest.mark.parametrize("device", ["utf8", "ascii"])
def test_groff_warns_of_nothing(device):
    command = ["groff", "-man", "-ww", "-z", f"-T{device}"]
    done = subprocess.run(command, input=page(main), text=True, capture_output=True, check=True)
    assert done.stderr == ""


@man
def test_man_warns_of_nothing(tmp_path):
    (tmp_path / "migrate.1").write_text(page(main))
    done = subprocess.run(
        ["man", "--warnings", "-l", tmp_path / "migrate.1"],
        text=True,
        capture_output=True,
        check=True,
        env=os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
    )
    assert done.stderr == ""
    assert "Example: migrate corpus run guests" in done.stdout


@groff
def test_text_that_roff_would_take_for_its_own_is_shown_as_it_is():
    @click.group(help='The title.\n\n\b\n.SH no heading\n\'br of nothing\n\\fBack\\slash \\n -x ~/`a`^ "b" → é')
    def program():
        pass

    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-c"], input=page(program).encode(), capture_output=True, check=True
    )
    assert done.stderr == b""
    shown = re.sub(".\x08", "", done.stdout.decode()).splitlines()
    wanted = [".SH no heading", "'br of nothing", '\\fBack\\slash \\n -x ~/`a`^ "b" → é']
    assert [line.strip() for line in shown if line.strip() in wanted] == wanted


def test_on_a_terminal_man_shows_the_page(tmp_path):
    shower = tmp_path / "man"
    shower.write_text('#!/bin/sh\necho "asked: $*"\nexec cat > "$(dirname "$0")/page"\n')
    shower.chmod(0o755)
    master, terminal = pty.openpty()
    code = subprocess.run(
        [sys.executable, "-m", "migrate", "manual"],
        stdout=terminal,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        timeout=60,
        check=False,
    ).returncode
    os.close(terminal)
    shown = os.read(master, 1000)
    os.close(master)
    assert (code, shown.strip()) == (0, b"asked: -l -")
    assert (tmp_path / "page").read_text() == page(main)
