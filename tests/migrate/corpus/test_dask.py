"""A corpus through dask: a real scheduler and two workers, all of them on this machine."""

import pytest
from corpora import ACCEPTED, REFUSED, bad, corpus_run, expect, good, lines

distributed = pytest.importorskip("distributed", reason="distributed is not installed (extra dask)")


@pytest.fixture(scope="module")
def address():
    options = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(processes=True, silence_logs=50, **options) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "corpus"
    root.mkdir()
    for number in range(12):
        (root / f"s{number:02}").write_bytes(good() if number % 2 else bad())
        expect(root, f"s{number:02}", ACCEPTED if number % 3 else REFUSED)
    (root / "unreadable").write_bytes(b"\x28\xb5\x2f\xfd no zstd after all")
    return root


def test_dask_s_workers_say_the_same_as_this_process(address, folder, tmp_path):
    def told(*options):
        result = corpus_run(folder, "--no-cache", "--jsonl", tmp_path / "results", *options)
        times = ("seconds", "cached")
        objects = [{key: one[key] for key in one if key not in times} for one in lines(tmp_path / "results")]
        return result.exit_code, result.output, objects

    assert told("--dask", address) == told("--jobs", "1")


def test_where_no_scheduler_answers_it_is_told_and_exits_with_2(folder, monkeypatch):
    monkeypatch.setattr("migrate.corpus.workers.DASK_PATIENCE", "1s")
    result = corpus_run(folder, "--dask", "tcp://127.0.0.1:9")
    assert result.exit_code == 2
    assert "migrate: no dask scheduler at tcp://127.0.0.1:9: " in result.output


@pytest.mark.slow
def test_workers_are_started_here_where_that_is_asked_for(folder):
    result = corpus_run(folder, "--no-cache", "--dask", "local", "--jobs", "2")
    assert "13 streams, 12 expectations" in result.output
