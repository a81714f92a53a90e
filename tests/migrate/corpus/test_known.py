"""Deviations that are known."""

from datetime import date

import pytest
from corpora import ACCEPTED, corpus, corpus_run, expect

from migrate.corpus.known import load_known


def known(folder, text):
    (folder / "known.toml").write_text(text)


WRONG = '[[known]]\nstream = "b/same"\nreason = "the reason"\n'


def test_a_known_deviation_is_told_but_fails_nothing(folder):
    known(folder, WRONG)
    result = corpus_run(folder)
    assert result.exit_code == 0
    assert f"deviates  {folder / 'b' / 'same'}" in result.output
    assert "known: the reason" in result.output


def test_a_known_deviation_that_has_expired_fails_the_run(folder):
    known(folder, WRONG + "expires = 2020-02-29\n")
    result = corpus_run(folder)
    assert result.exit_code == 1
    assert "was known until 2020-02-29: the reason" in result.output


def test_a_known_deviation_holds_on_its_last_day(tmp_path):
    file = tmp_path / "known.toml"
    file.write_text(WRONG + "expires = 2024-05-06\n")
    days = (date(2024, 5, 6), date(2024, 5, 7))
    assert [load_known(str(file), day)[0].expired for day in days] == [False, True]


def test_a_list_of_known_deviations_may_lie_elsewhere(folder, tmp_path):
    (tmp_path / "list").write_text(WRONG)
    assert corpus_run(folder, "--known", tmp_path / "list").exit_code == 0


@pytest.mark.parametrize("limit", ['aspects = ["step"]', 'target = "4.19"', 'placement = "high"'])
def test_a_known_deviation_covers_nothing_else(folder, limit):
    known(folder, WRONG + limit + "\n")
    assert corpus_run(folder).exit_code == 1


def test_a_directory_s_known_deviations_hold_for_what_lies_in_it_alone(folder):
    known(folder / "a", WRONG.replace("b/same", "same"))
    assert corpus_run(folder).exit_code == 1


def test_a_known_deviation_that_is_none_any_more_is_told(folder):
    known(folder, WRONG + '[[known]]\nstream = "more1"\nreason = "long ago"\n')
    result = corpus_run(folder)
    assert result.exit_code == 0
    assert f"no longer needed: {folder / 'known.toml'}: more1: long ago" in result.output


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[known]]\nstream = 'x'\n", "known 1: reason: missing"),
        ("[[known]]\nstream = 'x'\nreason = ' '\n", "known 1: reason: empty"),
        (WRONG + "expires = 'soon'\n", "known 1: expires: expected a date, found 'soon'"),
        (WRONG + "aspects = ['stpe']\n", "known 1: aspects: expected some of verdict, step, "),
        (WRONG + "untill = 1\n", "known 1: untill: unknown key"),
        ("known = 3\n", "known: expected an array, found 3"),
    ],
)
def test_a_mistake_in_a_list_of_known_deviations_exits_with_2(folder, text, complaint):
    known(folder, text)
    result = corpus_run(folder)
    assert result.exit_code == 2
    assert f"migrate: {folder / 'known.toml'}: {complaint}" in result.output


# -- entries that match nothing -----------------------------------------------------------------------

NOTHING = '[[known]]\nstream = "{}"\nreason = "long ago"\n'


def matchless(result):
    return [line for line in result.output.splitlines() if line.startswith("matches no stream: ")]


def test_an_entry_that_matches_no_stream_is_told(folder):
    known(folder, WRONG + NOTHING.format("b/sane"))
    result = corpus_run(folder)
    assert result.exit_code == 0
    assert matchless(result) == [f"matches no stream: {folder / 'known.toml'}: b/sane: long ago"]


def test_an_entry_in_a_directory_without_streams_is_told(folder):
    (folder / "empty").mkdir()
    known(folder / "empty", NOTHING.format("x"))
    assert matchless(corpus_run(folder)) == [f"matches no stream: {folder / 'empty' / 'known.toml'}: x: long ago"]


def test_of_a_part_of_a_directory_nothing_is_told_about_the_rest(folder):
    known(folder, WRONG + NOTHING.format("more3"))
    assert matchless(corpus_run(folder / "more1")) == []


def test_an_entry_of_a_list_that_matches_no_stream_is_told(folder, tmp_path):
    (tmp_path / "list").write_text(WRONG + NOTHING.format("more9"))
    assert matchless(corpus_run(folder, "--known", tmp_path / "list")) == [
        f"matches no stream: {tmp_path / 'list'}: more9: long ago"
    ]


def test_an_entry_about_another_shard_s_stream_is_not_told(folder, tmp_path):
    known(folder, WRONG + "".join(NOTHING.format(name) for name in ("more0", "more1", "more2", "more3", "more4")))
    parts = [tmp_path / f"part{index}" for index in (1, 2)]
    told = [f"matches no stream: {folder / 'known.toml'}: more4: long ago"]
    for index, part in enumerate(parts, 1):
        assert matchless(corpus_run(folder, "--shard", f"{index}/2", "--jsonl", part)) == told
    assert matchless(corpus("merge", *parts)) == told


def test_an_entry_that_another_run_matches_is_not_told_of_both(folder, tmp_path):
    (tmp_path / "list").write_text(WRONG + NOTHING.format("more1"))
    parts = [tmp_path / f"part{index}" for index in (1, 2)]
    corpus_run(folder / "b", "--known", tmp_path / "list", "--jsonl", parts[0])
    corpus_run(folder / "more1", "--known", tmp_path / "list", "--jsonl", parts[1])
    assert matchless(corpus("merge", *parts)) == []


def test_what_is_known_not_to_be_judged_fails_nothing(tmp_path):
    (tmp_path / "junk").write_bytes(b"not a stream at all\n" * 9)
    expect(tmp_path, "junk", ACCEPTED)
    known(tmp_path, WRONG.replace("b/same", "junk"))
    result = corpus_run(tmp_path)
    assert result.exit_code == 0
    assert f"deviates  {tmp_path / 'junk'}" in result.output
