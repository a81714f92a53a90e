"""Findings as SARIF 2.1.0, for code scanning and other viewers.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0; the sections named are of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from migrate.corpus.filesystems import is_url
from migrate.judging.report import Report
from migrate.reports.folding import Cause, cause_of, folds
from migrate.reports.verdict.sentences import verdict_sentence
from migrate.rules import version
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Rule, Severity
from migrate.rules.findings import Finding
from migrate.safe import well_formed

VERSION = "2.1.0"
SCHEMA_URI = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
# By it a viewer knows a result again in the next run.
FINGERPRINT = "streamFinding/v1"
_OPTIONAL = ("pfn", "mfn", "vcpu", "slot", "errno", "signal")

Json = dict[str, Any]


def document(reports: Sequence[Report], unreadable: Sequence[tuple[str, str]] = ()) -> Json:
    """The log file of some reports: one result per rule and cause, and a notification for what has no verdict.

    Parameters
    ----------
    unreadable:
        streams that could not be read, each with the reason.
    """
    results = [_result(report, cause) for report in reports for entry in folds(report) for cause in entry.causes]
    broken = {finding.rule.id for report in reports for finding in report.findings}
    notes = [notification(r.stream.name, verdict_sentence(r)) for r in reports if r.verdict == "unjudged"]
    notes += [notification(name, why, "error") for name, why in unreadable]
    return log(results, [rule_object(RULES[id]) for id in sorted(broken)], notes, successful=not unreadable)


def log(results: Iterable[Json], rules: Sequence[Json], notifications: Sequence[Json], *, successful: bool) -> Json:
    """A log file with one run (3.13, 3.14); results get the index of their rule.

    Byte offsets are those of the uncompressed stream, as everywhere.
    """
    index = {rule["id"]: number for number, rule in enumerate(rules)}
    invocation: Json = {"executionSuccessful": successful}
    if notifications:
        invocation["toolExecutionNotifications"] = list(notifications)
    driver = {
        "name": version.NAME,
        "version": version.VERSION,
        "rules": list(rules),
        "properties": {"ruleSet": version.rule_set()},
    }
    return {
        "$schema": SCHEMA_URI,
        "version": VERSION,
        "runs": [
            {
                "tool": {"driver": driver},
                "invocations": [invocation],
                "results": [{**result, "ruleIndex": index[result["ruleId"]]} for result in results],
                "properties": {"byteOffsetsOf": "the uncompressed stream"},
            }
        ],
    }


def rule_object(rule: Rule) -> Json:
    """The reportingDescriptor (3.49) of a rule of the catalogue, with its text as help."""
    explained = rule.text or rule.title
    return {
        "id": rule.id,
        "name": "".join(part.capitalize() for part in rule.slug.split("-")),
        "shortDescription": {"text": f"{rule.title}."},
        "fullDescription": {"text": explained},
        "help": {"text": f"{rule.title}.\n\n{explained}\n\nEnforced by {rule.enforced_by}: {rule.effect.meaning}."},
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
        "properties": {"tags": [rule.layer.name.lower(), rule.layer.value], "slug": rule.slug},
    }


def location(name: str, finding: Finding | None = None) -> Json:
    """Where something was found (3.28): a stream, and the byte and record in it where they are known."""
    physical: Json = {"artifactLocation": {"uri": uri(name)}}
    place: Json = {"physicalLocation": physical}
    if finding is not None and finding.offset is not None:
        physical["region"] = {"byteOffset": finding.offset}
    if finding is not None and finding.record is not None:
        name = f"record {finding.record} {finding.record_type or ''}".rstrip()
        place["logicalLocations"] = [{"fullyQualifiedName": name, "kind": "record"}]
    return place


def uri(name: str) -> str:
    """A path or URL as a URI reference (3.4.3)."""
    name = well_formed(name)
    if is_url(name):
        return quote(name, safe="/:?#[]@!$&'()*+,;=%~")
    # A colon in the first part of a relative path would pass for a scheme.
    quoted = quote(name, safe="/:~+,=@")
    if name.startswith("/"):
        return f"file://{quoted}"
    return quoted if ":" not in quoted.partition("/")[0] else f"./{quoted}"


def notification(name: str, text: str, level: str = "warning") -> Json:
    """A notification (3.58) about a stream that there is no verdict of."""
    return {"level": level, "message": {"text": well_formed(text)}, "locations": [location(name)]}


def fingerprint(*parts: object) -> Json:
    """What makes a result the same as one of another run: not its byte offset."""
    return {FINGERPRINT: blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()}


def _result(report: Report, cause: Cause) -> Json:
    first, name = cause.first, report.stream.name
    known = {key: value for key in _OPTIONAL if (value := getattr(first, key)) is not None}
    return {
        "ruleId": first.rule.id,
        "level": LEVELS[first.severity],
        "message": {"text": well_formed(cause.message)},
        "locations": [location(name, finding) for finding in cause.findings],
        "occurrenceCount": cause.count,
        "partialFingerprints": fingerprint(
            name, report.target, report.placement, report.l3_rule, first.rule.id, cause_of(first)
        ),
        "properties": {
            "target": report.target,
            "placement": well_formed(report.placement),
            "verdict": report.verdict,
            "damaged": report.damaged,
            "effect": first.effect.value,
            "step": first.step,
            "call": first.call,
            **known,
        },
    }
