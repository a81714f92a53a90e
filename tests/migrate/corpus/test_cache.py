"""Answers that an earlier run has given: taken over where nothing has changed, and of no consequence where damaged."""

import os
import shutil

import pytest
from corpora import bad, corpus_run, good, streams
from project import SAMPLES, restless

from migrate.corpus.cache import Cache, validator
from migrate.corpus.discovery import discover
from migrate.corpus.runner import InProcess, run


def cached(folder, tmp_path, *args):
    corpus_run(folder, "--jsonl", tmp_path / "results", *args)
    return [name for name, told in streams(tmp_path / "results", folder).items() if told["cached"]]


def test_a_second_run_takes_all_from_the_cache_and_says_the_same(folder, tmp_path):
    (folder / "more0").write_bytes(bad() + b"found by no other test")
    first = corpus_run(folder)
    assert cached(folder, tmp_path) == ["more0", "more1", "more2", "more3", "a/same", "b/same"]
    assert corpus_run(folder).output == first.output


def test_without_a_cache_nothing_is_taken_from_it(folder, tmp_path):
    corpus_run(folder)
    assert cached(folder, tmp_path, "--no-cache") == []


def test_a_stream_that_has_changed_is_judged_anew(folder, tmp_path):
    corpus_run(folder)
    (folder / "more1").write_bytes(good() + b"changed")
    assert "more1" not in cached(folder, tmp_path)


def test_another_validator_has_another_cache(tmp_path):
    file = tmp_path / "stream"
    file.write_bytes(good())
    case = discover([str(file)]).cases
    one, other = (Cache(str(tmp_path / "cache"), name) for name in ("one", "other"))
    asked = [run(case, InProcess(), cache=cache)[0].answer.cached for cache in (one, one, other)]
    assert asked == [False, True, False]


def test_a_cached_answer_is_told_of_the_stream_that_was_asked_about(tmp_path):
    cache = Cache(str(tmp_path / "cache"), validator())
    answers = []
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(good())
        answers += [run(discover([str(tmp_path / name)]).cases, InProcess(), cache=cache)[0].answer]
    assert [answer.cached for answer in answers] == [False, True]
    assert answers[1].reports[0].stream.name == str(tmp_path / "two")


@pytest.fixture
def kept(tmp_path):
    """A stream, its answer, the cache that holds it, and the file in it."""
    (tmp_path / "stream").write_bytes(bad())
    cases = discover([str(tmp_path / "stream")]).cases
    cache = Cache(str(tmp_path / "cache"), "x")
    (first,) = run(cases, InProcess(), cache=cache)
    (entry,) = (tmp_path / "cache").rglob("*.json")
    return cases, first, cache, entry


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES = {
    "cut off": lambda entry: entry.write_bytes(entry.read_bytes()[:-1]),
    "longer": lambda entry: entry.write_bytes(entry.read_bytes() + b" "),
    "empty": lambda entry: entry.write_bytes(b""),
    "zeros": lambda entry: entry.write_bytes(bytes(len(entry.read_bytes()))),
    "no seal": lambda entry: entry.write_bytes(entry.read_bytes().partition(b"\n")[2]),
    "other JSON": lambda entry: entry.write_bytes(b"[{}]"),
    "nested": lambda entry: entry.write_bytes(b"[" * 100_000),
    "not text": lambda entry: entry.write_bytes(b"\xff\xfe" * 100),
    "a directory": lambda entry: (entry.unlink(), entry.mkdir()),
    "a pipe": lambda entry: (entry.unlink(), os.mkfifo(entry)),
    "a link to a device": lambda entry: (entry.unlink(), entry.symlink_to("/dev/null")),
    "a huge hole": lambda entry: os.truncate(entry, 1 << 42),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_entry_that_is_damaged_is_as_good_as_none(kept, damage):
    cases, first, cache, entry = kept
    damage(entry)
    (second,) = run(cases, InProcess(), cache=cache)
    assert not second.answer.cached
    assert second == first


def test_an_entry_that_is_damaged_in_any_byte_is_as_good_as_none(kept):
    cases, first, cache, entry = kept
    data = entry.read_bytes()
    for at in range(0, len(data), 37):
        entry.write_bytes(flipped(data, at))
        (again,) = run(cases, InProcess(), cache=cache)
        assert (again.answer.cached, again) == (False, first)


def test_an_entry_about_another_stream_is_none(kept, tmp_path):
    _, first, cache, entry = kept
    (tmp_path / "stream").write_bytes(good())
    (other,) = run(discover([str(tmp_path / "stream")]).cases, InProcess(), cache=cache)
    (new,) = (file for file in (tmp_path / "cache").rglob("*.json") if file != entry)
    new.write_bytes(entry.read_bytes())
    (again,) = run(discover([str(tmp_path / "stream")]).cases, InProcess(), cache=cache)
    assert again == other
    assert again.answer != first.answer


def test_a_damaged_entry_is_replaced(kept):
    cases, _, cache, entry = kept
    entry.write_bytes(b"[]")
    assert [run(cases, InProcess(), cache=cache)[0].answer.cached for _ in range(2)] == [False, True]


def test_a_file_that_is_changed_while_it_is_read_is_told_and_not_kept(tmp_path):
    stream = tmp_path / "guest.zst"
    shutil.copy(SAMPLES / "x417-pv32.plain.libxc.zst", stream)
    cases = discover([str(stream)]).cases
    with restless(stream):
        (result,) = run(cases, InProcess(), cache=Cache(str(tmp_path / "cache"), "x"))
    assert result.answer.error == "the file was changed while it was read"
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_a_huge_file_with_next_to_nothing_in_it_is_not_read_for_the_cache(tmp_path):
    (tmp_path / "stream").write_bytes(good())
    os.truncate(tmp_path / "stream", 1 << 42)
    (result,) = run(discover([str(tmp_path / "stream")]).cases, InProcess(), cache=Cache(str(tmp_path / "cache"), "x"))
    assert result.answer.error is None
    assert not list((tmp_path / "cache").rglob("*.json"))
