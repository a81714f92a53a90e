"""The outcome of a corpus as SARIF: a result per stream and question that is not as expected, and nothing else.

What the streams of a corpus are damaged by is not of interest there: it is what they are kept for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from migrate.corpus.results import Result, Run, Status
from migrate.reports.corpus.sentences import MISSING, asked, difference_line, in_a_line, observed, reason
from migrate.reports.verdict import sarif
from migrate.safe import well_formed

if TYPE_CHECKING:
    from migrate.corpus.results import Comparison
    from migrate.judging.report import Report
    from migrate.rules.findings import Finding

Json = dict[str, Any]

# What may be the matter with a stream, by what a result is called then: title, explanation, level.
_RULES = {
    Status.DIFFERS: ("corpus-differs", "A stream is not judged as expected", "error"),
    Status.DEVIATES: ("corpus-deviates", "A stream is not judged as expected, which is known", "note"),
    Status.HOST: (
        "corpus-host",
        "A stream is not judged as expected, but that depends on the destination host",
        "note",
    ),
    Status.UNJUDGED: ("corpus-unjudged", "A stream is not judged, though a verdict is expected", "error"),
    Status.FAILED: ("corpus-failed", "A stream cannot be judged", "error"),
    Status.FAILS: ("corpus-fails", "A stream that nothing is expected of is refused, or has such findings", "error"),
}
_MISSING_RULE = ("corpus-missing", "A stream is expected, but not there", "error")


def corpus_sarif(run: Run) -> Json:
    """The log file."""
    results = [one for result in run.results for one in _results(result)]
    results += [_object(_MISSING_RULE, path, f"{path}: {MISSING}", "") for path in run.missing]
    failed = [(r.case.path, r.answer.error) for r in run.results if r.answer.error is not None]
    notes = [sarif.notification(path, why, "error") for path, why in failed]
    notes += [{"level": "error", "message": {"text": well_formed(f"incomplete: {gap}")}} for gap in run.gaps]
    return sarif.log(results, [_rule(*one) for one in (*_RULES.values(), _MISSING_RULE)], notes, successful=not notes)


def _rule(id: str, title: str, level: str) -> Json:
    name = "".join(part.capitalize() for part in id.split("-"))
    return {
        "id": id,
        "name": name,
        "shortDescription": {"text": f"{title}."},
        "defaultConfiguration": {"level": level},
    }


def _results(result: Result) -> list[Json]:
    if result.status not in _RULES:
        return []
    rule, path = _RULES[result.status], result.case.path
    if not result.comparisons:
        return [_object(rule, path, f"{path}: {in_a_line(result)}", "")]
    pairs = zip(result.comparisons, result.answer.reports, strict=True)
    return [_difference(rule, result, comparison, report) for comparison, report in pairs if comparison.differences]


def _difference(rule: tuple[str, str, str], result: Result, comparison: Comparison, report: Report) -> Json:
    differences = "; ".join(map(difference_line, comparison.differences))
    text = f"{result.case.path}: {asked(comparison)}: {differences}; this validator: {observed(comparison.observation)}"
    made = _object(rule, result.case.path, text, asked(comparison), report.decisive)
    made["properties"] = {
        "target": comparison.expectation.target,
        "placement": comparison.expectation.placement,
        "host": comparison.expectation.host and well_formed(comparison.expectation.host.name),
        "expected": str(comparison.expectation.outcome),
        "observed": str(comparison.observation.outcome),
        "rule": comparison.observation.rule,
    }
    known = [one for one in result.deviations(comparison) if not one.expired]
    if known:
        made["suppressions"] = [{"kind": "external", "justification": well_formed(reason(known[0]))}]
    return made


def _object(rule: tuple[str, str, str], path: str, text: str, question: str, finding: Finding | None = None) -> Json:
    return {
        "ruleId": rule[0],
        "level": rule[2],
        "message": {"text": well_formed(text)},
        "locations": [sarif.location(path, finding)],
        "partialFingerprints": sarif.fingerprint(path, question, rule[0]),
    }
