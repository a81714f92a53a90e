"""What a report says in sentences, whoever prints them. Nothing here is escaped, and nothing needs rich."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from migrate.destination.releases import like, spans
from migrate.judging.report import Outcome, outcome_of
from migrate.reports.folding import folds
from migrate.rules.catalogue import RULES
from migrate.rules.declaring import GuestKind, Severity
from migrate.rules.findings import Link
from streams.counting import count, memory_size
from streams.wire.framing import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from migrate.destination.destination import Destination
    from migrate.destination.releases import Release
    from migrate.inspection.memory.resent import Live
    from migrate.judging.report import CheckpointVerdict, Report
    from migrate.reports.folding import Cause
    from migrate.rules.declaring import Rule
    from migrate.rules.findings import Failure, Finding
    from migrate.toolstack.facts import StreamFacts
    from migrate.toolstack.passes import Round

_PLACED = {
    "source": "frames where they lay on the source",
    "high": "frames above 4 GiB",
    "low": "frames below 4 GiB",
    "identity": "frames where mfn = pfn",
}
_ROUNDS_TOLD = 8  # one by one, per kind
_PFNS_TOLD = 8
PLACES_TOLD = 12
"""Of so many places of one cause each is told."""
_DETAILS = frozenset({"pinned", "cr3", "extended cr3", "host", "placement", "target"})
_READERS = {name: name for name in ("libxc", "libxl", "xl", "libvirt", "xapi")} | {"qemu": "QEMU"}
"""Who has checks of its own, as a finding's call and as it is written; all other calls are hypercalls."""


# Whose entries are called slots: those of one that maps pages are many.
_TABLES = frozenset({"L2", "L3", "L4", "L2 with Xen's slots"})


def link_text(link: Link) -> str:
    """A table of a chain, and the entry of it that leads on; or what the last of them names."""
    if link.slot is None:
        return f"{'RW ' if link.writable else ''}pfn {link.pfn:#x} ({link.type})"
    return f"{link.type} pfn {link.pfn:#x} {'slot' if link.type in _TABLES else 'entry'} {link.slot}"


def verdict_sentence(report: Report) -> str:
    """What the receiver would do, and why, in a sentence."""
    cause, rule = cause_sentence(report), broken_rule(report)
    if cause and rule:
        cause += f" ({rule.id})"
    if report.outcome is Outcome.UNJUDGED:
        return f"{report.outcome}: {cause}"
    counts = tally(finding for finding in report.findings if finding.severity is not Severity.INFO)
    return f"{report.outcome} {circumstances(report)}" + (f": {cause}" if cause else f"; {counts}" if counts else "")


def circumstances(report: Report) -> str:
    """On which Xen, and with the guest's frames placed how, where that may matter."""
    # An HVM guest's stream has no page tables: its frames may lie anywhere.
    frames = f" with {placed(report.placement)}" if report.stream.guest == GuestKind.PV else ""
    host, xen = report.destination.host, f"Xen {release(report)}"
    return f"on {xen}{frames}" if host is None else f"on {host.label} ({xen}){frames}"


def assumption(report: Report) -> str | None:
    """What was assumed of the destination, and what would change that; None where nothing hangs on it."""
    if not report.destination.placement_assumed or report.stream.guest != GuestKind.PV or report.stream.width == 8:
        return None
    return "assumed: --placement low or --host FILE changes that"


def cause_sentence(report: Report) -> str | None:
    """Why the guest is refused, comes back damaged, or is not judged; None where all is well."""
    match report.outcome:
        case Outcome.REFUSED:
            return _refusal(report.failure) if report.failure else "the restore would fail"
        case Outcome.DAMAGED:
            damage = report.damage
            return damage.message if damage else "of findings that are not told"
        case Outcome.UNJUDGED:
            return report.unjudged_because or "no reason is given"
        case _:
            return None


def broken_rule(report: Report) -> Rule | None:
    """The rule that the cause is a breach of; None where all is well, or it is not judged."""
    if report.failure is not None:
        return RULES.get(report.failure.rule)
    return report.damage.rule if report.damage is not None else None


def repair_sentence(report: Report) -> str | None:
    """What to do about it, as the rule has it; None where there is nothing to do, or no rule."""
    rule = broken_rule(report)
    return rule.repair if rule is not None and not rule.repair.startswith("none") else None


def _refusal(failure: Failure) -> str:
    return f"{failure.message}: {answer(failure)}"


def answer(failure: Failure | Finding) -> str:
    """Who says no, and how."""
    if failure.signal is not None:
        return f"{_who(failure)} dies of {_signal_name(failure.signal)}"
    if failure.call in _READERS:
        return f"{_who(failure)} refuses it" + (f" with {failure.errno}" if failure.errno else "")
    return f"{_who(failure)} fails" + (f" with {failure.errno}" if failure.errno else "")


def _who(failure: Failure | Finding) -> str:
    if failure.call in _READERS:
        return _READERS[failure.call]
    return failure.call if failure.vcpu is None else f"vcpu {failure.vcpu}'s {failure.call}"


def failure_place(failure: Failure) -> str:
    """Where a restore stops, in a few words."""
    who = f"vcpu {failure.vcpu} " if failure.vcpu is not None else ""
    page = f"pfn {failure.pfn:#x} " if failure.pfn is not None else ""
    return f"{failure.step}: {who}{page}{failure.call} {failure.errno or ''}".rstrip()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def tally(findings: Iterable[Finding]) -> str:
    """How many findings there are of each severity; empty where there are none."""
    numbers: Counter[Severity] = Counter()
    for finding in findings:
        numbers[finding.severity] += finding.count
    counts = [count(numbers[s], s.value, "info" if s is Severity.INFO else "") for s in Severity if numbers[s]]
    return ", ".join(counts)


# A word for each outcome, as many streams are told of.
_OUTCOMES = {
    Outcome.REFUSED: "refused",
    Outcome.DAMAGED: "damaged",
    Outcome.RESTORES: "restore",
    Outcome.UNJUDGED: "not judged",
}


def outcomes_told(outcomes: Counter[Outcome]) -> str:
    """How many streams came out how: "8 refused, 1 damaged, 16 restore"; empty where there are none."""
    return ", ".join(f"{number} {_outcome_word(one, number)}" for one in _OUTCOMES if (number := outcomes[one]))


def _outcome_word(outcome: Outcome, number: int) -> str:
    return "restores" if outcome is Outcome.RESTORES and number == 1 else _OUTCOMES[outcome]


def placed(placement: str) -> str:
    """Where a placement puts the guest's frames."""
    return _PLACED.get(placement) or f"frames as in {placement.removeprefix('file:')}"


def release(report: Report) -> str:
    """The target's release, in full."""
    return report.destination.release.name


def rounds_told(rounds: list[Round]) -> str:
    """The passes of a live migration: their kinds, and how many pages each sent."""
    passes = []
    for kind, alike in groupby(rounds, key=lambda done: done.kind):
        pages = [done.pages for done in alike]
        more = f" … ({len(pages)} passes, {sum(pages)} in all)" if len(pages) > _ROUNDS_TOLD else ""
        passes.append(f"{kind} {', '.join(map(str, pages[:_ROUNDS_TOLD]))}{more}")
    return "; ".join(passes)


def live_sentences(found: Live) -> Iterator[str]:
    """What the passes over a guest's memory add up to, and what of it matters to the receiver."""
    if found.too_sparse is not None:
        yield f"Pages are not counted one by one: pfn {found.too_sparse:#x} lies too far out."
        return
    more = {times: pages for times, pages in found.times_sent.items() if times > 1}
    parts = [f"Pages sent once: {found.times_sent.get(1, 0)}"]
    if len(more) > _ROUNDS_TOLD:
        parts.append(f"more often: {sum(more.values())}, at most {max(more)} times")
    else:
        parts += [f"{times} times: {pages}" for times, pages in more.items()]
    if found.times_sent:
        yield f"{', '.join(parts)}."
    for pfns, what in (
        (found.put_off, "put off: announced without contents while the guest was changing it, sent as a table later"),
        (found.never_came, "announced without contents at last: what was sent before stays, and may be stale"),
    ):
        if len(pfns):
            some = ", ".join(f"{pfn:#x}" for pfn in pfns[:_PFNS_TOLD].tolist()) + ", …" * (len(pfns) > _PFNS_TOLD)
            yield f"{count(len(pfns), 'page')} {what} (pfn {some})."


def facts_told(report: Report) -> list[tuple[str, str]]:
    """What the stream is, and what was asked of it: key and value, in the order in which they are told."""
    stream = report.stream
    lines = [("stream", _container(stream)), ("guest", _guest(stream))]
    if stream.xen is not None:
        lines.append(("saved by", f"Xen {stream.xen}"))
    if len(stream.rounds) > 1:
        lines.append(("passes", rounds_told(stream.rounds) + " pages"))
    if stream.checkpoints:
        verdicts = _checkpoints_told(report.checkpoints)
        lines.append(("checkpoints", f"{stream.checkpoints}" + (f": {verdicts}" if verdicts else "")))
    if stream.pinned is not None:
        pins = ", ".join(f"{level} {number}" for level, number in stream.pinned.items())
        lines.append(("pinned", pins or "nothing"))
    if stream.cr3:
        lines.append(("cr3", ", ".join(_root(root) for root in stream.cr3)))
    if stream.extended_cr3 is not None:
        lines.append(("extended cr3", "yes" if stream.extended_cr3 else "no"))
    if stream.device_model is not None:
        lines.append(("device model", stream.device_model))
    host = report.destination.host
    if host is not None:
        lines.append(("host", host.label))
    if stream.guest == GuestKind.PV:  # of others frames may lie anywhere
        lines.append(("placement", f"{report.placement}: {placed(report.placement)}{_of_host(report, 'placement')}"))
    lines.append(("target", f"Xen {release(report)}{_of_host(report, 'release')}"))
    return lines


def _checkpoints_told(checkpoints: Sequence[CheckpointVerdict]) -> str:
    """What would become of the guest at each checkpoint: "1–2 restore, 3 refused"."""
    parts = []
    for verdict, alike in groupby(checkpoints, key=lambda one: one.verdict):
        numbers = [one.checkpoint for one in alike]
        several = f"–{numbers[-1]}" if len(numbers) > 1 else ""
        word = _outcome_word(outcome_of(verdict, damaged=False), len(numbers))
        parts.append(f"{numbers[0]}{several} {word}")
    return ", ".join(parts)


def _of_host(report: Report, what: str) -> str:
    """The fact of a known host that decides on its release or placement, and whether another one was asked for."""
    host = report.destination.host
    answer = None if host is None else host.release if what == "release" else host.places_high()
    if answer is None or answer.open:
        return ""
    return f" ({'not as on the host: ' if what in report.destination.overridden else ''}{answer.because})"


def short_facts(report: Report) -> list[tuple[str, str]]:
    """What the stream is, shortly: nothing that was asked, nor what is in its page tables."""
    facts = dict(facts_told(report))
    if (saved_by := facts.pop("saved by", None)) is not None:
        facts["stream"] += f", from {saved_by}"
    return [(key, value) for key, value in facts.items() if key not in _DETAILS]


def _root(root: dict[str, int | None]) -> str:
    mfn = "" if root["mfn"] is None else f" (source mfn {root['mfn']:#x})"
    return f"vcpu {root['vcpu']} pfn {root['pfn']:#x}{mfn}"


def _container(stream: StreamFacts) -> str:
    what = stream.container if stream.version is None else f"{stream.container}, image version {stream.version}"
    converted = ", by the legacy converter" if stream.converted else ""
    return f"{what}{converted}, {count(stream.records, 'record')}, {count(stream.bytes, 'byte')}"


def _guest(stream: StreamFacts) -> str:
    known = ["pvh" if stream.pvh else stream.guest or "unknown"]
    if stream.width is not None:
        known.append(f"{stream.width * 8}-bit")
    if stream.levels is not None:
        known.append(count(stream.levels, "page table level"))
    if stream.vcpus is not None:  # of a stream that was cut, none may have come
        known.append(count(stream.vcpus, "vcpu") if stream.vcpus else "no vcpu has come")
    if stream.max_pfn is not None:
        known.append(f"{memory_size((stream.max_pfn + 1) * PAGE_SIZE)} (max pfn {stream.max_pfn:#x})")
    if stream.pages is not None:
        known.append(f"{memory_size(stream.pages * PAGE_SIZE)} in {count(stream.pages, 'page')}")
    return ", ".join(known)


def plain_lines(report: Report, least: Severity) -> Iterator[str]:
    """A line per rule and cause that is of at least some severity, and the verdict."""
    for entry in folds(report):
        if entry.severity.rank >= least.rank:
            rule = entry.rule
            for cause in entry.causes:
                yield f"{rule.id} {rule.slug} {entry.severity.value}: {cause_line(cause)}"
    yield verdict_sentence(report)


def concise_lines(reports: Sequence[Report]) -> Iterator[str]:
    """A line per finding, for editors and grep: FILE:OFFSET: RULE severity: message.

    What names no byte of a stream has offset 0x0; what has no verdict has a line, too.

    Parameters
    ----------
    reports:
        one stream's. Where there are several, each line ends with the destinations that it is about, in brackets.
    """
    lines: dict[tuple[str, int], list[Destination]] = {}
    for report in reports:
        name = report.stream.name
        alike: Counter[str] = Counter()  # even where nothing tells two findings of a report apart, they are two
        for finding in (finding for entry in folds(report) for finding in entry.findings):
            times = f" ({finding.count} times)" if finding.count > 1 else ""
            text = f"{finding.rule.id} {finding.severity.value}: {finding.message}{times}"
            line = f"{name}:{finding.offset or 0:#x}: {text}"
            alike[line] += 1
            lines.setdefault((line, alike[line]), []).append(report.destination)
        if report.outcome is Outcome.UNJUDGED:
            lines.setdefault((f"{name}:0x0: {verdict_sentence(report)}", 1), []).append(report.destination)
    name_of = _destinations_told([report.destination for report in reports])
    for (line, _), those in lines.items():
        yield f"{line} [{name_of(those)}]" if len(reports) > 1 else line


def _destinations_told(asked: Sequence[Destination]) -> Callable[[Sequence[Destination]], str]:
    """What tells some of the destinations that were asked about: "hosts/a.txt", "4.14.0–4.14.4", "L3V-1 4.20.0"."""

    def names(one: Destination) -> str:
        return " ".join(filter(None, (one.host.label if one.host else None, one.l3_rule)))

    def by_name(some: Sequence[Destination]) -> dict[str, set[Release]]:
        found: dict[str, set[Release]] = {}
        for one in some:
            found.setdefault(names(one), set()).add(one.release)
        return found

    releases = by_name(asked)

    def name(some: Sequence[Destination]) -> str:
        parts = []
        for name, those in by_name(some).items():
            of_it = spans({alike for release in those for alike in (*like(release), release)})
            parts.append(name if len(releases[name]) == 1 and name else f"{name} {of_it}".strip())
        return "; ".join(parts)

    return name


def cause_line(cause: Cause) -> str:
    """What is said, and where: of one place with the byte, of many with how many they are."""
    if cause.count == 1:
        where = f" (at {cause.first.offset:#x})" if cause.first.offset is not None else ""
        return f"{cause.message}{where}"
    return f"{cause.message} ({times_and_places(cause)})"


def times_and_places(cause: Cause) -> str:
    """How often, and where: "7 times: pfn 0x13, 0x14, …"."""
    return f"{cause.count} times: {cause.places(PLACES_TOLD)}"
