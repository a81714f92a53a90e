"""`migrate corpus accept`: what comes out becomes what is expected, and nothing that people wrote is lost."""

import pytest
from corpora import ACCEPTED, REFUSED, bad, corpus, corpus_run, expect, good

from migrate.corpus.expectations import load_own, load_shared
from migrate.corpus.expected_verdict import ExpectedVerdict

MEASURED = '[[expect]]\ntarget = "4.20"\nplacement = "low"\nmeasured.verdict = "refuse"\nmeasured.step = "pin"\n'
# No vcpu came with a context: libxc's own complaint, after all records are in.
WITHOUT_CONTEXT = ExpectedVerdict("refuse", "context", "libxc", 0)
HAND_WRITTEN = """\
# Where it comes from.
[provenance]
who = "me"      # by hand

[[expect]]
target = "4.20.0"
placement = "low"
verdict = "accept"  # it should

# The other case.
[[expect]]
target = "4.20"
placement = "high"
verdict = "refuse"

[facts]
pages = [
    1,  # one
]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "good").write_bytes(good())
    (tmp_path / "bad").write_bytes(bad())
    return tmp_path


def test_a_new_stream_gets_a_file_that_the_next_run_agrees_with(folder):
    result = corpus("accept", folder, "--yes", "--target", "4.20", "--placement", "high", "--placement", "low")
    assert result.exit_code == 0, result.output
    expected = [(one.target, one.placement) for one in load_own(folder / "bad.expect.toml").expect]
    assert expected == [("4.20", "high"), ("4.20", "low")]
    assert "2 streams, 4 expectations: 2 as expected" in corpus_run(folder).output


def test_a_new_stream_is_told_of_in_the_directory_s_file_where_there_is_one(folder):
    (folder / "expect.toml").write_text("# ours\n[good]\n" + ACCEPTED.replace("[[expect", "[[good.expect"))
    corpus("accept", folder, "--yes", "--target", "4.20", "--placement", "low")
    entries = load_shared(folder / "expect.toml")
    assert entries["bad"].expect[0].outcome == WITHOUT_CONTEXT
    assert (folder / "expect.toml").read_text().startswith("# ours\n[good]\n")


def test_what_changes_is_shown_before_it_is_asked_about(folder):
    expect(folder, "bad", ACCEPTED)
    result = corpus("accept", folder / "bad", input="n\n")
    assert '-verdict = "accept"\n+verdict = "refuse"\n' in result.output
    assert result.output.index("+verdict") < result.output.index("Write 1 file, about 1 stream?")


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_nothing_is_written_without_consent(folder, answer):
    expect(folder, "bad", ACCEPTED)
    result = corpus("accept", folder, input=answer)
    assert result.exit_code == 1
    assert (folder / "bad.expect.toml").read_text() == ACCEPTED
    assert not (folder / "good.expect.toml").exists()


def test_consent_is_enough(folder):
    expect(folder, "bad", ACCEPTED)
    assert corpus("accept", folder / "bad", input="y\n").exit_code == 0
    assert load_own(folder / "bad.expect.toml").expect[0].outcome == WITHOUT_CONTEXT


def test_what_people_wrote_stays(folder):
    expect(folder, "bad", HAND_WRITTEN)
    assert corpus("accept", folder / "bad", "--yes").exit_code == 0
    after = (folder / "bad.expect.toml").read_text()
    assert after == HAND_WRITTEN.replace(
        'verdict = "accept"  # it should\n',
        'verdict = "refuse"  # it should\nstep = "context"\ncall = "libxc"\nvcpu = 0\n',
    )


def test_what_real_xen_did_stays_and_this_validator_s_opinion_is_written_beside_it(folder):
    expect(folder, "good", MEASURED)
    corpus("accept", folder / "good", "--yes")
    (after,) = load_own(folder / "good.expect.toml").expect
    assert after.measured.outcome == ExpectedVerdict("refuse", "pin")
    assert after.outcome == ExpectedVerdict("accept")


def test_an_opinion_that_real_xen_shares_is_taken_away_again(folder):
    expect(folder, "bad", MEASURED.replace('"pin"', '"context"') + 'verdict = "accept"\n')
    corpus("accept", folder / "bad", "--yes")
    assert "\nverdict" not in (folder / "bad.expect.toml").read_text()


def test_counts_of_rules_are_brought_up_to_date(folder):
    expect(folder, "bad", REFUSED + "rules = { HYP-22 = 3 }\n")
    corpus("accept", folder / "bad", "--yes")
    assert "HYP-22" not in load_own(folder / "bad.expect.toml").expect[0].rules
    assert corpus_run(folder / "bad").exit_code == 0


def test_new_only_leaves_alone_what_is_expected_already(folder):
    expect(folder, "bad", ACCEPTED)
    result = corpus("accept", folder, "--yes", "--new-only")
    assert (folder / "bad.expect.toml").read_text() == ACCEPTED
    assert (folder / "good.expect.toml").exists()
    assert f"kept      {folder / 'bad'}: differs, but only new streams are accepted" in result.output


def test_a_known_deviation_is_kept(folder):
    expect(folder, "bad", ACCEPTED)
    (folder / "known.toml").write_text('[[known]]\nstream = "bad"\nreason = "not yet"\n')
    result = corpus("accept", folder / "bad", "--yes")
    assert (folder / "bad.expect.toml").read_text() == ACCEPTED
    assert f"kept      {folder / 'bad'}: differs, but that is known" in result.output


def test_a_known_deviation_is_kept_beside_another_difference(folder):
    text = ACCEPTED + "\n" + ACCEPTED.replace("low", "high")
    expect(folder, "bad", text)
    (folder / "known.toml").write_text('[[known]]\nstream = "bad"\nplacement = "low"\nreason = "not yet"\n')
    corpus("accept", folder / "bad", "--yes")
    low, high = load_own(folder / "bad.expect.toml").expect
    assert (low.outcome, high.outcome) == (ExpectedVerdict("accept"), WITHOUT_CONTEXT)


def test_what_depends_on_the_host_is_kept(folder):
    text = "host_dependent = true\n" + ACCEPTED
    expect(folder, "bad", text)
    corpus("accept", folder / "bad", "--yes")
    assert (folder / "bad.expect.toml").read_text() == text


def test_where_all_is_as_expected_there_is_nothing_to_write(folder):
    expect(folder, "good", ACCEPTED)
    result = corpus("accept", folder / "good", input="")
    assert result.exit_code == 0
    assert result.output == "nothing to write\n"


def test_expectations_that_hold_for_others_too_are_not_changed_for_one(folder):
    default = 'expect = [{ target = "4.20", placement = "low", verdict = "accept" }]'
    (folder / "expect.toml").write_text(f"[defaults]\n{default}\n\n[good]\n\n[bad]\n")
    corpus("accept", folder, "--yes")
    entries = load_shared(folder / "expect.toml")
    assert entries["good"].expect[0].outcome == ExpectedVerdict("accept")
    assert entries["bad"].expect[0].outcome == WITHOUT_CONTEXT
    assert corpus_run(folder).exit_code == 0


def test_inline_tables_are_changed_in_place(folder):
    text = '[bad]\nexpect = [{ target = "4.20", placement = "low", verdict = "accept" }]  # short\n'
    (folder / "expect.toml").write_text(text)
    corpus("accept", folder / "bad", "--yes")
    after = (folder / "expect.toml").read_text()
    assert after.count("\n") == 2
    assert after.endswith("]  # short\n")
    assert load_shared(folder / "expect.toml")["bad"].expect[0].outcome == WITHOUT_CONTEXT


def test_a_stream_that_cannot_be_read_is_kept_and_exits_with_3(folder):
    (folder / "good").write_bytes(b"\x28\xb5\x2f\xfd no zstd after all")
    result = corpus("accept", folder, "--yes")
    assert result.exit_code == 3
    assert not (folder / "good.expect.toml").exists()
    assert (folder / "bad.expect.toml").exists()


def test_a_corrupt_file_of_expectations_is_not_overwritten_and_exits_with_3(folder):
    expect(folder, "bad", "[[expect]\n")
    result = corpus("accept", folder, "--yes")
    assert result.exit_code == 3
    assert f"kept      {folder / 'bad'}: cannot be judged: {folder / 'bad.expect.toml'}: not TOML" in result.output
    assert (folder / "bad.expect.toml").read_text() == "[[expect]\n"
    assert (folder / "good.expect.toml").exists()


@pytest.mark.parametrize("expected", [None, ACCEPTED])
def test_what_is_not_judged_is_kept_and_exits_with_3(tmp_path, expected):
    (tmp_path / "junk").write_bytes(b"not a stream at all\n" * 9)
    if expected:
        expect(tmp_path, "junk", expected)
    result = corpus("accept", tmp_path, "--yes")
    assert result.exit_code == 3
    assert f"kept      {tmp_path / 'junk'}: not judged: " in result.output
    assert [file.read_text() for file in tmp_path.glob("*.toml")] == ([expected] if expected else [])


def test_two_streams_do_not_share_a_file_of_expectations_unasked(folder):
    import gzip

    (folder / "good.gz").write_bytes(gzip.compress(good()))
    result = corpus("accept", folder / "good", folder / "good.gz", "--yes")
    assert f"kept      {folder / 'good.gz'}: {folder / 'good.expect.toml'} speaks of another stream" in result.output
