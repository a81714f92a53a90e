"""Expectations of a stream on a known host: named in the file, or given on the command line."""

import json

import pytest
from corpora import ACCEPTED, corpus, corpus_run, expect
from host_texts import info, version

from migrate.building.builder import StreamBuilder
from migrate.corpus.expectations import load_own
from migrate.corpus.hosts import host_file, host_of

BOTH = "xen-3.0-x86_64 xen-3.0-x86_32p"
NO_32 = "xen-3.0-x86_64"
REFUSED_THERE = '[[expect]]\nhost = "hosts/no32.txt"\nmeasured.verdict = "refuse"\nmeasured.step = "record"\n'


def xl_info(xen, caps):
    return version(xen) + info(virt_caps="pv", xen_caps=caps, total_memory="2048", free_memory="1024")


@pytest.fixture
def folder(tmp_path):
    """A 32-bit PV guest, and beside it two hosts of which one runs such guests."""
    (tmp_path / "good").write_bytes(StreamBuilder.pv(4).build())
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts" / "both.txt").write_text(xl_info("4.20.1", BOTH))
    (tmp_path / "hosts" / "no32.txt").write_text(xl_info("4.20.1", NO_32))
    return tmp_path


def test_a_host_decides_what_is_not_said(folder):
    (one,) = load_own(expect(folder, "good", REFUSED_THERE)).expect
    assert (one.target, one.placement, one.host.name) == ("4.20.1", "low", "hosts/no32.txt")


def test_what_is_said_beside_a_host_counts(folder):
    file = expect(folder, "good", REFUSED_THERE + 'target = "4.17"\nplacement = "high"\n')
    assert [(one.target, one.placement) for one in load_own(file).expect] == [("4.17", "high")]


def test_a_stream_is_judged_for_the_host_that_is_named(folder):
    expect(folder, "good", REFUSED_THERE + REFUSED_THERE.replace("no32", "both"))
    result = corpus_run(folder, "--jsonl", folder / "out.jsonl")
    assert result.exit_code == 1
    assert "4.20.1, low, hosts/both.txt" in result.output
    assert "4.20.1, low, hosts/no32.txt" not in result.output
    told = json.loads((folder / "out.jsonl").read_text().splitlines()[0])
    assert [one["host"] for one in told["comparisons"]] == ["hosts/no32.txt", "hosts/both.txt"]


def test_an_answer_is_about_what_the_host_file_says_not_about_its_name(folder):
    """What an earlier run has found out is not taken for an answer about a host that has changed."""
    expect(folder, "good", REFUSED_THERE)
    assert corpus_run(folder).exit_code == 0
    (folder / "hosts" / "no32.txt").write_text(xl_info("4.20.1", BOTH))
    assert corpus_run(folder).exit_code == 1


def test_an_interrupted_run_is_taken_up_for_the_same_host_only(folder):
    expect(folder, "good", REFUSED_THERE)
    corpus_run(folder, "--jsonl", folder / "out.jsonl", "--no-cache")
    assert corpus_run(folder, "--resume", folder / "out.jsonl").exit_code == 0
    (folder / "hosts" / "no32.txt").write_text(xl_info("4.20.1", BOTH))
    assert corpus_run(folder, "--resume", folder / "out.jsonl").exit_code == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "host: hosts/no32.txt: No such file or directory"),
        ("total_memory : much\n", "host: hosts/no32.txt, line 1: total_memory: expected a number, found 'much'"),
    ],
)
def test_a_host_file_that_cannot_be_used_is_a_fault_of_the_expectation(folder, text, told):
    expect(folder, "good", REFUSED_THERE)
    file = folder / "hosts" / "no32.txt"
    file.unlink()
    if text is not None:
        file.write_text(text)
    result = corpus_run(folder)
    assert result.exit_code == 3
    assert f"good.expect.toml: expect 1: {told}" in result.output.replace("\n", " ")


def test_two_hosts_are_two_questions_and_one_host_twice_is_a_mistake(folder):
    expect(folder, "good", REFUSED_THERE + REFUSED_THERE)
    assert "4.20.1 under low on hosts/no32.txt is there twice" in corpus_run(folder).output.replace("\n", " ")


# -- on the command line ------------------------------------------------------------------------------


def test_a_host_decides_what_depends_on_one(folder):
    expect(
        folder, "good", 'host_dependent = true\n[[expect]]\ntarget = "4.20"\nplacement = "low"\nverdict = "refuse"\n'
    )
    assert "differs, but depends on the destination host" in corpus_run(folder).output
    assert "1 as expected" in corpus_run(folder, "--host", folder / "hosts" / "no32.txt").output
    assert corpus_run(folder, "--host", folder / "hosts" / "both.txt").exit_code == 1


def test_a_host_decides_for_its_own_branch_alone(folder):
    expect(folder, "good", ACCEPTED)
    (folder / "old.txt").write_text(xl_info("4.17.7", NO_32))
    assert corpus_run(folder, "--host", folder / "old.txt").exit_code == 0
    assert corpus_run(folder, "--host", folder / "old.txt", "--host", folder / "hosts" / "no32.txt").exit_code == 1


def test_new_streams_are_judged_for_the_host(folder):
    shown = corpus_run(folder, "--host", folder / "hosts" / "no32.txt").output
    assert "REC-32" in shown


def test_what_is_accepted_names_the_host_from_where_the_file_lies(folder):
    result = corpus("accept", folder, "--yes", "--host", folder / "hosts" / "no32.txt")
    assert result.exit_code == 0, result.output
    (one,) = load_own(folder / "good.expect.toml").expect
    assert (one.host.name, one.outcome.call) == ("hosts/no32.txt", "set_address_size")
    assert "1 as expected" in corpus_run(folder).output


def test_what_changes_on_a_host_is_accepted_in_its_place(folder):
    both = REFUSED_THERE + REFUSED_THERE.replace("no32", "both")
    file = expect(folder, "good", both.replace("measured.", ""))
    assert corpus("accept", folder, "--yes").exit_code == 0
    assert [(one.host.name, one.outcome.verdict) for one in load_own(file).expect] == [
        ("hosts/no32.txt", "refuse"),
        ("hosts/both.txt", "accept"),
    ]


def test_a_file_that_is_no_host_is_wrong_usage(folder):
    result = corpus_run(folder, "--host", folder / "good")
    assert result.exit_code == 2
    assert "expected what `xl info` and `xen-cpuid -p` print" in result.output


def test_a_host_file_that_changes_under_way_is_told(folder):
    path = folder / "hosts" / "both.txt"
    found = host_file("both.txt", str(path))
    assert host_of(found).label == "both.txt"
    path.write_text(xl_info("4.20.1", NO_32))
    with pytest.raises(OSError, match=r"both\.txt: changed since it was first read"):
        host_of(found)
