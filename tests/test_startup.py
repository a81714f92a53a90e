"""What a command costs before it does anything: the modules it imports, and the instructions it takes."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from project import ROOT

from migrate.building.builder import StreamBuilder
from migrate.building.shapes import hvm_guest

# What reads command lines, what lays out text, what a PV guest's memory needs, what edits and unpacks.
WEIGHTY = {"click", "rich", "numpy", "construct", "backports", "lz4", "jinja2", "tomlkit", "typing", "dataclasses"}
# Rooms and modules that only some questions need.
SOMETIMES = {
    "migrate.building",
    "migrate.corpus",
    "migrate.destination.host_files",
    "migrate.inspection",
    "migrate.judging.other_placements",
    "migrate.reports.html",
    "migrate.reports.rules.pages",
    "migrate.rules.messages",
    "migrate.toolstack.hvm",
    "migrate.toolstack.pv",
    "migrate.xen.answers",
    "migrate.xen.hvm_answers",
    "migrate.xen.hvm_params",
    "migrate.xen.hvm_records",
    "migrate.xen.pv_vcpu",
    "migrate.xen.replay",
    "streams.other_files",
    "streams.wire.vcpu",
}
HVM_RECORDS = {"migrate.toolstack.hvm", "migrate.xen.hvm_params"}
HVM = {*HVM_RECORDS, "migrate.xen.hvm_answers", "migrate.xen.hvm_records"}
ENGINE = {"migrate.xen.answers", *HVM}
LISTED = """
import json, sys
sys.argv = ["migrate", *sys.argv[1:]]
from migrate.cli.start import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def pvh(tmp_path_factory):
    path = tmp_path_factory.mktemp("startup") / "pvh.libxc"
    path.write_bytes(hvm_guest(pages=64).build())
    return str(path)


def imported(*words):
    out = subprocess.run([sys.executable, "-c", LISTED, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    modules = set(json.loads(out.stderr.splitlines()[-1]))
    return modules & (WEIGHTY | SOMETIMES)


def test_the_version_needs_no_command_line():
    assert imported("--version") == set()


def test_a_check_of_an_hvm_guest_imports_what_it_judges_with(pvh):
    assert imported("check", pvh) == ENGINE


def test_the_form_of_a_stream_is_judged_without_xens_answers(pvh):
    assert imported("verify-stream-v2", "-q", "-i", pvh) == HVM_RECORDS


def test_a_check_of_a_pv_guest_imports_its_memory(tmp_path):
    path = tmp_path / "pv.libxc"
    path.write_bytes(StreamBuilder.pv().build())
    asked = imported("check", str(path))
    assert not HVM & asked
    assert {"numpy", "migrate.toolstack.pv", "migrate.xen.replay"} <= asked
    assert not {"rich", "migrate.reports.html", "migrate.building"} & asked


# -- instructions -----------------------------------------------------------------------------------------

VALGRIND = shutil.which("valgrind")
# Millions, above those of an interpreter that does nothing.
TAKES = {"--version": 95, "verify-stream-v2": 248, "check": 376}


def instructions(words, environment):
    """Millions of instructions of a command whose modules are compiled already."""
    command = [sys.executable, *words]
    subprocess.run(command, env=environment, capture_output=True, check=False)
    counted = [VALGRIND, "--tool=callgrind", "--callgrind-out-file=/dev/null", *command]
    said = subprocess.run(counted, env=environment, capture_output=True, text=True, check=False).stderr
    (line,) = (line for line in said.splitlines() if "Collected" in line)
    return int(line.split(":")[1]) / 1e6


@pytest.mark.slow
@pytest.mark.skipif(VALGRIND is None, reason="callgrind counts the instructions")
def test_instructions_are_those_that_were_measured(pvh, tmp_path):
    script = tmp_path / "migrate"
    script.write_text("from migrate.cli.start import main\nmain()\n")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "0",
        "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled"),
    }
    bare = instructions(["-c", "pass"], environment)
    commands = {
        "--version": ["--version"],
        "verify-stream-v2": ["verify-stream-v2", "-q", "-i", pvh],
        "check": ["check", pvh],
    }
    counted = {name: instructions([str(script), *words], environment) - bare for name, words in commands.items()}
    assert counted == pytest.approx(TAKES, rel=0.1)
