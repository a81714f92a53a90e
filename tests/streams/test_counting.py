"""Numbers of things, in words."""

import ast
import re

import pytest
from project import ROOT

from streams.counting import count, memory_size

# What may be one, behind a number or an adjective.
THINGS = "bytes|pages|tables|words|entries|ranges|streams|lines|calls|holes|records|hosts|findings"
PLURAL = re.compile(rf" (?!(?:has|have|are|is|of|in|on|as|with) )([A-Za-z0-9_-]+ ){{0,2}}({THINGS})\b")


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0 KiB"),
        (512, "0.5 KiB"),
        (4096, "4 KiB"),
        ((1 << 20) - 4096, "1020 KiB"),
        (1 << 20, "1 MiB"),
        (8 << 20, "8 MiB"),
        ((8 << 20) + (100 << 10), "8.1 MiB"),
        (3 << 29, "1.5 GiB"),
        (128 << 30, "128 GiB"),
    ],
)
def test_sizes_are_told_in_the_unit_that_fits(number, told):
    assert memory_size(number) == told


def test_one_is_told_apart_from_many():
    assert [count(number, "finding") for number in (0, 1, 2)] == ["0 findings", "1 finding", "2 findings"]


def test_no_text_takes_a_number_that_may_be_one_for_many():
    told = []
    for file in [*(ROOT / "migrate").rglob("*.py"), *(ROOT / "streams").rglob("*.py")]:
        for text in ast.walk(ast.parse(file.read_text())):
            if isinstance(text, ast.JoinedStr):
                told += [f"{file}:{text.lineno}: {what}" for what in miscounted(text)]
    assert told == []


def miscounted(text):
    """Plurals behind a value that `count` has not put into words, and that is no constant."""
    parts = [part.value for part in text.values]
    for before, value, behind in zip(["", *parts], parts, parts[1:], strict=False):
        if isinstance(value, ast.expr) and isinstance(behind, str) and (found := PLURAL.match(behind)):
            constant = all(
                name.id.isupper() for name in ast.walk(value) if isinstance(name, ast.Name) and name.id != "len"
            )
            exponent = isinstance(before, str) and before.endswith("^")
            if not constant and not exponent and "count(" not in ast.unparse(value):
                yield f"{{{ast.unparse(value)}}}{found[0]}"
