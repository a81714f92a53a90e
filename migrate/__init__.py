"""Would this guest come back? A model of the restoring toolstack and of Xen, over Xen migration streams.

A migration stream is a program: replayed by the receiving toolstack it becomes a sequence of hypercalls. So this is
a pipeline in one direction, each stage knowing only the one before it:

    bytes ─decoder─▶ records ─toolstack─▶ guest + hypercalls ─xen─▶ answers ─judging─▶ report ─reports─▶ you

One folder, one question. Imports run down this page only:

    cli/           what people type: one module for each command
    testing/       what their tests use: random streams, a corpus as tests
    reports/       how an answer is told: text, HTML, SARIF, JUnit …
    corpus/        many streams, and what is expected of them
    extraction/    the guest's memory as a file
    reducing/      a stream made smaller, or anonymous
    inspection/    a stream to look at: records, memory, vcpus
    judging/       one stream, its verdict: offline, piece by piece, or in the pipe
    toolstack/     what would xl, libxl, libvirt, xapi and libxc do, and what would they ask Xen for?
    xen/           what would Xen answer?
    rules/         the law: every rule with its smallest violation, and a breach of one as a finding
    destination/   where would the guest come back: which release, what host, frames where?
    guest/         what was reconstructed of the guest: memory, pages, p2m, vcpus, the CPU policy it was promised
    building/      guests and streams to order
    streams/       what does this stream say? Bytes, records, and nothing about Xen's mind

What is named in `__all__` stays as it is, and so do the command line, the JSON reports and `migrate.testing`. All else
may change with every version.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from migrate.destination.destination import Destination
    from migrate.inspection.reading import inspect
    from migrate.judging.check import Checker, check, survey
    from migrate.judging.report import Outcome, Report
    from migrate.reports.verdict.text import text_of as text_of
    from migrate.rules.catalogue import RULES
    from migrate.rules.declaring import Effect, Rule, Severity, Verdict
    from migrate.rules.findings import Failure, Finding
    from streams.transports import TransportError

__all__ = [
    "RULES",
    "Checker",
    "Destination",
    "Effect",
    "Failure",
    "Finding",
    "Outcome",
    "Report",
    "Rule",
    "Severity",
    "TransportError",
    "Verdict",
    "__version__",
    "check",
    "inspect",
    "survey",
]

_HOMES = {
    "destination.destination": ("Destination",),
    "inspection.reading": ("inspect",),
    "judging.check": ("Checker", "TransportError", "check", "survey"),
    "judging.report": ("Outcome", "Report"),
    "reports.verdict.text": ("text_of",),  # which a report, knowing nobody who tells it, asks for here
    "rules.catalogue": ("RULES",),
    "rules.declaring": ("Effect", "Rule", "Severity", "Verdict"),
    "rules.findings": ("Failure", "Finding"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name's module when it is asked for: the command line starts without the engine."""
    from importlib import import_module

    if name == "__version__":
        value = import_module("migrate.rules.version").VERSION
    elif name in _HOME:
        value = getattr(import_module(f"migrate.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
