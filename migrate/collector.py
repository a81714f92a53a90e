"""Where findings are gathered, and floods of them folded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from migrate.findings import Finding
from migrate.rules import RULES
from migrate.rules.catalogue import Effect, Severity
from streams.records import Place

# So many findings of one rule are told one by one; later ones are counted in the last.
TOLD_PER_RULE = 12


class Collector:
    """Takes findings in the order in which the restore would meet what they are about."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._seen: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def report(
        self,
        rule: str,
        message: str,
        place: Place | None = None,
        *,
        offset: int | None = None,
        effect: Effect | None = None,
        severity: Severity | None = None,
        **fields: Any,
    ) -> Finding:
        """Report a breach of a rule.

        Parameters
        ----------
        rule:
            its id.
        place:
            the record it is about; `offset` is by default the record's.
        effect, severity:
            where this breach differs from what the rule declares.
        fields:
            further fields of `Finding`.
        """
        declared = RULES[rule]
        if effect is not None and severity is None and effect.fatal != declared.effect.fatal:
            severity = Severity.ERROR if effect.fatal else declared.severity
        finding = Finding(
            rule=declared,
            message=message,
            severity=severity or declared.severity,
            effect=effect or declared.effect,
            offset=place.offset if offset is None and place else offset,
            record=place.index if place else None,
            record_type=place.name if place else None,
            **fields,
        )
        self.add(finding)
        return finding

    def add(self, finding: Finding) -> None:
        """Add a finding, or count it where its rule has been told often enough."""
        rule = finding.rule.id
        seen = self._seen.get(rule, 0)
        self._seen[rule] = seen + 1
        if seen < TOLD_PER_RULE:
            self._last[rule] = len(self.findings)
            self.findings.append(finding)
        else:
            last = self._last[rule]
            self.findings[last] = replace(self.findings[last], count=self.findings[last].count + finding.count)
