"""The papers keep their word: examples print what stands below them, links lead somewhere, pictures are of today."""

import html
import importlib.util
import re
import shlex
import string
from pathlib import Path

import click
import pytest
from papers import PAPERS, run, says, sections
from project import ROOT

from migrate.cli.main import main

README = ROOT / "README.md"
LINKED = [*PAPERS, ROOT / "SECURITY.md", *(ROOT / ".github").glob("*.md")]
LONG = "How far it agrees with real Xen"
SHARED_OUT = ".jsonl"  # a corpus of hundreds of streams is run twice for these
SECTIONS = [
    pytest.param(paper, heading, left_out, marks=[pytest.mark.slow] * (heading == LONG or left_out is None))
    for paper in PAPERS
    for heading, examples in sections(paper).items()
    for left_out in ([SHARED_OUT, None] if any(SHARED_OUT in one.command for one in examples) else [""])
]
IN_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPARING = """
from hypothesis import HealthCheck, settings

settings.register_profile("sparing", max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sparing")
"""
NAMED = re.compile(r"^(?:\$ )?(migrate [^|`]*?)(?: [|<>#].*)?$", re.MULTILINE)


def name(paper):
    return str(paper.relative_to(ROOT))


@pytest.mark.parametrize(
    ("paper", "heading", "left_out"), SECTIONS, ids=lambda value: name(value) if isinstance(value, Path) else value
)
def test_examples_print_what_stands_below_them(paper, heading, left_out, tmp_path):
    (tmp_path / "sample_streams").symlink_to(ROOT / "sample_streams")
    for command, printed in sections(paper)[heading]:
        if left_out and left_out in command:
            continue
        real = run(command, tmp_path)
        assert says(printed, real), f"$ {command}\n{real}"


def test_there_are_examples():
    assert all(sections(paper) for paper in PAPERS[:2])


@pytest.mark.parametrize("paper", PAPERS, ids=name)
def test_what_is_only_named_are_valid_command_lines(paper):
    for line in NAMED.findall("\n".join(re.findall(r"^```sh\n(.*?)^```", paper.read_text(), re.MULTILINE | re.DOTALL))):
        command, words = main, shlex.split(line)[1:]
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            command = command.get_command(click.Context(command), words.pop(0))
        command.make_parser(click.Context(command, resilient_parsing=True)).parse_args(words)


@pytest.mark.parametrize("paper", LINKED, ids=name)
def test_links_lead_somewhere(paper):
    text = paper.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    kept = string.ascii_lowercase + string.digits + "-_"
    anchors = {"".join(c for c in heading.lower().replace(" ", "-") if c in kept) for heading in headings}
    for target in re.findall(r"\]\((?!https?:)([^)]*)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors
        else:
            assert (paper.parent / target).exists()


def test_the_tests_of_what_may_be_relied_on_exist():
    for said in re.findall(r"`(test[^`]*)`", (ROOT / "SECURITY.md").read_text()):
        assert (ROOT / said).exists() or (ROOT / "tests/bounds" / said).exists(), said


def test_the_first_page_is_short():
    assert len(README.read_bytes()) <= 10_000


def test_the_first_page_asks_all_releases_about_three_samples():
    asked = re.findall(r"^\$ (migrate check --target all .*)$", README.read_text(), re.MULTILINE)
    assert [line.count("sample_streams/") for line in asked] == [3]


def test_what_a_change_has_to_pass_is_the_first_pages_test_command():
    command = re.findall(r"^```sh\n(.*)\n```$", README.read_text(), re.MULTILINE)[1]
    assert command.replace(".venv", "$venv") == (ROOT / ".ci/run").read_text().split("\n")[7].replace('"', "")


def screenshots():
    spec = importlib.util.spec_from_file_location("screenshots", ROOT / ".ci/screenshots.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def letters(svg):
    """What a picture says, without the blanks that versions of rich lay out differently."""
    texts = re.findall(r"<text[^>]*>(.*?)</text>", svg, re.DOTALL)
    return re.sub(r"\s", "", html.unescape("".join(texts)).replace("\xa0", ""))


@pytest.mark.parametrize("picture", ["check.svg"])
def test_pictures_show_what_is_printed_today(picture):
    assert letters((ROOT / ".readme" / picture).read_text()) == letters(screenshots().svg(picture))


@pytest.mark.parametrize("picture", ["check.svg"])
def test_pictures_load_nothing(picture):
    svg = (ROOT / ".readme" / picture).read_text()
    assert not re.search(r"url\((?!#)|@import|@font-face|href=.http", svg)


@pytest.mark.parametrize("paper", [paper for paper in PAPERS if IN_PYTHON.search(paper.read_text())], ids=name)
def test_examples_in_python_are_tests_that_pass(paper, tmp_path):
    (tmp_path / "test_examples.py").write_text("\n\n".join(IN_PYTHON.findall(paper.read_text())))
    (tmp_path / "conftest.py").write_text(SPARING)
    ran = run("python -m pytest -q -p no:cacheprovider -p no:xdist test_examples.py", tmp_path)
    assert re.search(r"^\d+ passed", ran, re.MULTILINE), ran


def test_the_tests_run_without_pytests_cache(tmp_path):
    command = "PYTHONDONTWRITEBYTECODE=1 python -m pytest -p no:cacheprovider --collect-only tests/test_papers.py"
    assert "::test_links_lead_somewhere" in run(f"cd {shlex.quote(str(ROOT))} && {command}", tmp_path)
