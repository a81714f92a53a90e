"""What a command costs before it does anything: the modules it imports, and the instructions it takes."""

import json
import subprocess
import sys

import pytest
from counted import VALGRIND, Counter
from project import ROOT

from migrate.building.builder import StreamBuilder
from migrate.building.shapes import hvm_guest
from streams.wire.msrs import Msr
from streams.wire.vcpu import MSR_ENTRY, VcpuMsr

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
# numpy imports `typing` itself.
PV = {
    "migrate.judging.other_placements",
    "migrate.toolstack.pv",
    "migrate.xen.answers",
    "migrate.xen.pv_vcpu",
    "migrate.xen.replay",
    "numpy",
    "streams.wire.vcpu",
    "typing",
}
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


def run(*words):
    return subprocess.run([sys.executable, "-c", LISTED, *words], capture_output=True, text=True, cwd=ROOT, check=False)


def imported(*words):
    modules = set(json.loads(run(*words).stderr.splitlines()[-1]))
    return modules & (WEIGHTY | SOMETIMES)


def test_the_version_needs_no_command_line():
    assert imported("--version") == set()


def test_a_check_of_an_hvm_guest_imports_what_it_judges_with(pvh):
    assert imported("check", pvh) == ENGINE


def test_the_form_of_a_stream_is_judged_without_xens_answers(pvh):
    assert imported("verify-stream-v2", "-q", "-i", pvh) == HVM_RECORDS


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("sound", [True, False], ids=["sound", "refused"])
def test_a_pv_guest_takes_numpy_for_its_memory_and_nothing_to_edit_with(width, sound, tmp_path):
    path = tmp_path / "pv.libxc"
    path.write_bytes(pv_guest(width, sound=sound).build())
    words = ("check", "--target", "4.17", str(path))
    assert run(*words).returncode == (0 if sound else 1)
    assert imported(*words) == PV
    assert imported("verify-stream-v2", "-q", "-i", str(path)) == PV | HVM_RECORDS


def pv_guest(width, *, sound):
    """A PV guest with a record of every kind, whose second vcpu has a root if it is sound."""
    b = StreamBuilder.pv(width, vcpus=2, extended=True)
    b.vcpus[0].msrs = bytearray(MSR_ENTRY.pack(VcpuMsr(Msr.TSC_AUX, 0, 1)))
    if not sound:
        b.vcpus[1].root = b.absent_pfn
    return b


# -- instructions -----------------------------------------------------------------------------------------

# Millions, above those of an interpreter that does nothing.
TAKES = {"--version": 94, "verify-stream-v2": 146, "check": 255, "filter": 72}


@pytest.mark.slow
@pytest.mark.skipif(VALGRIND is None, reason="callgrind counts the instructions")
def test_instructions_are_those_that_were_measured(pvh, tmp_path):
    count = Counter(tmp_path)
    measured = {
        "--version": count.command("--version"),
        "verify-stream-v2": count.command("verify-stream-v2", "-q", "-i", pvh),
        "check": count.command("check", pvh),
        "filter": count.first_byte(pvh),
    }
    bare = count.nothing()
    assert {name: millions - bare for name, millions in measured.items()} == pytest.approx(TAKES, rel=0.1)
