"""Corpora behind URLs: fsspec's memory and zip file systems, without any network."""

import gzip
import io
import zipfile

import pytest
from corpora import ACCEPTED, REFUSED, bad, corpus, corpus_run, good, lines

from migrate.corpus.discovery import Shard, discover

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

SHARED = f"[bad]\n{REFUSED}".replace("[[expect", "[[bad.expect")
FILES = {
    "corpus/good": good(),
    "corpus/deep/packed.gz": gzip.compress(good()),
    "corpus/good.expect.toml": ACCEPTED.encode(),
    "corpus/deep/packed.expect.toml": ACCEPTED.encode(),
    "corpus/deep/bad": bad(),
    "corpus/deep/expect.toml": SHARED.encode(),
    "corpus/deep-er/bad": bad(),
    "corpus/.hidden/bad": bad(),
    "corpus/README.md": b"not a stream",
}


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    for path, data in FILES.items():
        files.pipe(f"/{path}", data)
    yield files
    files.rm("/", recursive=True)


@pytest.fixture
def archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "corpus.zip", "w") as out:
        for path, data in FILES.items():
            out.writestr(path, data)
    return tmp_path / "corpus.zip"


def paths(*urls, **how):
    return [case.path for case in discover(urls, **how).cases]


def test_a_url_means_all_streams_below_it(memory):
    assert paths("memory://corpus") == [
        "memory:///corpus/good",
        "memory:///corpus/deep/bad",
        "memory:///corpus/deep/packed.gz",
        "memory:///corpus/deep-er/bad",
    ]


def test_a_pattern_in_a_url_means_what_it_matches(memory):
    assert paths("memory://corpus/*/bad") == ["memory:///corpus/deep-er/bad", "memory:///corpus/deep/bad"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_streams_behind_a_url_are_judged_and_compared(memory, jobs):
    result = corpus_run("memory://corpus", "--jobs", jobs, "--no-cache")
    assert result.exit_code == 0, result.output
    assert "4 streams, 3 expectations: 3 as expected; 1 new" in result.output


def test_streams_in_an_archive_are_judged_and_compared(archive, tmp_path):
    result = corpus_run(f"zip://corpus::{archive}", "--jsonl", tmp_path / "results")
    assert result.exit_code == 0, result.output
    assert "4 streams, 3 expectations: 3 as expected; 1 new" in result.output
    assert lines(tmp_path / "results")[0]["stream"] == f"zip://corpus/good::{archive}"


@pytest.mark.parametrize("url", ["zip://::{}", "zip://corpus/**/bad::{}", "zip://corpus/deep/bad::{}"])
def test_an_archive_is_asked_for_in_whole_and_in_part(archive, url):
    assert f"zip://corpus/deep/bad::{archive}" in paths(url.format(archive))


def test_an_archive_within_a_remote_place_is_opened(memory, archive):
    memory.pipe("/packed.zip", archive.read_bytes())
    assert paths("zip://corpus/good::memory://packed.zip") == ["zip://corpus/good::memory://packed.zip"]


def test_a_stream_belongs_to_the_same_shard_wherever_the_corpus_lies(memory, archive, tmp_path):
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path)
    for index in (1, 2, 3):
        shard = Shard(index, 3)
        found = [paths(root, shard=shard) for root in ("memory://corpus", str(tmp_path / "corpus"))]
        remote, local = ([path.rpartition("corpus/")[2] for path in some] for some in found)
        assert sorted(remote) == sorted(local)


def test_answers_about_remote_streams_are_cached(memory, tmp_path):
    memory.pipe("/one/stream", good() + b"asked about by no other test")
    told = []
    for _ in range(2):
        corpus_run("memory://one", "--jsonl", tmp_path / "results")
        told.append(lines(tmp_path / "results")[0]["cached"])
    assert told == [False, True]


def test_known_deviations_are_found_behind_a_url(memory):
    memory.pipe("/corpus/good.expect.toml", REFUSED.encode())
    memory.pipe("/corpus/known.toml", b'[[known]]\nstream = "good"\nreason = "so it is"\n')
    result = corpus_run("memory://corpus")
    assert result.exit_code == 0
    assert "deviates  memory:///corpus/good" in result.output


def test_what_is_expected_but_not_there_is_missing(memory):
    memory.rm("/corpus/good")
    assert discover(["memory://corpus"]).missing == ("memory:///corpus/good",)


def test_a_damaged_archive_is_told_without_a_traceback(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("good", good())
    data = bytearray(buffer.getvalue())
    data[60:80] = bytes(20)
    (tmp_path / "broken.zip").write_bytes(data)
    result = corpus_run(f"zip://good::{tmp_path / 'broken.zip'}")
    assert result.exit_code == 3
    assert f"failed    zip://good::{tmp_path / 'broken.zip'}: " in result.output


@pytest.mark.parametrize(
    "url", ["memory://nothing", "memory://nothing/*", "nosuch://x", "zip://::/nowhere.zip", "nosuch://a/*::b"]
)
def test_a_url_that_nothing_answers_to_exits_with_2(memory, url):
    result = corpus_run(url)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_nothing_is_written_behind_a_url(memory):
    before = set(memory.find("/"))
    result = corpus("accept", "memory://corpus", "--yes")
    assert set(memory.find("/")) == before
    assert "kept      memory:///corpus/deep-er/bad: expectations can only be written to local files" in result.output
