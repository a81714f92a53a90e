"""One stream's part of the document: everything gathered while the stream is open, and rendered at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from migrate.inspection.memory.forest import failing_chain, forest
from migrate.inspection.reading import NotInStream
from migrate.reports.html.anchors import Anchors
from migrate.reports.html.calls import calls
from migrate.reports.html.forest_tree import tree
from migrate.reports.html.memory_picture import memory
from migrate.reports.html.passes import passes
from migrate.reports.html.record_rows import records
from migrate.reports.html.templating import render_part
from migrate.reports.html.vcpu_tables import vcpus
from migrate.reports.verdict.sentences import facts_told, link_text, tally, verdict_sentence

if TYPE_CHECKING:
    from markupsafe import Markup

    from migrate.inspection.reading import Inspection
    from migrate.reports.html.forest_tree import Tree
    from migrate.reports.html.memory_picture import Memory
    from migrate.rules.findings import Finding

LOST = "unreadable"
VERDICTS = {"accept": "Restores", "refuse": "Refused", "unjudged": "Not judged", LOST: "Not readable"}
_SIGNS = {"accept": "✓", "refuse": "✗"}
# Findings beyond this are counted, and not shown.
MOST_FINDINGS = 300
MOST_CHECKPOINTS = 300


@dataclass(frozen=True, slots=True)
class Section:
    """A stream's part of the document.

    Attributes
    ----------
    prefix:
        its id, which begins all ids in it.
    parts:
        id and heading of the parts, for a table of contents.
    rules:
        ids of the rules it speaks of.
    """

    prefix: str
    name: str
    verdict: str
    sentence: str
    guest: str
    tally: str
    parts: list[tuple[str, str]]
    rules: frozenset[str]
    html: Markup

    @property
    def word(self) -> str:
        """The verdict, in a word or two."""
        return VERDICTS[self.verdict]

    @property
    def lost(self) -> bool:
        """Whether the stream could not be read."""
        return self.verdict == LOST

    @property
    def sign(self) -> str:
        """The verdict, in a character."""
        return _sign(self.verdict)


def _sign(verdict: str) -> str:
    return _SIGNS.get(verdict, "?")


@dataclass(frozen=True, slots=True)
class Told:
    """A finding, with links to what it is about."""

    finding: Finding
    record: str | None
    table: str | None
    vcpu: str | None
    chain: list[tuple[str, str | None]]
    stops: bool  # the first thing that stops the restore


def section(inspection: Inspection, name: str, number: int) -> Section:
    """The part for one stream, `number` counting the streams from 1."""
    report, log = inspection.report, inspection.log
    decisive = report.decisive
    # The word that goes with it says so already.
    sentence = verdict_sentence(report).removeprefix("not judged: ")
    anchors = Anchors(f"s{number}")
    chain = failing_chain(inspection)
    shown = report.findings[:MOST_FINDINGS]
    rows = records(inspection, anchors)
    trees, no_trees = _trees(inspection, anchors)
    pictures, no_pictures = _pictures(inspection, frozenset(pfn for pfn, _ in chain))
    registers = vcpus(inspection, anchors)
    trace = calls(inspection)
    live = passes(inspection)
    told = [_told(finding, decisive, anchors) for finding in shown]
    parts = [("findings", "Findings")]
    parts += [("checkpoints", "Checkpoints")] if report.checkpoints else []
    parts += [("memory", "Memory")] if pictures is not None else []
    parts += [("tables", "Page tables")] if trees is not None else []
    parts += [("calls", "Hypercalls")] if trace is not None else []
    parts += [("passes", "Passes over memory")] if live is not None else []
    parts += [("vcpus", "Vcpus")] if registers is not None else []
    parts += [("records", "Records")] if len(log) else []
    values = {
        "anchors": anchors,
        "name": name,
        "report": report,
        "word": VERDICTS[report.verdict],
        "sign": _sign(report.verdict),
        "sentence": sentence,
        "facts": [fact for fact in facts_told(report) if fact[0] != "checkpoints"],
        "parts": dict(parts),
        "findings": told,
        "findings_left_out": len(report.findings) - len(shown),
        "memory": pictures,
        "no_memory": no_pictures,
        "tree": trees,
        "no_tree": no_trees,
        "calls": trace,
        "passes": live,
        "vcpus": registers,
        "records": rows,
        "checkpoints": report.checkpoints[:MOST_CHECKPOINTS],
        "damaged": log.damaged,
    }
    rules = {finding.rule.id for finding in shown}
    rules |= {row.finding.rule.id for row in (trace.rows if trace else []) if row.finding is not None}
    rules |= {
        checkpoint.failure.rule
        for checkpoint in report.checkpoints[:MOST_CHECKPOINTS]
        if checkpoint.failure is not None
    }
    return Section(
        anchors.prefix,
        name,
        report.verdict,
        sentence,
        dict(facts_told(report)).get("guest", ""),
        tally(report.findings) or "none",
        [(anchors.id(key), heading) for key, heading in parts],
        frozenset(rules),
        render_part("stream.html.j2", **values),
    )


def lost_section(name: str, reason: str, number: int) -> Section:
    """The part for a stream that cannot be read."""
    prefix = f"s{number}"
    html = render_part("lost.html.j2", prefix=prefix, name=name, word=VERDICTS[LOST], reason=reason)
    return Section(prefix, name, LOST, reason, "", "", [], frozenset(), html)


def _trees(inspection: Inspection, anchors: Anchors) -> tuple[Tree | None, str]:
    try:
        return tree(forest(inspection), anchors), ""
    except NotInStream as absent:
        return None, str(absent)


def _pictures(inspection: Inspection, failing: frozenset[int]) -> tuple[Memory | None, str]:
    try:
        return memory(inspection, failing), ""
    except NotInStream as absent:
        return None, str(absent)


def _told(finding: Finding, decisive: Finding | None, anchors: Anchors) -> Told:
    return Told(
        finding,
        anchors.record(finding),
        anchors.table(finding.pfn),
        anchors.vcpu(finding.vcpu),
        [(link_text(link), anchors.table(link.pfn)) for link in finding.chain],
        finding is decisive,
    )
