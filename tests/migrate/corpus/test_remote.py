"""Corpora behind URLs: fsspec's memory, zip and tar file systems, without any network."""

import gzip
import io
import resource
import socket
import subprocess
import sys
import tarfile
import zipfile

import pytest
from corpora import ACCEPTED, REFUSED, bad, corpus, corpus_run, deflated, good, lines

from migrate.building.builder import StreamBuilder
from migrate.corpus import fetching
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


# -- names of members are data ------------------------------------------------------------------------


@pytest.fixture
def listener():
    """A port of this machine where nobody should call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def nobody_called(server):
    server.settimeout(0.05)
    try:
        server.accept()
    except TimeoutError:
        return True
    return False


def zipped(place, members):
    with zipfile.ZipFile(place, "w") as out:
        for name, data in members.items():
            out.writestr(zipfile.ZipInfo(name), data)
    return f"zip://::{place}"


def tarred(place, members):
    with tarfile.open(place, "w") as out:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return f"tar://::{place}"


ARCHIVES = {"zip": zipped, "tar": tarred}
NAMES = [
    "x::ftp://127.0.0.1:{port}/pub/y",
    "x::http://127.0.0.1:{port}/y",
    "ftp://127.0.0.1:{port}/pub/y",
    "x::file://{secret}",
    "file://{secret}",
    "x::zip://good::file://{inner}",
    "::",
    "::{secret}",
    "../../../../../../../../{secret}",
    "simplecache::file://{secret}",
    "a::b::c",
    "*",
    "[a]",
    "?",
    "~root",
    "$HOME",
    "{{x}}",
]


@pytest.mark.parametrize("archive", ARCHIVES.values(), ids=ARCHIVES)
@pytest.mark.parametrize("name", NAMES)
def test_a_member_s_name_opens_nothing_but_the_member(tmp_path, listener, archive, name):
    secret, inner = tmp_path / "secret", tmp_path / "inner.zip"
    secret.write_bytes(bad())
    zipped(inner, {"good": bad()})
    name = name.format(port=listener.getsockname()[1], secret=secret, inner=inner)
    url = archive(tmp_path / "corpus", {"good": good(), name: good()})
    result = corpus_run(url, "--no-cache", "-j", "1", "--jsonl", tmp_path / "results")
    told = [line for line in lines(tmp_path / "results") if line["kind"] == "stream"]
    hidden = name.startswith(".")
    assert len(told) == (1 if hidden else 2), result.output
    for line in told:  # what it says of itself, or that it cannot be found; never what others say
        assert line["error"] is not None or line["checks"][0]["verdict"] == "accept"
    assert sum(line["error"] is None for line in told) >= 1
    assert nobody_called(listener)


@pytest.mark.parametrize("name", ["x::ftp://127.0.0.1:1/pub/y", "a::b::c", "*", "deep/x::file:///etc/passwd"])
def test_a_member_with_a_strange_name_is_judged(tmp_path, name):
    url = zipped(tmp_path / "corpus.zip", {name: good(), f"{name}.expect.toml": ACCEPTED.encode()})
    result = corpus_run(url)
    assert result.exit_code == 0
    assert "1 stream, 1 expectation: 1 as expected" in result.output


def test_a_member_is_not_called_by_a_name_that_would_open_another(tmp_path):
    url = zipped(tmp_path / "corpus.zip", {"x::file:///etc/passwd": good()})
    (case,) = discover([url]).cases
    assert case.path == f"zip://x%3A%3Afile:///etc/passwd::{tmp_path / 'corpus.zip'}"


def test_known_deviations_speak_of_the_names_in_an_archive(tmp_path):
    members = {
        "deep/x::y": bad(),
        "deep/x::y.expect.toml": ACCEPTED.encode(),
        "known.toml": b'[[known]]\nstream = "deep/x::y"\nreason = "so it is"\n',
    }
    result = corpus_run(zipped(tmp_path / "corpus.zip", members))
    assert result.exit_code == 0
    assert "1 differs, as is known" in result.output


def test_an_archive_of_many_members_is_opened_once(tmp_path, monkeypatch):
    members = {f"s{number:02}": good() for number in range(20)}
    url = zipped(tmp_path / "corpus.zip", members)
    opened = []
    read = zipfile.ZipFile._RealGetContents
    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", lambda self: (opened.append(self), read(self)))
    assert corpus_run(url, "-j", "1", "--no-cache").exit_code == 0
    assert len(opened) == 1


# -- members are read as they come ------------------------------------------------------------------


def limited(*words, files, **how):
    """`migrate corpus run` that may write no file of more bytes than this."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (files, files))

    command = [sys.executable, "-m", "migrate", "corpus", "run", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, preexec_fn=limit, **how)


def test_a_member_that_becomes_long_is_not_copied_as_a_whole(tmp_path):
    url = deflated(tmp_path / "corpus.zip", StreamBuilder.hvm().build(), 200 << 20)
    assert (tmp_path / "corpus.zip").stat().st_size < 1 << 20
    done = limited(url, "-j", "1", files=fetching.COPIED + (2 << 20))
    assert "1 stream, 0 expectations: 1 new" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_a_member_that_is_longer_than_what_is_copied_is_judged_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "COPIED", 4096)
    members = {"good": good(), "bad": bad(), "packed.gz": gzip.compress(bad())}
    members |= {f"{name.removesuffix('.gz')}.expect.toml": REFUSED.encode() for name in ("bad", "packed")}
    members["good.expect.toml"] = ACCEPTED.encode()
    result = corpus_run(zipped(tmp_path / "corpus.zip", members), "-j", "1")
    assert result.exit_code == 0, result.output
    assert "3 streams, 3 expectations: 3 as expected" in result.output


def test_a_member_that_breaks_off_when_most_of_it_has_been_read_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "COPIED", 4096)
    monkeypatch.setattr(fetching, "PIECE", 4096)
    url = zipped(tmp_path / "corpus.zip", {"good": good()})
    data = bytearray((tmp_path / "corpus.zip").read_bytes())
    data[20_000] ^= 1  # its checksum tells at the end
    (tmp_path / "corpus.zip").write_bytes(data)
    result = corpus_run(url, "-j", "1")
    assert result.exit_code == 3
    assert (
        f"failed    zip://good::{tmp_path / 'corpus.zip'}: cannot be fetched: BadZipFile: Bad CRC-32" in result.output
    )


def test_a_member_that_becomes_too_much_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "FREE_EXPANSION", 1 << 20)
    url = deflated(tmp_path / "corpus.zip", StreamBuilder.hvm().build(), 8 << 20)
    result = corpus_run(url, "-j", "1", "--no-cache", "--max-expansion", "10")
    assert result.exit_code == 3
    assert "times as many (--max-expansion)" in result.output
    assert corpus_run(url, "-j", "1", "--no-cache", "--max-expansion", "0").exit_code == 0


def test_what_is_compressed_in_a_member_has_the_same_bound(tmp_path, monkeypatch):
    from streams import compressed

    monkeypatch.setattr(compressed, "FREE_EXPANSION", 1 << 20)
    packed = gzip.compress(StreamBuilder.hvm().build() + bytes(8 << 20))
    url = zipped(tmp_path / "corpus.zip", {"packed.gz": packed})
    assert corpus_run(url, "-j", "1", "--no-cache", "--max-expansion", "10").exit_code == 3
    assert corpus_run(url, "-j", "1", "--no-cache", "--max-expansion", "0").exit_code == 0


def test_expectations_that_become_long_are_not_read(tmp_path):
    members = {"good": good(), "good.expect.toml": b"#" * (17 << 20)}
    with zipfile.ZipFile(tmp_path / "corpus.zip", "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(name, data)
    result = corpus_run(f"zip://::{tmp_path / 'corpus.zip'}")
    assert result.exit_code == 3
    assert f"good.expect.toml::{tmp_path / 'corpus.zip'}: longer than 16 MiB" in result.output
