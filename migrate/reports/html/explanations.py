"""What the rules say that a document speaks of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrate.reports.rules.commands import check_command, explain_command, write_command
from migrate.reports.rules.pages import GUEST_SEES, in_order, releases
from migrate.rules.catalogue import RULES

if TYPE_CHECKING:
    from migrate.rules.declaring import Rule


@dataclass(frozen=True, slots=True)
class Explanation:
    """A rule, as its page tells it."""

    rule: Rule
    facts: list[tuple[str, str]]
    paragraphs: list[tuple[str, list[str]]]  # What, Why, Repair, Source
    commands: list[str]


def explanations(ids: Collection[str]) -> list[Explanation]:
    """Those of some rules, in the order of the catalogue."""
    return [_explanation(RULES[id]) for id in in_order([id for id in ids if id in RULES])]


def _explanation(rule: Rule) -> Explanation:
    facts = [
        ("severity", rule.severity.value),
        ("effect", rule.effect.meaning),
        ("enforced by", rule.enforced_by),
        ("releases", releases(rule).words),
        *([("errno", rule.errno)] if rule.errno is not None else []),
        ("the guest", GUEST_SEES[rule.effect]),
    ]
    shown = (write_command, check_command) if rule.violation is not None else (explain_command,)
    return Explanation(
        rule,
        facts,
        [(heading, text.split("\n\n")) for heading, text in rule.sections.items()],
        [" ".join(command(rule)) for command in shown],
    )
