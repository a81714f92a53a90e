"""The outcome of a corpus as JUnit XML: a test case per stream."""

from __future__ import annotations

from migrate.corpus.results import Result, Run, Status
from migrate.reports.corpus.sentences import MISSING, WORDS, asked, details, in_a_line
from migrate.reports.verdict.junit import TestCase, Trial, document, placed

SUITE = "migrate corpus"


def corpus_junit(run: Run) -> str:
    """The XML document.

    A difference is a failure, what could not be judged an error, and so is a run that is not complete; what was not
    held against anything, or is known to differ, is skipped with the reason.
    """
    trials = [_trial(result) for result in run.results]
    trials += [Trial(*placed(path), failure=TestCase("missing", MISSING)) for path in run.missing]
    trials += [Trial(SUITE, gap, error=TestCase("incomplete", gap)) for gap in run.gaps]
    return document(SUITE, trials)


def _trial(result: Result) -> Trial:
    folder, name = placed(result.case.path)
    seconds = result.answer.seconds
    said = TestCase(WORDS[result.status], in_a_line(result), _text(result))
    match result.status:
        case Status.FINE:
            return Trial(folder, name, seconds)
        case Status.DIFFERS | Status.FAILS:
            return Trial(folder, name, seconds, failure=said)
        case Status.FAILED | Status.UNJUDGED:
            return Trial(folder, name, seconds, error=said)
        case _:
            return Trial(folder, name, seconds, skipped=f"{result.status.value}: {said.message}\n{said.text}".rstrip())


def _text(result: Result) -> str:
    lines = []
    for comparison in result.differing:
        lines += [f"{asked(comparison)}:", *(f"    {line}" for line in details(result, comparison))]
    return "\n".join(lines)
