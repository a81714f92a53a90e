"""A run over many streams: workers that die, interruptions, shards, and what an earlier run knows already."""

import io
import json
import os
import re
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from corpora import ACCEPTED, bad, corpus, corpus_run, expect, good, lines, started, streams
from rich.console import Console

from migrate.building.builder import StreamBuilder
from migrate.cli.corpus.live import LiveTable
from migrate.corpus.discovery import Shard, discover
from migrate.corpus.results import Status
from migrate.corpus.runner import InProcess, run

SMALL_CORPUS = 2000
# Seconds. Far more than anything here takes.
PATIENCE = 30


def within(seconds, question):
    end = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
    return answer


def opened_by_a_worker(fifo):
    """Wait until a worker has begun to read; returns the end to write to, and the worker."""
    end = os.open(fifo, os.O_WRONLY)
    return end, within(PATIENCE, lambda: reader_of(fifo))


def killed(worker, fifo):
    """Kill a worker; returns the one that then reads in its place."""
    os.kill(worker, signal.SIGKILL)
    return within(PATIENCE, lambda: reader_of(fifo, worker))


def reader_of(fifo, *others):
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(fd) for fd in (process / "fd").iterdir()]
        except OSError:
            continue
        if str(fifo) in links and int(process.name) not in (os.getpid(), *others):
            return int(process.name)
    return None


# -- streams of one name ------------------------------------------------------------------------------


def test_streams_of_one_name_in_two_directories_are_two_streams(folder, tmp_path):
    result = corpus_run(folder, "--jsonl", tmp_path / "results")
    assert f"differs   {folder / 'b' / 'same'}\n" in result.output
    assert str(folder / "a" / "same") not in result.output
    told = {line["stream"]: line["status"] for line in lines(tmp_path / "results") if line["kind"] == "stream"}
    assert (told[str(folder / "a" / "same")], told[str(folder / "b" / "same")]) == ("fine", "differs")


# -- many workers -------------------------------------------------------------------------------------


def without_times(text):
    objects = [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in told.items() if key not in ("seconds", "cached")} for told in objects]


def test_the_output_is_the_same_however_many_workers_ran(folder, tmp_path):
    def outputs(jobs):
        written = tmp_path / f"jobs{jobs}"
        options = ("--no-cache", "--jsonl", written)
        result = corpus_run(folder, *options, "--jobs", jobs, "--markdown", tmp_path / "md", "--sarif", tmp_path / "s")
        documents = [(tmp_path / name).read_text() for name in ("md", "s")]
        return result.exit_code, result.output, without_times(written.read_text()), documents

    assert outputs(1) == outputs(2) == outputs(3)


@pytest.mark.slow
def test_two_thousand_streams_are_judged_and_told_in_their_order(tmp_path):
    data = StreamBuilder.hvm().build()
    (tmp_path / "streams").mkdir()
    for number in range(SMALL_CORPUS):
        (tmp_path / "streams" / f"{number:04}").write_bytes(data)
    result = corpus_run(tmp_path / "streams", "--no-cache", "--jsonl", tmp_path / "results")
    assert result.exit_code == 0
    assert list(streams(tmp_path / "results", tmp_path / "streams")) == [
        f"{number:04}" for number in range(SMALL_CORPUS)
    ]
    assert f"{SMALL_CORPUS} streams, 0 expectations: {SMALL_CORPUS} new" in result.output


def test_a_worker_that_is_killed_costs_the_stream_that_it_read_and_no_other(folder):
    os.mkfifo(folder / "fifo")
    process = started(folder / "fifo", folder, "--jobs", "2", "--no-cache")
    end, worker = opened_by_a_worker(folder / "fifo")
    os.kill(killed(worker, folder / "fifo"), signal.SIGKILL)  # in company, and then alone
    output, complaints = process.communicate(timeout=PATIENCE)
    os.close(end)
    assert complaints == ""
    assert f"failed    {folder / 'fifo'}: the worker process died" in output
    assert "7 streams, 6 expectations: 5 as expected; 1 could not be tried; 1 differs" in output
    assert process.returncode == 1


def test_what_was_in_work_with_a_killed_worker_is_tried_again(folder):
    os.mkfifo(folder / "fifo")
    process = started(folder / "fifo", folder, "--jobs", "2", "--no-cache")
    end, worker = opened_by_a_worker(folder / "fifo")
    killed(worker, folder / "fifo")
    os.write(end, bad())
    os.close(end)
    output, _ = process.communicate(timeout=PATIENCE)
    assert f"new       {folder / 'fifo'}: refuse" in output


def test_where_every_worker_dies_every_stream_is_told_as_lost(folder):
    def dying(number):
        return ProcessPoolExecutor(1, initializer=signal.raise_signal, initargs=(signal.SIGKILL,))

    results = run(discover([str(folder)]).cases, dying(0), renew=dying)
    assert [result.status for result in results] == [Status.FAILED] * 6


# -- interruptions ------------------------------------------------------------------------------------


def interrupted(folder, results):
    """A run over six streams and a seventh that has no end, interrupted once the six are done."""
    os.mkfifo(folder / "zz")
    process = started(folder, folder / "zz", "--jobs", "2", "--no-cache", "--jsonl", results)
    end, _ = opened_by_a_worker(folder / "zz")
    within(PATIENCE, lambda: results.exists() and results.read_bytes().count(b"\n") == 6)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=PATIENCE)
    os.close(end)
    (folder / "zz").unlink()
    return process.returncode, complaints


def test_an_interrupted_run_stops_at_once_and_keeps_what_is_done(folder, tmp_path):
    code, complaints = interrupted(folder, tmp_path / "results")
    assert code == 130
    assert complaints.startswith("migrate: interrupted: 6 of 7 streams judged; --resume ")
    assert len(streams(tmp_path / "results", folder)) == 6
    assert lines(tmp_path / "results")[-1]["kind"] == "stream"


def test_a_resumed_run_judges_only_what_is_left(folder, tmp_path):
    results = tmp_path / "results"
    interrupted(folder, results)
    before = streams(results, folder)
    (folder / "zz").write_bytes(good())
    result = corpus_run(folder, "--no-cache", "--resume", results, "--jsonl", results)
    after = streams(results, folder)
    assert {name: told["seconds"] for name, told in after.items() if name in before} == {
        name: told["seconds"] for name, told in before.items()
    }
    assert list(after) == ["more0", "more1", "more2", "more3", "zz", "a/same", "b/same"]
    assert "7 streams, 6 expectations: 5 as expected; 1 new: nothing is expected of it yet; 1 differs" in result.output


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "more1").write_bytes(good() + b"more"),
        lambda folder: expect(folder, "more1", ACCEPTED.replace("low", "high")),
    ],
    ids=["stream", "question"],
)
def test_what_has_changed_meanwhile_is_judged_anew(folder, tmp_path, change):
    results = tmp_path / "results"
    corpus_run(folder, "--no-cache", "--jsonl", results)
    before = streams(results, folder)
    change(folder)
    corpus_run(folder, "--no-cache", "--resume", results, "--jsonl", results)
    changed = [name for name, told in streams(results, folder).items() if told["seconds"] != before[name]["seconds"]]
    assert changed == ["more1"]


@pytest.mark.parametrize("content", ["no json\n", "{}\n", '{"kind": "stream", "schema": 1}\n', "[]\n", "\xff\n"])
def test_results_that_are_none_exit_with_2_and_are_named(tmp_path, content):
    (tmp_path / "results").write_bytes(content.encode("latin-1"))
    result = corpus("merge", tmp_path / "results")
    assert result.exit_code == 2
    assert result.output.startswith(f"migrate: {tmp_path / 'results'}: ")


# -- shards -------------------------------------------------------------------------------------------


def test_every_stream_belongs_to_one_shard_wherever_the_corpus_lies(folder, tmp_path):
    moved = tmp_path / "elsewhere"
    (tmp_path / "corpus").rename(moved)
    parts = [names(moved, Shard(index, 3)) for index in (1, 2, 3)]
    moved.rename(tmp_path / "corpus")
    assert parts == [names(folder, Shard(index, 3)) for index in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(names(folder, None))


def names(root, shard):
    return [os.path.relpath(case.path, root) for case in discover([str(root)], shard=shard).cases]


def test_merged_shards_are_as_one_run(folder, tmp_path):
    expect(folder, "gone", ACCEPTED)
    whole = corpus_run(folder, "--no-cache", "--sarif", tmp_path / "whole")
    parts = [tmp_path / f"part{index}" for index in (1, 2, 3)]
    for index, part in enumerate(parts, 1):
        corpus_run(folder, "--shard", f"{index}/3", "--jsonl", part)
    merged = corpus("merge", *reversed(parts), "--sarif", tmp_path / "merged")
    assert (merged.exit_code, merged.output) == (whole.exit_code, whole.output)
    assert (tmp_path / "merged").read_text() == (tmp_path / "whole").read_text()


def test_a_shard_that_is_not_there_is_told_and_exits_with_3(folder, tmp_path):
    (folder / "b" / "same").write_bytes(good())
    corpus_run(folder, "--shard", "1/2", "--jsonl", tmp_path / "part1")
    result = corpus("merge", tmp_path / "part1")
    assert result.exit_code == 3
    assert "incomplete: shard 2/2 is not among the files" in result.output


def test_a_run_that_was_cut_off_is_told_and_exits_with_3(folder, tmp_path):
    (folder / "b" / "same").write_bytes(good())
    results = tmp_path / "results"
    corpus_run(folder, "--jsonl", results)
    results.write_bytes(results.read_bytes()[:-20])
    result = corpus("merge", results)
    assert result.exit_code == 3
    assert f"incomplete: {results}: the run was interrupted" in result.output


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_shard_that_cannot_be_is_wrong_usage(folder, shard):
    assert corpus_run(folder, "--shard", shard).exit_code == 2


# -- on a terminal ------------------------------------------------------------------------------------


def test_the_live_table_tells_how_many_are_done_failing_left_and_slow(folder):
    live = LiveTable(12, quiet=True)
    for result in run(discover([str(folder)]).cases, InProcess()):
        live.add(result)
    console = Console(width=120, file=io.StringIO())
    console.print(live.table(2.0))
    shown = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert shown[0].startswith("streams 6/12")
    assert shown[1:3] == ["failing 1", "rate 3.0/s 0:00:02 gone, 0:00:02 left"]
    assert re.match(r"slowest \d\.\d\d s /", shown[3])


def test_a_narrow_window_does_not_shorten_the_figures_of_the_live_table():
    console = Console(width=30, file=io.StringIO())
    console.print(LiveTable(123_456, quiet=True).table(2.0))
    assert console.file.getvalue().split()[:2] == ["streams", "0/123456"]


def test_a_file_whose_bytes_cannot_be_read_is_told_and_exits_with_3(tmp_path):
    (tmp_path / "stream").symlink_to("/proc/self/mem")  # its first page is never mapped
    result = corpus_run(tmp_path)
    assert result.exit_code == 3
    assert f"failed    {tmp_path / 'stream'}: Input/output error" in result.output


@pytest.mark.parametrize("option", ["--junit", "--sarif", "--markdown", "--jsonl"])
def test_an_output_that_cannot_be_written_exits_with_2(folder, option):
    result = corpus_run(folder, option, folder / "nowhere" / "file")
    assert result.exit_code == 2
    assert "No such file or directory" in result.output
