"""Reports from their JSON objects: what a worker, a cache or an earlier run has handed over."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from migrate.judging.report import CheckpointVerdict, Failure, Finding, Report, StreamFacts
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import Effect, Release, Severity
from migrate.toolstack.passes import Round

_FACTS = frozenset(f.name for f in fields(StreamFacts))
_PLAIN = (
    *("message", "offset", "record", "record_type", "pfn", "mfn", "vcpu", "slot", "errno", "count", "step", "call"),
    "signal",
)


def report_from(text: str) -> Report:
    """The report that `migrate check --format json` wrote as this object.

    What the object does not hold is left as it is by default: `placement` of a finding, `l3_rule`.

    Raises
    ------
    ValueError
        for anything that is not such an object, or speaks of rules that are unknown here.
    """
    try:
        told: dict[str, Any] = json.loads(text)
        return Report(
            stream=_facts(told["stream"]),
            target=told["target"],
            placement=told["placement"],
            verdict=told["verdict"],
            failure=_failure(told["failure"]),
            findings=[_finding(one) for one in told["findings"]],
            reason=told["reason"],
            checkpoints=[
                CheckpointVerdict(**{**one, "failure": _failure(one["failure"])}) for one in told["checkpoints"]
            ],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a report: {type(error).__name__}: {error}") from error


def _facts(told: dict[str, Any]) -> StreamFacts:
    known = {key: value for key, value in told.items() if key in _FACTS}
    return StreamFacts(**{**known, "rounds": [Round(**one) for one in told["rounds"]]})


def _failure(told: dict[str, Any] | None) -> Failure | None:
    return None if told is None else Failure(**told)


def _finding(told: dict[str, Any]) -> Finding:
    return Finding(
        rule=RULES[told["rule"]],
        severity=Severity(told["severity"]),
        effect=Effect[told["effect"].upper()],
        since=_release(told.get("since")),
        until=_release(told.get("until")),
        chain=tuple(told.get("chain", ())),
        **{name: told[name] for name in _PLAIN if name in told},
    )


def _release(told: str | None) -> Release | None:
    if told is None:
        return None
    major, minor, patch = map(int, told.split("."))
    return (major, minor, patch)
