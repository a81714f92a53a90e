"""One stream's part of the document: everything gathered while the stream is open, and rendered at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate.inspection.memory.forest import failing_chain, forest
from migrate.inspection.reading import NotInStream
from migrate.reports.folding import folds
from migrate.reports.html.anchors import Anchors
from migrate.reports.html.calls import calls
from migrate.reports.html.finding_entries import entries
from migrate.reports.html.forest_tree import tree
from migrate.reports.html.memory_picture import memory
from migrate.reports.html.naming import split
from migrate.reports.html.passes import passes
from migrate.reports.html.record_rows import records
from migrate.reports.html.states import WORDS, State, state_of
from migrate.reports.html.templating import render_part
from migrate.reports.html.vcpu_tables import vcpus
from migrate.reports.html.zoomed import zoomed
from migrate.reports.verdict.pool import rows as rows_of_hosts
from migrate.reports.verdict.pool import summary
from migrate.reports.verdict.sentences import (
    assumption,
    cause_sentence,
    circumstances,
    facts_told,
    repair_sentence,
    tally,
)
from migrate.safe import safe
from streams.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from migrate.inspection.reading import Inspection
    from migrate.judging.report import Report
    from migrate.reports.html.forest_tree import Tree
    from migrate.reports.html.memory_picture import Memory
    from migrate.rules.declaring import Rule

MOST_CHECKPOINTS = 300


@dataclass(frozen=True, slots=True)
class Section:
    """A stream's part of the document.

    Attributes
    ----------
    prefix:
        its id, which begins all ids in it.
    sentence:
        why it is refused, damaged or not judged; empty where all is well.
    rule:
        the one that it is refused or damaged by.
    hosts:
        which of several hosts would take it; the state is that of the first.
    parts:
        id and heading of the parts, for a table of contents.
    rules:
        ids of the rules it speaks of.
    """

    prefix: str
    name: str
    state: State
    sentence: str
    rule: Rule | None
    guest: str
    tally: str
    hosts: str
    parts: list[tuple[str, str]]
    rules: frozenset[str]
    html: Markup

    @property
    def word(self) -> str:
        """What became of it, in a word or two."""
        return WORDS[self.state].head

    @property
    def lost(self) -> bool:
        """Whether the stream could not be read."""
        return self.state is State.LOST

    @property
    def sign(self) -> str:
        """What became of it, in a character."""
        return WORDS[self.state].sign


def section(inspection: Inspection, name: str, number: int, hosts: Sequence[Report] = ()) -> Section:
    """The part for one stream, `number` counting the streams from 1; `hosts` are the reports for several hosts."""
    report, log = inspection.report, inspection.log
    state = state_of(report)
    folded = folds(report)
    decides = report.decisive or report.damage
    sentence = cause_sentence(report) or ""
    anchors = Anchors(f"s{number}")
    chain = failing_chain(inspection)
    rows = records(inspection, anchors)
    trees, no_trees = _trees(inspection, anchors)
    pictures, no_pictures = _pictures(inspection, frozenset(pfn for pfn, _ in chain))
    registers = vcpus(inspection, anchors)
    trace = calls(inspection)
    numbers = tally(report.findings)
    # The name stands above already.
    told_of_hosts = "; ".join(summary(hosts)).removeprefix(f"{safe(report.stream.name)}: ")
    live = passes(inspection)
    shown, left_out = entries(folded, anchors)
    parts = [("hosts", "Hosts")] if hosts else []
    parts += [("findings", "Findings")]
    parts += [("checkpoints", "Checkpoints")] if report.checkpoints else []
    parts += [("memory", "Memory")] if pictures is not None else []
    parts += [("tables", "Page tables")] if trees is not None else []
    parts += [("calls", "Hypercalls")] if trace is not None else []
    parts += [("passes", "Passes over memory")] if live is not None else []
    parts += [("vcpus", "Vcpus")] if registers is not None else []
    parts += [("records", "Records")] if len(log) else []
    values = {
        "anchors": anchors,
        "folder_and_file": split(name),
        "report": report,
        "state": state,
        "words": WORDS[state],
        "sentence": sentence,
        "decides": decides,
        "circumstances": circumstances(report),
        "assumption": assumption(report) or "",
        "repair": repair_sentence(report) or "",
        "tally": numbers,
        "facts": [fact for fact in facts_told(report) if fact[0] != "checkpoints"],
        "parts": dict(parts),
        "hosts": rows_of_hosts(hosts),
        "hosts_told": told_of_hosts,
        "findings": shown,
        "findings_left_out": left_out,
        "memory": pictures,
        "zoomed": zoomed(inspection, chain),
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
    rules = {entry.fold.rule.id for entry in shown} | ({decides.rule.id} if decides else set())
    failed = [stretch.failed for stretch in trace.stretches] if trace is not None else []
    rules |= {call.finding.rule.id for call in failed if call is not None and call.finding is not None}
    rules |= {
        checkpoint.failure.rule
        for checkpoint in report.checkpoints[:MOST_CHECKPOINTS]
        if checkpoint.failure is not None
    }
    return Section(
        anchors.prefix,
        name,
        state,
        f"{sentence} ({decides.rule.id})" if decides else sentence,
        decides.rule if decides else None,
        dict(facts_told(report)).get("guest", ""),
        numbers,
        told_of_hosts,
        [(anchors.id(key), heading) for key, heading in parts],
        frozenset(rules),
        render_part("stream.html.j2", **values),
    )


def lost_section(name: str, reason: str, number: int) -> Section:
    """The part for a stream that cannot be read."""
    prefix = f"s{number}"
    html = render_part(
        "lost.html.j2", prefix=prefix, folder_and_file=split(name), words=WORDS[State.LOST], reason=reason
    )
    return Section(prefix, name, State.LOST, reason, None, "", "", "", [], frozenset(), html)


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
