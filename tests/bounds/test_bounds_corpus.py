"""What may lie in a corpus besides streams: nothing of it is waited for, followed around, or read without end."""

import os
import threading
from contextlib import suppress

import pytest
import zstandard
from corpora import deflated

from migrate.building.builder import StreamBuilder

GOOD = StreamBuilder.hvm().build()


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "good.libxc").write_bytes(GOOD)
    return folder


@pytest.fixture
def run(confinement):
    """`migrate corpus run` under the law, for the size of one good stream."""

    def run(*arguments):
        return confinement.run(["corpus", "run", "-j", "1", "--quiet", "--no-cache", *arguments], len(GOOD))

    return run


def only_the_good_one(ended):
    return ended.code == 0 and "1 stream" in ended.out


def test_a_fifo_is_passed_over(corpus, run):
    os.mkfifo(corpus / "fifo")
    assert only_the_good_one(run(corpus))


def test_a_socket_is_passed_over(corpus, run):
    import socket

    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(corpus / "s"))
        assert only_the_good_one(run(corpus))


def test_links_to_themselves_and_to_nowhere_are_passed_over(corpus, run):
    (corpus / "loop").symlink_to("loop")
    (corpus / "there").symlink_to("back")
    (corpus / "back").symlink_to("there")
    (corpus / "nowhere").symlink_to("no/such/file")
    assert only_the_good_one(run(corpus))


def test_a_link_to_the_directory_above_is_not_followed_round(corpus, run):
    (corpus / "inner").mkdir()
    (corpus / "inner" / "up").symlink_to(corpus)
    assert only_the_good_one(run(corpus))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/full", "/dev/random"])
def test_a_link_to_a_device_is_passed_over(corpus, run, device):
    (corpus / "device").symlink_to(device)
    assert only_the_good_one(run(corpus))


def test_a_link_to_a_stream_that_is_there_counts_once(corpus, run):
    (corpus / "again").symlink_to("good.libxc")
    assert only_the_good_one(run(corpus))


def test_a_file_that_may_not_be_read_is_told(corpus, run):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (corpus / "closed").write_bytes(GOOD)
    (corpus / "closed").chmod(0)
    assert run(corpus).code == 3


def test_a_file_of_terabytes_without_contents_is_not_read(corpus, run):
    with (corpus / "sparse").open("wb") as file:
        file.truncate(1 << 42)
    ended = run(corpus)
    assert ended.code in (0, 3)


def test_a_stream_that_ends_in_terabytes_of_nothing_is_judged(corpus, run):
    with (corpus / "sparse").open("wb") as file:
        file.write(GOOD)
        file.truncate(1 << 42)
    assert run(corpus).code == 0


def test_a_bomb_does_not_keep_the_others_from_being_judged(corpus, run):
    rle = (1 << 1 | 128 << 10 << 3).to_bytes(3, "little") + b"\0"
    bomb = b"\x28\xb5\x2f\xfd" + bytes([0, 7 << 3]) + rle * (32 << 13)
    (corpus / "bomb.zst").write_bytes(zstandard.ZstdCompressor().compress(GOOD) + bomb)
    ended = run(corpus)
    assert ended.code == 3
    assert "times their length" in ended.out
    assert "2 streams" in ended.out


DEEP = 100_000
TEXTS = {
    "lists": "x = " + "[" * DEEP + "]" * DEEP,
    "tables": "[" + "a." * 2000 + "a]\n",
    "many": "[[expect]]\n" * 20_000,
    "bytes": "\x1b[31m\0\x07",
}


@pytest.mark.parametrize("name", ["good.libxc.expect.toml", "expect.toml", "known.toml"])
@pytest.mark.parametrize("what", TEXTS)
def test_expectations_that_are_a_knot_are_told_as_unusable(corpus, run, name, what):
    (corpus / name).write_text(TEXTS[what])
    ended = run(corpus)
    assert ended.code == (2 if name == "known.toml" else 3)
    assert "\x1b" not in ended.out + ended.err


def test_an_expectation_that_is_a_fifo_or_a_loop_is_not_waited_for(corpus, run):
    os.mkfifo(corpus / "good.libxc.expect.toml")
    (corpus / "expect.toml").symlink_to("expect.toml")
    (corpus / "known.toml").symlink_to("/dev/zero")
    assert run(corpus).code in (0, 2)


def test_a_loop_of_links_that_is_named_is_told(confinement, tmp_path):
    path = tmp_path / "loop"
    path.symlink_to("loop")
    ended = confinement.run(["check", path], 0)
    assert ended.code == 2
    assert "symbolic links" in ended.err


def test_a_member_of_an_archive_that_becomes_long_is_not_kept(confinement, tmp_path):
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    url = deflated(tmp_path / "corpus.zip", GOOD, 256 << 20)
    size = (tmp_path / "corpus.zip").stat().st_size
    ended = confinement.run(["corpus", "run", "-j", "1", "--quiet", url], size)
    assert ended.code == 0
    assert "1 stream" in ended.out


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_a_device_without_end_is_not_shrunk(confinement, tmp_path, device):
    ended = confinement.run(["corpus", "shrink", device, "-o", tmp_path / "out"], 0)
    assert ended.code == 2
    assert ended.err.startswith(f"migrate: {device}: ")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("head", [b"", GOOD], ids=["of nothing", "after a stream"])
def test_an_endless_pipe_is_not_shrunk(confinement, tmp_path, head):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def endless():
        with suppress(BrokenPipeError), open(fifo, "wb", buffering=0) as end:
            end.write(head)
            while True:
                end.write(bytes(1 << 20))

    writer = threading.Thread(target=endless, daemon=True)
    writer.start()
    ended = confinement.run(["corpus", "shrink", fifo, "-o", tmp_path / "out"], 0)
    writer.join()
    assert ended.code == 2
    assert ended.err.startswith(f"migrate: {fifo}: ")
    assert not (tmp_path / "out").exists()
