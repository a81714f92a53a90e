"""HVM and PVH streams of real Xen: its verdict, step and errno, what it held otherwise, and else silence."""

import re

import pytest
from project import SAMPLES

from migrate.corpus.agreement import agreement, total
from migrate.corpus.discovery import discover
from migrate.corpus.expectations import Shelf
from migrate.corpus.results import Status
from migrate.corpus.runner import InProcess, run
from migrate.judging.check import check
from migrate.rules.declaring import Severity

DAMAGED, GENUINE = SAMPLES / "oracle-hvm", SAMPLES / "genuine-hvm"
GENUINE_STREAMS = sorted(GENUINE.glob("*.zst"))
HELD = re.compile(r"(\S+) (0x[0-9a-f]+) -> (0x[0-9a-f]+)")


def expected(path):
    return Shelf().entry(path)


@pytest.fixture(scope="module")
def damaged():
    return run(discover([str(DAMAGED)]).cases, InProcess())


def test_all_samples_are_there():
    assert len(GENUINE_STREAMS) == 11
    assert len(list(DAMAGED.glob("*.zst"))) == 721


def test_every_damaged_stream_gets_the_verdict_step_and_errno_of_real_xen(damaged):
    tallies = agreement(result for result in damaged if not result.case.entry.host_dependent)
    for layer, tally in tallies.items():
        print(f"{layer:12}{tally.streams:5} streams", *tally.verdict_share, *tally.step_share, *tally.errno_share)
    everything = total(tallies)
    assert everything.streams == 695
    assert everything.verdict_share == (1538, 1538)
    assert everything.errno_share == (693, 693)
    assert everything.step_share == (747, 749)  # a header that says PV, which libxc holds against the domain
    assert everything.unjudged == 0


def test_nothing_of_the_damaged_streams_is_unexpected(damaged):
    odd = {result.case.path: result.status for result in damaged if result.status not in (Status.FINE, Status.HOST)}
    assert odd == {}


def test_what_real_xen_held_otherwise_is_told(damaged):
    measured = 0
    for result in damaged:
        for one in result.comparisons:
            note = one.expectation.measured and one.expectation.measured.note
            if not (note and note.startswith("held otherwise")):
                continue
            told = check(result.case.path, target=one.expectation.target, vcpus=2).findings
            warnings = " ".join(f.message for f in told if f.severity is Severity.WARNING)
            for field, sent, held in HELD.findall(note):
                measured += 1
                if "fpu" in field:
                    assert "Xen resets it" in warnings
                elif field.endswith(".flags"):
                    assert "no release writes" in " ".join(f.message for f in told)
                else:
                    assert f"{int(sent, 16):#x}: Xen holds {int(held, 16):#x}" in warnings, (result.case.path, field)
    assert measured == 33


@pytest.mark.parametrize("path", GENUINE_STREAMS, ids=lambda path: path.stem)
def test_genuine_streams_fare_as_with_real_xen_and_in_silence(path):
    [result] = run(discover([str(path)]).cases, InProcess())
    assert result.status is Status.FINE, result.comparisons
    assert len(result.comparisons) == 3


@pytest.mark.parametrize("path", GENUINE_STREAMS, ids=lambda path: path.stem)
def test_genuine_contexts_are_those_that_the_expectations_are_about(path):
    entry = expected(path)
    assert check(path, target="4.20.4").stream.vcpus == entry.vcpus
    assert {"HEADER", "CPU", "PIC", "HPET", "END"} <= entry.facts["entries"].keys()


# Streams at which a debug build of Xen stopped, and the rule that says so.
STOPPED = {
    "x417-hvm.rich__hf011": "HVM-23",
    "x417-hvm.rich__hf073": "HVM-22",
    "x417-pvh.slim__hf002": "HVM-22",
    "hvm-dev-2vcpu__hpet_t1_periodic_0": "HVM-23",
}


@pytest.mark.parametrize(("name", "rule"), STOPPED.items())
@pytest.mark.parametrize("target", ["4.17.7", "4.20.0"])
def test_what_stopped_a_debug_build_is_an_error(name, rule, target):
    report = check(DAMAGED / f"{name}.libxc.zst", target=target, vcpus=2)
    harmful = {finding.rule.id for finding in report.findings if finding.effect.harms_host}
    assert (report.verdict, harmful) == ("accept", {rule})
