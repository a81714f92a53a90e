"""What is told of a rule apart from any stream: as data, and as a page in Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from migrate.destination.releases import NEWEST, RELEASES, Change, Release, spans
from migrate.judging.report import SCHEMA
from migrate.reports.markdown import escaped, table
from migrate.reports.rules.commands import check_command, write_command
from migrate.rules import version
from migrate.rules.catalogue import NOT_RULES, RULES, rule_set_version
from migrate.rules.declaring import Effect, Layer, Rule
from migrate.rules.order import INFERS_STATIC_DATA_END, LAW, Guests

if TYPE_CHECKING:
    from migrate.judging.report import Report
    from migrate.rules.order import Law

GUEST_SEES: dict[Effect, str] = {
    Effect.REFUSED: "never runs on the destination: the toolstack gives up and destroys what it had built",
    Effect.HYPERCALL: "never runs on the destination: Xen refuses part of its state, and the toolstack destroys "
    "what it had built",
    Effect.CRASH: "never runs on the destination: the process that rebuilds it dies half-way",
    Effect.CORRUPT: "nobody notices at first: it is started in another state than it was saved in, which may show as "
    "wrong data, as a crash or hang later, or never",
    Effect.TOLERATED: "nothing",
    Effect.HOST: "nothing, or it never runs on the destination: that depends on the host",
    Effect.HOST_DIES: "never gets far on the destination: Xen itself dies there, and every guest of the host with it",
    Effect.DEBUG_HOST_DIES: "nothing, unless the host has a debug build of Xen: that dies, and every guest with it",
    Effect.SPEC: "nothing: only tools that check streams against the specification object",
}
"""What becomes of the guest, by effect."""

# The forms of the 4 GiB rule are numbered apart from its rules.
_OTHER_PREFIXES = {"L3V": Layer.L3C}
_RULE_ID = re.compile(r"\b[A-Z0-9]{3}-\d+\b")


# -- one rule -------------------------------------------------------------------------------------------


def layer_of(id: str) -> Layer:
    """The group of an id, be it that of a rule or of one that deliberately is none."""
    prefix = id.partition("-")[0]
    return _OTHER_PREFIXES.get(prefix) or Layer[prefix]


def in_order(ids: Collection[str], layer: Layer | None = None) -> list[str]:
    """Ids in the order of layers and numbers; those of one layer alone, if one is given."""
    layers = list(Layer)
    wanted = [id for id in ids if layer in (None, layer_of(id))]
    return sorted(wanted, key=lambda id: (layers.index(layer_of(id)), *_number(id)))


def _number(id: str) -> tuple[str, int]:
    prefix, _, number = id.partition("-")
    return prefix, int(number)


def rules_of(layer: Layer) -> list[Rule]:
    """The rules of one layer, by number."""
    return [RULES[id] for id in in_order(RULES, layer)]


@dataclass(frozen=True, slots=True)
class Since:
    """In which releases a rule holds.

    `first` is a branch (4.19), None where it holds from the oldest on; `points` are releases of older branches that got
    it later (4.18.3), with all that followed them in their branch. `runs` tells of all, where the newest is not among
    them.
    """

    first: str | None
    points: tuple[str, ...] = ()
    runs: str = ""

    @property
    def words(self) -> str:
        """As a person would say it."""
        if self.runs:
            return self.runs
        span = "all" if self.first is None else f"{self.first} and later"
        if not self.points:
            return span
        *others, final = self.points
        listed = f"{', '.join(others)} and {final}" if others else final
        branches = "their branches" if others else "its branch"
        return f"{span}; also {listed} and what followed in {branches}"

    @property
    def short(self) -> str:
        """In a few characters."""
        if self.runs:
            return self.runs
        return ", ".join([*(f"{point}+" for point in self.points), "all" if self.first is None else f"{self.first}+"])


def releases(rule: Rule) -> Since:
    """In which releases a rule holds, backports to older branches included."""
    having = [release for release in RELEASES if rule.in_force(release)]
    if having[-1] != NEWEST:
        return Since(None, runs=spans(having))
    whole = [release for release in having if release.point == 0]
    branches = {release.branch for release in whole}
    points: dict[tuple[int, int], Release] = {}
    for release in having:
        if release.branch not in branches:
            points.setdefault(release.branch, release)
    first = None if whole[0] == RELEASES[0] else whole[0].short
    return Since(first, tuple(release.short for release in points.values()))


def rule_object(rule: Rule) -> dict[str, Any]:
    """A rule as a JSON object."""
    return {
        "id": rule.id,
        "slug": rule.slug,
        "title": rule.title,
        "layer": rule.layer.name,
        "severity": rule.severity.value,
        "effect": rule.effect.value,
        "enforced_by": rule.enforced_by,
        "since": _change(rule.since),
        "until": _change(rule.until),
        "releases": releases(rule).words,
        "errno": rule.errno,
        "text": rule.text,
        "has_violation": rule.violation is not None,
    }


def _change(change: Change | None) -> str | None:
    return None if change is None else change.firsts[0].name


@dataclass(frozen=True, slots=True)
class Shown:
    """What `migrate check` says of the stream that breaks a rule."""

    rule: Rule
    report: Report

    @property
    def message(self) -> str | None:
        """The finding's message; None where the rule did not fire."""
        return next((f.message for f in self.report.findings if f.rule.id == self.rule.id), None)

    @property
    def verdict(self) -> str:
        """The verdict, with the reason where that is not the rule itself."""
        if self.report.failure is not None and self.report.failure.rule != self.rule.id:
            return f"{self.report.outcome}, because of {self.report.failure.rule}"
        why = self.report.unjudged_because
        return f"{self.report.outcome}: {why}" if why else self.report.outcome


def explanation_object(rule: Rule, shown: Shown | None) -> dict[str, Any]:
    """The JSON object of `migrate explain`; `shown` is null for a rule that no stream can break."""
    return {
        **document_head(),
        "rule": rule_object(rule),
        "sections": {heading.lower(): text for heading, text in rule.sections.items()},
        "guest_sees": GUEST_SEES[rule.effect],
        "shown": shown
        and {
            "write": list(write_command(rule)),
            "check": list(check_command(rule)),
            "verdict": shown.report.verdict,
            "message": shown.message,
        },
    }


def not_rule_object(id: str) -> dict[str, Any]:
    """The JSON object of `migrate explain` for an id that deliberately is no rule."""
    return {**document_head(), "rule": None, "not_a_rule": {"id": id, "reason": NOT_RULES[id]}}


def document_head() -> dict[str, Any]:
    """What every JSON document about rules begins with."""
    return {
        "schema": SCHEMA,
        "tool": {"name": version.NAME, "version": version.VERSION},
        "rule_set": rule_set_version(),
    }


# -- all rules ------------------------------------------------------------------------------------------


def rules_object(layer: Layer | None = None) -> dict[str, Any]:
    """The JSON document of `migrate rules`."""
    return {
        **document_head(),
        "rules": [rule_object(RULES[id]) for id in in_order(RULES, layer)],
        "not_rules": [{"id": id, "reason": NOT_RULES[id]} for id in in_order(NOT_RULES, layer)],
    }


def rules_markdown(layer: Layer | None = None) -> str:
    """One page of all rules, or those of one layer, with an anchor (the id in lower case) for each."""
    shown = frozenset(in_order([*RULES, *NOT_RULES], layer))
    return "\n".join(_page(layer, shown))


def _page(layer: Layer | None, shown: frozenset[str]) -> Iterator[str]:
    yield "# Rules"
    yield ""
    count = len(shown & RULES.keys())
    yield f"{count} rules, rule set `{rule_set_version()}`; generated by `migrate rules --format markdown`."
    yield ""
    yield "## Effects"
    yield ""
    yield from table(
        ["effect", "real software", "the guest"],
        [[f"`{effect.value}`", effect.meaning, GUEST_SEES[effect]] for effect in Effect],
    )
    if layer in (None, Layer.ORD):
        yield ""
        yield from _law(shown)
    for group in [layer] if layer else Layer:
        yield ""
        yield f"## {group.name}: {group.value}"
        for rule in rules_of(group):
            yield ""
            yield from _rule(rule, shown)
    if others := in_order(shown & NOT_RULES.keys()):
        yield ""
        yield "## What is no rule"
        yield ""
        yield from table(["number", "why not"], [[_anchor(id) + id, _linked(NOT_RULES[id], shown)] for id in others])


def _law(shown: frozenset[str]) -> Iterator[str]:
    yield "## The law of record order"
    yield ""
    yield from table(
        ["record", "guests", "needs first", "at most once"],
        [[_linked(cell, shown) for cell in row] for row in law_rows()],
    )
    yield ""
    inferring = " or ".join(escaped(record.name) for record in LAW if record in INFERS_STATIC_DATA_END)
    yield f"A version 2 image has no STATIC\\_DATA\\_END; the first {inferring} stands for it."


def law_rows() -> list[tuple[str, str, str, str]]:
    """The law of record order: record, guests, what it needs first, the rule that it stands once; "" for nothing."""
    return [
        (record.name, _guests(law), ", ".join(_needs(law)), f"yes ({law.once})" if law.once else "")
        for record, law in LAW.items()
    ]


def _guests(law: Law) -> str:
    match law.guests:
        case Guests.ANY:
            return "any"
        case Guests.NONE:
            return f"none ({law.stray})"
        case guests:
            return f"{guests.name} (else {law.stray})"


def _needs(law: Law) -> Iterator[str]:
    for need in law.after:
        only = LAW[need.record].guests
        narrower = f"{only.name}: " if law.guests & ~only else ""
        yield f"{need.record.name} ({narrower}{need.rule})"


def _rule(rule: Rule, shown: frozenset[str]) -> Iterator[str]:
    yield _anchor(rule.id)
    yield f"### {rule.id} {rule.slug}"
    yield ""
    yield f"**{escaped(rule.title)}.**"
    yield ""
    facts: Mapping[str, str | None] = {
        rule.severity.value: rule.effect.meaning,
        "enforced by": rule.enforced_by,
        "releases": releases(rule).words,
        "errno": rule.errno,
        "the guest": GUEST_SEES[rule.effect],
    }
    for key, value in facts.items():
        if value is not None:
            yield f"- {key}: {escaped(value)}"
    for heading, text in rule.sections.items():
        yield ""
        yield f"*{heading}.* {_linked(text, shown)}"
    if rule.violation is not None:
        yield ""
        yield f"See it: `{' '.join(write_command(rule))}`, then `{' '.join(check_command(rule))}`."


def _anchor(id: str) -> str:
    return f'<a id="{id.lower()}"></a>'


def _linked(text: str, shown: frozenset[str]) -> str:
    """Text for Markdown, in which ids of what is on the page are links."""
    return _RULE_ID.sub(
        lambda match: f"[{match[0]}](#{match[0].lower()})" if match[0] in shown else match[0], escaped(text)
    )
