"""Under `python -O` there are no assertions: nothing that is read may depend on them."""

import ast
import json
import os
import subprocess
import sys
import zipfile

import pytest
from project import ROOT

from migrate.building.builder import StreamBuilder
from migrate.cli.explain import violating_stream
from migrate.rules.catalogue import RULES

# A rule of each group whose smallest breach is a small stream.
BROKEN = ("CON-01", "HDR-03", "FRM-04", "ORD-01", "REC-30", "XRC-09", "HVM-01", "HYP-22")
VIEWS = (["--record", "all"], ["--vcpu", "all"], ["--tables"], ["--json"], ["--pfn", "0x13"], ["--walk", "0x1000"])
# Runs commands and prints what becomes of each.
DRIVER = """
import json, sys
from click.testing import CliRunner
from migrate.cli.main import main
for words in json.load(sys.stdin):
    done = CliRunner().invoke(main, words)
    print(json.dumps([words, int(done.exit_code), done.output, repr(done.exception)]))
print(json.dumps([__debug__]))
"""


def assertions():
    for package in ("migrate", "streams"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Assert):
                    yield ast.unparse(node.test)


def narrows_a_type(test):
    """Whether an assertion is for those who read types alone: that something is there, or is of some class."""
    return test.endswith(" is not None") or test.removeprefix("not ").startswith("isinstance(")


def test_assertions_say_of_what_type_something_is_and_nothing_else():
    found = set(assertions())
    assert len(found) > 10
    assert {test for test in found if not narrows_a_type(test)} == set()


def bad_inputs(folder):
    """Streams that are broken in many ways, and other things that are none."""
    made = {"empty": b"", "text": b"not a stream at all\n" * 99, "zeros": bytes(4096), "zstd": b"\x28\xb5\x2f\xfd none"}
    made |= {id: violating_stream(RULES[id]) for id in BROKEN}
    for name, builder in {"pv": StreamBuilder.pv(8, vcpus=2), "hvm": StreamBuilder.hvm()}.items():
        builder.wrap("xl")
        whole = builder.build()
        for at in range(1, 8):
            made[f"{name}-cut{at}"] = whole[: len(whole) * at // 8]
            made[f"{name}-flip{at}"] = whole[: 40 * at] + b"\xff\xff\xff\xff" + whole[40 * at + 4 :]
    for name, data in made.items():
        (folder / name).write_bytes(data)
    return list(made)


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Commands over all of them, and over damaged results and archives."""
    folder = tmp_path_factory.mktemp("bad")
    inputs = bad_inputs(folder)
    with zipfile.ZipFile(folder / "all.zip", "w") as out:
        for name in inputs:
            out.write(folder / name, f"x::{name}")
    (folder / "results").write_text('{"kind":"missing","schema":1}\n{"kind":"end","schema":1,"shard":5}\n{}\n')
    (folder / "expect.toml").write_text("[empty]\nexpect = 3\n[text]\n")
    words = []
    for number, name in enumerate(inputs):
        stream, out = folder / name, folder / "out"
        words += [
            ["check", stream, "--placement", "high"],
            ["trace", stream],
            ["show", stream, *VIEWS[number % len(VIEWS)]],
        ]
        words += [["corpus", "scrub", stream, "-o", out, "--force"]]
        words += [["extract", stream, "--elf" if number % 2 else "--raw", out, "--force"]]
    words += [["corpus", "run", folder, "-j", "1", "--no-cache"], ["corpus", "accept", folder, "-j", "1", "--no-cache"]]
    words += [["corpus", "run", f"zip://::{folder / 'all.zip'}", "-j", "1", "--no-cache"]]
    words += [["corpus", "merge", folder / "results"], ["corpus", "run", folder, "--resume", folder / "results"]]
    return [[str(word) for word in command] for command in words]


def outcomes(commands, *options):
    done = subprocess.run(
        [sys.executable, *options, "-c", DRIVER],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *outcomes, (debug,) = map(json.loads, done.stdout.splitlines())
    return outcomes, debug


def test_bad_inputs_end_the_same_without_assertions(commands):
    with_assertions, debug = outcomes(commands)
    without, optimised = outcomes(commands, "-O")
    assert (debug, optimised) == (True, False)
    assert without == with_assertions
    for _, code, output, exception in without:
        assert code in (0, 1, 2, 3)
        assert "internal error" not in output
        assert exception == "None" or exception.startswith("SystemExit")
