"""Results that were written before: whatever has become of them, they cost no more than themselves."""

import io
import json
from collections import Counter

import pytest
from corpora import ACCEPTED, REFUSED, bad, corpus, corpus_run, expect, good, lines, streams
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from migrate.corpus import journal
from migrate.corpus.journal import JournalError, joined, line_of, read_journal
from migrate.judging.report_json import dumps
from migrate.reports.corpus.junit import corpus_junit
from migrate.reports.corpus.markdown import corpus_markdown
from migrate.reports.corpus.sarif import corpus_sarif
from migrate.reports.corpus.text import render

MEASURED = (
    '[[expect]]\ntarget = "4.20"\nplacement = "low"\nmeasured.verdict = "refuse"\nmeasured.step = "pin"\n'
    'measured.errno = "EINVAL"\nmeasured.error = "Failed to pin"\nmeasured.xen_log = ["mm.c: Bad L3 flags"]\n'
    'verdict = "refuse"\nrules = { ORD-24 = 1 }\n'
)
KNOWN = '[[known]]\nstream = "{}"\nreason = "so it is"\naspects = ["verdict"]\nexpires = 2999-01-01\n'
# In the place of a value that is there.
INSTEAD = (None, True, -1, 1.5, 10**30, "x", "\ud800", [], [None], {}, {"x": 1}, 1e400)
# The number of a line, by the order of names.
DEVIATES = 0


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Lines of a run with a stream of every fate."""
    root = tmp_path_factory.mktemp("corpus")
    fates = {
        "fine": (good(), ACCEPTED),
        "differs": (bad(), ACCEPTED),
        "measured": (bad(), MEASURED),
        "deviates": (bad(), ACCEPTED),
        "unreadable": (b"\x28\xb5\x2f\xfd no zstd after all", REFUSED),
        "new": (bad(), None),
        "unjudged": (b"not a stream at all\n" * 9, ACCEPTED),
    }
    for name, (data, text) in fates.items():
        (root / name).write_bytes(data)
        if text is not None:
            expect(root, name, text)
    expect(root, "gone", ACCEPTED)
    (root / "known.toml").write_text(KNOWN.format("deviates") + KNOWN.format("nothing"))
    corpus_run(root, "--no-cache", "--jsonl", root / "results.jsonl", "--shard", "1/1", "--fail-on", "error")
    return (root / "results.jsonl").read_bytes().splitlines(keepends=True)


def used(file, data):
    """Whether a file with these bytes is of use: then all outputs can be made of it; else its line is named."""
    file.write_bytes(data)
    complaints, found = [], None
    try:
        found = read_journal(str(file))
        complaints = found.damaged
    except JournalError as error:
        complaints = [str(error)]
    assert all(complaint.startswith(f"{file}: line ") for complaint in complaints)
    if found is not None:
        run = joined([found])
        render(run, Console(file=io.StringIO()))
        for document in (corpus_junit(run), dumps(corpus_sarif(run)), corpus_markdown(run)):
            document.encode()
        for result in run.results:
            line_of(result).encode("ascii")
    return not complaints


def places(value, path=()):
    """The keys that lead to everything in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


def changed(line, path, change):
    """A line with something done to what a path leads to: to the object or array around it, and the key there."""
    whole = around = json.loads(line)
    for key in path[:-1]:
        around = around[key]
    change(around, path[-1])
    return json.dumps(whole).encode() + b"\n"


def changes(lines):
    """Lines with one thing in them gone, or something else in its place; of all entries of an array only in one."""
    seen = set()
    for line in lines:
        kind = json.loads(line)["kind"]
        for path in places(json.loads(line)):
            sort = (kind, *("" if isinstance(key, int) else key for key in path))
            if sort not in seen:
                seen.add(sort)
                yield changed(line, path, lambda around, key: around.pop(key))
                for other in INSTEAD:
                    yield changed(line, path, lambda around, key, other=other: around.__setitem__(key, other))


def test_whatever_is_written_is_read_again(written, tmp_path):
    assert used(tmp_path / "results", b"".join(written))
    found = read_journal(str(tmp_path / "results"))
    again = [line_of(result) for result in joined([found]).results]
    assert [json.loads(line) for line in again] == [json.loads(line) for line in written[:7]]


def test_a_line_that_is_not_as_it_was_is_named_or_of_use(written, tmp_path):
    outcomes = Counter(used(tmp_path / "results", one) for one in changes(written))
    assert outcomes[False] > 500
    assert outcomes[True] > 100


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        (("checks", 0, "findings", 0, "message"), "check.findings[0].message: expected a string, found 5"),
        (("checks", 0, "stream", "records"), "check.stream.records: expected a number, found 'x'"),
        (("known", 0, "expires"), "known[0].expires: expected a date, found 5"),
        (("seconds",), "seconds: expected a number, found inf"),
        (("expected", "expect", 0, "outcome"), "expected.expect[0].outcome: expected an object, found 5"),
    ],
)
def test_what_is_of_another_type_is_named_with_its_place(written, tmp_path, path, complaint):
    (value,) = (value for value in (5, "x", 1e400) if f"found {value!r}" in complaint)
    line = changed(written[DEVIATES], path, lambda around, key: around.__setitem__(key, value))
    (tmp_path / "results").write_bytes(line)
    with pytest.raises(JournalError) as raised:
        read_journal(str(tmp_path / "results"))
    assert str(raised.value) == f"{tmp_path / 'results'}: line 1: {complaint}"


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_file_that_has_been_damaged_anywhere_is_named_or_of_use(written, tmp_path_factory, data):
    whole = bytearray(b"".join(written))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole)))
        cut = data.draw(st.sampled_from([0, 1, 1, 4, 1000, 100_000]))
        whole[at : at + cut] = data.draw(st.binary(max_size=8))
    used(tmp_path_factory.getbasetemp() / "damaged", bytes(whole))


ATTACKS = {
    "a missing stream without a name": b'{"kind":"missing","schema":1}\n',
    "a shard that is a number": b'{"kind":"end","schema":1,"streams":1,"missing":0,"shard":5}\n',
    "a shard beyond the last": b'{"kind":"end","schema":1,"streams":1,"missing":0,"shard":[2,1]}\n',
    "lists in lists": b'{"kind":"end","schema":1,"shard":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "a number of a million digits": b'{"kind":"end","schema":1,"shard":[1,' + b"9" * 1_000_000 + b"]}\n",
    "nothing": b"\n",
    "zeros": bytes(4096) + b"\n",
    "half a character": b'{"kind":"missing","schema":1,"stream":"\\ud800"}\n',
    "no text": b"\xff\xfe\n",
}


@pytest.mark.parametrize("line", ATTACKS.values(), ids=ATTACKS)
def test_results_with_such_a_line_are_not_joined(written, tmp_path, line):
    (tmp_path / "results").write_bytes(b"".join((*written[:3], line, *written[3:])))
    result = corpus("merge", tmp_path / "results")
    assert result.exit_code == 2
    assert result.output.startswith(f"migrate: {tmp_path / 'results'}: line 4: ")
    assert "internal error" not in result.output


@pytest.mark.parametrize("line", ATTACKS.values(), ids=ATTACKS)
def test_a_run_goes_on_without_such_a_line(tmp_path, line):
    root = tmp_path / "corpus"
    root.mkdir()
    for name in ("one", "two", "three"):
        (root / name).write_bytes(good())
    results = tmp_path / "results"
    corpus_run(root, "--no-cache", "--jsonl", results)
    before = streams(results, root)
    first, second, *_ = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(first + line + second)
    result = corpus_run(root, "--no-cache", "--resume", results, "--jsonl", results)
    assert result.exit_code == 0
    assert result.output.startswith(f"migrate: {results}: line 2: ")
    assert result.output.splitlines()[0].endswith("; passed over")
    after = streams(results, root)
    assert [after[name]["seconds"] == before[name]["seconds"] for name in before] == [True, True, False]


def test_many_damaged_lines_are_counted(written, tmp_path):
    (tmp_path / "results").write_bytes(written[0] + b"{}\n" * 1000)
    result = corpus("merge", tmp_path / "results")
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 11
    assert result.output.endswith(": 990 more lines are of no use\n")


@pytest.mark.parametrize("option", [("run", "--resume"), ("merge",)], ids=["resume", "merge"])
def test_a_file_that_holds_something_else_exits_with_2(tmp_path, option):
    (tmp_path / "stream").write_bytes(good())
    words = {"run": [tmp_path / "stream", *option[1:], tmp_path / "stream"], "merge": [tmp_path / "stream"]}
    result = corpus(option[0], *words[option[0]])
    assert result.exit_code == 2
    assert f"migrate: {tmp_path / 'stream'}: line 1: " in result.output


def test_a_line_that_does_not_end_is_not_read_to_its_end(written, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "LONGEST_LINE", 1 << 20)
    (tmp_path / "results").write_bytes(written[0] + b'{"kind": "' + bytes(1 << 20))
    with pytest.raises(JournalError, match="line 2: longer than 1 MiB"):
        read_journal(str(tmp_path / "results"))


def test_shards_that_are_missing_are_counted_and_only_the_first_named(tmp_path):
    (tmp_path / "part").write_text('{"kind":"end","schema":1,"streams":1,"missing":0,"shard":[1,100000000]}\n')
    result = corpus("merge", tmp_path / "part")
    assert result.exit_code == 3
    assert result.output.splitlines()[:6] == [
        *(f"incomplete: shard {number}/100000000 is not among the files" for number in range(2, 7)),
        "incomplete: 99999994 more of 100000000 shards are not among the files",
    ]


def test_shards_that_were_judged_by_other_rules_are_told(tmp_path):
    root = tmp_path / "corpus"
    root.mkdir()
    for name in ("one", "two"):
        (root / name).write_bytes(good())
    for name in ("one", "two"):
        corpus_run(root / name, "--jsonl", tmp_path / f"{name}.jsonl")
    (own,) = {check["rule_set"] for line in lines(tmp_path / "one.jsonl")[:1] for check in line["checks"]}
    assert "same rules" not in corpus("merge", tmp_path / "one.jsonl", tmp_path / "two.jsonl").output
    text = (tmp_path / "two.jsonl").read_text()
    (tmp_path / "two.jsonl").write_text(text.replace(own, "another"))
    result = corpus("merge", tmp_path / "one.jsonl", tmp_path / "two.jsonl")
    assert result.exit_code == 0
    told = f"{tmp_path / 'one.jsonl'} by {own}, {tmp_path / 'two.jsonl'} by another"
    assert f"not all streams were judged by the same rules: {told}\n" in result.output
