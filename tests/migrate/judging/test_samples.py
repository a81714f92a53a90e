"""The sample streams: what the guests said of themselves comes back, and the verdicts are those of real Xen."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from project import SAMPLES

from migrate.corpus.agreement import agreement, total
from migrate.corpus.discovery import discover
from migrate.corpus.expectations import Shelf
from migrate.corpus.results import Status
from migrate.corpus.runner import InProcess, run
from migrate.guest.memory import SENT
from migrate.judging.check import check, judge
from streams.opening import open_transport

REAL = sorted(path.name for path in SAMPLES.glob("x417-*.zst"))
PV = [name for name in REAL if not name.startswith("x417-pvh")]
WIDTH32 = [name for name in PV if not name.startswith("x417-pv64")]
REMUS = [name for name in REAL if ".remus." in name]


def entry(name):
    return Shelf().entry(SAMPLES / name)


def reconstructed(name, question):
    return judge(SAMPLES / name, then=lambda judgement: question(judgement.pv_guest))


def top_level(said):
    return 3 if said["width"] == 4 else 4


def test_all_samples_are_there():
    assert len(REAL) == 24
    assert len(PV) == 20
    assert len(REMUS) == 4
    assert len(list((SAMPLES / "oracle").glob("*.zst"))) == 289


@pytest.mark.parametrize("name", [*REAL, "pv32.migrate.bin.zst"])
def test_the_bytes_are_those_that_the_expectations_are_about(name):
    digest = hashlib.sha256()
    with open_transport(SAMPLES / name) as transport:
        while piece := transport.give(1 << 20):
            digest.update(piece)
    assert digest.hexdigest() == entry(name).provenance["sha256"]


@pytest.mark.parametrize("name", PV)
def test_cr3_is_what_the_guest_printed(name):
    said = entry(name).guest
    found, mfns = reconstructed(name, lambda guest: (guest.roots, guest.source_mfns()))
    assert found == {one["vcpu"]: one["pfn"] for one in said["cr3"]}
    with_mfn = [one for one in said["cr3"] if "mfn" in one]
    assert {one["vcpu"]: mfns[one["pfn"]] for one in with_mfn} == {one["vcpu"]: one["mfn"] for one in with_mfn}


@pytest.mark.parametrize("name", PV)
def test_pinned_roots_are_those_that_the_guest_pinned(name):
    said = entry(name).guest
    pfns, levels = reconstructed(name, lambda guest: guest.pinned())
    assert set(pfns[levels == top_level(said)].tolist()) == {root["pfn"] for root in said["roots"] if root["pinned"]}


@pytest.mark.parametrize("name", PV)
def test_as_many_tables_are_pinned_per_level_as_the_guest_printed(name):
    said = entry(name).guest
    _, levels = reconstructed(name, lambda guest: guest.pinned())
    assert {f"L{level}": int(np.sum(levels == level)) for level in range(1, top_level(said) + 1)} == said["pinned"]


@pytest.mark.parametrize("name", PV)
def test_source_mfns_of_all_roots_are_what_the_guest_printed(name):
    said = entry(name).guest
    mfns = reconstructed(name, lambda guest: guest.source_mfns())
    assert said["roots"]
    assert {root["pfn"]: mfns[root["pfn"]] for root in said["roots"]} == {
        root["pfn"]: root["mfn"] for root in said["roots"]
    }


@pytest.mark.parametrize("name", WIDTH32)
def test_whether_the_extended_cr3_is_enabled_is_what_the_guest_printed(name):
    assert reconstructed(name, lambda guest: guest.extended_cr3) is entry(name).guest["extended_cr3"]


@pytest.mark.parametrize("name", PV)
def test_the_pages_are_those_in_the_stream(name):
    facts = entry(name).facts

    def pages(guest):
        sent = np.flatnonzero(guest.state & SENT)
        return guest.p2m_frames.tolist(), len(sent), int(sent[-1])

    assert reconstructed(name, pages) == (facts["p2m_frames"], facts["distinct_pfns"], facts["max_pfn_sent"])


# -- verdicts ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    cases = discover([str(SAMPLES / name) for name in REAL]).cases
    return {Path(result.case.path).name: result for result in run(cases, InProcess())}


@pytest.mark.parametrize("name", REAL)
def test_the_verdicts_are_as_expected(name, real):
    assert real[name].status is Status.FINE, real[name].comparisons


@pytest.mark.parametrize("name", REAL)
def test_the_verdicts_are_what_real_xen_said(name, real):
    measured = [one for one in real[name].comparisons if one.expectation.measured]
    assert measured
    assert not [one for one in measured if one.from_real]


# What the manifest of the samples says of how each was saved: rounds while the guest ran, then checkpoints.
LIVE_ROUNDS = {"live4": 4, "verify": 3, "remus": 3}


@pytest.mark.parametrize("name", REAL)
def test_rounds_and_checkpoints_are_as_many_as_the_saver_made(name):
    facts = check(str(SAMPLES / name)).stream
    mode = name.split(".")[1]
    kinds = [done.kind for done in facts.rounds]
    if mode not in LIVE_ROUNDS:
        assert kinds == ["first"]
        return
    live = ["first", *["dirty"] * (LIVE_ROUNDS[mode] - 1), "final"]
    after = {"live4": [], "verify": ["verify"], "remus": ["checkpoint"] * 2}[mode]
    assert kinds == live + after
    assert facts.checkpoints == (3 if mode == "remus" else 0)


def test_a_migration_by_xl_has_the_rounds_that_xl_made():
    kinds = [done.kind for done in check(str(SAMPLES / "pv32.migrate.bin.zst")).stream.rounds]
    assert kinds == ["first", *["dirty"] * 4, "final"]


@pytest.mark.parametrize("name", REMUS)
def test_each_checkpoint_of_a_remus_stream_is_judged(name):
    report = check(str(SAMPLES / name), target="4.20", placement="high")
    refused = "pv32." in name  # without the extended cr3 assist, and with L3 tables beside vcpu 0's root
    assert [c.checkpoint for c in report.checkpoints] == [1, 2, 3]
    assert {c.verdict for c in report.checkpoints} == {"refuse" if refused else "accept"}
    assert report.verdict == ("refuse" if refused else "accept")


@pytest.fixture(scope="module")
def damaged():
    return run(discover([str(SAMPLES / "oracle")]).cases, InProcess())


def test_every_damaged_stream_gets_the_verdict_of_real_xen(damaged):
    judged = [result for result in damaged if not result.case.entry.host_dependent]
    tallies = agreement(judged)
    for layer, tally in tallies.items():
        print(f"{layer:12}{tally.streams:5} streams", *tally.verdict_share, *tally.step_share, *tally.errno_share)
    everything = total(tallies)
    assert everything.streams == len(judged) == 286
    assert everything.verdict_share == (571, 571)
    assert everything.unjudged == 0


def test_every_damaged_stream_that_is_refused_fails_where_it_does_on_real_xen(damaged):
    everything = total(agreement(damaged))
    assert everything.verdicts == 577
    assert everything.step_share == (354, 354)
    assert everything.errno_share == (138, 138)


def test_nothing_of_the_damaged_streams_is_unexpected(damaged):
    assert {result.case.path: result.status for result in damaged if result.status is not Status.FINE} == {}
