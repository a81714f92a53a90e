"""README.md keeps its word: links lead somewhere, pictures show what is printed today, examples are valid."""

import html
import importlib.util
import re
import shlex
import string

import click
import pytest
from click.testing import CliRunner
from project import ROOT

from migrate.cli.main import main

TEXT = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^\$ (migrate .*)$", TEXT, re.MULTILINE)


def screenshots():
    spec = importlib.util.spec_from_file_location("screenshots", ROOT / ".ci/screenshots.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def letters(svg):
    """What a picture says, without the blanks that versions of rich lay out differently."""
    texts = re.findall(r"<text[^>]*>(.*?)</text>", svg, re.DOTALL)
    return re.sub(r"\s", "", html.unescape("".join(texts)).replace("\xa0", ""))


@pytest.mark.parametrize("name", ["check.svg", "map.svg"])
def test_pictures_show_what_is_printed_today(name):
    assert letters((ROOT / ".readme" / name).read_text()) == letters(screenshots().svg(name))


@pytest.mark.parametrize("name", ["check.svg", "map.svg"])
def test_pictures_load_nothing(name):
    svg = (ROOT / ".readme" / name).read_text()
    assert not re.search(r"url\((?!#)|@import|@font-face|href=.http", svg)


def test_links_within_lead_somewhere():
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    kept = string.ascii_lowercase + string.digits + "-_"
    anchors = {"".join(c for c in heading.lower().replace(" ", "-") if c in kept) for heading in headings}
    for target in re.findall(r"\]\((?!https?:)([^)]*)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in anchors
        else:
            assert (ROOT / target).exists()


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_valid_commands(example):
    command, words = main, shlex.split(example)[1:]
    words = words[: next((at for at, word in enumerate(words) if word in "<>|"), len(words))]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command = command.get_command(click.Context(command), words.pop(0))
    command.make_parser(click.Context(command, resilient_parsing=True)).parse_args(words)


OF_ALL_RELEASES = re.findall(r"^\$ (migrate check --target all [^\n]*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("example", "printed"), OF_ALL_RELEASES)
def test_what_all_releases_answer_is_what_the_page_says(example, printed, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, shlex.split(example)[1:])
    assert [line.rstrip() for line in result.output.splitlines()] == printed.splitlines()


def test_all_releases_are_asked_about_three_samples():
    assert [example.count("sample_streams/") for example, _ in OF_ALL_RELEASES] == [3]


def test_there_are_examples():
    assert len(EXAMPLES) > 10
