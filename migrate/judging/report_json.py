"""The JSON report: names that other programs rely on."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from dataclasses import asdict, fields

from migrate.destination.destination import Destination
from migrate.destination.host import Host
from migrate.destination.releases import CHANGES, Change
from migrate.judging.report import SCHEMA, CheckpointVerdict, Report
from migrate.rules import version
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, GuestKind, Severity, Stage, Verdict
from migrate.rules.findings import Failure, Finding, Link
from migrate.safe import well_formed
from migrate.toolstack.facts import StreamFacts
from migrate.toolstack.passes import Round

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# In a finding these are always there, null where unknown; other fields only where there is something to say.
_ALWAYS = ("offset", "record", "record_type", "pfn", "vcpu")
_FAILURE = ("rule", "step", "call", "message", "vcpu", "pfn", "errno", "signal")
_IF_KNOWN = ("mfn", "slot", "errno", "signal")


def report_object(report: Report) -> dict[str, Any]:
    """The JSON object of one stream's report.

    `stream` has the fields of `StreamFacts`, `failure` those of `Failure` (both null where unknown).
    """
    return {
        **_head(),
        "stream": {**asdict(report.stream), "name": well_formed(report.stream.name)},
        "target": report.target,
        "placement": well_formed(report.placement),
        "destination": _destination_object(report.destination),
        "verdict": report.verdict,
        "damaged": report.damaged,
        "checkpoints": [
            {
                "checkpoint": one.checkpoint,
                "offset": one.offset,
                "verdict": one.verdict,
                "failure": _failure_object(one.failure),
            }
            for one in report.checkpoints
        ],
        "reason": None if report.unjudged_because is None else well_formed(report.unjudged_because),
        "failure": _failure_object(report.failure),
        "findings": [_finding_object(finding) for finding in report.findings],
    }


def error_object(name: str, why: str) -> dict[str, Any]:
    """The JSON object that stands in the place of a report where a stream cannot be read, and why."""
    return {**_head(), "stream": {"name": well_formed(name)}, "error": well_formed(why)}


def _head() -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "tool": {"name": version.NAME, "version": version.VERSION},
        "rule_set": version.rule_set(),
    }


def _failure_object(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {**{name: getattr(failure, name) for name in _FAILURE}, "message": well_formed(failure.message)}


def dumps(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON, in ASCII without control characters: it is safe on any terminal."""
    # numpy's integers are numbers too.
    return json.dumps(value, indent=indent, default=operator.index).replace("\x7f", "\\u007f")


def _finding_object(finding: Finding) -> dict[str, Any]:
    made: dict[str, Any] = {
        "rule": finding.rule.id,
        "slug": finding.rule.slug,
        "severity": finding.severity.value,
        "effect": finding.effect.value,
        "message": well_formed(finding.message),
        "count": finding.count,
        "step": finding.step,
        "call": finding.call,
    }
    made |= {name: getattr(finding, name) for name in _ALWAYS}
    made |= {name: value for name in _IF_KNOWN if (value := getattr(finding, name)) is not None}
    made |= {name: _change(value) for name in ("since", "until") if (value := getattr(finding, name)) is not None}
    if finding.chain:
        made["chain"] = [link._asdict() for link in finding.chain]
    return made


def _destination_object(destination: Destination) -> dict[str, Any]:
    return {
        "release": destination.release.name,
        "placement": well_formed(destination.placement),
        "l3_rule": destination.l3_rule,
        "vcpus": destination.vcpus,
        "overridden": list(destination.overridden),
        "host": None if destination.host is None else well_formed(destination.host.label),
    }


def _destination_from(saved: dict[str, Any]) -> Destination:
    host = saved["host"]
    if not isinstance(host, str | None):
        raise TypeError("a host is saved by its name")
    return Destination(
        saved["release"],
        saved["placement"],
        l3_rule=saved["l3_rule"],
        vcpus=saved["vcpus"],
        host=None if host is None else Host(path=host),
    )


def _change(change: Change) -> dict[str, Any]:
    return {"change": change.name, "releases": [release.name for release in change.firsts]}


_FACTS = frozenset(f.name for f in fields(StreamFacts))


_PLAIN = (
    *("message", "offset", "record", "record_type", "pfn", "mfn", "vcpu", "slot", "errno", "count", "call"),
    "signal",
)


def report_from(text: str) -> Report:
    """The report that `migrate check --format json` wrote as this object.

    What the object does not hold is left as it is by default: `placement` of a finding. Of a host no more than what
    it is called is known.

    Raises
    ------
    ValueError
        for anything that is not such an object, or speaks of rules that are unknown here.
    """
    try:
        saved: dict[str, Any] = json.loads(text)
        if "error" in saved:
            raise ValueError(f"no report: {saved['stream']['name']} could not be read: {saved['error']}")
        findings = [_finding_from(one) for one in saved["findings"]]
        return Report(
            stream=_facts_from(saved["stream"]),
            destination=_destination_from(saved["destination"]),
            verdict=Verdict(saved["verdict"]),
            failure=_failure_from(saved["failure"], findings),
            findings=findings,
            unjudged_because=saved["reason"],
            damaged=saved.get("damaged", False),
            checkpoints=[
                CheckpointVerdict(
                    one["checkpoint"], one["offset"], Verdict(one["verdict"]), _failure_from(one["failure"], ())
                )
                for one in saved["checkpoints"]
            ],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a report: {type(error).__name__}: {error}") from error


def _facts_from(saved: dict[str, Any]) -> StreamFacts:
    known = {key: value for key, value in saved.items() if key in _FACTS}
    rounds = [Round(**one) for one in saved["rounds"]]
    guest = None if saved["guest"] is None else GuestKind(saved["guest"])
    return StreamFacts(**{**known, "rounds": rounds, "guest": guest})


def _failure_from(saved: dict[str, Any] | None, findings: Sequence[Finding]) -> Failure | None:
    if saved is None:
        return None
    says = (one for one in findings if (one.rule.id, one.message) == (saved["rule"], saved["message"]))
    return Failure(**{**saved, "step": Stage(saved["step"])}, finding=next(says, None))


def _finding_from(saved: dict[str, Any]) -> Finding:
    return Finding(
        rule=RULES[saved["rule"]],
        severity=Severity(saved["severity"]),
        effect=Effect(saved["effect"]),
        since=_change_from(saved.get("since")),
        until=_change_from(saved.get("until")),
        step=Stage(saved["step"]),
        chain=tuple(Link(**link) for link in saved.get("chain", ())),
        **{name: saved[name] for name in _PLAIN if name in saved},
    )


def _change_from(saved: dict[str, Any] | None) -> Change | None:
    return None if saved is None else CHANGES[saved["change"]]
