"""Shrinking: what is left shows the same finding, and nothing in it can go."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from asking import check
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from project import SAMPLES, restless

from migrate.building.builder import StreamBuilder
from migrate.building.shapes import hvm_guest, pv_guest
from migrate.cli.explain import violating_stream
from migrate.cli.main import main
from migrate.judging.report import Report
from migrate.reducing import items
from migrate.reducing.items import contents, read_whole, taken_apart
from migrate.reducing.shrink import NothingToShowError, ddmin, shrink
from migrate.reports.rules.commands import conditions
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Severity
from streams.encoder import encode
from streams.other_files import SEARCHED

# A stream with gigabytes of pfns takes its time.
BIG = {"L3C-6"}
QUICK = ["CON-12", "FRM-03", "HDR-02", "ORD-03", "REC-20", "REC-111", "XRC-09", "HYP-12", "L3C-5"]


def ids(report: Report) -> set[str]:
    return {finding.rule.id for finding in report.findings}


# -- ddmin --------------------------------------------------------------------------------------------


@given(st.integers(0, 60).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(n - 1, 0))))))
def test_ddmin_keeps_just_what_is_needed(case):
    count, needed = case
    needed = needed & set(range(count))
    assert ddmin(range(count), lambda kept: needed <= set(kept)) == sorted(needed)


def test_ddmin_never_asks_about_all_of_the_things():
    asked = []
    ddmin(range(8), lambda kept: asked.append(len(kept)) or False)
    assert max(asked) < 8


def test_ddmin_comes_back_to_what_became_free():
    # 0 can only go once 7 has gone.
    assert ddmin(range(8), lambda kept: 0 in kept or 7 not in kept) == []


def test_ddmin_asks_few_questions_where_little_is_needed():
    asked = []
    ddmin(range(4096), lambda kept: asked.append(1) or {17, 3000} <= set(kept))
    assert len(asked) < 100


def test_ddmin_leaves_nothing_out_in_smaller_groups_than_it_may():
    assert ddmin(range(64), lambda kept: 5 in kept, finest=16) == list(range(16))


# -- whole streams -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refused():
    """A guest of 2 MiB in a file of xl's, of four vcpus and as many rounds, whose second root lies too high."""
    b = pv_guest(4, pages=512, vcpus=4, roots=4, table_share=0.04, rounds=4)
    b.wrap("xl")
    return b.build()


@pytest.fixture(scope="module")
def small(refused):
    return shrink(refused, "HYP-22", target="4.20", placement="high")


def test_the_finding_and_the_verdict_stay(small):
    report = check(small.stream, target="4.20", placement="high")
    assert report.verdict == "refuse"
    assert report.failure.rule == "HYP-22"
    assert small.finding.rule.id == "HYP-22"


def test_nothing_else_comes_up_that_fails_the_restore(small):
    report = check(small.stream, target="4.20", placement="high")
    assert {finding.rule.id for finding in report.findings if finding.fatal} == {"HYP-22"}


def test_containers_vcpus_rounds_and_pages_go(small):
    assert check(small.stream).stream.container == "libxc"
    # vcpu 0's own root may lie high: what fails is the context of a second vcpu.
    assert (small.before.vcpus, small.after.vcpus) == (4, 2)
    assert (small.before.records["PAGE_DATA"], small.after.records["PAGE_DATA"]) == (4, 1)
    # start_info, the p2m, the GDT, vcpu 0's root with the L2 in its slot 3, and vcpu 1's root.
    assert small.after.pages <= 6


def test_what_is_told_of_the_stream_is_what_is_in_it(small):
    assert contents(taken_apart(small.stream)) == small.after
    assert small.after.bytes == len(small.stream)


def test_shrinking_is_deterministic(refused, small):
    assert shrink(refused, "HYP-22", target="4.20", placement="high").stream == small.stream


def test_what_is_small_does_not_become_smaller(small):
    again = shrink(small.stream, "HYP-22", target="4.20", placement="high")
    assert again.stream == small.stream


def test_a_clean_one_breaks_no_rule_that_was_not_broken_before(refused):
    def broken(stream):
        report = check(stream, target="4.20", placement="high")
        return {f.rule.id for f in report.findings if f.severity is not Severity.INFO}

    shrunk = shrink(refused, "HYP-22", target="4.20", placement="high", clean=True)
    assert broken(shrunk.stream) <= broken(refused)
    assert len(shrunk.stream) < len(refused) // 20


def test_an_accepted_stream_stays_accepted():
    b = pv_guest(4, pages=64, roots=2)
    shrunk = shrink(b.build(), "L3C-1", target="4.20", placement="low")
    assert shrunk.report.verdict == "accept"
    assert "L3C-1" in ids(shrunk.report)
    assert len(shrunk.stream) < len(b.build()) // 4


def test_an_hvm_guest_loses_its_memory():
    b = hvm_guest(pages=128, vcpus=2, rounds=3)
    b.drop("HVM_CONTEXT")
    shrunk = shrink(b.build())
    assert shrunk.finding.rule.id == "ORD-17"
    assert shrunk.after.pages == 0


def test_without_a_rule_the_reason_of_the_failure_is_kept():
    assert shrink(violating_stream(RULES["XRC-09"]), placement="low").finding.rule.id == "XRC-09"


def test_older_versions_of_pages_go_and_with_them_what_was_sent_twice():
    b = StreamBuilder.pv(4)
    b.rounds = [sorted(b.memory)] * 3
    b.vcpus[0].root = b.chain(b.roots[0])[1]
    shrunk = shrink(b.build(), "XRC-09")
    assert "REC-09" not in ids(shrunk.report)
    assert shrunk.after.pages <= len(b.memory)


def test_the_tail_of_a_stream_that_breaks_off_is_cut_short():
    stream = StreamBuilder.pv(4).build()
    shrunk = shrink(stream[: len(stream) // 2], "FRM-03")
    assert shrunk.report.failure.rule == "FRM-03"
    assert len(shrunk.stream) < 200


def shrunk_violation(id):
    stream = violating_stream(RULES[id])
    return stream, shrink(stream, id, **conditions(RULES[id])._asdict())


@pytest.mark.parametrize("id", QUICK)
def test_a_violation_still_shows_once_it_is_small(id):
    stream, shrunk = shrunk_violation(id)
    assert shrunk.finished
    assert shrunk.finding.rule.id == id
    assert len(shrunk.stream) <= len(stream)


@pytest.mark.slow
@pytest.mark.parametrize("id", [id for id, rule in RULES.items() if rule.violation and id not in BIG])
def test_every_violation_still_shows_once_it_is_small(id):
    _, shrunk = shrunk_violation(id)
    assert shrunk.finished
    assert shrunk.finding.rule.id == id


def test_a_genuine_stream_of_8_mib_becomes_small_in_seconds():
    data = read_whole(str(SAMPLES / "x417-pv32.live4.libxc.zst"))
    shrunk = shrink(data, "HYP-22", target="4.20", placement="high", seconds=30)
    assert shrunk.finished
    assert shrunk.after.pages < 12
    assert len(shrunk.stream) < 64 << 10


def test_time_that_runs_out_leaves_a_stream_that_shows_the_finding(refused):
    shrunk = shrink(refused, "HYP-22", target="4.20", placement="high", seconds=0)
    assert not shrunk.finished
    assert "HYP-22" in ids(check(shrunk.stream, target="4.20", placement="high"))


def test_a_stream_without_the_finding_is_told():
    with pytest.raises(NothingToShowError, match="shows no HYP-22"):
        shrink(StreamBuilder.pv(4).build(), "HYP-22")


def test_a_stream_that_comes_back_needs_a_rule():
    with pytest.raises(NothingToShowError, match="does not fail"):
        shrink(StreamBuilder.pv(8).build())


@pytest.mark.parametrize("cut", [0, 3, 30, 100, 5000, -3])
def test_a_stream_taken_apart_goes_together_again(cut):
    stream = StreamBuilder.pv(4).build()[: cut or None] if cut else b""
    assert encode(taken_apart(stream)) == stream


# -- the command ---------------------------------------------------------------------------------------


def command(*args, **options):
    return CliRunner().invoke(main, ["corpus", "shrink", *map(str, args)], **options)


@pytest.fixture
def stream(tmp_path):
    file = tmp_path / "guest.libxc"
    file.write_bytes(violating_stream(RULES["XRC-09"]))
    return file


def test_the_command_writes_beside_the_stream_and_says_what_is_left(stream):
    result = command(stream)
    out = stream.with_name("guest.libxc.min")
    assert result.exit_code == 0
    assert check(out).failure.rule == "XRC-09"
    assert f"migrate check {out}" in result.output
    assert "X86_PV_P2M_FRAMES" in result.output


def test_the_command_does_not_overwrite(stream):
    out = stream.with_name("guest.libxc.min")
    out.write_bytes(b"precious")
    assert command(stream).exit_code == 2
    assert out.read_bytes() == b"precious"


def test_the_command_reads_a_pipe_and_writes_one(stream):
    words = [sys.executable, "-m", "migrate", "corpus", "shrink", "-", "--rule", "XRC-09", "-o", "-"]
    result = subprocess.run(words, input=stream.read_bytes(), capture_output=True, check=True)
    assert check(result.stdout).failure.rule == "XRC-09"


def test_the_command_leaves_no_file_where_there_is_nothing_to_show(stream):
    result = command(stream, "--rule", "HYP-22")
    assert result.exit_code == 2
    assert "shows no HYP-22" in result.output
    assert not stream.with_name("guest.libxc.min").exists()


@pytest.mark.parametrize("tail", [b"", b"\0" * 99])
def test_an_input_that_holds_nothing_is_told(tmp_path, tail):
    (tmp_path / "stream").write_bytes(tail)
    result = command(tmp_path / "stream", "--rule", "HYP-22")
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert os.listdir(tmp_path) == ["stream"]


def test_an_empty_stream_is_shrunk_to_itself(tmp_path):
    (tmp_path / "stream").write_bytes(b"")
    result = command(tmp_path / "stream")
    assert result.exit_code == 0
    assert (tmp_path / "stream.min").read_bytes() == b""


def test_where_the_restore_stops_little_more_is_read():
    looked_through = SEARCHED  # for the beginning of a stream
    assert len(read_whole(b"not a stream at all" + bytes(items.TAIL * 5))) < looked_through + items.TAIL + 100


def test_a_stream_that_is_too_long_is_told(stream, monkeypatch):
    monkeypatch.setattr(items, "LONGEST", 4096)
    result = command(stream)
    assert result.exit_code == 2
    assert "all of it would be in memory" in result.output


def test_a_file_that_is_changed_while_it_is_read_is_told(tmp_path):
    stream = tmp_path / "guest.zst"
    shutil.copy(SAMPLES / "x417-pv32.plain.libxc.zst", stream)
    with restless(stream):
        result = command(stream, "--placement", "high")
    assert result.exit_code == 2
    assert result.output == f"migrate: {stream}: the file was changed while it was read\n"


def test_what_is_written_is_looked_at_under_the_same_question(stream, tmp_path):
    out = tmp_path / "small.libxc"
    asked = ["--target", "4.20", "--placement", "high"]
    for options in ([], asked, [*asked, "--vcpus", "2"]):
        result = command(stream, *options, "--force", "-o", str(out))
        assert result.output.endswith(f": see it: {shlex.join(['migrate', 'check', str(out), *options])}\n")
