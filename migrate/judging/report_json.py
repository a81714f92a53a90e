"""The JSON report: names that other programs rely on."""

from __future__ import annotations

import json
import operator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from migrate.judging.report import SCHEMA
from migrate.rules import version
from migrate.safe import well_formed

if TYPE_CHECKING:
    from migrate.judging.report import Finding, Report
    from migrate.rules.declaring import Release

# In a finding these are always there, null where unknown; other fields only where there is something to say.
_ALWAYS = ("offset", "record", "record_type", "pfn", "vcpu")
_IF_KNOWN = ("mfn", "slot", "errno", "signal")


def report_object(report: Report) -> dict[str, Any]:
    """The JSON object of one stream's report.

    `stream` has the fields of `StreamFacts`, `failure` those of `Failure` (both null where unknown).
    """
    return {
        "schema": SCHEMA,
        "tool": {"name": version.NAME, "version": version.version()},
        "rule_set": version.rule_set(),
        "stream": {**asdict(report.stream), "name": well_formed(report.stream.name)},
        "target": report.target,
        "placement": well_formed(report.placement),
        "l3_rule": report.l3_rule,
        "verdict": report.verdict,
        "checkpoints": [asdict(checkpoint) for checkpoint in report.checkpoints],
        "reason": None if report.reason is None else well_formed(report.reason),
        "failure": None
        if report.failure is None
        else {**asdict(report.failure), "message": well_formed(report.failure.message)},
        "findings": [_finding_object(finding) for finding in report.findings],
    }


def dumps(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON, in ASCII without control characters: it is safe on any terminal."""
    # numpy's integers are numbers too.
    return json.dumps(value, indent=indent, default=operator.index).replace("\x7f", "\\u007f")


def _finding_object(finding: Finding) -> dict[str, Any]:
    told: dict[str, Any] = {
        "rule": finding.rule.id,
        "slug": finding.rule.slug,
        "severity": finding.severity.value,
        "effect": finding.effect.name.lower(),
        "message": well_formed(finding.message),
        "count": finding.count,
        "step": finding.step,
        "call": finding.call,
    }
    told |= {name: getattr(finding, name) for name in _ALWAYS}
    told |= {name: value for name in _IF_KNOWN if (value := getattr(finding, name)) is not None}
    told |= {name: _release(value) for name in ("since", "until") if (value := getattr(finding, name)) is not None}
    if finding.chain:
        told["chain"] = [well_formed(table) for table in finding.chain]
    return told


def _release(release: Release) -> str:
    return ".".join(map(str, release))
